"""Latency at half of the peak rate, open loop, of Linnet and of the bare handler behind the same nginx configuration, in turns."""

from __future__ import annotations

from figures import median, median_ratio, say

from .peak import peak_of

FIGURES = ("latency_rate", "latency_p50", "latency_p99", "latency_p50_bare", "latency_p99_bare", "latency_p99_ratio",
           "latency_failed_requests")


def run(bench) -> None:
    rate = peak_of(bench) / 2
    ours, bare = [], []
    for turn in range(bench.size.latency_rounds):
        for reports, address in ((bare, bench.bare_address), (ours, bench.address)):
            reports.append(bench.tools.pace(address, bench.zipf, rate, bench.size.latency_s))
        say(f"  round {turn + 1} at {rate:,.0f}/s: bare p99 {bare[-1]['p99_ms']:.3f} ms, Linnet p99 {ours[-1]['p99_ms']:.3f} ms")
    failed = sum(r["wrong_target"] + r["other_status"] + r["failed"] + r["unsent"] for r in ours + bare)

    def of(reports, name):
        return [report[name] for report in reports]

    figures = bench.figures
    figures.add("latency_rate", rate, "req/s", note="half of resolve_zipf")
    figures.add("latency_p50", median(of(ours, "p50_ms")), "ms")
    figures.add("latency_p99", median(of(ours, "p99_ms")), "ms")
    figures.add("latency_p50_bare", median(of(bare, "p50_ms")), "ms")
    figures.add("latency_p99_bare", median(of(bare, "p99_ms")), "ms")
    figures.add("latency_p99_ratio", median_ratio(of(ours, "p99_ms"), of(bare, "p99_ms")), "of bare's", at_most=3)
    figures.add("latency_failed_requests", failed, "requests", at_most=0)
