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
        return not self.matcher or any(str(matcher) == self.matcher for matcher in selector.matchers)

    def names(self, expression: Expression) -> bool:
        return bool(self.where) and re.fullmatch(self.where, expression.where) is not None


@dataclass(frozen=True)
class Exceptions:
    entries: tuple[Entry, ...]
    # Every fault and component by group and name, those without an entry, too.
    causes: frozenset[tuple[str, str]]
