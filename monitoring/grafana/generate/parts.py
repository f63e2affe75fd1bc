"""Expressions and panels that several dashboards share."""

from __future__ import annotations

from .model import Choice, Meaning, Panel, Query, Steps
from .sources import Source

# The window of every rate on a time axis. Grafana makes it at least four scrape intervals long.
WINDOW = "$__rate_interval"

PRODUCT = "gateway|shortener|worker"
CORE = f"{PRODUCT}|nginx|postgres|redis"
CODE_ROUTE = "/{code}"
# Requests that the service-level objectives cover (monitoring/prometheus/rules/slo.yml).
REDIRECT = f'job="shortener",http_route="{CODE_ROUTE}"'
API = 'job="gateway"'
DURATION = "http_server_request_duration_seconds"

UP_OR_DOWN = (Meaning(1, "up", "green"), Meaning(0, "down", "red"))
LIVE_OR_STALE = (Meaning(1, "live", "green"), Meaning(0, "stale", "red"))
ZERO_IS_GOOD = Steps(bad=1)


def rate(metric: str, labels: str = "", by: str = "", window: str = WINDOW) -> str:
    """The rate per second, summed over all instances."""
    return f"{total(by)}(rate({metric}{braces(labels)}[{window}]))"


def increase(metric: str, labels: str = "", by: str = "", window: str = WINDOW) -> str:
    return f"{total(by)}(increase({metric}{braces(labels)}[{window}]))"


def total(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"


def braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def quantile(q: float, histogram: str, labels: str = "", by: str = "") -> str:
    groups = f"{by}, le" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({groups}) (rate({histogram}_bucket{braces(labels)}[{WINDOW}])))"


def quantiles(histogram: str, labels: str = "") -> tuple[Query, ...]:
    return tuple(
        Query(quantile(q, histogram, labels), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    )


def good_share(labels: str, window: str) -> str:
    """The share of responses that are not 5xx. `or vector(0)`: before the first 5xx there is no series of them."""
    failed = increase(f"{DURATION}_count", f'{labels},http_response_status_code=~"5.."', window=window)
    return f"1 - ({failed} or vector(0)) / ({increase(f'{DURATION}_count', labels, window=window)} > 0)"


def fast_share(labels: str, bucket: str, window: str) -> str:
    """The share of responses within the histogram bucket `bucket`."""
    fast = increase(f"{DURATION}_bucket", f'{labels},le="{bucket}"', window=window)
    return f"{fast} / ({increase(f'{DURATION}_count', labels, window=window)} > 0)"


def budget_left(share: str, objective: float) -> str:
    return f"1 - (1 - ({share})) / {1 - objective:.6g}"


def burn_rate(share: str, objective: float) -> str:
    return f"(1 - ({share})) / {1 - objective:.6g}"


def stat(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    legend: str = "",
    width: int = 4,
    steps: Steps | None = None,
    meanings: tuple[Meaning, ...] = (),
    empty: str = "",
    decimals: int | None = None,
    more: str = "",
    runbook: str = "",
) -> Panel:
    """A panel with the current value."""
    return Panel(
        title,
        description,
        unit,
        (Query(expr, legend, instant=True),),
        kind="stat",
        width=width,
        steps=steps or Steps(),
        meanings=meanings,
        empty=empty,
        decimals=decimals,
        more=more,
        runbook=runbook,
    )


def memory_of_processes(jobs: str, width: int = 8) -> Panel:
    return Panel(
        "Memory of the processes",
        "Resident memory of each process. A line that rises for hours under even traffic is a leak. Near the "
        "container's limit the kernel kills the process.",
        "bytes",
        (Query(f'process_resident_memory_bytes{{job=~"{jobs}"}}', "{{job}} {{instance}}"),),
        width=width,
        least=0,
        more="linnet-host",
    )


def cpu_of_processes(jobs: str, width: int = 8) -> Panel:
    return Panel(
        "CPU of the processes",
        "Cores that each process uses. A process that uses its container's whole CPU limit is the bottleneck.",
        "short",
        (Query(f'rate(process_cpu_seconds_total{{job=~"{jobs}"}}[{WINDOW}])', "{{job}} {{instance}}"),),
        width=width,
        least=0,
        more="linnet-host",
    )


def log_panel(title: str, description: str, expr: str, height: int = 10) -> Panel:
    source: Source = "loki"
    return Panel(title, description, "none", (Query(expr),), kind="logs", source=source, width=24, height=height)


def errors_in_log(services: str, height: int = 10) -> Panel:
    return log_panel(
        "Errors and warnings in the log",
        "The latest lines at level error or warn. In a line's details, `request_id` links to all lines of that request "
        "and `trace_id` to its trace. Empty is good.",
        f'{{service=~"{services}", level=~"error|warn"}}',
        height,
    )


LOG_CHOICES = (
    Choice("service", "Service", label="service", everything=".+"),
    Choice("level", "Level", label="level"),
    Choice("color", "Color", label="color"),
    Choice("request_id", "Request id"),
    Choice("trace_id", "Trace id"),
    Choice("search", "Text"),
)
