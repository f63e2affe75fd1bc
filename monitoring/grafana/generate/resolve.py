"""Redirects: the shorteners' resolve listener and its caches."""

from __future__ import annotations

from .model import Dashboard, Panel, Query, Row, Steps
from .parts import (
    DURATION,
    LIVE_OR_STALE,
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
    "Are visitors affected?",
    (
        stat(
            "Redirects per second",
            "All responses to visitors of short links. Far below the usual rate for this hour: check nginx and the "
            "network.",
            "reqps",
            rate("linnet_resolve_responses_total"),
            decimals=1,
            more="linnet-nginx",
        ),
        stat(
            "Without 5xx",
            "Share over the last hour. The objective is 99.95 %.",
            "percentunit",
            good_share(REDIRECT, "1h"),
            steps=Steps(warn=0.9999, bad=0.9995, falling=True),
            decimals=3,
            runbook="error-budget",
        ),
        stat(
            "Within 10 ms",
            "Share over the last hour, measured at the shorteners. The objective is 99 %.",
            "percentunit",
            fast_share(REDIRECT, "0.01", "1h"),
            steps=Steps(warn=0.995, bad=0.99, falling=True),
            decimals=2,
            runbook="error-budget",
        ),
        stat(
            "Shorteners",
            "Shorteners that respond to Prometheus. 0: no short link resolves.",
            "none",
            'sum(up{job="shortener"})',
            steps=Steps(bad=1, falling=True),
            runbook="shortener-down",
        ),
        stat(
            "Invalidation bus",
            "The worst shortener. Stale: it caches links for less than a second and queries PostgreSQL more.",
            "none",
            "min(linnet_invalidation_bus_live)",
            meanings=LIVE_OR_STALE,
            runbook="invalidation-bus",
        ),
        stat(
            "Redis clients down",
            "Redis clients of the shorteners whose circuit breaker is open. Redirects use memory and PostgreSQL.",
            "none",
            'sum(linnet_redis_clients{state="down"})',
            steps=ZERO_IS_GOOD,
            more="linnet-redis",
            runbook="redis-down",
        ),
        Panel(
            "Responses by outcome",
            "`unknown`, `expired`, `inactive`, `used_up`: links without a target. `too_many_misses`: clients that "
            "guess codes. `unavailable`: a fault of Linnet, no cache had the link and PostgreSQL did not respond.",
            "reqps",
            (Query(rate("linnet_resolve_responses_total", "", "outcome"), "{{outcome}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Response duration",
            "At the shorteners. A rising p95: lookups miss the caches. A rising p50: the processes lack CPU.",
            "s",
            quantiles(DURATION, REDIRECT),
            steps=Steps(bad=0.01),
            least=0,
        ),
        Panel(
            "Response duration by instance, p95",
            "One line far above the others: that process has a cold cache, is overloaded, or is far from its database.",
            "s",
            (Query(quantile(0.95, DURATION, REDIRECT, "instance"), "{{instance}}"),),
            least=0,
        ),
    ),
)

CACHE = Row(
    "Do the caches work?",
    (
        Panel(
            "Lookups by tier",
            "`local`: L1, the process's memory. `shared`: L2, Redis. `database`: PostgreSQL. `coalesced`: joined an "
            "in-flight lookup of the same link.",
            "ops",
            (Query(rate(LOOKUPS, "", "tier"), "{{tier}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Hit ratio",
            "Share of lookups that did not query PostgreSQL. Below 80 % for an hour: caches are too small, cold, or "
            "the invalidation bus is stale.",
            "percentunit",
            (Query(f"1 - {FROM_DATABASE} / ({rate(LOOKUPS)} > 0)", "hit ratio"),),
            steps=Steps(bad=0.8, falling=True),
            least=0,
            most=1,
            runbook="redis-memory#cachehitratiolow",
        ),
        Panel(
            "Database lookups by instance",
            "Lookups that reached PostgreSQL. A single high line is a process with a cold cache.",
            "ops",
            (Query(rate(LOOKUPS, 'tier="database"', "instance"), "{{instance}}"),),
            least=0,
            more="linnet-postgres",
        ),
        Panel(
            "Links in L1",
            "A drop to 0 is a restart. Flat at its maximum with a low hit ratio: L1 is too small for the links in use.",
            "short",
            (Query("linnet_cache_l1_entries", "{{instance}}"),),
            least=0,
        ),
        Panel(
            "Size of L1",
            "Part of the process's memory, bounded by `cache.l1_bytes`.",
            "bytes",
            (Query("linnet_cache_l1_bytes", "{{instance}}"),),
            least=0,
        ),
        Panel(
            "Links loaded at startup",
            "Links that a process loaded from PostgreSQL before it became ready. 0: it started with a cold cache, and "
            "its first minutes are slow.",
            "short",
            (Query("linnet_cache_warmup_links_total", "{{instance}}"),),
            least=0,
        ),
    ),
)

WHY = Row(
    "Why?",
    (
        Panel(
            "Invalidation bus by instance",
            "Whether a process receives invalidations of changed links. Stale for long: Redis is unreachable, or the "
            "network fails.",
            "none",
            (Query("linnet_invalidation_bus_live", "{{instance}}"),),
            kind="state-timeline",
            meanings=LIVE_OR_STALE,
            height=8,
            runbook="invalidation-bus",
        ),
        Panel(
            "Lookups without L2",
            "Redis was unreachable or failed, so the lookup queried PostgreSQL. Only faults cause these.",
            "ops",
            (Query(rate("linnet_cache_l2_errors_total", "", "instance"), "{{instance}}"),),
            least=0,
            empty="none",
            more="linnet-redis",
            runbook="redis-down",
        ),
        Panel(
            "Invalidations published by the relay",
            "Changes that the outbox relay published, because Redis was unreachable when they were made, and new "
            "connections to Redis that were not used, because these changes could not be published. Only faults "
            "cause either.",
            "ops",
            (
                Query(rate("linnet_outbox_relayed_total", "", "instance"), "{{instance}}"),
                Query(rate("linnet_outbox_refused_connections_total", "", "instance"), "{{instance}} refused"),
            ),
            least=0,
            empty="none",
            more="linnet-redis",
            runbook="redis-down",
        ),
        Panel(
            "Database connections for redirects",
            "Connections in use and their maximum. When the lines meet, lookups wait and then fail.",
            "short",
            (
                Query('sum by (instance) (linnet_db_connections{pool="resolve",state="used"})', "{{instance}} used"),
                Query('max by (instance) (linnet_db_connections_max{pool="resolve"})', "{{instance}} maximum"),
            ),
            least=0,
            more="linnet-postgres",
            runbook="postgres-load#databasepoolexhausted",
        ),
        cpu_of_processes("shortener"),
        memory_of_processes("shortener"),
        Panel(
            "Dropped log lines",
            "Log lines that the process dropped, because its standard output was slow or closed. Not 0: the log has "
            "gaps.",
            "ops",
            (Query(f'rate(log_lines_dropped_total{{job="shortener"}}[{WINDOW}])', "{{instance}}"),),
            least=0,
            more="linnet-logs",
            runbook="logs#loglinesdropped",
        ),
        Panel(
            "Open files",
            "Used share of file descriptors, most of them connections. Near 100 % the process refuses connections.",
            "percentunit",
            (Query('process_open_fds{job="shortener"} / process_max_fds{job="shortener"}', "{{instance}}"),),
            steps=Steps(warn=0.8, bad=0.95),
            least=0,
            most=1,
        ),
        Panel(
            "Threads",
            "Threads of the process. Its settings determine the number, except for short blocking tasks. A steady rise "
            "is a fault.",
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
    description="Redirects at the shorteners, their caches, and the causes of delays.",
    rows=(SUFFER, CACHE, WHY),
)
