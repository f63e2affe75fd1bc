"""Visits to several services in turns, so that other load affects all of them."""

from __future__ import annotations

from figures import say


def visits_in_turns(bench, others: dict[str, str], ours: dict[str, dict[str, str]]) -> tuple[dict[str, list[float]], int]:
    """Returns the rates of each side's rounds by name, and the number of failed requests. No worker runs meanwhile.

    `others` are addresses; `ours` are settings of a shortener behind Linnet's nginx configuration. Shortener and nginx
    start anew for each round, because a process can be a tenth faster than an identical one for its whole life. The order
    rotates."""
    stack, tools, size = bench.stack, bench.tools, bench.size
    rates: dict[str, list[float]] = {name: [] for name in [*others, *ours]}
    errors = 0
    for turn in range(size.rounds):
        started, targets = [], dict(others)
        for name, settings in ours.items():
            shortener = stack.start_shortener(f"{name}-{turn}", **settings)
            nginx, targets[name] = stack.start_nginx(f"nginx-{name}-{turn}", [shortener.resolve], bench.gateway_socket)
            started += [nginx, shortener.process]
            bench.warm(targets[name])
        for target in targets.values():
            tools.wrk_visits(target, bench.zipf, 1, 0.3)
        # With a full stream, clicks would go to the spool.
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
