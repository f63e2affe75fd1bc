"""`only-in-faults.yml`: what may return nothing while all is well, and why."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from expressions import Expression, Wrong
from promql import Selector

KEYS = {"metric", "matcher", "where", "because", "sometimes"}


@dataclass(frozen=True)
class Entry:
    """Something that only the fault `cause` fills, or that needs the component `cause`."""

    group: str
    cause: str
    because: str
    # Regular expressions for the whole name.
    metric: str = ""
    # One of the selector's conditions, as it is written there.
    matcher: str = ""
    # An expression by its place, whatever its selectors return.
    where: str = ""
    # Other things may fill it as well, so data are no reason to take the entry out.
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
    # Every fault and component by group and name, those without an entry, too.
    causes: frozenset[tuple[str, str]]

    def of_faults(self, made: Collection[str]) -> list[Entry]:
        return [e for e in self.entries if e.group == "fault" and e.cause in made]

    def in_force(self, made: Collection[str], absent: Collection[str]) -> list[Entry]:
        """Those that excuse something now: not what a fault that was made should have filled, nor what a component that is there
        should."""
        for group, names in (("fault", made), ("needs", absent)):
            known = {cause for other, cause in self.causes if other == group}
            if unknown := sorted(set(names) - known):
                raise Wrong(f"no entry has {group}/{unknown[0]}; there are {', '.join(sorted(known)) or 'none'}")
        return [e for e in self.entries if (e.cause not in made if e.group == "fault" else e.cause in absent)]


def read(path: Path) -> Exceptions:
    """The list. Unknown keys are errors: a misspelt one would excuse nothing, or everything."""
    document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(document, dict) or set(document) - {"fault", "needs"}:
        raise Wrong(f"{path.name}: expected the groups fault and needs, no others")
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
        raise Wrong(f"{place}: an entry has {', '.join(sorted(KEYS))}, and this one {item!r}")
    if not str(item.get("because") or "").strip():
        raise Wrong(f"{place}: an entry lacks its reason (because)")
    if bool(item.get("metric")) == bool(item.get("where")):
        raise Wrong(f"{place}: an entry has either metric or where")
    try:
        for key in ("metric", "where"):
            re.compile(item.get(key) or "")
    except re.error as error:
        raise Wrong(f"{place}: {error}") from None
    metric, matcher, where = (str(item.get(key) or "") for key in ("metric", "matcher", "where"))
    return Entry(group, cause, str(item["because"]), metric, matcher, where, item.get("sometimes", False) is True)
