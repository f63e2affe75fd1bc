"""Adds the mutants of a file as branches: the program decides at run time which one of them is active.

`a < b` becomes `(if crate::__m(7) { a <= b } else { a < b })`, and a function begins with
`if crate::__m(8) { return 0; }`. Only one mutant is active at a time, so the branch of a mutant has the original code.
Comments mark the branches. With them, an error of the compiler is attributed to a mutant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tree_sitter_rust
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_rust.language()))
_MARK = re.compile(rb"/\*M(\d+)\*/")
_WRAP = re.compile(rb"/\*W(\d+)\*/")
_BINARY = ("binary_expression", "compound_assignment_expr")
# Evaluated by the compiler, or not parsed as code.
_NOT_AT_RUN_TIME = {"const_item", "static_item", "array_type", "enum_variant", "const_block", "macro_invocation"}

CHOICE = b"""
/// Whether this mutant is active.
#[inline(always)]
pub(crate) fn __m(id: u32) -> bool {
    static ACTIVE: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    *ACTIVE.get_or_init(|| std::env::var("LINNET_MUTANT").ok()?.parse().ok()) == Some(id)
}
"""

Range = tuple[int, int]


class NotPlaced(Exception):
    """Why a mutant cannot be a branch."""


@dataclass(frozen=True)
class Branch:
    mutant: int
    kind: str  # function, expression or arm
    code: bytes  # of the mutant


class SourceFile:
    """A file, and the branches that were added to it."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self._root = _PARSER.parse(source).root_node
        self._lines = source.split(b"\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._branches: dict[Range, list[Branch]] = {}

    def add(self, number: int, mutant: dict[str, Any]) -> None:
        """Adds a mutant as cargo-mutants lists it."""
        start, end = (self._offset(mutant["span"][edge]) for edge in ("start", "end"))
        node = self._root.descendant_for_byte_range(start, end)
        if node is None:
            raise NotPlaced("no code")
        where, branch = self._place(number, mutant["genre"], mutant["replacement"].encode(), node, start, end)
        self._branches.setdefault(where, []).append(branch)

    def render(self, dead: set[int]) -> bytes:
        """The file with the branches of all mutants but those in `dead`."""
        return self._render((0, len(self.source)), dead)

    def siblings(self, mutant: int) -> list[int]:
        """The mutants of the same expression."""
        for branches in self._branches.values():
            if any(branch.mutant == mutant for branch in branches):
                return [branch.mutant for branch in branches]
        return []

    def _offset(self, place: dict[str, int]) -> int:
        line = self._lines[place["line"] - 1].decode()
        return self._starts[place["line"] - 1] + len(line[: place["column"] - 1].encode())

    def _place(self, number: int, genre: str, code: bytes, node: Node, start: int, end: int) -> tuple[Range, Branch]:
        if genre == "FnValue":
            function = _ancestor(node, "function_item")
            _require_run_time(function)
            returned = function.child_by_field_name("return_type")
            if returned is not None and b"impl " in (returned.text or b""):
                raise NotPlaced("a function that returns one type, which is not that of the mutant")
            return _range(_field(function, "body")), Branch(number, "function", b"" if code == b"()" else code)
        _require_run_time(node)
        if genre == "MatchArm":
            pattern = _field(_ancestor(node, "match_arm"), "pattern")
            return _range(pattern), Branch(number, "arm", b"")
        if genre == "MatchArmGuard":
            guard = _field(_ancestor(node, "match_pattern"), "condition")
            if guard.type.startswith("let"):
                raise NotPlaced("a guard with a pattern")
            return _range(guard), Branch(number, "expression", code)
        kinds = {"BinaryOperator": _BINARY, "UnaryOperator": ("unary_expression",), "StructField": ("struct_expression",)}
        if genre not in kinds:
            raise NotPlaced(f"a mutant of another kind, {genre}")
        whole = _ancestor(node, *kinds[genre])
        if genre == "BinaryOperator" and node.type not in _BINARY and node.parent != whole:
            raise NotPlaced("an operator between conditions with patterns")
        first, last = _range(whole)
        return (first, last), Branch(number, "expression", self.source[first:start] + code + self.source[end:last])

    def _render(self, where: Range, dead: set[int]) -> bytes:
        start, end = where
        inner = sorted((r for r in self._branches if start <= r[0] and r[1] <= end and r != where), key=lambda r: (r[0], -r[1]))
        text, position = b"", start
        for part in inner:
            if part[0] >= position and self._live(part, dead):
                text += self.source[position : part[0]] + self._render_branches(part, dead)
                position = part[1]
        return text + self.source[position:end]

    def _live(self, where: Range, dead: set[int]) -> list[Branch]:
        return [branch for branch in self._branches.get(where, []) if branch.mutant not in dead]

    def _render_branches(self, where: Range, dead: set[int]) -> bytes:
        branches = self._live(where, dead)
        if branches[0].kind == "arm":
            return self._render_arm(where, branches[0].mutant, dead)
        rest = self._render(where, dead)
        if branches[0].kind == "function":
            returns = (b" if crate::__m(%d) { /*M%d*/ return %s; /*E%d*/ }" % (b.mutant, b.mutant, b.code, b.mutant) for b in branches)
            return b"{" + b"".join(returns) + rest[1:]
        text = b"/*W%d*/(" % branches[0].mutant
        for b in branches:
            text += b"if crate::__m(%d) { /*M%d*/ %s /*E%d*/ } else " % (b.mutant, b.mutant, b.code, b.mutant)
        return text + b"{ " + rest + b" })/*V%d*/" % branches[0].mutant

    def _render_arm(self, where: Range, mutant: int, dead: set[int]) -> bytes:
        """An arm that is deleted gets a guard."""
        guard = b"/*M%d*/ !crate::__m(%d) /*E%d*/" % (mutant, mutant, mutant)
        node = self._root.descendant_for_byte_range(*where)
        condition = _ancestor(node, "match_pattern").child_by_field_name("condition")
        if condition is None:
            return self._render(where, dead) + b" if " + guard
        own = _range(condition)
        given = self._render_branches(own, dead) if self._live(own, dead) else self._render(own, dead)
        return self.source[where[0] : own[0]] + guard + b" && (" + given + b")"


def mutant_at(text: bytes, position: int) -> tuple[int, bool] | None:
    """The mutant whose branch has the position, and whether it is alone: an error in the rest of an expression can be
    that of any of its mutants."""
    found: tuple[int, int, bool] | None = None
    for pattern, end_mark, alone in ((_MARK, b"/*E%d*/", True), (_WRAP, b"/*V%d*/", False)):
        for mark in pattern.finditer(text, 0, position):
            mutant = int(mark[1])
            end = text.find(end_mark % mutant, mark.end())
            if position <= end and (found is None or mark.start() > found[0]):
                found = (mark.start(), mutant, alone)
        if found:
            return found[1], found[2]
    return None


def _field(node: Node, name: str) -> Node:
    field = node.child_by_field_name(name)
    if field is None:
        raise NotPlaced(f"no {name}")
    return field


def _range(node: Node) -> Range:
    return node.start_byte, node.end_byte


def _ancestors(node: Node | None) -> Iterator[Node]:
    while node is not None:
        yield node
        node = node.parent


def _ancestor(node: Node | None, *types: str) -> Node:
    for ancestor in _ancestors(node):
        if ancestor.type in types:
            return ancestor
    raise NotPlaced(f"no {types[0]}")


def _require_run_time(node: Node) -> None:
    for ancestor in _ancestors(node):
        if ancestor.type in _NOT_AT_RUN_TIME:
            raise NotPlaced("not evaluated at run time")
        if ancestor.type == "function_item":
            modifiers = [child.text or b"" for child in ancestor.children if child.type == "function_modifiers"]
            if any(b"const" in words.split() for words in modifiers):
                raise NotPlaced("a function that the compiler may evaluate")
            return
