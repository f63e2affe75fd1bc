"""The cost of click recording for a redirect, and whether every click is recorded."""

from __future__ import annotations

import time

from figures import median, median_ratio
from processes import BenchError

from .turns import visits_in_turns

FIGURES = ("clicks_resolve", "clicks_resolve_unrecorded", "clicks_resolve_bare", "clicks_resolve_ratio", "clicks_enabled_ratio",
           "clicks_failed_requests", "clicks_saturation", "clicks_recorded_per_redirect", "clicks_drain_s", "clicks_worker_memory")

DRAIN_S = 120


def run(bench) -> None:
    costs(bench)
    delivery(bench)


def costs(bench) -> None:
    """Redirects with recording, without it, and of the bare handler, in turns. No worker runs meanwhile."""
    ours = {"clicks_resolve": {}, "clicks_resolve_unrecorded": {"LINNET__CLICKS__ENABLED": "false"}}
    rates, errors = visits_in_turns(bench, {"clicks_resolve_bare": bench.bare_address}, ours)
    figures = bench.figures
    for name, values in rates.items():
        figures.add(name, median(values), "req/s")
    figures.add("clicks_resolve_ratio", median_ratio(rates["clicks_resolve"], rates["clicks_resolve_bare"]), "of bare",
                at_least=0.85)
    figures.add("clicks_enabled_ratio", median_ratio(rates["clicks_resolve"], rates["clicks_resolve_unrecorded"]), "of unrecorded",
                at_least=0.95)
    figures.add("clicks_failed_requests", errors, "requests", at_most=0)


def delivery(bench) -> None:
    """Saturation with a worker. Afterwards the numbers of redirects and of recorded clicks must be equal."""
    stack = bench.stack
    worker = stack.start_worker("worker")
    before = settled(stack)
    served_before = bench.shortener.redirects()
    peak = bench.tools.wrk_visits(bench.address, bench.zipf, bench.size.saturation_s, 0.5)
    ended = time.monotonic()
    # Requests that wrk has abandoned are still being served.
    time.sleep(0.2)
    served = bench.shortener.redirects() - served_before
    stack.wait_recorded(before + served, DRAIN_S)
    drained = time.monotonic() - ended
    # Later clicks would be duplicates.
    recorded = settled(stack) - before
    raw = int(stack.sql("SELECT count(*) FROM all_clicks"))
    if raw != before + recorded:
        raise BenchError(f"{raw:,} raw clicks, but {before + recorded:,} in the roll-up")
    figures = bench.figures
    figures.add("clicks_saturation", peak.rate, "req/s", note="with a worker that records them")
    figures.add("clicks_recorded_per_redirect", recorded / max(served, 1), "clicks", exactly=1,
                note=f"{recorded:,} recorded, {served:,} redirects served")
    figures.add("clicks_drain_s", drained, "s", at_most=30, note="after the end of the load")
    figures.add("clicks_worker_memory", bench.resident(worker.pid), "MiB", at_most=64)
    stack.processes.stop(worker)


def settled(stack) -> int:
    """Recorded clicks, when the count no longer changes."""
    last, still_since, deadline = -1, 0.0, time.monotonic() + DRAIN_S
    while time.monotonic() < deadline:
        now = stack.recorded()
        if now != last:
            last, still_since = now, time.monotonic()
        elif time.monotonic() - still_since > 3:
            return now
        time.sleep(0.2)
    raise BenchError(f"the count of recorded clicks still changes after {DRAIN_S} s")
