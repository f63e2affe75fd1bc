"""A fault with its bar, which is stated before the run, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ledger import API, EDITED, REDIRECTS, ROUTES, UNCACHED, Checked, Window

if TYPE_CHECKING:
    from load import Load
    from receiver import Receiver

ANY = "any failure"


@dataclass
class Stage:
    """The means and the report of one injection."""

    load: Load
    receiver: Receiver
    # Clicks that a metric counted as lost during this fault.
    counted_losses: int = 0
    # Violations that the fault itself found, and its measurements.
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """A fault is injected by entering the context and ends by leaving it."""

    name: str
    title: str
    inject: Callable[[Stage], AbstractContextManager[None]]
    # route -> kinds of failures that are within the bar, separated by commas. No request of other routes may fail.
    allowed: Mapping[str, str] = field(default_factory=dict)
    # Failed requests of all routes together.
    most: int | None = None
    hold_s: float = 10
    # Time after the end of the fault until the last failure.
    recovers_within_s: float = 10
    # The alert that must fire, and the longest time until then. Without one: the reason why none is needed.
    alert: str = ""
    alert_within_s: float = 90
    no_alert: str = ""
    # A person's work besides ending the fault.
    person: str = "no"
    both_colors: bool = False
    # Entered before the requests begin that count, and left after the checks.
    prepare: Callable[[Stage], AbstractContextManager[None]] = lambda _stage: nullcontext()
    # Seconds of clicks that docs/ARCHITECTURE.md allows to be lost.
    lost_clicks_s: float = 0.0
    # Redirects to a replaced target that its "Limits of the bound" allow.
    stale: int = 0
    # Part of FORM=short.
    short: bool = False

    def bar(self) -> str:
        parts = [f"{routes_in_words(routes)} ({kinds.replace(',', ', ')})" for routes, kinds in grouped(self.allowed)]
        text = "may fail: " + "; ".join(parts) if parts else "no request fails"
        if self.most is not None:
            text += f"; {self.most} at most"
        if parts:
            text += f"; at the latest {self.recovers_within_s:g} s after the end"
        if self.lost_clicks_s:
            text += f"; the clicks of {self.lost_clicks_s:g} s may be lost"
        return text


# The API and links that no cache has need PostgreSQL. All load is one user's: of its requests that wait for the database,
# those beyond its share get 429 (`too_many_concurrent`).
WITHOUT_POSTGRESQL = dict.fromkeys((UNCACHED, EDITED), "503") | dict.fromkeys(API, "503,429")
# The same while PostgreSQL does not respond: a request can wait for longer than its deadline.
HANGING_POSTGRESQL = dict.fromkeys((UNCACHED, EDITED), "503,504") | dict.fromkeys(API, "503,504,429")
EVERYTHING = dict.fromkeys(ROUTES, ANY)


def grouped(allowed: Mapping[str, str]) -> list[tuple[tuple[str, ...], str]]:
    """Routes with the same kinds together."""
    groups: dict[str, list[str]] = {}
    for route, kinds in allowed.items():
        groups.setdefault(kinds, []).append(route)
    return [(tuple(routes), kinds) for kinds, routes in groups.items()]


def routes_in_words(routes: tuple[str, ...]) -> str:
    rest, words = list(routes), []
    for name, members in (("everything", ROUTES), ("redirects", REDIRECTS), ("API", API)):
        if set(members) <= set(rest):
            words.append(name)
            rest = [route for route in rest if route not in members]
    return ", ".join(words + rest)


@dataclass
class Result:
    fault: Fault
    window: Window
    ended: float
    calm: bool
    fired: dict[str, float]
    checked: Checked
    stage: Stage
    waited_for_alert: bool
    # Process -> seconds after the beginning at which its invalidation bus was stale.
    stale_bus: dict[str, list[float]] = field(default_factory=dict)

    def broken(self) -> list[str]:
        """Everything that is outside the bar."""
        fault, window = self.fault, self.window
        found = [*self.stage.wrong, *self.checked.violations]
        for (route, kind), count in sorted(window.failed.items()):
            kinds = fault.allowed.get(route, "")
            after = window.last_failure[route, kind] - self.ended
            if kinds != ANY and kind not in kinds.split(","):
                found.append(f"{count} requests failed: {route}: {kind}")
            elif after > fault.recovers_within_s:
                found.append(f"{route}: {kind} {after:.1f} s after the end of the fault")
        if fault.most is not None and window.failed.total() > fault.most:
            found.append(f"{window.failed.total()} requests failed, {fault.most} may")
        if not self.calm:
            found.append("requests still fail")
        if self.checked.stale > fault.stale:
            found.append(f"{self.checked.stale} redirects to a replaced target, up to {self.checked.stalest_s:.1f} s after the edit")
        if self.waited_for_alert and fault.alert:
            took = self.fired.get(fault.alert)
            if took is None or took > fault.alert_within_s:
                found.append(f"{fault.alert} fired after {'no time' if took is None else f'{took:.0f} s'}, not within {fault.alert_within_s:g} s")
        return found
