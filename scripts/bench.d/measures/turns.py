"""Visits to several services in turns, so that each meets the same weather."""

from __future__ import annotations

from figures import say


def visits_in_turns(bench, targets: dict[str, str]) -> tuple[dict[str, list[float]], int]:
    """Rates of each target's rounds by its name, and failed requests of all. Nothing takes the clicks meanwhile."""
    stack, tools = bench.stack, bench.tools
    rates: dict[str, list[float]] = {name: [] for name in targets}
    errors = 0
    for target in targets.values():
        tools.wrk_visits(target, bench.zipf, 1, 0.3)
    for turn in range(bench.size.rounds):
        # A stream that is full would send clicks to the spool.
        stack.forget_clicks()
        for name, target in targets.items():
            peak = tools.wrk_visits(target, bench.zipf, bench.size.round_s, turn * 0.37)
            rates[name].append(peak.rate)
            errors += peak.errors
        say(f"  round {turn + 1}: " + ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items()))
    return rates, errors
