"""Render the configuration reference: every key of the schema with type, allowed values, default and description."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from docstrings import as_markdown
from griffe import Docstring, DocstringSectionKind

from hoi_train.config import FREE_KEYS, RunConfig

Schema = Mapping[str, Any]

LOG = logging.getLogger("mkdocs.hooks.configuration")
INTRODUCTION = """# Configuration

A run is one YAML file. `hoi-train config show FILE` prints it with every default, `hoi-train config check FILE` checks
it, and each key can be overridden on the command line, such as `loss.gamma=0.5`. Keys that name an entry of a table
accept the bare name (`loss: focal`) or a mapping (`loss: {name: focal, gamma: 0.5}`). A file may begin with
`extends: other.yaml` and then holds only the differences; `null` removes a key of the other file.

A run is resumed with the same configuration. Only these keys may change: KEYS.

This page is generated from the schema, which `hoi-train config schema` prints as JSON.
"""
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def configuration_pages() -> dict[str, str]:
    """Return the pages of the reference by path: the sections, then one page per table of named entries."""
    return Reference(RunConfig.model_json_schema()).pages()


class Reference:
    """The schema of a run's configuration, and where the site describes each part of it.

    Args:
        schema: a JSON schema whose parts are in ``$defs``.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema, self.parts = schema, schema["$defs"]
        self.sections: dict[str, Schema] = {}
        self.tables: dict[tuple[str, ...], list[str]] = {}  # definitions of the entries -> keys that name one
        self._collect("", schema)

    def pages(self) -> dict[str, str]:
        """Return the pages by path."""
        keys = ", ".join(f"`{key}`" for key in FREE_KEYS)
        parts = [INTRODUCTION.replace("KEYS", keys), "## The run", *_text(self.schema), self._keys(self.schema)]
        for prefix, section in self.sections.items():
            parts += [f"## `{prefix}` {{#{_anchor(prefix)}}}", *_text(section), self._keys(section)]
        pages = {"configuration/index.md": "\n\n".join(parts)}
        return pages | {f"configuration/{_page(keys)}": self._table(names, keys) for names, keys in self.tables.items()}

    def _collect(self, prefix: str, schema: Schema) -> None:
        """Find the sections and the tables below a part of the schema."""
        for name, value in schema["properties"].items():
            key = f"{prefix}{name}"
            for names, path in self._parts_of(value, key):
                if not all(map(self._entry, names)):
                    self.sections[path] = self.parts[names[0]]
                    self._collect(f"{path}.", self.parts[names[0]])
                elif path not in self.tables.setdefault(names, []):
                    self.tables[names].append(path)

    def _parts_of(self, value: Schema, key: str) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the definitions that a value may be one of, and its key."""
        if "oneOf" in value:
            yield tuple(_name(each) for each in value["oneOf"]), key
        elif "$ref" in value:
            yield (_name(value),), key
        for each in value.get("anyOf", ()):
            yield from self._parts_of(each, key)
        if isinstance(value.get("additionalProperties"), Mapping):
            yield from self._parts_of(value["additionalProperties"], f"{key}.<name>")
        if isinstance(value.get("items"), Mapping):
            yield from self._parts_of(value["items"], key)

    def _entry(self, name: str) -> str | None:
        """Return the name under which a table has a definition; ``None`` for a section."""
        constant: str | None = self.parts[name]["properties"].get("name", {}).get("const")
        return constant

    def _table(self, names: tuple[str, ...], keys: list[str]) -> str:
        """Return the page of a table: each entry with its hyper-parameters, then the records that these take."""
        parts = [f"# {', '.join(f'`{key}`' for key in keys)}", "One of these entries, by `name`."]
        records: dict[str, Schema] = {}
        for name in names:
            entry = self.parts[name]
            parts += [f"## `{self._entry(name)}`", *_text(entry), self._keys(entry)]
            records |= {ref: self.parts[ref] for ref in _references(entry)}
        for ref, record in records.items():
            parts += [f"## {ref} {{#{ref.lower()}}}", *_text(record), self._keys(record)]
        return "\n\n".join(parts)

    def _keys(self, schema: Schema) -> str:
        """Return the table of a section's keys."""
        described = _descriptions(schema)
        rows = []
        for key, value in schema["properties"].items():
            if "const" in value:
                continue
            text = described.get(key) or self._summary(value)
            if not text:  # fails the build, which is strict
                LOG.warning("configuration: %s.%s has no description in the docstring", schema["title"], key)
            default = _default(key, value, schema)
            cells = (f"`{key}`", self._type(value), default, text)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        if not rows:
            return "It has no keys of its own."
        return "\n".join(["| key | type | default | |", "|---|---|---|---|", *rows])

    def _summary(self, value: Schema) -> str:
        """Return the first line about the section that a value is; empty if it is none."""
        names = next((names for names, _ in self._parts_of(value, "")), ())
        return self.parts[names[0]].get("description", "").partition("\n")[0] if len(names) == 1 else ""

    def _type(self, value: Schema) -> str:
        """Return the type and the allowed values of a value as text."""
        for names, path in self._parts_of({key: value[key] for key in ("oneOf", "$ref") if key in value}, ""):
            if names in self.tables:
                text = f"one of {len(names)}" if len(names) > 1 else f"`{self._entry(names[0])}`"
                return f"[{text}]({_page(self.tables[names])})"
            return next(
                (
                    f"[section](index.md#{_anchor(key)})"
                    for key, part in self.sections.items()
                    if part is self.parts[names[0]]
                ),
                f"[{names[0]}](#{names[0].lower()}){path}",
            )
        if "anyOf" in value:
            return " or ".join(dict.fromkeys(map(self._type, value["anyOf"])))
        if "enum" in value:
            return ", ".join(f"`{_written(each)}`" for each in value["enum"])
        return self._plain_type(value)

    def _plain_type(self, value: Schema) -> str:
        kind = value.get("type", "any")
        if kind == "array":
            items = value.get("items") or value["prefixItems"][0]
            many = (
                f"{value['maxItems']} "
                if value.get("maxItems") == value.get("minItems") and "maxItems" in value
                else ""
            )
            return f"list of {many}{self._type(items)}"
        if kind == "object":
            return f"mapping to {self._type(value['additionalProperties'])}"
        names = {"integer": "int", "number": "float", "boolean": "bool", "null": "`null`", "string": "text"}
        name = "path" if value.get("format") == "path" else names.get(kind, kind)
        return ", ".join([name, *(f"{sign} {value[limit]:g}" for limit, sign in LIMITS.items() if limit in value)])


