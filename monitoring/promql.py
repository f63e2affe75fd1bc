"""Finds the series that a PromQL expression selects.

check_expressions.py queries each selector by itself: `sum(misspelled) or vector(0)` returns data although no such metric exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import promql_parser

# MatchOp is not hashable.
OPERATORS = (
    (promql_parser.MatchOp.Equal, "="),
    (promql_parser.MatchOp.NotEqual, "!="),
    (promql_parser.MatchOp.Re, "=~"),
    (promql_parser.MatchOp.NotRe, "!~"),
)


class Malformed(ValueError):
    """The expression is not valid PromQL."""


@dataclass(frozen=True)
class Selector:
    metric: str
    # Conditions such as `job="gateway"`, in the order of the expression.
    matchers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.metric + (f"{{{','.join(self.matchers)}}}" if self.matchers else "")


def selectors(expr: str) -> list[Selector]:
    """The selectors in their order, without duplicates, offsets and ranges."""
    try:
        tree = promql_parser.parse(expr)
    except ValueError as error:
        raise Malformed(str(error)) from None
    found: dict[Selector, None] = {}

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found[_selector(node)] = None

    promql_parser.walk(tree, pre_visit=visit)
    return list(found)


def _selector(node: promql_parser.VectorSelector) -> Selector:
    # The parser accepts VictoriaMetrics's `{a="b" or c="d"}`, which Prometheus rejects.
    if node.matchers.or_matchers:
        raise Malformed(f"Prometheus has no `or` between the conditions of a selector: {node.prettify()}")
    return Selector(node.name or "", tuple(_matcher(matcher) for matcher in node.matchers.matchers))


def _matcher(matcher: promql_parser.Matcher) -> str:
    operator = next(sign for known, sign in OPERATORS if known == matcher.op)
    value = matcher.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{matcher.name}{operator}"{value}"'
