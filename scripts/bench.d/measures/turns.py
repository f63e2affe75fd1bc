"""Visits to several services in turns, so that each meets the same weather."""

from __future__ import annotations

from figures import say


def visits_in_turns(bench, others: dict[str, str], ours: dict[str, dict[str, str]]) -> tuple[dict[str, list[float]], int]:
    """Rates of each side's rounds by its name, and failed requests of all. Nothing takes the clicks meanwhile.

    `others` are addresses, `ours` are settings of a shortener behind the product's nginx. Both are started anew for each round: one
    process can be a tenth faster than the next one of the same kind for as long as it lives. Who comes first changes, too."""
    stack, tools, size = bench.stack, bench.tools, bench.size
    rates: dict[str, list[float]] = {name: [] for name in [*others, *ours]}
    errors = 0
    for turn in range(size.rounds):
        started, targets = [], dict(others)
        for name, settings in ours.items():
            shortener = stack.start_shortener(f"{name}-{turn}", **settings)
            nginx, targets[name] = stack.start_nginx(f"nginx-{name}-{turn}", [shortener.public], bench.gateway_socket)
            started += [nginx, shortener.process]
            bench.warm(targets[name])
        for target in targets.values():
            tools.wrk_visits(target, bench.zipf, 1, 0.3)
        # A stream that is full would send clicks to the spool.
        stack.forget_clicks()
        names = list(targets)
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            peak = tools.wrk_visits(targets[name], bench.zipf, size.round_s, turn * 0.37)
            rates[name].append(peak.rate)
            errors += peak.errors
        for process in started:
            stack.processes.stop(process)
        say(f"  round {turn + 1}: " + ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items()))
    return rates, errors
