"""The part of the configuration that chooses trackers: ``trackers: {<name>: {<setting>: …}}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import SerializerFunctionWrapHandler, create_model, model_serializer

from hoi_train.core.schema import Strict, section
from hoi_train.tracking import TRACKERS


class ChosenTrackers(Strict):
    """The trackers that mirror the run, by name, with their settings; one that is not listed does not run."""

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the settings of the trackers that run, by name."""
        chosen = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section.model_dump() for name, section in chosen.items() if section is not None}

    @model_serializer(mode="wrap")
    def _without_the_others(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: settings for name, settings in dump(self).items() if settings is not None}


if TYPE_CHECKING:
    Trackers = ChosenTrackers
else:
    Trackers = create_model(
        "Trackers",
        __base__=ChosenTrackers,
        __doc__=ChosenTrackers.__doc__,
        **{name: (section(tracker) | None, None) for name, tracker in TRACKERS.items()},
    )


def trackers_by_name(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return raw values with ``trackers`` as a mapping by name, and the old key ``wandb`` moved into it.

    ``trackers: tensorboard``, ``trackers: [wandb, {name: tensorboard}]`` and ``trackers: {tensorboard: {}}`` are
    accepted. A name or a list switches off all other trackers, also those of an extended file.

    Raises:
        ValueError: an entry of the list has no name.
    """
    chosen = raw.get("trackers", {})
    if isinstance(chosen, str):
        chosen = [chosen]
    if isinstance(chosen, Sequence):
        listed = [{"name": each} if isinstance(each, str) else each for each in chosen]
        for each in listed:
            if not isinstance(each, Mapping) or not isinstance(each.get("name"), str):
                raise ValueError(f"trackers: an entry needs a name, of {', '.join(TRACKERS)}, got {each!r}")
        settings = {each["name"]: {key: value for key, value in each.items() if key != "name"} for each in listed}
        chosen = dict.fromkeys(TRACKERS) | settings  # also the ones of an extended file do not run unless listed
    named = {key: value for key, value in raw.items() if key not in ("trackers", "wandb")}
    if "wandb" in raw and isinstance(chosen, Mapping):
        old, now = raw["wandb"], chosen.get("wandb")
        mixed = {**now, **old} if isinstance(old, Mapping) and isinstance(now, Mapping) else old
        chosen = {**chosen, "wandb": mixed}
    return {**named, "trackers": chosen} if {"trackers", "wandb"} & raw.keys() else named
