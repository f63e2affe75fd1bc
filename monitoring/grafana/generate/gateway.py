"""The gateway: API requests, keys and rate limits, upstream shorteners."""

from __future__ import annotations

from .model import Column, Dashboard, Meaning, Panel, Query, Row, Steps
from .parts import (
    API,
    DURATION,
    LIVE_OR_STALE,
    UP_OR_DOWN,
    WINDOW,
    ZERO_IS_GOOD,
    cpu_of_processes,
    errors_in_log,
    good_share,
    memory_of_processes,
    quantile,
    quantiles,
    rate,
    stat,
)

BREAKER = (Meaning(0, "closed", "green"), Meaning(1, "half-open", "orange"), Meaning(2, "open", "red"))
HITS, MISSES = "linnet_gateway_auth_cache_hits_total", "linnet_gateway_auth_cache_misses_total"
BEHIND = 'job="shortener",http_route=~"/(api|internal)/.*"'

SUFFER = Row(
    "Are API clients affected?",
    (
        stat(
            "Requests per second",
            "Responses of all gateways. Far below the usual rate for this hour: requests do not arrive, check nginx.",
            "reqps",
            rate(f"{DURATION}_count", API),
            decimals=1,
        ),
        stat(
            "Without 5xx",
            "Share over the last hour. The objective is 99.9 %.",
            "percentunit",
            good_share(API, "1h"),
            steps=Steps(warn=0.9995, bad=0.999, falling=True),
            decimals=3,
            runbook="error-budget",
        ),
        stat(
            "Median duration",
            "Current median over all routes.",
            "s",
            quantile(0.5, DURATION, API),
            steps=Steps(warn=0.1, bad=0.5),
        ),
        stat(
            "Gateways",
            "Gateways that respond to Prometheus. 0: the API and the pages are down, redirects work.",
            "none",
            'sum(up{job="gateway"})',
            steps=Steps(bad=1, falling=True),
            runbook="gateway-down",
        ),
        stat(
            "Healthy shorteners",
            "As seen by the gateway with the fewest. 0: that gateway returns 503 for every API request.",
            "none",
            "min(sum by (instance) (linnet_gateway_upstream_up))",
            steps=Steps(bad=1, falling=True),
            more="linnet-resolve",
            runbook="upstream#upstreamdown",
        ),
        stat(
            "Gateways without Redis",
            "Gateways that count rates alone, because Redis is unreachable. A client may then use its rate limit once "
            "at each gateway.",
            "none",
            "sum(linnet_gateway_limit_fallback)",
            steps=ZERO_IS_GOOD,
            more="linnet-redis",
            runbook="redis-down",
        ),
        Panel(
            "Requests by status",
            "401, 403: missing or insufficient key. 429: rate limit. 499: the client disconnected. 502 to 504: the "
            "shorteners did not respond. 500: a fault of Linnet, see the log.",
            "reqps",
            (Query(rate(f"{DURATION}_count", API, "http_response_status_code"), "{{http_response_status_code}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Response duration",
            "To the end of the response. Exports and live streams are included with their whole duration.",
            "s",
            quantiles(DURATION, API),
            least=0,
        ),
        Panel(
            "Requests in progress",
            "Started and not finished; live streams stay long. A rise with even traffic: a service behind the gateway "
            "is slow.",
            "short",
            (Query('sum by (instance) (http_server_active_requests{job="gateway"})', "{{instance}}"),),
            least=0,
        ),
    ),
)

ROUTES = Row(
    "Which route?",
    (
        Panel(
            "Routes",
            "The last five minutes. Sort by a column to find the slowest, the failing and the busiest route.",
            "none",
            (
                Query(rate(f"{DURATION}_count", API, "http_request_method, http_route", "5m"), instant=True),
                Query(
                    f"histogram_quantile(0.95, {rate(f'{DURATION}_bucket', API, 'http_request_method, http_route, le', '5m')})",
                    instant=True,
                ),
                Query(
                    rate(f"{DURATION}_count", f'{API},http_response_status_code=~"5.."', "http_request_method, http_route", "5m"),
                    instant=True,
                ),
            ),
            kind="table",
            width=12,
            height=10,
            columns=(
                Column("http_request_method", "Method"),
                Column("http_route", "Route"),
                Column("Value #A", "Requests", unit="reqps"),
                Column("Value #B", "p95", unit="s"),
                Column("Value #C", "Failed (5xx)", unit="reqps"),
            ),
        ),
        Panel(
            "Duration by route, p95",
            "One rising line: that route's statements or its users' data. All lines: PostgreSQL or the machine.",
            "s",
            (Query(quantile(0.95, DURATION, API, "http_route"), "{{http_route}}"),),
            width=12,
            height=10,
            least=0,
        ),
        Panel(
            "Failures by route",
            "5xx by route. Only faults cause these.",
            "reqps",
            (
                Query(
                    rate(f"{DURATION}_count", f'{API},http_response_status_code=~"5.."', "http_route, http_response_status_code"),
                    "{{http_route}} {{http_response_status_code}}",
                ),
            ),
            width=12,
            least=0,
            empty="none",
        ),
        Panel(
            "Duration at the shorteners, p95",
            "The same requests, measured by the shorteners. Fast here and slow at the gateway: check the gateway's CPU "
            "and the network.",
            "s",
            (Query(quantile(0.95, DURATION, BEHIND, "instance"), "{{instance}}"),),
            width=12,
            least=0,
        ),
    ),
)

CALLERS = Row(
    "API keys and rate limits",
    (
        Panel(
            "Rejected requests (429)",
            "By the limit that was exceeded. `lookup`: unknown keys; `nginx_…`: refused by nginx. A plateau: a client ignores `Retry-After`.",
            "reqps",
            (Query(rate("linnet_gateway_limited_total", "", "reason"), "{{reason}}"),),
            least=0,
        ),
        Panel(
            "Refused redirects",
            "429 at the resolve listener: clients that request many unknown codes. It uses no error budget.",
            "reqps",
            (Query(rate("linnet_resolve_responses_total", 'outcome="too_many_misses"'), "unknown codes"),),
            least=0,
            runbook="flood",
        ),
        Panel(
            "Open streams, uploads and exports",
            "Slots that requests hold in all shorteners. A plateau: users reach their share or the limit of a process.",
            "none",
            (Query("sum by (kind) (linnet_slots_held)", "{{kind}}"),),
            least=0,
        ),
        Panel(
            "Rejected streams, uploads and exports",
            "By kind and limit. `user`: 429, one user is at its share. `process`: 503, all slots are in use.",
            "ops",
            (Query(rate("linnet_slots_refused_total", "", "kind, limit"), "{{kind}}: {{limit}}"),),
            least=0,
        ),
        Panel(
            "Key cache hit ratio",
            "Share of requests whose key was cached. Low: many different keys, or the invalidation bus is stale.",
            "percentunit",
            (Query(f"{rate(HITS)} / ({rate(HITS)} + {rate(MISSES)} > 0)", "hit ratio"),),
            least=0,
            most=1,
        ),
        Panel(
            "Key lookups",
            "Key lookups at the shorteners. Many with few requests: a client guesses keys.",
            "ops",
            (Query(rate("linnet_gateway_auth_lookups_total", "", "instance"), "{{instance}}"),),
            least=0,
        ),
        Panel(
            "Requests counted without Redis",
            "Requests that a gateway counted alone. Above 0 while Redis is unreachable.",
            "ops",
            (Query(rate("linnet_gateway_local_limits_total", "", "instance"), "{{instance}}"),),
            least=0,
            more="linnet-redis",
        ),
        Panel(
            "Invalidation bus",
            "Stale: cached keys expire after 1 s instead of 30 s, and the shorteners answer more key lookups.",
            "none",
            (Query("linnet_gateway_invalidation_bus_live", "{{instance}}"),),
            kind="state-timeline",
            height=8,
            meanings=LIVE_OR_STALE,
            runbook="invalidation-bus",
        ),
        Panel(
            "Dropped log lines",
            "Log lines that a gateway dropped, because its standard output was slow or closed. Not 0: the log has gaps.",
            "ops",
            (Query(f'rate(log_lines_dropped_total{{job="gateway"}}[{WINDOW}])', "{{instance}}"),),
            least=0,
            more="linnet-logs",
            runbook="logs#loglinesdropped",
        ),
    ),
)

BEHIND_IT = Row(
    "Upstream shorteners",
    (
        Panel(
            "Shortener health by gateway",
            "Each gateway's health checks, by index of the shortener. Down: no connection, or not ready.",
            "none",
            (Query("linnet_gateway_upstream_up", "{{instance}} → {{upstream}}"),),
            kind="state-timeline",
            height=8,
            meanings=UP_OR_DOWN,
            runbook="upstream#upstreamdown",
        ),
        Panel(
            "Circuit breakers",
            "Open after consecutive failed calls, half-open during a trial call. Alternating: the shortener responds "
            "only sometimes.",
            "none",
            (Query("linnet_gateway_breaker_state", "{{instance}} → {{upstream}}"),),
            kind="state-timeline",
            height=8,
            meanings=BREAKER,
            runbook="upstream#breakeropen",
        ),
        Panel(
            "Retried calls",
            "After a failed connection attempt or a broken connection. More than a few during a deployment: shorteners "
            "stop while requests are running.",
            "ops",
            (Query(rate("linnet_gateway_retries_total", "", "instance"), "{{instance}}"),),
            least=0,
        ),
        cpu_of_processes("gateway"),
        memory_of_processes("gateway"),
        Panel(
            "Open files",
            "Used share of file descriptors, most of them connections.",
            "percentunit",
            (Query('process_open_fds{job="gateway"} / process_max_fds{job="gateway"}', "{{instance}}"),),
            steps=Steps(warn=0.8, bad=0.95),
            least=0,
            most=1,
        ),
        errors_in_log("gateway"),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-gateway",
    title="Linnet: gateway",
    description="The API at the gateway: failures, slow routes, keys and rate limits, upstream shorteners.",
    rows=(SUFFER, ROUTES, CALLERS, BEHIND_IT),
)
