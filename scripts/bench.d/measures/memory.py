"""Resident memory after the other parts, with the warm links cached."""

from __future__ import annotations

from processes import proportional_mib

FIGURES = ("memory_shortener", "memory_gateway", "memory_nginx", "memory_redis", "memory_postgres")


def run(bench) -> None:
    # `peak` may not have run, and cache entries expire.
    bench.warm(bench.address)
    bench.tools.wrk_paths(bench.address, bench.zipf, bench.size.round_s, 0.5)
    bench.tools.wrk_create(bench.address, bench.key, "memory", 2, 32)
    bench.warm(bench.address)
    figures = bench.figures
    figures.add("memory_shortener", bench.resident(bench.shortener.process.pid), "MiB", at_most=64,
                note=f"{bench.size.warm_links:,} links cached")
    figures.add("memory_gateway", bench.resident(bench.gateway.pid), "MiB", at_most=32)
    for name, pid in (("nginx", bench.nginx.pid), ("redis", bench.stack.redis.pid), ("postgres", bench.stack.postgres.pid)):
        figures.add(f"memory_{name}", proportional_mib(pid), "MiB", note="all its processes; shared pages count once")
