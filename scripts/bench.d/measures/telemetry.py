"""The cost of metrics and logs for a redirect."""

from __future__ import annotations

from figures import median, median_ratio

from .turns import visits_in_turns

FIGURES = ("telemetry_on", "telemetry_off", "telemetry_ratio", "telemetry_failed_requests")


def run(bench) -> None:
    # nginx logs the same on both sides.
    silent = {"LINNET__TELEMETRY__METRICS": "false", "LINNET__TELEMETRY__LOG_LEVEL": "off"}
    rates, errors = visits_in_turns(bench, {}, {"telemetry_on": {}, "telemetry_off": silent})
    figures = bench.figures
    for name, values in rates.items():
        figures.add(name, median(values), "req/s")
    figures.add("telemetry_ratio", median_ratio(rates["telemetry_on"], rates["telemetry_off"]), "of silent", at_least=0.97)
    figures.add("telemetry_failed_requests", errors, "requests", at_most=0)
