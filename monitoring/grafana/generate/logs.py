"""The logs of all services, and whether they arrive."""

from __future__ import annotations

from .model import Dashboard, Panel, Query, Row, Steps
from .parts import LOG_CHOICES, WINDOW, increase, log_panel, rate, stat

STREAMS = '{service=~"$service", level=~"$level", colour=~"$colour"}'
# Ids are no labels (each would make a stream of its own) but structured metadata, which is filtered without parsing lines.
CHOSEN = f'{STREAMS} | request_id=~"$request_id.*" | trace_id=~"$trace_id.*" |~ "(?i)$search"'

READ = Row(
    "What do they say?",
    (
        Panel(
            "Lines by service",
            "Of what is chosen above. A service that falls silent is down, or its lines do not arrive: see the last row.",
            "short",
            (Query(f"sum by (service) (count_over_time({STREAMS} [$__auto]))", "{{service}}"),),
            source="loki",
            width=12,
            stacked=True,
            least=0,
        ),
        Panel(
            "Lines by level",
            "Of what is chosen above. Errors that begin at one moment: look for a deployment or a fault of a store at that moment.",
            "short",
            (Query(f"sum by (level) (count_over_time({STREAMS} [$__auto]))", "{{level}}"),),
            source="loki",
            width=12,
            stacked=True,
            least=0,
        ),
        log_panel(
            "Lines",
            "Newest first. Put a request id or a trace id (or its beginning) in the field above to see one request through all services; "
            "`Text` is a regular expression without regard to case. In a line's details the ids are links.",
            CHOSEN,
            18,
        ),
        log_panel(
            "Errors only",
            "Lines at level error, of the chosen services.",
            '{service=~"$service", level="error", colour=~"$colour"}',
        ),
    ),
)

ARRIVE = Row(
    "Do they arrive?",
    (
        stat(
            "Lines lost by the processes today",
            "Over 24 h: lines that a process dropped because its standard output was slow or gone.",
            "short",
            increase("log_lines_dropped_total", window="24h"),
            steps=Steps(warn=1),
            decimals=0,
            runbook="logs#loglinesdropped",
        ),
        stat(
            "Lines lost by the shipper today",
            "Over 24 h: lines that Fluent Bit gave up, as Loki refused them or was away for longer than the buffer lasts.",
            "short",
            increase("fluentbit_output_dropped_records_total", window="24h"),
            steps=Steps(warn=1),
            decimals=0,
            runbook="logs#logshipperdropping",
        ),
        stat(
            "Lines refused by Loki today",
            "Over 24 h: too old, too long, too many at once. The panel below names the reason.",
            "short",
            f"{increase('loki_discarded_samples_total', window='24h')} or vector(0)",
            steps=Steps(warn=1),
            decimals=0,
        ),
        stat(
            "Shipper",
            "Whether Fluent Bit answers its scrapes. Down: Docker drops lines, for containers don't wait for it.",
            "none",
            'sum(up{job="fluent-bit"})',
            steps=Steps(bad=1, falling=True),
        ),
        stat(
            "Loki",
            "Whether it answers its scrapes. Down: lines wait in the shipper's buffer on disk.",
            "none",
            'sum(up{job="loki"})',
            steps=Steps(bad=1, falling=True),
            runbook="logs#logsnotarriving",
        ),
        stat(
            "Streams",
            "Combinations of service, level and colour that Loki holds in memory. More than a hundred: a label has got too many values.",
            "none",
            "sum(loki_ingester_memory_streams)",
            steps=Steps(warn=100, bad=1000),
        ),
        Panel(
            "Lines in and out of the shipper",
            "What came from the containers and what Loki took. Out below in for long: Loki is slow or away.",
            "ops",
            (
                Query(rate("fluentbit_input_records_total", 'name="docker"'), "in"),
                Query(rate("fluentbit_output_proc_records_total", 'name="loki"'), "out"),
            ),
            least=0,
        ),
        Panel(
            "Trouble of the shipper",
            "Attempts to send that failed, were made again, or were given up. Only faults fill this beyond 0.",
            "ops",
            (
                Query(rate("fluentbit_output_errors_total", 'name="loki"'), "failed"),
                Query(rate("fluentbit_output_retries_total", 'name="loki"'), "made again"),
                Query(rate("fluentbit_output_retries_failed_total", 'name="loki"'), "given up"),
            ),
            least=0,
        ),
        Panel(
            "Taken by Loki",
            "Bytes a second. Times 90 days, and compressed to about a tenth, it is the room that logs need.",
            "Bps",
            (Query(rate("loki_distributor_bytes_received_total"), "received"),),
            least=0,
        ),
        Panel(
            "Refused by Loki",
            "By reason. `rate_limited`: one service logs far too much. Only faults fill this.",
            "ops",
            (Query(f"sum by (reason) (rate(loki_discarded_samples_total[{WINDOW}]))", "{{reason}}"),),
            width=12,
            least=0,
            empty="none so far",
        ),
        Panel(
            "Lines lost by the processes",
            "Lines that a process dropped because its standard output was slow or gone. Docker's log driver does not wait, so it "
            "should be 0.",
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
    description="The logs of all services by service, level, colour, request and trace, and whether they arrive.",
    rows=(READ, ARRIVE),
    choices=LOG_CHOICES,
    since="now-1h",
)
