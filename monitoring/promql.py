"""Which series an expression of PromQL asks for.

Not a parser: it takes an expression apart into words, strings and signs, and finds the selectors among them. Whether the
expression is valid, Prometheus itself says; whether each of its selectors has data, nobody else does, and a misspelt metric
behind `or vector(0)` is never found otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words that look like a metric and are none.
OPERATORS = frozenset({"and", "or", "unless", "atan2", "bool", "offset", "inf", "nan"})
# … and those that are followed by a list of labels in parentheses.
TAKES_LABELS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})

TOKEN = re.compile(
    r"""
      (?P<space>\s+|\#[^\n]*)
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    | (?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+(?:ms|[smhdwy]))+|[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)
    | (?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^<>=,(){}\[\]:@])
    """,
    re.VERBOSE,
)


class Malformed(ValueError):
    """The expression cannot be taken apart."""


@dataclass(frozen=True)
class Matcher:
    label: str
    operator: str
    value: str

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.operator}"{escaped}"'


@dataclass(frozen=True)
class Selector:
    metric: str
    matchers: tuple[Matcher, ...] = ()

    def __str__(self) -> str:
        inner = ",".join(str(matcher) for matcher in self.matchers)
        return f"{self.metric}{{{inner}}}" if inner else self.metric


@dataclass(frozen=True)
class Token:
    kind: str
    text: str


def tokens(expr: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(expr):
        match = TOKEN.match(expr, at)
        if match is None or match.lastgroup is None:
            raise Malformed(f"unexpected {expr[at]!r} at character {at + 1}")
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup, match.group()))
        at = match.end()
    return found


def unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    plain = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: plain.get(match.group(1), match.group(1)), text[1:-1])


def selectors(expr: str) -> list[Selector]:
    """The selectors in their order, each once."""
    stream = tokens(expr)
    found: list[Selector] = []
    at = 0
    while at < len(stream):
        token = stream[at]
        after = stream[at + 1].text if at + 1 < len(stream) else ""
        if token.kind == "word":
            word = token.text.lower()
            if word in TAKES_LABELS and after == "(":
                at = _closing(stream, at + 1, "(", ")") + 1
                continue
            # `sum(…)`, `sum by (…) (…)`: a function or an aggregation.
            if after == "(" or after.lower() in ("by", "without") or word in OPERATORS or word in TAKES_LABELS:
                at += 1
                continue
            matchers: tuple[Matcher, ...] = ()
            if after == "{":
                matchers, at = _matchers(stream, at + 1)
            found.append(Selector(token.text, matchers))
        elif token.text == "[":
            # A range, or the range and step of a subquery.
            at = _closing(stream, at, "[", "]")
        elif token.text == "{":
            matchers, at = _matchers(stream, at)
            found.append(Selector("", matchers))
        at += 1
    return list(dict.fromkeys(found))


def _closing(stream: list[Token], at: int, opening: str, closing: str) -> int:
    depth = 0
    for index in range(at, len(stream)):
        if stream[index].text == opening and stream[index].kind == "sign":
            depth += 1
        elif stream[index].text == closing and stream[index].kind == "sign":
            depth -= 1
            if depth == 0:
                return index
    raise Malformed(f"no {closing!r} for a {opening!r}")


def _matchers(stream: list[Token], at: int) -> tuple[tuple[Matcher, ...], int]:
    """What is between the braces that begin at `at`, and where they end."""
    end = _closing(stream, at, "{", "}")
    inner = stream[at + 1 : end]
    found: list[Matcher] = []
    while inner:
        if len(inner) < 3 or inner[0].kind != "word" or inner[2].kind != "string":
            raise Malformed(f"expected label=\"value\" at {' '.join(token.text for token in inner[:3])!r}")
        if inner[1].text not in ("=", "!=", "=~", "!~"):
            raise Malformed(f"{inner[1].text!r} compares no label")
        found.append(Matcher(inner[0].text, inner[1].text, unquoted(inner[2].text)))
        inner = inner[3:]
        if inner:
            if inner[0].text != ",":
                raise Malformed(f"expected a comma before {inner[0].text!r}")
            inner = inner[1:]
    return tuple(found), end
