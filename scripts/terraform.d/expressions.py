"""Reads HCL's expressions for the check: what they refer to, and what kind of value a literal is.

python-hcl2 returns an expression as text, `${var.name}`, and a string with its quotes, `"a ${var.name}"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# The parts of an expression. A string, an index or a template is read on from its first character.
_TOKEN = re.compile(
    r'(?P<open>"|<<-?\w+)|(?P<close>\})|(?P<brace>\{)|(?P<name>(?<![\w.])[A-Za-z_][\w-]*)|(?P<number>\d[\w.]*)|(?P<other>.)', re.DOTALL
)
_FOR = re.compile(r"\bfor\s+(\w+)(?:\s*,\s*(\w+))?\s+in\b")
_KEYWORDS = {"true", "false", "null", "for", "in", "if", "else", "endif", "endfor"}


@dataclass(frozen=True)
class Reference:
    """`aws_subnet.public["a"].id`: a root and the steps behind it. An index is the step `[]`."""

    root: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return self.root + "".join(step if step == "[]" else f".{step}" for step in self.steps)


def is_expression(value: str) -> bool:
    """Whether the text is an expression, and not a quoted string."""
    return value.startswith("${")


def strings(value: Any) -> Iterator[str]:
    """Every text in a value, including the keys of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in ("__comments__", "__inline_comments__"):
                if key.startswith(("${", "(")):
                    yield key if key.startswith("${") else "${" + key + "}"
                yield from strings(item)


def _skip(text: str, position: int) -> int:
    """The position behind the bracket that closes the one at `position`."""
    depth = 0
    quoted = False
    for index in range(position, len(text)):
        letter = text[index]
        if letter == '"' and text[index - 1] != "\\":
            quoted = not quoted
        elif not quoted and letter == "[":
            depth += 1
        elif not quoted and letter == "]":
            depth -= 1
            if depth == 0:
                return index + 1
    raise ValueError(f"an index has no end: {text}")


def _steps(text: str, position: int) -> tuple[tuple[str, ...], list[str], int]:
    """The steps that begin at `position`, the texts of their indexes, and the position behind them."""
    steps: list[str] = []
    indexes: list[str] = []
    while position < len(text):
        if match := re.compile(r"\.(\*|[A-Za-z_][\w-]*|\d+)").match(text, position):
            steps.append("[]" if match.group(1) == "*" or match.group(1).isdigit() else match.group(1))
            position = match.end()
        elif text[position] == "[":
            end = _skip(text, position)
            steps.append("[]")
            indexes.append(text[position + 1 : end - 1])
            position = end
        else:
            break
    return tuple(steps), indexes, position


def _code(text: str, bound: frozenset[str]) -> Iterator[Reference]:
    """References in an expression. `bound` are the variables of `for` around it."""
    bound = bound | {name for match in _FOR.finditer(text) for name in match.groups() if name}
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None
        position = match.end()
        if match["open"] == '"':
            start = position
            position = _string_end(text, position)
            yield from _template(text[start : position - 1], bound)
        elif match["name"]:
            name = match["name"]
            steps, indexes, position = _steps(text, position)
            for index in indexes:
                yield from _code(index, bound)
            rest = text[position:].lstrip()
            is_call = rest.startswith("(") or (rest.startswith("::"))
            is_key = not steps and re.match(r"(=(?![=>])|:(?!:))", rest) is not None and _in_object(text, match.start())
            if name not in _KEYWORDS and name not in bound and not is_call and not is_key:
                yield Reference(name, steps)


def _in_object(text: str, position: int) -> bool:
    """Whether a name at `position` can be a key: behind a brace, a comma or a line's end."""
    before = text[:position].rstrip(" \t")
    return before.endswith(("{", ",", "\n"))


def _string_end(text: str, position: int) -> int:
    """The position behind the quote that ends a string; templates in it may have quotes of their own."""
    depth = 0
    while position < len(text):
        if text[position] == "\\" and depth == 0:
            position += 2
            continue
        if text.startswith(("${", "%{"), position):
            depth += 1
            position += 2
            continue
        if depth and text[position] == '"':
            position = _string_end(text, position + 1)
            continue
        if depth and text[position] in "{}":
            depth += 1 if text[position] == "{" else -1
        elif not depth and text[position] == '"':
            return position + 1
        position += 1
    raise ValueError(f"a string has no end: {text}")


def _template(text: str, bound: frozenset[str]) -> Iterator[Reference]:
    """References in the content of a string."""
    position = 0
    while match := re.compile(r"(?<![$%])[$%]\{").search(text, position):
        depth, index = 1, match.end()
        while depth and index < len(text):
            if text[index] == '"':
                index = _string_end(text, index + 1)
                continue
            depth += {"{": 1, "}": -1}.get(text[index], 0)
            index += 1
        yield from _code(text[match.end() : index - 1], bound)
        position = index


def references(value: Any, bound: frozenset[str] = frozenset()) -> Iterator[Reference]:
    """Every reference in a value, nested ones included."""
    for text in strings(value):
        if text.startswith('"'):
            yield from _template(text[1:-1], bound)
        else:
            # A name alone in a list, `[size]`, comes without `${}`.
            yield from _code(text[2:-1] if is_expression(text) else text, bound)


def sole_reference(text: str) -> Reference | None:
    """The reference of which the expression consists, if it is only that."""
    if not is_expression(text):
        return None
    code = text[2:-1]
    match = re.compile(r"[A-Za-z_][\w-]*").match(code)
    if not match or match.group() in _KEYWORDS:
        return None
    steps, _, end = _steps(code, match.end())
    return Reference(match.group(), steps) if end == len(code) and steps else None
