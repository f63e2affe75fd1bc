#!/usr/bin/env python3
"""Runs the expressions of all panels, recording rules and alert rules against a Prometheus that scrapes a running Linnet.

It reports each expression that Prometheus rejects, each selector without series, and each panel and recording rule without
data. only-in-faults.yml lists the exceptions. An exception that is not needed is reported as well.

  check_expressions.py --prometheus http://127.0.0.1:9090 [--without cadvisor,loki] [--made redis-down]
  check_expressions.py --prometheus … --made redis-down --only-made
                                             right after a fault: only expressions that the fault gives data
  check_expressions.py --offline             without a Prometheus: syntax, and entries that match nothing
  check_expressions.py --as-rules FILE       writes the panels' expressions as recording rules for promtool
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from exceptions import Entry, read
from expressions import Expression, InvalidFile, logql_problem, of_dashboards, of_rules
from promql import Malformed, Selector, selectors

HERE = Path(__file__).resolve().parent
EX_USAGE, EX_UNAVAILABLE = 64, 69


class Refused(Exception):
    """Prometheus rejects the expression."""


# Returns the current values of an expression, one for each series.
Ask = Callable[[str], list[float]]


def asker(address: str, timeout: float) -> Ask:
    """Queries a Prometheus over HTTP."""

    def ask(expr: str) -> list[float]:
        body = urllib.parse.urlencode({"query": expr}).encode()
        try:
            with urllib.request.urlopen(f"{address.rstrip('/')}/api/v1/query", body, timeout=timeout) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            try:
                raise Refused(json.load(error)["error"]) from None
            except (ValueError, KeyError):
                raise Refused(f"HTTP {error.code}") from None
        return values(answer["data"])

    return ask


def values(data: dict[str, Any]) -> list[float]:
    if data["resultType"] == "scalar":
        return [float(data["result"][1])]
    if data["resultType"] == "vector":
        return [float(series["value"][1]) for series in data["result"] if "value" in series]
    raise Refused(f"it returns a {data['resultType']}, which panels cannot show")


@dataclass
class Findings:
    problems: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    checked: int = 0

    def add(self, expression: Expression, problem: str) -> None:
        self.problems.append(f"{expression.kind} {expression.where}: {problem}\n      {' '.join(expression.text.split())}")


class Check:
    """One run over all expressions. Each distinct selector is queried once."""

    def __init__(self, ask: Ask, entries: list[Entry]) -> None:
        self.ask = ask
        self.entries = entries
        self.findings = Findings()
        self.counts: dict[Selector, int] = {}
        # How often each entry was needed, and how often it matched although there was data.
        self.used: dict[Entry, int] = dict.fromkeys(entries, 0)
        self.idle: dict[Entry, int] = dict.fromkeys(entries, 0)

    def series(self, selector: Selector) -> int:
        if selector not in self.counts:
            self.counts[selector] = len(self.ask(str(selector)))
        return self.counts[selector]

    def expression(self, expression: Expression) -> None:
        self.findings.checked += 1
        if expression.kind == "logs":
            if problem := logql_problem(expression.text):
                self.findings.add(expression, problem)
            return
        try:
            returned = self.ask(expression.text)
            wanted = selectors(expression.text)
            empty = [selector for selector in wanted if self.series(selector) == 0]
        except (Refused, Malformed) as error:
            self.findings.add(expression, str(error))
            return
        missing = [selector for selector in empty if not self.is_excused(selector, True)]
        for selector in wanted:
            if selector not in empty:
                self.is_excused(selector, False)
        if missing:
            self.findings.add(expression, f"no series for {', '.join(map(str, missing))}")
            return
        nothing = not returned or all(math.isnan(value) for value in returned)
        named = self.is_excused(expression, expression.must_return and nothing)
        if empty or named:
            self.findings.excused.append(expression.where)
        elif expression.must_return and nothing:
            what = "nothing" if not returned else "only NaN"
            self.findings.add(expression, f"it returns {what}, although all its series exist")

    def is_excused(self, what: Selector | Expression, needed: bool) -> bool:
        """Whether an entry covers it. Counts the use of each matching entry."""
        fitting = [e for e in self.entries if (e.covers(what) if isinstance(what, Selector) else e.names(what))]
        for entry in fitting:
            (self.used if needed else self.idle)[entry] += 1
        return needed and bool(fitting)

    def stale(self) -> list[str]:
        """Entries that are not needed: they match no expression, or the expression has data."""
        return [
            f"only-in-faults.yml: {entry} " + ("has data" if self.idle[entry] else "matches no expression")
            for entry in self.entries
            if not self.used[entry] and not (entry.sometimes and self.idle[entry])
        ]


def run(expressions: list[Expression], entries: list[Entry], ask: Ask, *, is_all: bool = True) -> Findings:
    """One run over these expressions. Unneeded entries can be detected only when all expressions are checked."""
    check = Check(ask, entries)
    for expression in expressions:
        check.expression(expression)
    if is_all:
        check.findings.problems += check.stale()
    return check.findings


def filled_by(expressions: list[Expression], entries: list[Entry]) -> list[Expression]:
    """The expressions that one of these entries covers."""
    return [
        expression
        for expression in expressions
        if expression.kind != "logs"
        and any(e.names(expression) or any(map(e.covers, selectors(expression.text))) for e in entries)
    ]


def offline(expressions: list[Expression], entries: tuple[Entry, ...]) -> Findings:
    """The checks that need no Prometheus."""
    findings = Findings()
    fitting: set[Entry] = set()
    for expression in expressions:
        findings.checked += 1
        fitting.update(entry for entry in entries if entry.names(expression))
        if expression.kind == "logs":
            if problem := logql_problem(expression.text):
                findings.add(expression, problem)
            continue
        try:
            for selector in selectors(expression.text):
                fitting.update(entry for entry in entries if entry.covers(selector))
        except Malformed as error:
            findings.add(expression, str(error))
    findings.problems += [f"only-in-faults.yml: {e} matches no expression" for e in entries if e not in fitting]
    return findings


def as_rules(expressions: list[Expression]) -> str:
    """The panels' expressions as a file of recording rules for promtool."""
    rules = [
        {"record": f"panel:{number}", "expr": expression.text, "labels": {"place": expression.where}}
        for number, expression in enumerate(expressions)
        if expression.kind == "panel"
    ]
    return yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}, allow_unicode=True, width=1000)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prometheus", metavar="URL")
    what.add_argument("--offline", action="store_true")
    what.add_argument("--as-rules", metavar="FILE", type=Path)
    parser.add_argument("--without", metavar="NAMES", default="", help="absent components, separated by commas")
    parser.add_argument("--made", metavar="NAMES", default="", help="injected faults, separated by commas: their expressions must have data")
    parser.add_argument("--only-made", action="store_true", help="check only the expressions of those faults")
    parser.add_argument("--dashboards", type=Path, default=HERE / "grafana/dashboards")
    parser.add_argument("--rules", type=Path, default=HERE / "prometheus/rules")
    parser.add_argument("--exceptions", type=Path, default=HERE / "only-in-faults.yml")
    parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="repeat for this long while there are problems")
    parser.add_argument("--verbose", action="store_true", help="print the excused expressions")
    return parser


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main(argv: list[str]) -> int:
    options = arguments().parse_args(argv)
    try:
        expressions = [*of_dashboards(options.dashboards), *of_rules(options.rules)]
        exceptions = read(options.exceptions)
        active = exceptions.in_force(names(options.made), names(options.without))
        if options.only_made:
            expressions = filled_by(expressions, exceptions.of_faults(names(options.made)))
    except (InvalidFile, Malformed, OSError, KeyError, ValueError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EX_USAGE
    if not expressions:
        print(f"error: no expressions found in {options.dashboards} and {options.rules}", file=sys.stderr)
        return EX_USAGE
    if options.as_rules:
        options.as_rules.write_text(as_rules(expressions), encoding="utf-8")
        return 0
    if options.offline:
        findings = offline(expressions, exceptions.entries)
    else:
        deadline = time.monotonic() + options.wait
        while True:
            try:
                findings = run(expressions, active, asker(options.prometheus, options.timeout), is_all=not options.only_made)
            except (OSError, TimeoutError) as error:
                print(f"error: {options.prometheus} does not respond: {error}", file=sys.stderr)
                return EX_UNAVAILABLE
            if not findings.problems or time.monotonic() >= deadline:
                break
            time.sleep(min(5, max(0, deadline - time.monotonic())))
    for problem in findings.problems:
        print(f"error: {problem}", file=sys.stderr)
    if options.verbose:
        for where in sorted(set(findings.excused)):
            print(f"    excused: {where}", file=sys.stderr)
    print(
        f"{findings.checked} expressions, {len(findings.problems)} problems, {len(findings.excused)} excused by only-in-faults.yml",
        file=sys.stderr,
    )
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
