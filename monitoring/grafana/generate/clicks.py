"""The way of a click: redirect, stream, worker, database."""

from __future__ import annotations

from .model import Dashboard, Panel, Query, Row, Steps
from .parts import (
    WINDOW,
    ZERO_IS_GOOD,
    cpu_of_processes,
    errors_in_log,
    increase,
    memory_of_processes,
    quantiles,
    rate,
    stat,
)

LOSS = Row(
    "Are clicks lost?",
    (
        stat(
            "Clicks lost today",
            "Clicks that will never be recorded, over 24 h: a buffer or the spool was full, or the spool could not be written.",
            "short",
            increase("linnet_clicks_dropped_total", window="24h"),
            steps=ZERO_IS_GOOD,
            decimals=0,
            runbook="clicks#clicksdropped",
        ),
        stat(
            "Dead letters",
            "Batches that could not be written and were put aside, as the stream of dead letters holds them now. Not 0: they need a "
            "person.",
            "none",
            "max(linnet_clicks_stream_dead)",
            steps=ZERO_IS_GOOD,
            runbook="clicks#clickdeadletters",
        ),
        stat(
            "Oldest unwritten click",
            "How far statistics lag behind. Seconds are normal.",
            "s",
            "max(linnet_clicks_stream_lag_seconds)",
            steps=Steps(warn=60, bad=300),
            decimals=0,
            runbook="clicks#clickstreamlag",
        ),
        stat(
            "In the spools",
            "Clicks in files, because Redis does not take them. They go first once it does; until then they fill the disk.",
            "bytes",
            "sum(linnet_clicks_spool_bytes)",
            steps=Steps(warn=1),
            more="linnet-redis",
            runbook="clicks#clickspoolfilling",
        ),
        stat(
            "Workers",
            "How many answer scrapes. None: clicks wait in the stream, then in the spools, and are lost when those are full.",
            "none",
            'sum(up{job="worker"})',
            steps=Steps(bad=1, falling=True),
            runbook="worker-down",
        ),
        stat(
            "Not yet written",
            "Clicks accepted in the last hour less those written and lost. Near 0 with a steady flow; what waits is in the stream or "
            "the spools. A restart of a process makes it inexact.",
            "short",
            f"{increase('linnet_clicks_accepted_total', window='1h')} - {increase('linnet_clicks_ingested_total', window='1h')}"
            f" - {increase('linnet_clicks_dropped_total', window='1h')}",
            decimals=0,
        ),
        Panel(
            "Clicks lost, by reason",
            "`spool_full`: Redis was away for too long; `spool_unusable`: the spool's folder can't be written; `buffer_full`: the "
            "publisher stood still. All of them should be 0.",
            "ops",
            (Query(rate("linnet_clicks_dropped_total", "", "reason"), "{{reason}}"),),
            least=0,
            runbook="clicks#clicksdropped",
        ),
        Panel(
            "Accepted, published, written",
            "The three lines lie on each other when all is well. Published below accepted: Redis; written below published: the "
            "workers or PostgreSQL.",
            "ops",
            (
                Query(rate("linnet_clicks_accepted_total"), "accepted"),
                Query(rate("linnet_clicks_published_total"), "published"),
                Query(rate("linnet_clicks_ingested_total"), "written"),
            ),
            least=0,
        ),
        Panel(
            "Written clicks by kind",
            "People, bots, prefetches of browsers, and HEAD requests. A sudden share of bots explains a sudden load.",
            "ops",
            (Query(rate("linnet_clicks_ingested_total", "", "kind"), "{{kind}}"),),
            stacked=True,
            least=0,
        ),
    ),
)

