"""The gateway: the API's callers, their keys and rates, and the shorteners behind it."""

from __future__ import annotations

from .model import Column, Dashboard, Meaning, Panel, Query, Row, Steps
from .parts import (
    API,
    DURATION,
    LIVE_OR_CUT,
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

BREAKER = (Meaning(0, "closed", "green"), Meaning(1, "half open", "orange"), Meaning(2, "open", "red"))
HITS, MISSES = "linnet_gateway_auth_cache_hits_total", "linnet_gateway_auth_cache_misses_total"
BEHIND = 'job="shortener",http_route=~"/(api|internal)/.*"'

SUFFER = Row(
    "Do callers suffer?",
    (
        stat(
            "Requests a second",
            "Answers of all gateways. Far below the usual at this hour: callers do not get through, look at nginx.",
            "reqps",
            rate(f"{DURATION}_count", API),
            decimals=1,
        ),
        stat(
            "Answered without a 5xx",
            "Over the last hour. The objective is 99.9 %.",
            "percentunit",
            good_share(API, "1h"),
            steps=Steps(warn=0.9995, bad=0.999, falling=True),
            decimals=3,
            runbook="error-budget",
        ),
        stat(
            "Half are answered within",
            "Median of now, over all routes.",
            "s",
            quantile(0.5, DURATION, API),
            steps=Steps(warn=0.1, bad=0.5),
        ),
        stat(
            "Gateways",
            "How many answer scrapes. None: there is no API and no page, redirects go on.",
            "none",
            'sum(up{job="gateway"})',
            steps=Steps(bad=1, falling=True),
            runbook="gateway-down",
        ),
        stat(
            "Shorteners that take traffic",
            "As the gateway that sees the fewest counts them. 0: every API request is answered 503.",
            "none",
            "min(sum by (instance) (linnet_gateway_upstream_up))",
            steps=Steps(bad=1, falling=True),
            more="linnet-resolve",
            runbook="upstream#upstreamdown",
        ),
        stat(
            "Rates without Redis",
            "Gateways that judge rates by themselves because Redis is away. Callers may then take their rate once at each gateway.",
            "none",
            "sum(linnet_gateway_limit_fallback)",
            steps=ZERO_IS_GOOD,
            more="linnet-redis",
            runbook="redis-down",
        ),
        Panel(
            "Requests by status",
            "401 and 403: callers without a right. 429: over their rate. 499: left before the answer. 502 to 504: the shorteners did "
            "not answer. 500: a fault of ours, see the log.",
            "reqps",
            (Query(rate(f"{DURATION}_count", API, "http_response_status_code"), "{{http_response_status_code}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Time to answer",
            "To the end of the answer, so exports and live streams count with all their length.",
            "s",
            quantiles(DURATION, API),
            least=0,
        ),
        Panel(
            "Requests under way",
            "Begun and not ended; live streams stay for long. A rise with even traffic: something behind is slow.",
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
            "Of the last five minutes. Sort by a column: the slow route, the one that fails, the one that is called too often.",
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
                Column("Value #B", "95 % within", unit="s"),
                Column("Value #C", "Failed (5xx)", unit="reqps"),
            ),
        ),
        Panel(
            "Time by route, 95 %",
            "A single line that rises: that route's statement or its users' data. All of them: the database or the host.",
            "s",
            (Query(quantile(0.95, DURATION, API, "http_route"), "{{http_route}}"),),
            width=12,
            height=10,
            least=0,
        ),
        Panel(
            "Failures by route",
            "5xx by route. Only faults fill this.",
            "reqps",
            (
                Query(
                    rate(f"{DURATION}_count", f'{API},http_response_status_code=~"5.."', "http_route, http_response_status_code"),
                    "{{http_route}} {{http_response_status_code}}",
                ),
            ),
            width=12,
            least=0,
            empty="none so far",
        ),
        Panel(
            "Time at the shorteners, 95 %",
            "The same requests one hop further. If these are fast and the gateway's are slow, look at the gateway's CPU and the network.",
            "s",
            (Query(quantile(0.95, DURATION, BEHIND, "instance"), "{{instance}}"),),
            width=12,
            least=0,
        ),
    ),
)

CALLERS = Row(
    "Who calls, and how often?",
    (
        Panel(
            "Requests refused for their rate",
            "By API key, or by address for callers without a valid one. A plateau: somebody's script does not wait.",
            "reqps",
            (Query(rate("linnet_gateway_limited_total", "", "kind"), "{{kind}}"),),
            least=0,
        ),
        Panel(
            "Keys found in the cache",
            "Share of requests whose key needed no question to a shortener. Low: many different keys, or the change feed is cut.",
            "percentunit",
            (Query(f"{rate(HITS)} / ({rate(HITS)} + {rate(MISSES)} > 0)", "found"),),
            least=0,
            most=1,
        ),
        Panel(
            "Questions about keys",
            "Calls to the shorteners. Many with few requests: somebody tries keys.",
            "ops",
            (Query(rate("linnet_gateway_auth_lookups_total", "", "instance"), "{{instance}}"),),
            least=0,
        ),
        Panel(
            "Rates judged without Redis",
            "Requests whose rate a gateway judged by itself. Above 0 as long as Redis is away.",
            "ops",
            (Query(rate("linnet_gateway_local_limits_total", "", "instance"), "{{instance}}"),),
            least=0,
            more="linnet-redis",
        ),
        Panel(
            "News of revoked keys",
            "Cut: keys are believed for 1 s instead of 30 s, and the shorteners are asked more often.",
            "none",
            (Query("linnet_gateway_change_feed_live", "{{instance}}"),),
            kind="state-timeline",
            height=8,
            meanings=LIVE_OR_CUT,
            runbook="change-feed",
        ),
        Panel(
            "Log lines lost",
            "Lines that a gateway dropped because its standard output was slow or gone. Not 0: the log has holes.",
            "ops",
            (Query(f'rate(log_lines_dropped_total{{job="gateway"}}[{WINDOW}])', "{{instance}}"),),
            least=0,
            more="linnet-logs",
            runbook="logs#loglinesdropped",
        ),
    ),
)

BEHIND_IT = Row(
    "What is behind it?",
    (
        Panel(
            "Shorteners, as each gateway sees them",
            "Each gateway's view, by the place in its configuration. Down: no connection, or not ready.",
            "none",
            (Query("linnet_gateway_upstream_up", "{{instance}} → {{upstream}}"),),
            kind="state-timeline",
            height=8,
            meanings=UP_OR_DOWN,
            runbook="upstream#upstreamdown",
        ),
        Panel(
            "Breakers",
            "Open after failed calls in a row; half open while it tries again. Flapping: the shortener answers now and then.",
            "none",
            (Query("linnet_gateway_breaker_state", "{{instance}} → {{upstream}}"),),
            kind="state-timeline",
            height=8,
            meanings=BREAKER,
            runbook="upstream#breakeropen",
        ),
        Panel(
            "Calls tried a second time",
            "After a failed connect or a broken connection. More than a few during a deployment: shorteners die under requests.",
            "ops",
            (Query(rate("linnet_gateway_retries_total", "", "instance"), "{{instance}}"),),
            least=0,
        ),
        cpu_of_processes("gateway"),
        memory_of_processes("gateway"),
        Panel(
            "Open files",
            "Share of the descriptors that the process may open; nearly all are connections.",
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
    description="The API at the gateway: failures, slow routes, callers, and the shorteners behind it.",
    rows=(SUFFER, ROUTES, CALLERS, BEHIND_IT),
)
