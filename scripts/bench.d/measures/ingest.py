"""Rate at which a worker ingests the stream, compared with COPY of the same rows; and the memory of the waiting clicks.

COPY gets the rows in the order in which the worker receives them, by time. The worker sorts each group by link, which is faster to
index. `ingest_copy_by_link` is COPY in that order."""

from __future__ import annotations

import time

from figures import median, median_ratio, say
from processes import BenchError

FIGURES = ("clicks_redis_per_million", "ingest", "ingest_copy", "ingest_copy_by_link", "ingest_ratio")

# A million clicks take a worker 10 to 20 s.
DRAIN_S = 600


def run(bench) -> None:
    stack, size = bench.stack, bench.size
    memory, ours, copied, by_link = [], [], [], []
    for turn in range(size.ingest_rounds):
        stack.forget_clicks()
        # This round's rows are those of its links.
        first = int(stack.sql("SELECT COALESCE(max(id), 0) + 1 FROM urls"))
        stack.generate(size.warm_links, size.ingest_clicks, 1, turn, "--to-stream")
        memory.append(stream_mib(stack) * 1_000_000 / size.ingest_clicks)
        wanted = stack.recorded() + size.ingest_clicks
        stack.as_superuser("CHECKPOINT")
        start = time.monotonic()
        worker = stack.start_worker("worker-ingest")
        recorded = stack.wait_recorded(wanted, DRAIN_S)
        if recorded != wanted:
            raise BenchError(f"the worker recorded {recorded:,} clicks instead of {wanted:,}")
        ours.append(size.ingest_clicks / (time.monotonic() - start))
        stack.processes.stop(worker)
        copied.append(copy(stack, first, size.ingest_clicks, "clicked_at, id"))
        # By id, which is the order in which the worker wrote them.
        by_link.append(copy(stack, first, size.ingest_clicks, "id"))
        say(f"  round {turn + 1}: {memory[-1]:.1f} MiB a million, worker {ours[-1]:,.0f} rows/s, COPY {copied[-1]:,.0f} rows/s, "
            f"by link {by_link[-1]:,.0f} rows/s")
    figures = bench.figures
    figures.add("clicks_redis_per_million", median(memory), "MiB", at_most=64, note="size of the stream before a worker starts")
    figures.add("ingest", median(ours), "clicks/s", note="one worker, including its start")
    figures.add("ingest_copy", median(copied), "rows/s", note="raw rows only, in time order")
    figures.add("ingest_copy_by_link", median(by_link), "rows/s", note="the same rows in the worker's order")
    figures.add("ingest_ratio", median_ratio(ours, copied), "of COPY", at_least=0.3)


def stream_mib(stack) -> float:
    answer = stack.redis_command("MEMORY", "USAGE", "linnet:clicks", "SAMPLES", "0")
    if not answer.startswith(":"):
        raise BenchError(f"cannot read the size of the stream: {answer}")
    return int(answer[1:]) / 1024 / 1024


def copy(stack, first: int, rows: int, order: str) -> float:
    """Rows a second of COPY in this order, into a table with a row for each, as clicks were stored before ADR 039."""
    file = stack.folder / "clicks.copy"
    stack.sql(f"\\copy (SELECT * FROM all_clicks WHERE url_id >= {first} ORDER BY {order}) TO '{file}' (FORMAT binary)")
    stack.sql("DROP TABLE IF EXISTS copied")
    stack.sql("CREATE TABLE copied (LIKE clicks INCLUDING ALL) PARTITION BY RANGE (clicked_at)")
    for back in range(3):
        day = f"date_trunc('day', now(), 'UTC') - interval '{back} days'"
        stack.sql(f"""DO $do$ BEGIN EXECUTE format(
            'CREATE TABLE copied_{back} PARTITION OF copied FOR VALUES FROM (%L) TO (%L)', {day}, {day} + interval '1 day');
            END $do$""")
    stack.as_superuser("CHECKPOINT")
    start = time.monotonic()
    stack.sql(f"\\copy copied FROM '{file}' (FORMAT binary)")
    took = time.monotonic() - start
    if int(stack.sql("SELECT count(*) FROM copied")) != rows:
        raise BenchError(f"COPY did not write {rows:,} rows")
    stack.sql("DROP TABLE copied")
    file.unlink()
    return rows / took
