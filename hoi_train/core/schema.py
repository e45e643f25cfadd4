"""Typed schemas derived from constructors: a hyper-parameter is declared once, in the signature that uses it.

Keyword-only parameters are hyper-parameters; positional ones are supplied by the program. A table such as
``LOSSES`` becomes a union of models that differ by their ``name``.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import CoreSchema, literal_schema

from hoi_train.core.records import nearest


class Strict(BaseModel):
    """A section of the configuration: unknown keys, wrong types, nan and infinity are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)


class Component(Strict):
    """A named entry of a table with its hyper-parameters."""

    name: str

    def hyper_parameters(self) -> dict[str, Any]:
        """Return the keyword arguments for the entry's constructor."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}


class EntryOf:
    """The type of a configuration value that names an entry of a table, as ``Annotated[Component, EntryOf(LOSSES)]``.

    ``focal`` and ``{name: focal, gamma: 2.0}`` are both accepted.
    """

    def __init__(self, table: Mapping[str, Callable[..., Any]]) -> None:
        models = [_model(name, constructor) for name, constructor in table.items()]
        union = models[0] if len(models) == 1 else Union[tuple(models)]  # noqa: UP007 - made from a list
        tagged = union if len(models) == 1 else Annotated[union, Field(discriminator="name")]
        self.type: Any = Annotated[tagged, BeforeValidator(_expand)]

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.type)


class NameIn:
    """The type of a configuration value that is a name in a table, as ``Annotated[str, NameIn(READERS)]``."""

    def __init__(self, table: Iterable[str]) -> None:
        self.names = list(table)

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return literal_schema(self.names)


def build(config: Component, table: Mapping[str, Callable[..., Any]], *arguments: Any) -> Any:
    """Call the table's entry with the program's arguments and the configured hyper-parameters."""
    return table[config.name](*arguments, **config.hyper_parameters())


def explain(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """Return one sentence per problem: the key, the value, what is allowed, the nearest name."""
    found: dict[tuple[Any, ...], list[Any]] = {}  # a value that fits no member of a union has a problem for each
    for problem in error.errors(include_url=False):
        found.setdefault(tuple(_walk(schema, problem["loc"])[1]), []).append(problem)
    return [line for problems in found.values() for line in _sentence(problems, schema).splitlines()]


def _expand(value: Any) -> Any:
    """Expand a bare name to a mapping, and lists to the tuples that a strict schema requires."""
    if isinstance(value, str):
        return {"name": value}
    return as_tuples(value)


def as_tuples(value: Any) -> Any:
    """Return a value with tuples in place of lists, at any depth."""
    if isinstance(value, Mapping):
        return {key: as_tuples(inner) for key, inner in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def section(constructor: Callable[..., Any]) -> Any:
    """Return the type of a configuration section with a constructor's hyper-parameters."""
    name, text = constructor.__name__, inspect.getdoc(constructor)
    return create_model(name, __base__=Strict, __doc__=text, **_fields(constructor))


def _model(name: str, constructor: Callable[..., Any]) -> type[Component]:
    fields = {"name": (Literal[name], name), **_fields(constructor)}
    return create_model(f"{name}_config", __base__=Component, __doc__=inspect.getdoc(constructor), **fields)


