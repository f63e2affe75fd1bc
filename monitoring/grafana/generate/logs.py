"""Logs of all services, and whether they arrive."""

from __future__ import annotations

from .model import Dashboard, Panel, Query, Row, Steps
from .parts import LOG_CHOICES, WINDOW, increase, log_panel, rate, stat

STREAMS = '{service=~"$service", level=~"$level", color=~"$color"}'
# Ids are structured metadata, which Loki filters without parsing lines. As labels, each id would create a stream.
CHOSEN = f'{STREAMS} | request_id=~"$request_id.*" | trace_id=~"$trace_id.*" |~ "(?i)$search"'

READ = Row(
    "Log lines",
    (
        Panel(
            "Lines by service",
            "For the selection above. A service without lines is down, or its lines do not arrive: see the last row.",
            "short",
            (Query(f"sum by (service) (count_over_time({STREAMS} [$__auto]))", "{{service}}"),),
            source="loki",
            width=12,
            stacked=True,
            least=0,
        ),
        Panel(
            "Lines by level",
            "For the selection above. Errors that begin at one moment: check for a deployment or an outage of a store "
            "at that time.",
            "short",
            (Query(f"sum by (level) (count_over_time({STREAMS} [$__auto]))", "{{level}}"),),
            source="loki",
            width=12,
            stacked=True,
            least=0,
        ),
        log_panel(
            "Lines",
            "Newest first. A request id or trace id (or its beginning) in the field above shows one request through "
            "all services. `Text` is a regular expression, case-insensitive. Ids in a line's details are links.",
            CHOSEN,
            18,
        ),
        log_panel(
            "Errors only",
            "Lines at level error of the selected services.",
            '{service=~"$service", level="error", color=~"$color"}',
        ),
    ),
)

ARRIVE = Row(
    "Do log lines arrive?",
    (
        stat(
            "Dropped by processes in 24 h",
            "Lines that a process dropped, because its standard output was slow or closed.",
            "short",
            increase("log_lines_dropped_total", window="24h"),
            steps=Steps(warn=1),
            decimals=0,
            runbook="logs#loglinesdropped",
        ),
        stat(
            "Dropped by Fluent Bit in 24 h",
            "Lines that Fluent Bit gave up: Loki refused them, or was unreachable for longer than the buffer lasts.",
            "short",
            increase("fluentbit_output_dropped_records_total", window="24h"),
            steps=Steps(warn=1),
            decimals=0,
            runbook="logs#logshipperdropping",
        ),
        stat(
            "Refused by Loki in 24 h",
            "Too old, too long, or too many at once. The panel below shows the reason.",
            "short",
            f"{increase('loki_discarded_samples_total', window='24h')} or vector(0)",
            steps=Steps(warn=1),
            decimals=0,
        ),
        stat(
            "Fluent Bit",
            "Whether Fluent Bit responds to Prometheus. Down: Docker drops lines, because containers do not wait for "
            "it.",
            "none",
            'sum(up{job="fluent-bit"})',
            steps=Steps(bad=1, falling=True),
        ),
        stat(
            "Loki",
            "Whether Loki responds to Prometheus. Down: lines wait in Fluent Bit's buffer on disk.",
            "none",
            'sum(up{job="loki"})',
            steps=Steps(bad=1, falling=True),
            runbook="logs#logsnotarriving",
        ),
        stat(
            "Streams",
            "Combinations of service, level and color in Loki's memory. More than a hundred: a label has too many "
            "values.",
            "none",
            "sum(loki_ingester_memory_streams)",
            steps=Steps(warn=100, bad=1000),
        ),
        Panel(
            "Lines in and out of Fluent Bit",
            "Lines from the containers, and lines that Loki accepted. Out below in for long: Loki is slow or "
            "unreachable.",
            "ops",
            (
                Query(rate("fluentbit_input_records_total", 'name="docker"'), "in"),
                Query(rate("fluentbit_output_proc_records_total", 'name="loki"'), "out"),
            ),
            least=0,
        ),
        Panel(
            "Errors of Fluent Bit",
            "Failed, retried and abandoned attempts to send. Above 0 only during faults.",
            "ops",
            (
                Query(rate("fluentbit_output_errors_total", 'name="loki"'), "failed"),
                Query(rate("fluentbit_output_retries_total", 'name="loki"'), "retried"),
                Query(rate("fluentbit_output_retries_failed_total", 'name="loki"'), "abandoned"),
            ),
            least=0,
        ),
        Panel(
            "Received by Loki",
            "Bytes per second. Logs need this times 90 days, compressed to about a tenth, on disk.",
            "Bps",
            (Query(rate("loki_distributor_bytes_received_total"), "received"),),
            least=0,
        ),
        Panel(
            "Refused by Loki",
            "By reason. `rate_limited`: one service logs far too much. Only faults cause these.",
            "ops",
            (Query(f"sum by (reason) (rate(loki_discarded_samples_total[{WINDOW}]))", "{{reason}}"),),
            width=12,
            least=0,
            empty="none",
        ),
        Panel(
            "Dropped by processes",
            "Lines that a process dropped, because its standard output was slow or closed. Docker's log driver does "
            "not block, so it should be 0.",
            "ops",
            (Query(rate("log_lines_dropped_total", "", "job"), "{{job}}"),),
            width=12,
            least=0,
            runbook="logs#loglinesdropped",
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-logs",
    title="Linnet: logs",
    description="Logs of all services by service, level, color, request and trace, and whether they arrive.",
    rows=(READ, ARRIVE),
    choices=LOG_CHOICES,
    since="now-1h",
)
