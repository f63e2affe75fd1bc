"""HTTPS at Linnet's nginx: redirects over open connections compared with HTTP, and full handshakes compared with an nginx that has
a fixed certificate."""

from __future__ import annotations

import random

from figures import median, median_ratio, say
from processes import cpu_us

FIGURES = ("tls_redirects", "tls_redirects_ratio", "tls_handshakes", "tls_handshakes_ratio", "tls_redirect_cpu_*", "tls_handshake_cpu_*", "tls_failed_requests")


def run(bench) -> None:
    stack, tools = bench.stack, bench.tools
    certificate = stack.certificate()
    nginx, _, https = stack.start_tls_nginx("nginx-tls", [bench.shortener.resolve], bench.gateway_socket, certificate)
    fixed, own = stack.start_fixed_tls_nginx(certificate, stack.curves("nginx-tls"))
    redirects: dict[str, list[float]] = {"plain": [], "tls": []}
    handshakes: dict[str, list[float]] = {"fixed": [], "linnet": []}
    spent: dict[str, list[float]] = {name: [] for name in (*redirects, *handshakes)}
    targets = {"plain": (bench.address, bench.nginx.pid), "tls": (f"https://{https}", nginx.pid)}
    servers = {"fixed": (f"https://{own}", fixed.pid), "linnet": (f"https://{https}", nginx.pid)}
    errors = 0
    for target, _ in targets.values():
        tools.wrk_paths(target, bench.zipf, 1, 0.3)
    for turn in range(bench.size.rounds):
        for name in random.Random(turn).sample(list(targets), len(targets)):
            target, pid = targets[name]
            before = cpu_us(pid)
            peak = tools.wrk_paths(target, bench.zipf, bench.size.round_s, turn * 0.37)
            spent[name].append((cpu_us(pid) - before) / max(peak.rate * bench.size.round_s, 1))
            redirects[name].append(peak.rate)
            errors += peak.errors
        for name in random.Random(turn).sample(list(servers), len(servers)):
            target, pid = servers[name]
            before = cpu_us(pid)
            peak = tools.wrk_handshakes(target, bench.size.round_s)
            spent[name].append((cpu_us(pid) - before) / max(peak.rate * bench.size.round_s, 1))
            handshakes[name].append(peak.rate)
            errors += peak.errors
        say(f"  round {turn + 1}: " + ", ".join(f"{name} {values[-1]:,.0f}" for name, values in (redirects | handshakes).items()))
    stack.processes.stop(nginx)
    stack.processes.stop(fixed)
    figures = bench.figures
    figures.add("tls_redirects", median(redirects["tls"]), "req/s", note=f"HTTP: {median(redirects['plain']):,.0f}")
    figures.add("tls_redirects_ratio", median_ratio(redirects["tls"], redirects["plain"]), "of HTTP", at_least=0.85)
    figures.add("tls_handshakes", median(handshakes["linnet"]), "handshakes/s", note=f"fixed certificate: {median(handshakes['fixed']):,.0f}")
    figures.add("tls_handshakes_ratio", median_ratio(handshakes["linnet"], handshakes["fixed"]), "of a fixed certificate", at_least=0.9)
    for name in redirects:
        figures.add(f"tls_redirect_cpu_{name}", median(spent[name]), "us", note="processor time of nginx for a redirect")
    for name in handshakes:
        figures.add(f"tls_handshake_cpu_{name}", median(spent[name]), "us", note="processor time of nginx for a handshake and a request")
    figures.add("tls_failed_requests", errors, "requests", at_most=0, note="all rounds")
