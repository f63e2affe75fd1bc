"""Latency for Locust users: 90 % resolve, 8 % create, 2 % list and edit, with 0.1 to 1 s between requests."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from figures import say
from processes import BenchError, Processes

ROOT = Path(__file__).resolve().parents[3]
FIGURES = ("users_50_*", "users_200_*", "users_500_*")


def prepare(processes: Processes) -> Path:
    """Installs the Python tools and returns the path of locust."""
    return Path(processes.run([str(ROOT / "scripts/python-tools")]).stdout.strip()) / "locust"


def run(bench) -> None:
    locust = prepare(bench.processes)
    for users in (50, 200, 500):
        one(bench, locust, users)


def one(bench, locust: Path, users: int) -> None:
    prefix = bench.stack.folder / f"locust-{users}"
    # All users run after two seconds; figures of the ramp are dropped.
    argv = [str(locust), "-f", str(Path(__file__).parents[1] / "locustfile.py"), "--headless", "--host", f"http://{bench.address}",
            "-u", str(users), "-r", str(users / 2), "-t", f"{bench.size.users_s + 2:g}s", "--reset-stats", "--only-summary",
            "--csv", str(prefix), "--exit-code-on-error", "0", "--processes", "2"]
    environment = bench.stack.environment | {"BENCH_KEY": bench.key, "BENCH_LIST": str(bench.zipf)}
    ran = bench.processes.run(argv, env=environment)
    with open(f"{prefix}_stats.csv", newline="") as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    total = rows["Aggregated"]
    if int(total["Request Count"]) < users:
        raise BenchError(f"locust made only {total['Request Count']} requests with {users} users\n{ran.stdout[-2000:]}")
    for name, row in rows.items():
        say(f"    {name}: {row['Request Count']} requests, {row['Failure Count']} failed, "
            f"p50 {row['50%']} ms, p95 {row['95%']} ms, p99 {row['99%']} ms")
    bars = users == 500
    figures = bench.figures
    figures.add(f"users_{users}_rate", float(total["Requests/s"]), "req/s",
                note=f"locust itself used {ran.cpu_s / ran.wall_s:.2f} of 2 cores" if os.cpu_count() == 2 else
                f"locust itself used {ran.cpu_s / ran.wall_s:.2f} cores")
    figures.add(f"users_{users}_p50", float(total["50%"]), "ms")
    figures.add(f"users_{users}_p95", float(total["95%"]), "ms", **({"at_most": 25} if bars else {}))
    figures.add(f"users_{users}_p99", float(total["99%"]), "ms")
    figures.add(f"users_{users}_errors", float(total["Failure Count"]), "requests", **({"at_most": 0} if bars else {}))
