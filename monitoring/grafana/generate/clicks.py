"""The click pipeline: redirect, stream, worker, database."""

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
            "Clicks lost in 24 h",
            "Clicks that will never be recorded: a buffer or the spool was full, or the spool was not writable.",
            "short",
            increase("linnet_clicks_dropped_total", window="24h"),
            steps=ZERO_IS_GOOD,
            decimals=0,
            runbook="clicks#clicksdropped",
        ),
        stat(
            "Dead letters",
            "Click batches in the dead-letter stream, which workers could not write. Not 0: the operator must act.",
            "none",
            "max(linnet_clicks_stream_dead)",
            steps=ZERO_IS_GOOD,
            runbook="clicks#clickdeadletters",
        ),
        stat(
            "Click lag",
            "Delay of statistics: age of the oldest click that is not in PostgreSQL. Some seconds are normal.",
            "s",
            "max(linnet_clicks_stream_lag_seconds)",
            steps=Steps(warn=60, bad=300),
            decimals=0,
            runbook="clicks#clickstreamlag",
        ),
        stat(
            "In the spools",
            "Clicks in spool files, because Redis does not accept them. They are sent first when it does. Until then "
            "they use disk space.",
            "bytes",
            "sum(linnet_clicks_spool_bytes)",
            steps=Steps(warn=1),
            more="linnet-redis",
            runbook="clicks#clickspoolfilling",
        ),
        stat(
            "Workers",
            "Workers that respond to Prometheus. 0: clicks wait in the stream, then in the spools, and are lost when "
            "the spools are full.",
            "none",
            'sum(up{job="worker"})',
            steps=Steps(bad=1, falling=True),
            runbook="worker-down",
        ),
        stat(
            "Not yet written",
            "Clicks accepted in the last hour, minus those written and lost. Near 0 with a steady flow; the rest waits "
            "in the stream or the spools. Inexact after a restart.",
            "short",
            f"{increase('linnet_clicks_accepted_total', window='1h')} - {increase('linnet_clicks_ingested_total', window='1h')}"
            f" - {increase('linnet_clicks_dropped_total', window='1h')}",
            decimals=0,
        ),
        Panel(
            "Lost clicks by reason",
            "`spool_full`: Redis was unreachable for too long. `spool_unusable`: the spool's directory is not "
            "writable. `buffer_full`: the publisher stalled. All should be 0.",
            "ops",
            (Query(rate("linnet_clicks_dropped_total", "", "reason"), "{{reason}}"),),
            least=0,
            runbook="clicks#clicksdropped",
        ),
        Panel(
            "Accepted, published, written",
            "Equal when everything works. Published below accepted: Redis. Written below published: the workers or "
            "PostgreSQL.",
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
            "People, bots, browser prefetches, HEAD requests. A sudden share of bots explains a sudden load.",
            "ops",
            (Query(rate("linnet_clicks_ingested_total", "", "kind"), "{{kind}}"),),
            stacked=True,
            least=0,
        ),
    ),
)

STREAM = Row(
    "Where do clicks wait?",
    (
        Panel(
            "Age of the oldest unwritten batch",
            "Rises by one second per second when no worker writes, and more slowly when the workers are too few.",
            "s",
            (Query("max(linnet_clicks_stream_lag_seconds)", "lag"),),
            steps=Steps(warn=60, bad=300),
            least=0,
            runbook="clicks#clickstreamlag",
        ),
        Panel(
            "Batches in the stream",
            "Undelivered: no worker has read them. Pending: read and not acknowledged. A constant number pending: a "
            "worker hangs, or PostgreSQL does not accept them.",
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
            "In Redis. Beyond `clicks.stream_bytes` (default 64 MiB), clicks go to the spools.",
            "bytes",
            (Query("max(linnet_clicks_stream_bytes)", "stream"),),
            steps=Steps(bad=64 * 1024 * 1024),
            least=0,
            more="linnet-redis",
        ),
        Panel(
            "Size of the spools",
            "Spool of each shortener. Beyond `clicks.spool_bytes` (default 256 MiB), clicks are lost.",
            "bytes",
            (Query("linnet_clicks_spool_bytes", "{{instance}}"),),
            steps=Steps(bad=256 * 1024 * 1024),
            least=0,
            runbook="clicks#clickspoolfilling",
        ),
        Panel(
            "Clicks sent to the spools",
            "Redis was unreachable or refused writes, or the stream was full. Only faults cause these.",
            "ops",
            (Query(rate("linnet_clicks_spooled_total", "", "instance"), "{{instance}}"),),
            least=0,
            empty="none",
            more="linnet-redis",
        ),
        Panel(
            "Batches taken over and repeated",
            "Taken over: another worker held them too long, for example after a crash. Repeated: delivered again and "
            "ignored.",
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
            "Publish duration",
            "Time for a shortener to pack its buffers and send them. Near the flush interval (200 ms) buffers fill up.",
            "s",
            quantiles("linnet_clicks_flush_duration_seconds"),
            least=0,
            more="linnet-redis",
        ),
        Panel(
            "Clicks per batch",
            "Small batches are normal with little traffic. At 1,000 clicks a batch is full and is sent early.",
            "short",
            quantiles("linnet_clicks_batch_size"),
            least=0,
        ),
        Panel(
            "Write duration of a group",
            "Time for a worker to write a group of batches and acknowledge it. Seconds: PostgreSQL is slow or waits "
            "for locks.",
            "s",
            quantiles("linnet_clicks_ingest_duration_seconds"),
            least=0,
            more="linnet-postgres",
        ),
        Panel(
            "Clicks per group",
            "Clicks written in one transaction. Large groups with a growing lag: the workers are at their limit, start "
            "another one.",
            "short",
            quantiles("linnet_clicks_ingest_group_size"),
            least=0,
        ),
        Panel(
            "Retried groups",
            "PostgreSQL was unreachable or failed temporarily. Only faults cause these.",
            "ops",
            (Query(rate("linnet_clicks_ingest_retries_total", "", "instance"), "{{instance}}"),),
            least=0,
            empty="none",
            more="linnet-postgres",
        ),
        Panel(
            "Clicks in new dead letters",
            "Batches that could not be decoded, or that PostgreSQL rejected permanently. Only faults cause these.",
            "short",
            (
                Query(increase("linnet_clicks_dead_letter_clicks_total"), "clicks"),
                Query(increase("linnet_clicks_dead_letters_total"), "batches"),
            ),
            least=0,
            empty="none",
            runbook="clicks#clickdeadletters",
        ),
        cpu_of_processes("worker"),
        memory_of_processes("worker"),
        Panel(
            "Dropped log lines",
            "Log lines that a worker dropped, because its standard output was slow or closed. Not 0: the log has gaps.",
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
    description="The click pipeline: redirect, Redis, worker, PostgreSQL. Are clicks lost, and where do they wait?",
    rows=(LOSS, STREAM, WHY),
)