def _fields(constructor: Callable[..., Any]) -> dict[str, Any]:
    """Return the type and the default of each keyword-only parameter."""
    hints = get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor, include_extras=True)
    return {
        key: (hints[key], ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for key, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _sentence(problems: Sequence[Any], schema: type[BaseModel]) -> str:
    problem = problems[0]
    owner, keys, wanted_type = _walk(schema, problem["loc"])
    key, kind, given = ".".join(map(str, keys)), problem["type"], problem["input"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = list(_members(owner)) if owner else []
        return f"{key}: unknown key; allowed here: {', '.join(allowed)}{nearest(str(keys[-1]), allowed)}"
    if kind in ("missing", "missing_argument"):
        return f"{key}: missing, it must be given"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = problem.get("ctx", {}).get("tag")
        allowed = _listed(problem.get("ctx", {}).get("expected_tags", ""))
        if tag is None:
            return f"{key}: needs a name, got {given!r}"
        return f"{key}: unknown name {tag!r}; allowed: {', '.join(allowed)}{nearest(str(tag), allowed)}"
    if kind == "too_short" and not given:
        return f"{key}: must not be empty"
    given, sections = _as_written(given), _models(wanted_type)
    if key and sections and not isinstance(given, Mapping):
        names = sorted(tag for section in sections if (tag := _tag(section)) is not None)
        kinds, allowed = ("a name, of", names) if names else ("keys and values, of", list(_members(sections[0])))
        return f"{key}: must be {kinds} {', '.join(allowed)}, got {given!r}"
    words = [each["ctx"]["expected"] for each in problems if each["type"] == "literal_error"]
    hint = nearest(str(given), [name for expected in words for name in _listed(expected)])
    if len(words) == len(problems):
        return f"{key}: {given!r} is not one of {', '.join(words)}{hint}"
    messages = (each["msg"] for each in problems if each["type"] != "literal_error")
    wanted = ", or ".join([*(text.removeprefix("Value error, ").removeprefix("Input ") for text in messages), *words])
    if not key:
        return wanted
    return f"{key}: {wanted}{hint}" if ", got " in wanted else f"{key}: {wanted}, got {given!r}{hint}"


def _as_written(value: Any) -> Any:
    """Undo the conversion of lists to tuples of `_expand`, for messages."""
    if isinstance(value, Mapping):
        return {key: _as_written(inner) for key, inner in value.items()}
    return [_as_written(item) for item in value] if isinstance(value, tuple) else value


def _listed(expected: str) -> list[str]:
    """Return the names in pydantic's text for the expected values."""
    return [name.strip().strip("'") for name in expected.replace(" or ", ",").split(",")]


def _walk(schema: Any, path: Sequence[Any]) -> tuple[type | None, list[Any], Any]:
    """Follow an error's location.

    Returns:
        The section of the last key; the keys, without the parts of pydantic's location that are not in the file; the
        type of the last key's value.
    """
    keys: list[Any] = []
    owner: type | None = None
    current: Any = schema
    for part in path:
        candidates = _models(current)
        tagged = [model for model in candidates if _tag(model) == part]
        if tagged and len(candidates) > 1:
            current = tagged[0]
        elif not candidates and _is_choice(current):
            current = None  # the member of the union that was tried
        else:
            keys.append(part)
            owner = candidates[0] if len(candidates) == 1 else None
            fitting = (members[part] for members in map(_members, candidates) if part in members)
            current = next(fitting, _value_type(current))
    return owner, keys, current


def _members(model: type) -> dict[str, Any]:
    """Return the types of the keys of a section, by name."""
    if is_dataclass(model):
        hints = get_type_hints(model, include_extras=True)
        return {each.name: hints[each.name] for each in fields(model)}
    return dict(model.model_fields) if issubclass(model, BaseModel) else {}


def _is_choice(annotation: Any) -> bool:
    """Return whether a value may be of several types, none of them a section."""
    annotation = _plain(annotation)
    union = get_origin(annotation) in (Union, types.UnionType)
    return union and sum(argument is not type(None) for argument in get_args(annotation)) > 1


def _tag(model: type) -> Any:
    field = model.model_fields.get("name") if issubclass(model, BaseModel) else None
    return field.default if field is not None else None


def _value_type(annotation: Any) -> Any:
    """Return the type of a mapping's values, or of a sequence's items."""
    arguments = [a for a in get_args(_plain(annotation)) if a not in (type(None), Ellipsis)]
    return arguments[-1] if arguments else None


def _models(annotation: Any) -> list[type]:
    """Return the sections that a value may be."""
    annotation = _plain(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return [model for argument in get_args(annotation) for model in _models(argument)]
    is_section = inspect.isclass(annotation) and (issubclass(annotation, BaseModel) or is_dataclass(annotation))
    return [annotation] if is_section else []


def _plain(annotation: Any) -> Any:
    """Return a type without the field or ``Annotated`` around it, and the union of sections of an ``EntryOf``."""
    if isinstance(annotation, FieldInfo):
        inner, metadata = annotation.annotation, tuple(annotation.metadata)
    elif get_origin(annotation) is Annotated:
        inner, *rest = get_args(annotation)
        metadata = tuple(rest)
    else:
        return annotation
    return _plain(next((each.type for each in metadata if isinstance(each, EntryOf)), inner))
