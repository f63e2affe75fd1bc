"""Rate and memory of an export of all links through nginx and gateway, compared with COPY of the same columns. The clients
of both sides discard the data."""

from __future__ import annotations

import http.client

from figures import median, median_ratio, say
from processes import BenchError, forget_peak, peak_mib

FIGURES = ("export", "export_copy", "export_ratio", "export_ndjson", "export_memory")

PATH = "/api/v1/urls/export"
COLUMNS = ("id, user_id, short_code, original_url, title, is_active, redirect_status, expires_at, max_clicks, clicks, created_at, "
           "updated_at")


def run(bench) -> None:
    stack, size = bench.stack, bench.size
    # An administrator, because the loaded links have no owner.
    key, _ = stack.create_key("admin")
    links = int(stack.sql("SELECT count(*) FROM urls"))
    whole(bench, key, links)
    sides = {"export": [], "export_copy": [], "export_ndjson": []}
    pid = bench.shortener.process.pid
    before = bench.resident(pid)
    forget_peak(pid)
    for turn in range(size.export_rounds):
        sides["export"].append(links / export(bench, key, "csv"))
        sides["export_copy"].append(links / copy(bench))
        sides["export_ndjson"].append(links / export(bench, key, "ndjson"))
        say(f"  round {turn + 1}: " + ", ".join(f"{name} {rates[-1]:,.0f} rows/s" for name, rates in sides.items()))
    figures = bench.figures
    figures.add("export", median(sides["export"]), "rows/s", note=f"CSV of {links:,} links")
    figures.add("export_copy", median(sides["export_copy"]), "rows/s", note="psql: COPY … TO STDOUT")
    figures.add("export_ratio", median_ratio(sides["export"], sides["export_copy"]), "of COPY", at_least=0.5)
    figures.add("export_ndjson", median(sides["export_ndjson"]), "rows/s")
    figures.add("export_memory", peak_mib(pid) - before, "MiB", at_most=16, note="growth of the shortener, at its peak")


def whole(bench, key: str, links: int) -> None:
    """Reads one export completely and counts its lines. It also loads the table into memory for the measurement."""
    connection = http.client.HTTPConnection(bench.address, timeout=60)
    try:
        connection.request("GET", f"{PATH}?format=ndjson", headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        lines = 0
        while piece := response.read(1 << 20):
            lines += piece.count(b"\n")
    finally:
        connection.close()
    if (response.status, lines) != (200, links):
        raise BenchError(f"an export returned {response.status} and {lines:,} lines instead of 200 and {links:,}")


def export(bench, key: str, kind: str) -> float:
    """Seconds of an export. curl fails if the connection breaks."""
    argv = ["curl", "-fsS", "-o", "/dev/null", "-H", f"Authorization: Bearer {key}", f"http://{bench.address}{PATH}?format={kind}"]
    return bench.processes.run(argv, env=bench.stack.environment).wall_s


def copy(bench) -> float:
    """Seconds of COPY, over the socket that the shortener uses."""
    argv = [str(bench.stack.pg_bin / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-c", f"COPY urls ({COLUMNS}) TO STDOUT"]
    return bench.processes.run(argv, env=bench.stack.pg_environment).wall_s
