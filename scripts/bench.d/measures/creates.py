"""Links created through nginx and gateway, compared with pgbench and the store's statement."""

from __future__ import annotations

from figures import median, median_ratio, say
from processes import cpu_us

FIGURES = ("creates_pgbench", "creates", "creates_ratio", "creates_failed_requests", "creates_cpu_*")

CONNECTIONS = 32

# The statement of `insert_link` in crates/store/src/links/create.rs, with values computed here instead of bound.
INSERT = r"""
\set n random(1, 1000000000000000)
WITH made AS (
  INSERT INTO urls (user_id, short_code, original_url, title, is_active, redirect_status, expires_at, max_clicks)
  VALUES (:uid, 'b' || to_hex(:n::bigint), 'https://www.example.com/articles/pgbench-' || :n::bigint, NULL, true, 302, NULL, NULL)
  ON CONFLICT (short_code) DO NOTHING
  RETURNING *
), event AS (
  INSERT INTO events (url_id, user_id, event_type, details)
  SELECT id, user_id, 'created', jsonb_build_object('short_code', short_code, 'original_url', original_url) FROM made
)
SELECT id, user_id, short_code, original_url, title, is_active, redirect_status, expires_at, max_clicks, clicks, version,
       created_at, updated_at, NULL::bigint AS outbox_id FROM made;
"""


def run(bench) -> None:
    tools, size = bench.tools, bench.size
    ours, pgbench, errors = [], [], 0
    servers = {"postgres": bench.stack.postgres.pid, "shortener": bench.shortener.process.pid, "gateway": bench.gateway.pid,
               "redis": bench.stack.redis.pid, "nginx": bench.nginx.pid}
    spent: dict[str, list[float]] = {name: [] for name in ("pgbench_postgres", *servers)}
    before = int(bench.stack.sql("SELECT count(*) FROM urls"))
    answered = 0.0
    tools.wrk_create(bench.address, bench.key, "warm", 1, CONNECTIONS)
    tools.pgbench(INSERT, bench.user_id, 1, CONNECTIONS)
    for turn in range(size.create_rounds):
        # The WAL of one side must not be flushed during the turn of the other.
        bench.stack.as_superuser("CHECKPOINT")
        before_cpu = cpu_us(bench.stack.postgres.pid)
        pgbench.append(tools.pgbench(INSERT, bench.user_id, size.create_s, CONNECTIONS))
        spent["pgbench_postgres"].append((cpu_us(bench.stack.postgres.pid) - before_cpu) / (pgbench[-1] * size.create_s))
        bench.stack.as_superuser("CHECKPOINT")
        before_each = {name: cpu_us(pid) for name, pid in servers.items()}
        peak = tools.wrk_create(bench.address, bench.key, f"r{turn}", size.create_s, CONNECTIONS)
        for name, pid in servers.items():
            spent[name].append((cpu_us(pid) - before_each[name]) / (peak.rate * size.create_s))
        ours.append(peak.rate)
        errors += peak.errors
        answered += peak.rate * size.create_s
        say(f"  round {turn + 1}: pgbench {pgbench[-1]:,.0f}, Linnet {ours[-1]:,.0f}")
    made = int(bench.stack.sql("SELECT count(*) FROM urls WHERE original_url LIKE 'https://www.example.com/articles/r%'"))
    if made < 0.95 * answered:
        bench.figures.fail("creates_ratio", "of pgbench", ">= 0.5", f"{answered:.0f} requests succeeded, but only {made} links exist (before: {before})")
        return
    figures = bench.figures
    figures.add("creates_pgbench", median(pgbench), "tx/s", note=f"{CONNECTIONS} connections, prepared")
    figures.add("creates", median(ours), "req/s", note=f"{CONNECTIONS} connections")
    figures.add("creates_ratio", median_ratio(ours, pgbench), "of pgbench", at_least=0.5)
    figures.add("creates_failed_requests", errors, "requests", at_most=0)
    for name, values in spent.items():
        figures.add(f"creates_cpu_{name}", median(values), "us/create", note="processor time")
