"""The results: a JSON file for each fault in target/chaos, and the table of docs/CHAOS.md."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from pathlib import Path

from engine import ROOT
from fault import Fault, Result, grouped, routes_in_words
from ledger import ROUTES, Window

PAGE = ROOT / "docs/CHAOS.md"
FOLDER = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "chaos"
BEGIN, END = "<!-- chaos:results -->", "<!-- chaos:end -->"
HEAD = ("| fault | bar | clients saw | for how long | alert | a person | checked afterwards | date |", "|---|---|---|---|---|---|---|---|")


def failed(window: Window) -> str:
    """Failed requests by kind of request: `create 12 of 300 (503)`."""
    parts = []
    for route in ROUTES:
        kinds = window.failures(route)
        if kinds:
            total = sum(kinds.values())
            each = ", ".join(kinds) if len(kinds) == 1 else ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
            parts.append(f"{route}: {total} of {total + window.succeeded[route]:,} ({each})")
    every = window.succeeded.total() + window.failed.total()
    return "; ".join(parts) if parts else f"0 of {every:,} requests failed"


def how_long(window: Window) -> str:
    """From the start of the first failed request to the end of the last one."""
    spans: dict[str, str] = {route: f"{end - start:.1f} s" for route, (start, end) in window.span.items()}
    return "; ".join(f"{routes_in_words(routes)} {span}" for routes, span in grouped({route: spans[route] for route in ROUTES if route in spans})) or "–"


def alert(result: Result) -> str:
    fault, fired = result.fault, dict(result.fired)
    parts = []
    if fault.alert:
        took = fired.pop(fault.alert, None)
        missing = "did not fire" if result.waited_for_alert else "not waited for"
        parts.append(f"{fault.alert} {missing if took is None else f'after {took:.0f} s'}")
    else:
        parts.append(f"none needed: {fault.no_alert}")
    if fired:
        parts.append("also " + ", ".join(f"{name} ({took:.0f} s)" for name, took in fired.items()))
    return "; ".join(parts)


def checked(result: Result) -> str:
    found = result.checked
    parts = [f"{found.created:,} creates, {found.edited:,} edits, {found.imported_rows:,} imported rows, {found.row_events} job events: "
             + (f"{len(found.violations)} violations" if found.violations else "all right"),
             f"{found.clicks:,} clicks" + (f", {found.clicks_lost:,} lost" if found.clicks_lost else ", none lost")]
    if found.clicks_extra:
        parts[-1] += f", {found.clicks_extra} more than redirects"
    if found.dead_jobs:
        parts.append(f"{found.dead_jobs} new dead jobs")
    if found.stale:
        parts.append(f"{found.stale} of {found.checked_reads:,} redirects to a replaced target, up to {found.stalest_s:.1f} s after the edit")
    if found.live_gaps:
        parts.append(f"{found.live_gaps} announced gaps in streams of clicks")
    return "; ".join(parts + result.stage.notes)


def row(result: Result) -> str:
    fault = result.fault
    return joined([f"`{fault.name}`: {fault.title}", fault.bar(), failed(result.window), how_long(result.window), alert(result), fault.person,
                   checked(result)], result.broken())


def joined(cells: list[str], broken: list[str]) -> str:
    """A row of these cells and the date. The third one names what is outside the bar."""
    if broken:
        cells[2] += f". **Outside the bar**: {'; '.join(broken)}"
    cells = [*cells, datetime.datetime.now(datetime.UTC).date().isoformat()]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def write_json(result: Result, folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    window = result.window
    content = {
        "fault": result.fault.name, "bar": result.fault.bar(), "broken": result.broken(), "seconds": round(result.ended - window.begun, 1),
        "succeeded": dict(window.succeeded), "failed": {route: window.failures(route) for route in ROUTES if window.failures(route)},
        "failed_for_s": {route: round(end - start, 2) for route, (start, end) in window.span.items()},
        "last_failure_after_end_s": {route: round(end - result.ended, 2) for route, (_, end) in window.span.items()},
        "slowest_s": {route: round(slowest, 3) for route, slowest in window.slowest_s.items()},
        "failed_by_second": {f"{route}: {kind}": {at: count for (one, other, at), count in sorted(window.timeline.items()) if (one, other) == (route, kind)}
                             for route, kind in sorted(window.failed)},
        "stale_bus_s": result.stale_bus, "alerts_after_s": {name: round(took) for name, took in result.fired.items()},
        "checked": dataclasses.asdict(result.checked), "notes": result.stage.notes, "samples": window.samples,
    }
    (folder / f"{result.fault.name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_row(result: Result, order: tuple[Fault, ...]) -> None:
    put_row(PAGE, (BEGIN, END), HEAD, row(result), [fault.name for fault in order])


def put_row(page: Path, marks: tuple[str, str], head: tuple[str, ...], new: str, order: list[str]) -> None:
    """Puts the row into the page's table between the marks, in place of the fault's earlier one. Rows of unknown faults are removed."""
    begin, end = marks
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    inside, _, after = rest.partition(end)
    rows = {line.split("`")[1]: line for line in (*inside.splitlines(), new) if line.startswith("| `")}
    lines = [*head, *(rows[name] for name in order if name in rows)]
    page.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}", encoding="utf-8")
