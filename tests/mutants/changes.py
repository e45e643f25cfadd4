"""The small changes of a source text that its tests should notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATIONS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Change:
    """One expression of a file, and what stands in its place."""

    path: Path
    line: int
    start: int  # characters of the whole text
    end: int
    was: str
    now: str

    def applied(self, text: str) -> str:
        """Return the text with this change."""
        assert text[self.start : self.end] == self.was
        return f"{text[: self.start]}({self.now}){text[self.end :]}"

    def __str__(self) -> str:
        was, now = (" ".join(part.split()) for part in (self.was, self.now))
        return f"{self.path}:{self.line}: {was} -> {now}"


def changes_in(path: Path, text: str) -> list[Change]:
    """Return every change of a file, but of annotations and messages, and of the slashes where there are paths."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw, found = text.encode(), []
    for node in _expressions(ast.parse(text)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        first, last = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        start, was = len(raw[:first].decode()), raw[first:last].decode()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and "from pathlib" in text:
            continue
        found += [Change(path, node.lineno, start, start + len(was), was, now) for now in _instead(node)]
    return found


def _expressions(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions that are computed, from the outermost to the innermost."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        if isinstance(tree, ast.ClassDef | ast.Module) and name == "body":
            value = [child for child in value if not isinstance(child, ast.Assign | ast.Expr)]
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.JoinedStr | ast.Assert):
                continue
            if isinstance(child, ast.keyword) and child.arg == "strict":  # of zip: asserts, as assert does
                continue
            if isinstance(child, ast.expr):
                yield child
            yield from _expressions(child)


def _instead(node: ast.expr) -> Iterator[str]:
    """Yield the source of what may stand in place of an expression."""
    match node:
        case ast.Compare(left, [operator], [right]) if type(operator) in COMPARISONS:
            yield ast.unparse(ast.Compare(left, [COMPARISONS[type(operator)]()], [right]))
        case ast.BinOp(left, operator, right) if type(operator) in OPERATIONS:
            yield ast.unparse(ast.BinOp(left, OPERATIONS[type(operator)](), right))
        case ast.BoolOp(operator, values):
            yield ast.unparse(ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values))
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield ast.unparse(operand)
        case ast.IfExp(_, body, orelse):
            yield from (ast.unparse(body), ast.unparse(orelse))
        case ast.Constant(bool() as value):
            yield str(not value)
        case ast.Constant(int() | float() as value):
            yield repr(value + 1)
