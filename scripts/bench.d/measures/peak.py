"""Redirects a second, closed loop, of Linnet and of the bare handler behind the same nginx configuration."""

from __future__ import annotations

import random

from figures import median, median_ratio, say
from processes import cpu_us

FIGURES = ("nginx_return_302", "nginx_minimal_to_bare", "nginx_to_bare", "bare_direct", "resolve_zipf", "resolve_zipf_ratio",
           "resolve_one_link", "resolve_one_link_ratio", "resolve_direct", "resolve_failed_requests", "resolve_share_*", "cpu_*")


def run(bench) -> None:
    stack, tools = bench.stack, bench.tools
    # wrk does not support unix sockets, so targets without nginx listen on TCP.
    direct = stack.start_shortener("shortener-tcp", resolve=f"127.0.0.1:{stack.port()}")
    bare_tcp = f"127.0.0.1:{stack.port()}"
    bare_direct = stack.start_bare("bare-tcp", bare_tcp)
    minimal, own = stack.start_minimal_nginx(bench.bare_socket)
    bench.warm(direct.resolve)

    targets = {
        "nginx_to_bare": (bench.bare_address, bench.zipf),
        "resolve_zipf": (bench.address, bench.zipf),
        "resolve_one_link": (bench.address, bench.one_link),
        "resolve_direct": (direct.resolve, bench.zipf),
        "bare_direct": (bare_tcp, bench.zipf),
        "nginx_minimal_to_bare": (minimal, bench.zipf),
        "nginx_return_302": (own, bench.zipf),
    }
    rates: dict[str, list[float]] = {name: [] for name in targets}
    # Processor time of the application behind nginx. Other load affects it far less than the rates.
    applications = {"nginx_to_bare": bench.bare.pid, "resolve_zipf": bench.shortener.process.pid,
                    "resolve_one_link": bench.shortener.process.pid}
    spent: dict[str, list[float]] = {name: [] for name in applications}
    errors = 0
    tiers: dict[str, float] = {}
    for address, codes in targets.values():
        tools.wrk_paths(address, codes, 1, 0.3)
    for turn in range(bench.size.rounds):
        # The order changes each round, because it affects a rate by a few percent.
        for name in random.Random(turn).sample(list(targets), len(targets)):
            address, codes = targets[name]
            before = bench.shortener.lookups() if name == "resolve_zipf" else {}
            spent_before = cpu_us(applications[name]) if name in applications else 0
            peak = tools.wrk_paths(address, codes, bench.size.round_s, turn * 0.37)
            if name in applications:
                spent[name].append((cpu_us(applications[name]) - spent_before) / (peak.rate * bench.size.round_s))
            rates[name].append(peak.rate)
            errors += peak.errors
            if before:
                for tier, count in bench.shortener.lookups().items():
                    tiers[tier] = tiers.get(tier, 0) + count - before.get(tier, 0)
        say(f"  round {turn + 1}: " + ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items()))
    stack.processes.stop(bare_direct)
    stack.processes.stop(direct.process)

    figures = bench.figures
    for name in ("nginx_return_302", "nginx_minimal_to_bare", "nginx_to_bare", "bare_direct", "resolve_zipf"):
        figures.add(name, median(rates[name]), "req/s")
    figures.add("resolve_zipf_ratio", median_ratio(rates["resolve_zipf"], rates["nginx_to_bare"]), "of nginx_to_bare", at_least=0.90)
    figures.add("resolve_one_link", median(rates["resolve_one_link"]), "req/s")
    figures.add("resolve_one_link_ratio", median_ratio(rates["resolve_one_link"], rates["resolve_zipf"]), "of resolve_zipf",
                at_least=0.90)
    figures.add("resolve_direct", median(rates["resolve_direct"]), "req/s", note="TCP, without nginx; compare bare_direct")
    for name, values in spent.items():
        figures.add(f"cpu_{name}", median(values), "us/req", note="processor time of the application, without nginx")
    figures.add("resolve_failed_requests", errors, "requests", at_most=0, note="all rounds")
    add_shares(figures, "resolve_share", tiers)
    bench.peak_rate = median(rates["resolve_zipf"])


def add_shares(figures, name: str, tiers: dict[str, float]) -> None:
    total = sum(tiers.values()) or 1.0
    for tier in ("local", "shared", "database", "coalesced"):
        figures.add(f"{name}_{tier}", 100 * tiers.get(tier, 0.0) / total, "%")


def peak_of(bench) -> float:
    """The peak rate; measured now if the part `peak` has not run."""
    if bench.peak_rate is None:
        bench.tools.wrk_paths(bench.address, bench.zipf, 1, 0.3)
        bench.peak_rate = median([bench.tools.wrk_paths(bench.address, bench.zipf, bench.size.round_s, turn * 0.37).rate
                                  for turn in range(3)])
    return bench.peak_rate
