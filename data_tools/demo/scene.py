"""Draw the action of a demo clip: a hand reaches for an object, acts on it and leaves.

Every verb of the second half of ``VERBS`` is one of the first half played backwards: put is take, close is open, pull
is push, turn_off is turn_on. The two differ only in the order of their frames.
No label depends on left and right, so a mirrored clip keeps its labels.

Lengths are in units of the frame's side, times are fractions of the clip in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from data_tools.demo.objects import KINDS, NOUNS, PALETTE, Place, draw_arm, draw_hand
from data_tools.demo.shapes import Array, Part, solid_box

VERBS = ("take", "push", "open", "turn_on", "put", "pull", "close", "turn_off")  # from the most common to the rarest
REVERSED: Mapping[str, str] = dict(zip(VERBS[4:], VERBS[:4], strict=True))
_ACTED_ON: Mapping[str, tuple[str, ...]] = {
    "take": ("cup", "bottle", "bowl"),
    "push": ("box", "tray"),
    "open": ("drawer", "cupboard", "box"),
    "turn_on": ("lamp", "stove"),
}
SKINS = np.array([[0.97, 0.80, 0.69], [0.88, 0.67, 0.53], [0.75, 0.53, 0.39], [0.60, 0.41, 0.29], [0.43, 0.29, 0.21]])


@dataclass(frozen=True)
class DemoActor:
    """The person of a clip, who defines its group: RGB colours of skin and sleeve, ``[3]`` in 0..1."""

    skin: Array
    sleeve: Array

    @classmethod
    def draw(cls, rng: np.random.Generator) -> DemoActor:
        """Sample skin and sleeve colours."""
        first, second = SKINS[rng.choice(len(SKINS), 2)]
        return cls(first + rng.uniform() * (second - first), PALETTE[rng.integers(len(PALETTE))] * rng.uniform(0.6, 1))


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene.

    Args:
        kind: noun class.
        parts: shapes in painting order.
        touched, held: bool ``[F]``, whether the hand touches it, and grips it.
    """

    kind: str
    parts: list[Part]
    touched: Array
    held: Array


@dataclass(frozen=True)
class Scene:
    """The content of a clip before rendering: F frames in forward time.

    Args:
        num_frames: F.
        target: the object that the hand acts on.
        still: other objects, the tray under the target first, then distractors from back to front.
        arm, hand: parts painted over all objects.
        nouns: noun labels of the clip.
    """

    num_frames: int
    target: SceneObject
    still: list[SceneObject]
    arm: list[Part]
    hand: list[Part]
    nouns: tuple[str, ...]


@dataclass(frozen=True)
class _TargetMotion:
    """The motion of a target ``[F]``: place, state, contact and grip, and how far the hand has left it, 0..1."""

    place: Place
    state: Array
    touched: Array
    held: Array
    leaves: Array


@dataclass(frozen=True)
class _Timing:
    """The clip's time axis ``[F]`` and the times at which the hand starts, arrives, releases and has left."""

    clock: Array
    start: float
    arrive: float
    release: float
    end: float

    @classmethod
    def draw(cls, rng: np.random.Generator, num_frames: int) -> _Timing:
        start, arrive, release, end = rng.uniform((0.0, 0.30, 0.60, 0.92), (0.08, 0.40, 0.70, 1.0))
        return cls(np.linspace(0, 1, num_frames), start, arrive, release, end)

    def ease(self, begin: float, end: float) -> Array:
        """Return 0 before ``begin``, 1 after ``end``, and the smoothstep 3 s^2 - 2 s^3 between."""
        s = np.clip((self.clock - begin) / (end - begin), 0, 1)
        return s * s * (3 - 2 * s)

    @property
    def contact(self) -> Array:
        return (self.clock >= self.arrive) & (self.clock <= self.release)


def _take(rng: np.random.Generator, time: _Timing, exit_at: Array) -> _TargetMotion:
    rest = np.array([rng.uniform(0.27, 0.73), rng.uniform(0.64, 0.88)])
    carried = time.ease(time.arrive + 0.08, time.end)
    scale = _perspective(rest[1]) * (1 + 0.25 * carried)
    gripped = time.clock >= time.arrive
    place = Place(rest + carried[:, None] * (exit_at - rest), scale)
    return _TargetMotion(place, np.zeros_like(carried), gripped, gripped, np.zeros_like(carried))


def _push(rng: np.random.Generator, time: _Timing, exit_at: Array) -> _TargetMotion:
    near = np.array([rng.uniform(0.3, 0.7), rng.uniform(0.88, 0.96)])
    far = near + np.array([rng.uniform(-0.08, 0.08), -rng.uniform(0.26, 0.36)])
    foot = near + time.ease(time.arrive + 0.04, time.release)[:, None] * (far - near)
    place = Place(foot, _perspective(foot[:, 1]))
    return _TargetMotion(place, np.zeros(len(foot)), time.contact, np.zeros(len(foot), dtype=bool), _withdrawal(time))


def _open(rng: np.random.Generator, time: _Timing, exit_at: Array) -> _TargetMotion:
    opening = time.ease(time.arrive + 0.04, time.release)
    return _TargetMotion(_place_on_table(rng, opening), opening, time.contact, time.contact, _withdrawal(time))


