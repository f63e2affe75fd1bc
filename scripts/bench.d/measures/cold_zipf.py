"""Cold caches, two shorteners, one list of Zipf draws sent once: the number of PostgreSQL lookups for each code."""

from __future__ import annotations

import time

from figures import say
from processes import BenchError

from .peak import add_shares

FIGURES = ("cold_zipf_rate", "cold_zipf_distinct_codes", "cold_zipf_database_lookups", "cold_zipf_index_scans",
           "cold_zipf_lookups_per_code", "cold_zipf_failed_requests", "cold_zipf_share_*", "cold_zipf_memory_*")


def run(bench) -> None:
    stack, size = bench.stack, bench.size
    draws, distinct = bench.tools.draw(size.links, size.cold_draws, seed=7)
    shorteners = [stack.start_shortener(f"shortener-cold{number}", LINNET__CACHE__WARMUP_LINKS="0") for number in (1, 2)]
    nginx, address = stack.start_nginx("nginx-cold", [s.resolve for s in shorteners], bench.gateway_socket)
    if stack.redis_command("FLUSHALL") != "+OK":
        raise BenchError("cannot empty Redis")
    if sum(sum(s.lookups().values()) for s in shorteners) != 0:
        raise BenchError("a cold process has already made lookups")
    scans_before = index_scans(stack)
    report = bench.tools.replay(address, draws)
    per_process = [s.lookups() for s in shorteners]
    tiers = {tier: sum(p.get(tier, 0.0) for p in per_process) for tier in ("local", "shared", "database", "coalesced")}
    memory = [bench.resident(s.process.pid) for s in shorteners]
    # A PostgreSQL session reports its scans when it ends or a few seconds later.
    for process in (nginx, *(s.process for s in shorteners)):
        stack.processes.stop(process)
    scans = index_scans(stack) - scans_before
    say("  " + "; ".join(str({tier: int(count) for tier, count in p.items()}) for p in per_process))

    figures = bench.figures
    sent = size.cold_draws / report["seconds"]
    figures.add("cold_zipf_rate", sent, "req/s", note=f"{size.cold_draws:,} requests over {size.links:,} links")
    figures.add("cold_zipf_distinct_codes", distinct, "codes")
    figures.add("cold_zipf_database_lookups", tiers["database"], "lookups")
    figures.add("cold_zipf_index_scans", scans, "scans", note="counted by PostgreSQL")
    # The larger count, so that neither a metric that misses lookups nor a query that bypasses it improves the figure.
    figures.add("cold_zipf_lookups_per_code", max(tiers["database"], scans) / distinct, "lookups/code", at_most=1.02)
    figures.add("cold_zipf_failed_requests", report["wrong_target"] + report["other_status"] + report["failed"], "requests", at_most=0)
    add_shares(figures, "cold_zipf_share", tiers)
    for number, mib in enumerate(memory, 1):
        figures.add(f"cold_zipf_memory_{number}", mib, "MiB", note="at the end of the part")


def index_scans(stack) -> int:
    """Scans of the index on codes, when the count no longer changes."""
    query = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'urls_short_code_key'"
    last, still_since, deadline = -1, 0.0, time.monotonic() + 30
    while time.monotonic() < deadline:
        now = int(stack.sql(query))
        if now != last:
            last, still_since = now, time.monotonic()
        elif time.monotonic() - still_since > 3:
            return now
        time.sleep(0.2)
    raise BenchError("PostgreSQL's count of index scans still changes after 30 s")