def _page(keys: list[str]) -> str:
    """Return the name of the page of a table, from the shortest key that names one of its entries."""
    return min(keys, key=len).replace("<name>.", "") + ".md"


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _references(value: Any) -> Iterator[str]:
    """Yield the names of all definitions that a part of the schema refers to."""
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield _name(value)
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _anchor(key: str) -> str:
    return re.sub(r"[^a-z]+", "-", key.lower()).strip("-")


def _default(key: str, value: Schema, schema: Schema) -> str:
    if key in schema.get("required", ()):
        return "**required**"
    return f"`{_written(value['default'])}`" if "default" in value else ""


def _written(value: Any) -> str:
    """Return a value as a configuration file writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sections(schema: Schema) -> Any:
    return Docstring(schema.get("description", ""), parser="google").parse(warnings=False)


def _text(schema: Schema) -> list[str]:
    """Return the paragraphs of a description, without its arguments and examples."""
    texts = [each.value for each in _sections(schema) if each.kind is DocstringSectionKind.text]
    return [as_markdown(text.partition(">>> ")[0]) for text in texts]


def _descriptions(schema: Schema) -> dict[str, str]:
    """Return the descriptions of arguments by name, each on one line."""
    listed = (each.value for each in _sections(schema) if each.kind is DocstringSectionKind.parameters)
    return {
        name.strip(): as_markdown(" ".join(one.description.split()))
        for found in listed
        for one in found
        for name in one.name.split(",")
    }
