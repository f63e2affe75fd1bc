"""Reads `only-in-faults.yml`: expressions that may return no data in normal operation, with the reason."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from expressions import Expression, InvalidFile
from promql import Selector

KEYS = {"metric", "matcher", "where", "because", "sometimes"}


@dataclass(frozen=True)
class Entry:
    """A metric or expression that has data only after the fault `cause`, or with the component `cause`."""

    group: str
    cause: str
    because: str
    # Regular expression for the whole metric name.
    metric: str = ""
    # A condition of the selector, in the notation of `Selector.matchers`.
    matcher: str = ""
    # Regular expression for the place of an expression. It does not cover missing series.
    where: str = ""
    # Data may also have other causes, so data does not make this entry obsolete.
    sometimes: bool = False

    def __str__(self) -> str:
        what = self.where or (self.metric + (f"{{{self.matcher}}}" if self.matcher else ""))
        return f"{self.group}/{self.cause}: {what}"

    def covers(self, selector: Selector) -> bool:
        if not self.metric or re.fullmatch(self.metric, selector.metric) is None:
            return False
        return not self.matcher or self.matcher in selector.matchers

    def names(self, expression: Expression) -> bool:
        return bool(self.where) and re.fullmatch(self.where, expression.where) is not None


@dataclass(frozen=True)
class Exceptions:
    entries: tuple[Entry, ...]
    # All faults and components as (group, name), including those without entries.
    causes: frozenset[tuple[str, str]]

    def of_faults(self, made: Collection[str]) -> list[Entry]:
        return [e for e in self.entries if e.group == "fault" and e.cause in made]

    def in_force(self, made: Collection[str], absent: Collection[str]) -> list[Entry]:
        """The entries that apply now: faults that were not injected, and components that are absent."""
        for group, names in (("fault", made), ("needs", absent)):
            known = {cause for other, cause in self.causes if other == group}
            if unknown := sorted(set(names) - known):
                raise InvalidFile(f"unknown {group}/{unknown[0]}; known are {', '.join(sorted(known)) or 'none'}")
        return [e for e in self.entries if (e.cause not in made if e.group == "fault" else e.cause in absent)]


def read(path: Path) -> Exceptions:
    """The list. Unknown keys are errors, because a misspelled key would silently change what an entry covers."""
    document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(document, dict) or set(document) - {"fault", "needs"}:
        raise InvalidFile(f"{path.name}: expected only the groups fault and needs")
    groups = {group: causes or {} for group, causes in document.items()}
    entries = [
        _entry(path.name, group, str(cause), item)
        for group, causes in groups.items()
        for cause, items in causes.items()
        for item in items or []
    ]
    return Exceptions(tuple(entries), frozenset((group, str(cause)) for group, causes in groups.items() for cause in causes))


def _entry(name: str, group: str, cause: str, item: Any) -> Entry:
    place = f"{name}: {group}/{cause}"
    if not isinstance(item, dict) or set(item) - KEYS:
        raise InvalidFile(f"{place}: expected the keys {', '.join(sorted(KEYS))}, not {item!r}")
    if not str(item.get("because") or "").strip():
        raise InvalidFile(f"{place}: the reason (because) is missing")
    if bool(item.get("metric")) == bool(item.get("where")):
        raise InvalidFile(f"{place}: expected either metric or where")
    try:
        for key in ("metric", "where"):
            re.compile(item.get(key) or "")
    except re.error as error:
        raise InvalidFile(f"{place}: {error}") from None
    metric, matcher, where = (str(item.get(key) or "") for key in ("metric", "matcher", "where"))
    return Entry(group, cause, str(item["because"]), metric, matcher, where, item.get("sometimes", False) is True)
