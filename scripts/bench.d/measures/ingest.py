"""How fast a worker empties the stream, next to COPY of the same rows into a table of the same shape; and what waits takes.

COPY gets the rows as the worker does, in the order of time. The worker puts those of a group in the order of links first, which
the index by link likes; what COPY makes of rows in that order is told beside it."""

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
        # Rows of the round are those on its links.
        first = int(stack.sql("SELECT COALESCE(max(id), 0) + 1 FROM urls"))
        stack.generate(size.warm_links, size.ingest_clicks, 1, turn, "--to-stream")
        memory.append(stream_mib(stack) * 1_000_000 / size.ingest_clicks)
        wanted = stack.recorded() + size.ingest_clicks
        stack.as_superuser("CHECKPOINT")
        start = time.monotonic()
        worker = stack.start_worker("worker-ingest")
        recorded = stack.wait_recorded(wanted, DRAIN_S)
        if recorded != wanted:
            raise BenchError(f"{recorded:,} clicks are recorded instead of {wanted:,}")
        ours.append(size.ingest_clicks / (time.monotonic() - start))
        stack.processes.stop(worker)
        copied.append(copy(stack, first, size.ingest_clicks, "clicked_at, id"))
        # As they stand in the table: numbered in the order in which the worker wrote them.
        by_link.append(copy(stack, first, size.ingest_clicks, "id"))
        say(f"  round {turn + 1}: {memory[-1]:.1f} MiB a million, worker {ours[-1]:,.0f} rows/s, COPY {copied[-1]:,.0f} rows/s, "
            f"by link {by_link[-1]:,.0f} rows/s")
    figures = bench.figures
    figures.add("clicks_redis_per_million", median(memory), "MiB", at_most=64, note="the stream, before a worker takes from it")
    figures.add("ingest", median(ours), "clicks/s", note="one worker, its start included")
    figures.add("ingest_copy", median(copied), "rows/s", note="the raw rows only, in the order of time")
    figures.add("ingest_copy_by_link", median(by_link), "rows/s", note="the same, as the worker sorts them")
    figures.add("ingest_ratio", median_ratio(ours, copied), "of COPY", at_least=0.3)


def stream_mib(stack) -> float:
    answer = stack.redis_command("MEMORY", "USAGE", "linnet:clicks", "SAMPLES", "0")
    if not answer.startswith(":"):
        raise BenchError(f"Redis does not tell the stream's size: {answer}")
    return int(answer[1:]) / 1024 / 1024


def copy(stack, first: int, rows: int, order: str) -> float:
    """Rows a second of COPY of rows in this order, with the columns as they are: partitions by day, primary key, index."""
    file = stack.folder / "clicks.copy"
    stack.sql(f"\\copy (SELECT * FROM clicks WHERE url_id >= {first} ORDER BY {order}) TO '{file}' (FORMAT binary)")
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
        raise BenchError("COPY has not copied what the worker wrote")
    stack.sql("DROP TABLE copied")
    file.unlink()
    return rows / took
