"""The results: a JSON file for each fault in target/cluster, and the table of docs/CLUSTER.md."""

from __future__ import annotations

import os
from pathlib import Path

import table
from bars import ClusterResult
from engine import REDIS, ROOT
from faults import FAULTS

PAGE = ROOT / "docs/CLUSTER.md"
FOLDER = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "cluster"
BEGIN, END = "<!-- cluster:results -->", "<!-- cluster:end -->"
HEAD = ("| fault | bar | clients saw | for how long | stale answers past 1 s | acknowledged writes lost | clicks lost | a person | checked afterwards | date |",
        "|---|---|---|---|---|---|---|---|---|---|")


def named(fault: str) -> str:
    """The name of a fault's row: with a Redis Cluster, another one."""
    return f"redis-cluster/{fault}" if REDIS == "cluster" else fault


def row(result: ClusterResult) -> str:
    fault, found = result.fault, result.checked
    cells = [f"`{named(fault.name)}`: {fault.title}", fault.bar(), table.failed(result.window), table.how_long(result.window),
             f"{found.stale} of {found.checked_reads:,}", str(sum("acknowledged" in one for one in found.violations)), f"{found.clicks_lost} of {found.clicks + found.clicks_lost:,}",
             fault.person, table.checked(result)]
    return table.joined(cells, result.broken())


def write_json(result: ClusterResult) -> None:
    table.write_json(result, FOLDER)


def write_row(result: ClusterResult) -> None:
    names = [fault.name for fault in FAULTS]
    table.put_row(PAGE, (BEGIN, END), HEAD, row(result), [*names, *(f"redis-cluster/{name}" for name in names)])
