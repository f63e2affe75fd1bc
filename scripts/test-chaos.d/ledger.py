"""Acknowledged writes, and failed requests by kind."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from wire import Response

# Kinds of requests, in the order of the table.
CACHED, UNCACHED, EDITED = "cached redirect", "uncached redirect", "edited redirect"
LIST, CREATE, EDIT, IMPORT = "list", "create", "edit", "import"
ROUTES = (CACHED, UNCACHED, EDITED, LIST, CREATE, EDIT, IMPORT)
REDIRECTS = (CACHED, UNCACHED, EDITED)
API = (LIST, CREATE, EDIT, IMPORT)
# docs/ARCHITECTURE.md, "Cache consistency".
STALE_AFTER_S = 1.0
# A request whose client has given up can be executed for this long.
LATE_S = 60.0


@dataclass
class Window:
    """The requests that ended during one fault."""

    begun: float = field(default_factory=time.monotonic)
    succeeded: Counter[str] = field(default_factory=Counter)
    # (route, kind) -> number
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    # route -> [start of the first failed request, end of the last one]
    span: dict[str, list[float]] = field(default_factory=dict)
    # Ends of failed requests, for bars that hold only after some time.
    last_failure: dict[tuple[str, str], float] = field(default_factory=dict)
    slowest_s: dict[str, float] = field(default_factory=dict)
    # (route, kind, second after the beginning at which the request was sent) -> number
    timeline: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    # The body of the first failed request of each kind.
    samples: dict[str, str] = field(default_factory=dict)

    def record(self, route: str, response: Response, start: float, *, ok: bool) -> None:
        end, kind = time.monotonic(), response.kind
        self.slowest_s[route] = max(self.slowest_s.get(route, 0.0), end - start)
        if ok:
            self.succeeded[route] += 1
            return
        self.failed[route, kind] += 1
        self.timeline[route, kind, int(start - self.begun)] += 1
        self.samples.setdefault(f"{route}: {kind}", response.body.decode(errors="replace")[-400:])
        self.last_failure[route, kind] = end
        span = self.span.setdefault(route, [start, end])
        span[0], span[1] = min(span[0], start), max(span[1], end)

    def failures(self, route: str) -> dict[str, int]:
        return {kind: count for (one, kind), count in sorted(self.failed.items()) if one == route}


@dataclass
class Edited:
    """A link that one writer edits again and again: its targets end with a growing number."""

    id: int
    code: str
    base: str
    # Times at which the edits were sent and acknowledged. Edit 0 is the creation.
    sent: list[float] = field(default_factory=lambda: [time.monotonic()])
    acknowledged: dict[int, float] = field(default_factory=dict)

    def newest(self, before: float) -> int:
        """The newest edit that was acknowledged before this time."""
        return max((number for number, at in self.acknowledged.items() if at < before), default=0)

    def number_of(self, target: str) -> int | None:
        """The number of a target, if this link ever had it."""
        tail = target.removeprefix(self.base)
        return int(tail) if target.startswith(self.base) and tail.isdigit() and int(tail) < len(self.sent) else None

    def is_current(self, number: int, before: float) -> bool:
        """Whether the target may be the current one for a request after this time: no newer edit was acknowledged, or
        the edit was not, so that it can have been executed late."""
        newest = self.newest(before)
        late = number > 0 and number not in self.acknowledged and self.sent[number] > self.acknowledged.get(newest, 0.0) - LATE_S
        return number >= newest or late


@dataclass
class Import:
    """An accepted import: its job, and the events that its follower received."""

    job: int
    prefix: str
    rows: int
    bad_lines: list[int]
    received_lines: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    done: dict | None = None
    accepted: float = field(default_factory=time.monotonic)


@dataclass
class Watched:
    """A subscriber to the clicks of a link."""

    id: int
    code: str
    received: int = 0
    ids: set[str] = field(default_factory=set)
    repeated_ids: int = 0
    gaps: int = 0
    connects: int = 0


@dataclass
class Ledger:
    created: list[tuple[str, str]] = field(default_factory=list)
    edited: list[Edited] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)
    # Redirects of the links whose clicks are counted: sent to a client, and those that may have been.
    served: int = 0
    unknown: int = 0
    violations: list[str] = field(default_factory=list)
    # Redirects to a target that was replaced more than STALE_AFTER_S before the request; the longest time since then.
    stale: int = 0
    stalest_s: float = 0.0
    checked_reads: int = 0

    def violation(self, text: str) -> None:
        # One defect can cause thousands.
        if len(self.violations) < 50:
            self.violations.append(text)

    def check_edited(self, link: Edited, target: str, start: float) -> None:
        self.checked_reads += 1
        number = link.number_of(target)
        if number is None:
            self.violation(f"{link.code} leads to {target}, which it never had")
        elif not link.is_current(number, start - STALE_AFTER_S):
            replaced = min(at for newer, at in link.acknowledged.items() if newer > number)
            self.stale += 1
            self.stalest_s = max(self.stalest_s, start - replaced)


@dataclass
class Checked:
    """Counts of one check, and everything that was wrong."""

    created: int = 0
    edited: int = 0
    imported_rows: int = 0
    row_events: int = 0
    # Of any client, acknowledged or not.
    dead_jobs: int = 0
    clicks: int = 0
    clicks_lost: int = 0
    clicks_extra: int = 0
    checked_reads: int = 0
    stale: int = 0
    stalest_s: float = 0.0
    live_clicks: int = 0
    live_gaps: int = 0
    violations: list[str] = field(default_factory=list)