def _turn_on(rng: np.random.Generator, time: _Timing, exit_at: Array) -> _TargetMotion:
    pressed = (time.arrive + time.release) / 2
    lit = time.ease(pressed - 0.04, pressed + 0.04)
    return _TargetMotion(
        _place_on_table(rng, lit), lit, time.contact, np.zeros(len(lit), dtype=bool), _withdrawal(time)
    )


_ACTIONS: Mapping[str, Callable[[np.random.Generator, _Timing, Array], _TargetMotion]] = {
    "take": _take,
    "open": _open,
    "push": _push,
    "turn_on": _turn_on,
}


def _place_on_table(rng: np.random.Generator, like: Array) -> Place:
    foot = np.array([rng.uniform(0.33, 0.67), rng.uniform(0.72, 0.84)])
    return Place(np.tile(foot, (len(like), 1)), np.full(len(like), _perspective(foot[1])), int(rng.choice((-1, 1))))


def _withdrawal(time: _Timing) -> Array:
    return time.ease(time.release, time.end)


def _perspective(foot_y: Array | float) -> Array:
    return np.asarray(0.92 + 0.42 * foot_y)  # objects further back are smaller


def acted_on(verb: str) -> tuple[str, ...]:
    """Return the kinds of objects that a verb acts on; for a reversed verb in reversed order."""
    return _ACTED_ON[REVERSED[verb]][::-1] if verb in REVERSED else _ACTED_ON[verb]


def play(verb: str, kind: str, rng: np.random.Generator, actor: DemoActor) -> Scene:
    """Sample the scene of a verb in forward time; a reversed verb gives the scene of its partner."""
    verb = REVERSED.get(verb, verb)
    time = _Timing.draw(rng, int(rng.integers(24, 33)))
    elbow = np.array([[rng.uniform(0.05, 0.95), 2.2]])
    entry, exit_at = (np.array([0.5 * (elbow[0, 0] + rng.uniform(0.2, 0.8)), y]) for y in (1.35, 1.75))
    act = _ACTIONS[verb](rng, time, exit_at)
    colour = PALETTE[rng.integers(len(PALETTE))]
    target = SceneObject(kind, KINDS[kind].draw(act.place, colour, act.state), act.touched, act.held)

    grip = KINDS[kind].grip(act.place, act.state)
    coming, going = (1 - time.ease(time.start, time.arrive))[:, None], act.leaves[:, None]
    sway = np.sin(np.pi * (coming + going)) * (rng.uniform(-0.10, 0.10), 0)
    tip = grip + coming * (entry - grip) + going * (entry - grip) + sway
    closed = np.clip(1.6 * (1 - coming[:, 0] - going[:, 0]) - 0.6, 0.15, 1)
    thumb = int(rng.choice((-1, 1)))

    tray = verb == "take" and rng.uniform() < 0.5
    still = _other_objects(rng, target, act.place if tray else None)
    return Scene(
        num_frames=len(tip),
        target=target,
        still=still,
        arm=draw_arm(tip, elbow, actor.skin, actor.sleeve),
        hand=draw_hand(tip, elbow, closed, actor.skin, thumb),
        nouns=(kind, "tray") if tray else (kind,),
    )


def _other_objects(rng: np.random.Generator, target: SceneObject, on_tray: Place | None) -> list[SceneObject]:
    """Return the tray under the target, if any, and up to two distractors that overlap no other object."""
    boxes = solid_box(target.parts)
    # The target's first position and where it is released; on its way out of the frame it may occlude others.
    taken = [boxes[0], boxes[np.flatnonzero(target.touched)[-1]]]
    things = []
    if on_tray is not None:
        foot = on_tray.foot[:1] + np.array([0, 0.035])
        things.append(_still_object("tray", Place(foot, on_tray.scale[:1]), rng))
        taken.append(solid_box(things[0].parts)[0])
    distractors: list[tuple[float, SceneObject]] = []
    wanted = rng.integers(0, 3)
    for _ in range(30):
        if len(distractors) == wanted:
            break
        foot = rng.uniform((0.05, 0.45), (0.95, 0.95))
        place = Place(foot[None], _perspective(foot[1:]), int(rng.choice((-1, 1))))
        thing = _still_object(str(rng.choice(NOUNS)), place, rng)
        box = solid_box(thing.parts)[0]
        if not any(_overlap(box, other) for other in taken):
            taken.append(box)
            distractors.append((foot[1], thing))
    return things + [thing for _, thing in sorted(distractors, key=lambda item: item[0])]


def _still_object(kind: str, place: Place, rng: np.random.Generator) -> SceneObject:
    state = rng.integers(2, size=1).astype(float)
    parts = KINDS[kind].draw(place, PALETTE[rng.integers(len(PALETTE))], state)
    return SceneObject(kind, parts, np.zeros(1, dtype=bool), np.zeros(1, dtype=bool))


def _overlap(a: Array, b: Array) -> bool:
    return bool((a[:2] < b[2:]).all() and (b[:2] < a[2:]).all())
