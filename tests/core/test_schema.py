from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
from annotated_types import Ge, Lt
from pydantic import Field, ValidationError

from hoi_train.core.schema import Component, EntryOf, NameIn, Strict, build, explain


@dataclass(frozen=True)
class Weighting:
    """A nested record."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    scheme: Literal["inverse", "effective"]
    beta: Annotated[float, Ge(0), Lt(1)] | None = None


class Plain:
    """Plain one."""

    def __init__(self, counts: int) -> None:
        self.counts = counts


class Rich:
    """Rich one."""

    def __init__(
        self,
        counts: int,
        *,
        gamma: Annotated[float, Ge(0)] = 2.0,
        tau: float | Literal["dynamic"] = "dynamic",
        weights: Weighting | None = None,
        steps: tuple[int, ...] = (),
    ) -> None:
        self.counts, self.gamma, self.tau, self.weights, self.steps = counts, gamma, tau, weights, steps


TABLE: dict[str, Any] = {"plain": Plain, "rich": Rich}


class Task(Strict):
    loss: Annotated[Component, EntryOf(TABLE)]


class Config(Strict):
    loss: Annotated[Component, EntryOf(TABLE)]
    tasks: dict[str, Task] = Field(default_factory=dict)
    count: int = 1
    mode: Literal["max", "min"] = "max"
    reader: Annotated[str, NameIn(("auto", "zip"))] = "auto"


def parse(**raw: object) -> Config:
    return Config.model_validate_json(json.dumps(raw))


def problems(**raw: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        parse(**raw)
    return explain(caught.value, Config)


def test_a_name_alone_takes_all_defaults() -> None:
    config = parse(loss="rich")
    assert isinstance(config.loss, Component)
    made = build(config.loss, TABLE, 7)
    assert (made.counts, made.gamma, made.tau, made.weights, made.steps) == (7, 2.0, "dynamic", None, ())


def test_hyper_parameters_reach_the_constructor_with_their_types() -> None:
    config = parse(loss={"name": "rich", "gamma": 1, "tau": 1.5, "steps": [3, 4], "weights": {"scheme": "inverse"}})
    made = build(config.loss, TABLE, 7)
    assert (made.gamma, made.tau, made.steps, made.weights) == (1.0, 1.5, (3, 4), Weighting("inverse"))


def test_positional_parameters_are_not_configurable() -> None:
    assert problems(loss={"name": "plain", "counts": 3}) == ["loss.counts: unknown key; allowed here: name"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"loss": {"name": "rich", "gama": 1}},
            "loss.gama: unknown key; allowed here: name, gamma, tau, weights, steps; did you mean 'gamma'?",
        ),
        (
            {"loss": "plain", "tasks": {"verb": {"loss": {"name": "rich", "gama": 1}}}},
            "tasks.verb.loss.gama: unknown key; allowed here: name, gamma, tau, weights, steps; did you mean 'gamma'?",
        ),
        ({"loss": "ritch"}, "loss: unknown name 'ritch'; allowed: plain, rich; did you mean 'rich'?"),
        (
            {"loss": {"name": "rich", "gamma": -1}},
            "loss.gamma: should be greater than or equal to 0, got -1",
        ),
        ({"loss": {"name": "rich", "tau": "x"}}, "loss.tau: should be a valid number, or 'dynamic', got 'x'"),
        (
            {"loss": {"name": "rich", "tau": "dynamical"}},
            "loss.tau: should be a valid number, or 'dynamic', got 'dynamical'; did you mean 'dynamic'?",
        ),
        ({"loss": {"name": "rich", "steps": [1, "2"]}}, "loss.steps.1: should be a valid integer, got '2'"),
        (
            {"loss": {"name": "rich", "weights": {"scheme": "inverse", "bta": 0.5}}},
            "loss.weights.bta: unknown key; allowed here: scheme, beta; did you mean 'beta'?",
        ),
        ({"loss": {"name": "rich", "weights": {}}}, "loss.weights.scheme: missing, it must be given"),
        (
            {"loss": {"name": "rich", "weights": {"scheme": "effective", "beta": 1}}},
            "loss.weights.beta: should be less than 1, got 1",
        ),
        ({"loss": {"name": "rich", "gamma": True}}, "loss.gamma: should be a valid number, got True"),
        ({"loss": {"gamma": 1}}, "loss: needs a name, got {'gamma': 1}"),
        ({"loss": 3}, "loss: must be a name, of plain, rich, got 3"),
        ({"loss": ["rich"]}, "loss: must be a name, of plain, rich, got ['rich']"),
        (
            {"loss": {"name": "rich", "weights": "inverse"}},
            "loss.weights: must be keys and values, of scheme, beta",
        ),
        ({"loss": "plain", "tasks": {"verb": 3}}, "tasks.verb: must be keys and values, of loss, got 3"),
        ({"loss": {"name": "rich", "gamma": [1]}}, "loss.gamma: should be a valid number, got [1]"),
        ({"loss": "plain", "count": "3"}, "count: should be a valid integer, got '3'"),
        ({"loss": "plain", "mode": "maxx"}, "mode: 'maxx' is not one of 'max' or 'min'; did you mean 'max'?"),
        ({"loss": "plain", "reader": "aut"}, "reader: 'aut' is not one of 'auto' or 'zip'; did you mean 'auto'?"),
        ({}, "loss: missing, it must be given"),
        (
            {"loss": "plain", "cuont": 1},
            "cuont: unknown key; allowed here: loss, tasks, count, mode, reader; did you mean",
        ),
    ],
)
def test_messages_name_key_value_and_what_is_allowed(raw: dict[str, object], message: str) -> None:
    (sentence,) = problems(**raw)
    assert sentence.startswith(message)


def test_all_problems_are_reported_at_once() -> None:
    assert len(problems(loss={"name": "rich", "gamma": -1, "tua": 1}, count=1.5, mode="x")) == 4