STREAM = Row(
    "Where do they wait?",
    (
        Panel(
            "Age of the oldest unwritten batch",
            "Rises by a second a second when nothing is written at all, and slower when the workers are merely too few.",
            "s",
            (Query("max(linnet_clicks_stream_lag_seconds)", "lag"),),
            steps=Steps(warn=60, bad=300),
            least=0,
            runbook="clicks#clickstreamlag",
        ),
        Panel(
            "Batches in the stream",
            "Undelivered: no worker has taken them. Pending: taken and not acknowledged. Many pending that do not move: a worker hangs "
            "or PostgreSQL refuses.",
            "short",
            (
                Query("max(linnet_clicks_stream_undelivered)", "undelivered"),
                Query("max(linnet_clicks_stream_pending)", "pending"),
                Query("max(linnet_clicks_stream_dead)", "dead letters"),
            ),
            least=0,
        ),
        Panel(
            "Size of the stream",
            "In Redis. Beyond `clicks.stream_bytes` (64 MiB unless set otherwise) clicks go to the spools instead.",
            "bytes",
            (Query("max(linnet_clicks_stream_bytes)", "stream"),),
            steps=Steps(bad=64 * 1024 * 1024),
            least=0,
            more="linnet-redis",
        ),
        Panel(
            "Size of the spools",
            "Files of each shortener. Each is bounded by `clicks.spool_bytes` (256 MiB unless set otherwise); then clicks are lost.",
            "bytes",
            (Query("linnet_clicks_spool_bytes", "{{instance}}"),),
            steps=Steps(bad=256 * 1024 * 1024),
            least=0,
            runbook="clicks#clickspoolfilling",
        ),
        Panel(
            "Clicks sent to the spools",
            "The stream did not take them. Only faults fill this: Redis is away, refuses writes, or the stream is full.",
            "ops",
            (Query(rate("linnet_clicks_spooled_total", "", "instance"), "{{instance}}"),),
            least=0,
            empty="none so far",
            more="linnet-redis",
        ),
        Panel(
            "Batches taken over and repeated",
            "Taken over: another worker held them for too long, as after a crash. Repeated: they came again and changed nothing.",
            "ops",
            (
                Query(rate("linnet_clicks_claimed_batches_total"), "taken over"),
                Query(rate("linnet_clicks_duplicate_batches_total"), "repeated"),
            ),
            least=0,
        ),
    ),
)

WHY = Row(
    "Why?",
    (
        Panel(
            "Time to publish",
            "What a shortener needs to pack and send what its buffers held. Near the flush interval (200 ms) buffers fill up.",
            "s",
            quantiles("linnet_clicks_flush_duration_seconds"),
            least=0,
            more="linnet-redis",
        ),
        Panel(
            "Clicks of a batch",
            "Small ones are normal with little traffic. At 1,000 batches are full and leave early.",
            "short",
            quantiles("linnet_clicks_batch_size"),
            least=0,
        ),
        Panel(
            "Time to write a group",
            "What a worker needs to write a group of batches and to acknowledge it. Seconds: PostgreSQL is slow or waits for locks.",
            "s",
            quantiles("linnet_clicks_ingest_duration_seconds"),
            least=0,
            more="linnet-postgres",
        ),
        Panel(
            "Clicks of a group",
            "Clicks that are written in one transaction. Large groups with a growing lag: the workers are at their limit, start another.",
            "short",
            quantiles("linnet_clicks_ingest_group_size"),
            least=0,
        ),
        Panel(
            "Groups tried again",
            "PostgreSQL was away or refused for a moment. Only faults fill this.",
            "ops",
            (Query(rate("linnet_clicks_ingest_retries_total", "", "instance"), "{{instance}}"),),
            least=0,
            empty="none so far",
            more="linnet-postgres",
        ),
        Panel(
            "Clicks put aside as dead letters",
            "Clicks of batches that PostgreSQL refused for good or that could not be read. Only faults fill this.",
            "short",
            (
                Query(increase("linnet_clicks_dead_letter_clicks_total"), "clicks"),
                Query(increase("linnet_clicks_dead_letters_total"), "batches"),
            ),
            least=0,
            empty="none so far",
            runbook="clicks#clickdeadletters",
        ),
        cpu_of_processes("worker"),
        memory_of_processes("worker"),
        Panel(
            "Log lines lost",
            "Lines that a worker dropped because its standard output was slow or gone. Not 0: the log has holes.",
            "ops",
            (Query(f'rate(log_lines_dropped_total{{job="worker"}}[{WINDOW}])', "{{instance}}"),),
            least=0,
            more="linnet-logs",
            runbook="logs#loglinesdropped",
        ),
        errors_in_log("worker"),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-clicks",
    title="Linnet: clicks",
    description="From the redirect through Redis and the workers into PostgreSQL: is anything lost, and where does it wait?",
    rows=(LOSS, STREAM, WHY),
)
