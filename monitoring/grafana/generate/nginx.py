"""nginx: the only thing that the world talks to."""

from __future__ import annotations

from .model import Column, Dashboard, Panel, Query, Row, Steps
from .parts import DURATION, UP_OR_DOWN, errors_in_log, log_panel, rate, stat

ACCEPTED, HANDLED, REQUESTS = "nginx_connections_accepted", "nginx_connections_handled", "nginx_http_requests_total"
BEHIND = 'job=~"gateway|shortener",http_route!~"/internal/.*"'

UP = Row(
    "Is it up, and do people get through?",
    (
        stat(
            "nginx",
            "Whether the exporter reaches it. Down: nobody reaches anything.",
            "none",
            "min(nginx_up)",
            meanings=UP_OR_DOWN,
            runbook="nginx-down",
        ),
        stat(
            "Requests a second",
            "Everything that came in. 0 while the processes behind it are up: DNS, firewall, certificate, or the network.",
            "reqps",
            rate(REQUESTS),
            decimals=1,
        ),
        stat(
            "Connections",
            "Open ones, idle keep-alive connections included.",
            "none",
            "sum(nginx_connections_active)",
        ),
        stat(
            "Connections refused",
            "Accepted by the system and not handled, a second: nginx has no more connections or files. 0 is right.",
            "cps",
            f"{rate(ACCEPTED)} - {rate(HANDLED)}",
            steps=Steps(bad=0.01),
        ),
        stat(
            "Requests of a connection",
            "Since nginx's start. Near 1: clients do not keep connections, and each request costs a handshake.",
            "short",
            f"sum({REQUESTS}) / sum({HANDLED})",
            decimals=1,
        ),
        stat(
            "Not passed on",
            "Requests that nginx answered itself, a second: limits, bad requests, unreachable upstreams, its status page.",
            "reqps",
            f"{rate(REQUESTS, window='5m')} - {rate(f'{DURATION}_count', BEHIND, window='5m')}",
            decimals=1,
        ),
        Panel(
            "Requests, here and behind",
            "nginx's own count and what the shorteners and gateways answered. A gap that opens: nginx refuses or cannot pass on.",
            "reqps",
            (
                Query(rate(REQUESTS), "nginx"),
                Query(rate(f"{DURATION}_count", BEHIND, "job"), "{{job}}"),
            ),
            least=0,
        ),
        Panel(
            "Connections by state",
            "Reading: heads that come slowly; many of them are a slow-loris attack. Writing: requests under way. Waiting: idle.",
            "short",
            (
                Query("sum(nginx_connections_reading)", "reading"),
                Query("sum(nginx_connections_writing)", "writing"),
                Query("sum(nginx_connections_waiting)", "waiting"),
            ),
            stacked=True,
            least=0,
        ),
        Panel(
            "New connections",
            "Accepted a second. A jump with the same number of requests: clients stopped keeping connections, or are cut off.",
            "cps",
            (Query(rate(ACCEPTED), "accepted"),),
            least=0,
        ),
    ),
)

LOG = Row(
    "What does its log say?",
    (
        Panel(
            "Lines by level",
            "Access log: error is 5xx, warn 4xx, info the rest. Successful redirects are a sample (1 % unless set otherwise), errors "
            "are complete.",
            "short",
            (Query('sum by (level) (count_over_time({service="nginx"}[$__auto]))', "{{level}}"),),
            source="loki",
            width=12,
            least=0,
            more="linnet-logs",
        ),
        Panel(
            "5xx by upstream",
            "Lines of the last hour. All by one upstream: that process. Without any: nginx found none that took the connection.",
            "short",
            (
                Query(
                    'sum by (upstream, status) (count_over_time({service="nginx", level="error"} | json | __error__="" [1h]))',
                    instant=True,
                ),
            ),
            kind="table",
            source="loki",
            width=12,
            empty="none",
            columns=(
                Column("upstream", "Upstream"),
                Column("status", "Status"),
                Column("Value #A", "Lines"),
            ),
        ),
        errors_in_log("nginx"),
        log_panel(
            "Slow answers",
            "Requests that took longer than a second, exports and live streams among them.",
            '{service="nginx"} | json | duration_s > 1',
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-nginx",
    title="Linnet: nginx",
    description="The edge: does traffic get in, and does nginx get it through?",
    rows=(UP, LOG),
)
