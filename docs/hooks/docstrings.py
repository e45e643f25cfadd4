"""Turn docstrings into Markdown: the roles, tables and literal blocks of reStructuredText, and doctests."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Module, Object

OURS = ("hoi_train.", "data_tools.")
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`~?([\w.]+)`")
TABLE = re.compile(r"^(=+(?: +=+)+)\n(?:.+\n)*\1$", re.MULTILINE)
DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


def as_markdown(text: str) -> str:
    """Return the text of a docstring as Markdown."""
    text = ROLE.sub(lambda found: f"[`{found[1]}`][{found[1]}]" if found[1].startswith(OURS) else f"`{found[1]}`", text)
    text = TABLE.sub(lambda found: f"```text\n{found[0]}\n```", text)
    text = re.sub(r"(^|: )>= ", r"\1≥ ", text, flags=re.MULTILINE)  # else a quotation
    text = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


class Docstrings(Extension):
    """Convert every docstring that the API reference shows, and show an object where it is defined."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Convert the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_module(self, *, mod: Module, **_: Any) -> None:
        """Leave out of a package what it imports from its modules, which have entries of their own."""
        for name in [name for name, member in mod.members.items() if mod.is_init_module and member.is_alias]:
            del mod.members[name]
