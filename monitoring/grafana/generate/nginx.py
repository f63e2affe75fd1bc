"""nginx: the only service that is reachable from outside."""

from __future__ import annotations

from .model import Column, Dashboard, Panel, Query, Row, Steps
from .parts import DURATION, UP_OR_DOWN, errors_in_log, log_panel, rate, stat

ACCEPTED, HANDLED, REQUESTS = "nginx_connections_accepted", "nginx_connections_handled", "nginx_http_requests_total"
BEHIND = 'job=~"gateway|shortener",http_route!~"/internal/.*"'

UP = Row(
    "Is nginx up, and does traffic pass?",
    (
        stat(
            "nginx",
            "Whether its exporter reaches it. Down: nothing is reachable from outside.",
            "none",
            "min(nginx_up)",
            meanings=UP_OR_DOWN,
            runbook="nginx-down",
        ),
        stat(
            "Requests per second",
            "All received requests. 0 while the services behind nginx are up: check DNS, firewall, certificate and "
            "network.",
            "reqps",
            rate(REQUESTS),
            decimals=1,
        ),
        stat(
            "Connections",
            "Open connections, including idle keep-alive connections.",
            "none",
            "sum(nginx_connections_active)",
        ),
        stat(
            "Refused connections",
            "Connections per second that the system accepted and nginx did not handle: it has no free connections or "
            "file descriptors. Should be 0.",
            "cps",
            f"{rate(ACCEPTED)} - {rate(HANDLED)}",
            steps=Steps(bad=0.01),
        ),
        stat(
            "Requests per connection",
            "Since nginx started. Near 1: clients do not reuse connections, and each request needs a handshake.",
            "short",
            f"sum({REQUESTS}) / sum({HANDLED})",
            decimals=1,
        ),
        stat(
            "Answered by nginx",
            "Requests per second that nginx answered itself: limits, bad requests, unreachable upstreams, its status "
            "page.",
            "reqps",
            f"{rate(REQUESTS, window='5m')} - {rate(f'{DURATION}_count', BEHIND, window='5m')}",
            decimals=1,
        ),
        Panel(
            "Requests at nginx and behind it",
            "nginx's own count, and the responses of shorteners and gateways. A widening gap: nginx rejects requests "
            "or cannot reach the services.",
            "reqps",
            (
                Query(rate(REQUESTS), "nginx"),
                Query(rate(f"{DURATION}_count", BEHIND, "job"), "{{job}}"),
            ),
            least=0,
        ),
        Panel(
            "Connections by state",
            "Reading: request heads that arrive slowly; many are a slow-loris attack. Writing: requests in progress. "
            "Waiting: idle.",
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
            "Accepted per second. A jump with constant requests: clients stopped reusing connections, or connections "
            "break.",
            "cps",
            (Query(rate(ACCEPTED), "accepted"),),
            least=0,
        ),
    ),
)

TLS = Row(
    "Is the TLS certificate valid, and is it renewed?",
    (
        stat(
            "Life left",
            "Part of the certificate's life that is left. It is renewed at about a third, or at a half if it lives for "
            "less than 10 days. 0: a placeholder is served. No data: HTTPS is off, or another proxy serves it.",
            "percentunit",
            "min(linnet_acme_certificate_life_left_ratio)",
            steps=Steps(bad=0.1, warn=0.25, falling=True),
            runbook="certificates",
        ),
        stat(
            "Expires",
            "End of the certificate's life. In the past: clients refuse every connection.",
            "dateTimeFromNow",
            "1000 * min(linnet_acme_certificate_not_after_timestamp_seconds)",
        ),
        stat(
            "Renewal",
            "When the next renewal is due. In the past: attempts fail.",
            "dateTimeFromNow",
            "1000 * min(linnet_acme_renewal_timestamp_seconds)",
        ),
        stat(
            "Missing domains",
            "Domains of the settings that the certificate lacks. Should be 0.",
            "none",
            "max(linnet_acme_missing_names)",
            steps=Steps(bad=1),
            runbook="certificates#certificatelacksname",
        ),
        stat(
            "Failed attempts",
            "Failed attempts in a row. The next one is 1, 10 or 100 minutes later, then a day.",
            "none",
            "max(linnet_acme_consecutive_failures)",
            steps=Steps(bad=3),
            runbook="certificates#certificateorderfailing",
        ),
        Panel(
            "Renewal window",
            "The window that the CA suggests for the renewal, in days from now, and the end of the certificate. A window "
            "in the past: the CA wants the certificate replaced.",
            "d",
            (
                Query("(min(linnet_acme_renewal_window_start_timestamp_seconds) - time()) / 86400", "window begins"),
                Query("(min(linnet_acme_renewal_window_end_timestamp_seconds) - time()) / 86400", "window ends"),
                Query("(min(linnet_acme_certificate_not_after_timestamp_seconds) - time()) / 86400", "certificate ends"),
            ),
            width=12,
        ),
        Panel(
            "Failures by reason",
            "Failed attempts in the last day. dns: a domain does not lead here. refused: the CA found no proof of control. "
            "storage: the volume is full or not writable.",
            "short",
            (Query("sum by (reason) (increase(linnet_acme_failures_total[1d]))", "{{reason}}"),),
            width=12,
            least=0,
        ),
    ),
)

LOG = Row(
    "Logs",
    (
        Panel(
            "Lines by level",
            "Access log: error is 5xx, warn 4xx, info the rest. Successful redirects are sampled (default 1 %), errors "
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
            "Log lines of the last hour. All from one upstream: that process. Without an upstream: nginx could connect "
            "to none.",
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
            "Slow responses",
            "Requests that took longer than a second, including exports and live streams.",
            '{service="nginx"} | json | duration_s > 1',
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-nginx",
    title="Linnet: nginx",
    description="nginx: does traffic arrive, and does it reach the services?",
    rows=(UP, TLS, LOG),
)
