"""Redirects: the shorteners' public listener and the caches behind it."""

from __future__ import annotations

from .model import Dashboard, Panel, Query, Row, Steps
from .parts import (
    DURATION,
    LIVE_OR_CUT,
    REDIRECT,
    WINDOW,
    ZERO_IS_GOOD,
    cpu_of_processes,
    errors_in_log,
    fast_share,
    good_share,
    memory_of_processes,
    quantile,
    quantiles,
    rate,
    stat,
)

LOOKUPS = "linnet_cache_lookups_total"
FROM_DATABASE = rate(LOOKUPS, 'tier="database"')

SUFFER = Row(
    "Do visitors suffer?",
    (
        stat(
            "Redirects a second",
            "Answers to visitors of short links, whatever they are. Far below the usual at this hour: look at nginx and the network.",
            "reqps",
            rate("linnet_resolve_answers_total"),
            decimals=1,
            more="linnet-nginx",
        ),
        stat(
            "Answered without a 5xx",
            "Over the last hour. The objective is 99.95 %.",
            "percentunit",
            good_share(REDIRECT, "1h"),
            steps=Steps(warn=0.9999, bad=0.9995, falling=True),
            decimals=3,
            runbook="error-budget",
        ),
        stat(
            "Within 10 ms",
            "Over the last hour, at the shorteners. The objective is 99 %.",
            "percentunit",
            fast_share(REDIRECT, "0.01", "1h"),
            steps=Steps(warn=0.995, bad=0.99, falling=True),
            decimals=2,
            runbook="error-budget",
        ),
        stat(
            "Shorteners",
            "How many answer scrapes. None: there are no redirects at all.",
            "none",
            'sum(up{job="shortener"})',
            steps=Steps(bad=1, falling=True),
            runbook="shortener-down",
        ),
        stat(
            "Change feed",
            "Whether every shortener hears of changes. Cut: each caches a link for less than a second and asks the database more.",
            "none",
            "min(linnet_change_feed_live)",
            meanings=LIVE_OR_CUT,
            runbook="change-feed",
        ),
        stat(
            "Redis links down",
            "Links of the shorteners to Redis whose breaker is open. Redirects go on from memory and PostgreSQL.",
            "none",
            'sum(linnet_redis_links{state="down"})',
            steps=ZERO_IS_GOOD,
            more="linnet-redis",
            runbook="redis-down",
        ),
        Panel(
            "Answers by outcome",
            "`unknown`, `expired`, `inactive`, `used_up` are links that lead nowhere; `too_many_misses` clients that guess codes; "
            "`unavailable` is our fault: the database did not answer and no cache knew.",
            "reqps",
            (Query(rate("linnet_resolve_answers_total", "", "outcome"), "{{outcome}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Time to answer",
            "At the shorteners. The 95 % line rises when look-ups miss the caches, the half line when the processes lack CPU.",
            "s",
            quantiles(DURATION, REDIRECT),
            steps=Steps(bad=0.01),
            least=0,
        ),
        Panel(
            "Time to answer by instance, 95 %",
            "One line far above the others: that process is new (cold cache), overloaded, or far from its database.",
            "s",
            (Query(quantile(0.95, DURATION, REDIRECT, "instance"), "{{instance}}"),),
            least=0,
        ),
    ),
)

CACHE = Row(
    "Do the caches do their work?",
    (
        Panel(
            "Look-ups by tier",
            "`local` is the process's memory, `shared` Redis, `database` PostgreSQL, `coalesced` those that waited for another's "
            "look-up of the same link.",
            "ops",
            (Query(rate(LOOKUPS, "", "tier"), "{{tier}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Answered without the database",
            "Share of look-ups that a cache or another's look-up answered. Below 80 % for an hour: caches are too small, cold, or cut "
            "from news.",
            "percentunit",
            (Query(f"1 - {FROM_DATABASE} / ({rate(LOOKUPS)} > 0)", "hit ratio"),),
            steps=Steps(bad=0.8, falling=True),
            least=0,
            most=1,
            runbook="redis-memory#cachehitratiolow",
        ),
        Panel(
            "Look-ups in the database by instance",
            "What the caches do not take from PostgreSQL. A single high line is a cold process.",
            "ops",
            (Query(rate(LOOKUPS, 'tier="database"', "instance"), "{{instance}}"),),
            least=0,
            more="linnet-postgres",
        ),
        Panel(
            "Links in the local caches",
            "Falling to 0 and rising again: a restart. Flat at its ceiling with a bad hit ratio: it is too small for the links in use.",
            "short",
            (Query("linnet_cache_local_entries", "{{instance}}"),),
            least=0,
        ),
        Panel(
            "Size of the local caches",
            "Part of the process's memory; `cache.local_bytes` bounds it.",
            "bytes",
            (Query("linnet_cache_local_bytes", "{{instance}}"),),
            least=0,
        ),
        Panel(
            "Links loaded at start",
            "Links that a process took from the database before it took traffic. 0: it began cold and its first minutes are slow.",
            "short",
            (Query("linnet_cache_warmed_total", "{{instance}}"),),
            least=0,
        ),
    ),
)

WHY = Row(
    "Why?",
    (
        Panel(
            "Change feed by instance",
            "Whether the process hears of changed links. Cut for long: Redis is away, or the network between.",
            "none",
            (Query("linnet_change_feed_live", "{{instance}}"),),
            kind="state-timeline",
            meanings=LIVE_OR_CUT,
            height=8,
            runbook="change-feed",
        ),
        Panel(
            "Look-ups that went on without Redis",
            "Redis was away or failed, so the database was asked. Only faults fill this.",
            "ops",
            (Query(rate("linnet_cache_shared_errors_total", "", "instance"), "{{instance}}"),),
            least=0,
            empty="none so far",
            more="linnet-redis",
            runbook="redis-down",
        ),
        Panel(
            "Changes told late",
            "Changes that the outbox told because Redis could not be told at once. Only faults fill this; it ends when Redis is back.",
            "ops",
            (Query(rate("linnet_cache_caught_up_total", "", "instance"), "{{instance}}"),),
            least=0,
            empty="none so far",
            more="linnet-redis",
            runbook="redis-down",
        ),
        Panel(
            "Database connections for redirects",
            "Connections in use, and how many there may be. When the lines meet, look-ups wait and then fail.",
            "short",
            (
                Query('sum by (instance) (linnet_db_connections{pool="resolve",state="used"})', "{{instance}} used"),
                Query('max by (instance) (linnet_db_connections_max{pool="resolve"})', "{{instance}} most"),
            ),
            least=0,
            more="linnet-postgres",
            runbook="postgres-load#databasepoolexhausted",
        ),
        cpu_of_processes("shortener"),
        memory_of_processes("shortener"),
        Panel(
            "Log lines lost",
            "Lines that the process dropped because its standard output was slow or gone. Not 0: the log has holes.",
            "ops",
            (Query(f'rate(log_lines_dropped_total{{job="shortener"}}[{WINDOW}])', "{{instance}}"),),
            least=0,
            more="linnet-logs",
            runbook="logs#loglinesdropped",
        ),
        Panel(
            "Open files",
            "Share of the descriptors that the process may open; nearly all are connections. Near 100 % it refuses connections.",
            "percentunit",
            (Query('process_open_fds{job="shortener"} / process_max_fds{job="shortener"}', "{{instance}}"),),
            steps=Steps(warn=0.8, bad=0.95),
            least=0,
            most=1,
        ),
        Panel(
            "Threads",
            "Threads of the process. The number is fixed by its configuration but for short-lived blocking work; a steady rise is a fault.",
            "short",
            (Query('process_threads{job="shortener"}', "{{instance}}"),),
            least=0,
        ),
        errors_in_log("shortener"),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-resolve",
    title="Linnet: resolve and cache",
    description="Redirects at the shorteners, the caches before the database, and what they wait for.",
    rows=(SUFFER, CACHE, WHY),
)
