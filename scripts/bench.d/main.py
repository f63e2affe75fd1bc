"""`make bench`: measures the selected parts and compares the figures with the bars. See docs/BENCHMARKS.md."""

from __future__ import annotations

import fnmatch
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from figures import Figures, say  # noqa: E402
from measures import (  # noqa: E402
    clicks, cold_zipf, cost, creates, export, imports, ingest, jobs, latency, memory, peak, startup, stats, telemetry, tls, users,
)
from processes import BenchError, Processes, resident_mib  # noqa: E402
from stack import ROOT, Stack, bash  # noqa: E402
from tools import Tools  # noqa: E402

# In run order: parts that create links come after parts that rely on the loaded links, and memory comes last.
PARTS = {"peak": peak, "tls": tls, "latency": latency, "cold_start": startup, "cold_zipf": cold_zipf, "export": export, "creates": creates,
         "users": users, "clicks": clicks, "telemetry": telemetry, "ingest": ingest, "cost": cost, "stats": stats,
         "import": imports, "jobs": jobs, "memory": memory}


@dataclass(frozen=True)
class Size:
    """Amounts of data and lengths of rounds."""

    links: int = 1_000_000
    warm_links: int = 100_000
    warm_draws: int = 1_000_000
    cold_draws: int = 2_000_000
    rounds: int = 5
    round_s: float = 5
    latency_rounds: int = 5
    latency_s: float = 8
    starts: int = 5
    export_rounds: int = 3
    create_rounds: int = 5
    create_s: float = 5
    users_s: float = 30
    saturation_s: float = 30
    cost_rounds: int = 3
    cost_s: float = 8
    cost_lookups: int = 50_000
    cost_links: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    ingest_rounds: int = 3
    ingest_clicks: int = 1_000_000
    stats_rounds: int = 5
    stats_requests: int = 300
    stats_few: int = 100_000
    stats_many: int = 10_000_000
    stats_links: int = 50_000
    import_rows: int = 1_000_000
    import_rounds: int = 3
    import_resolve_rounds: int = 2
    import_resolve_s: float = 15
    small_jobs: int = 1_000
    small_job_rows: int = 10


QUICK = Size(links=200_000, warm_draws=300_000, cold_draws=300_000, rounds=3, round_s=1, latency_rounds=3, latency_s=3, starts=2,
             export_rounds=2, create_rounds=3, create_s=2, users_s=6, saturation_s=5, cost_rounds=1, cost_s=2, cost_lookups=20_000,
             cost_links=(10_000, 200_000), ingest_rounds=2, ingest_clicks=100_000, stats_rounds=3, stats_requests=100,
             stats_few=20_000, stats_many=200_000, stats_links=2_000, import_rows=100_000, import_rounds=2,
             import_resolve_rounds=1, import_resolve_s=3, small_jobs=100)


class Bench:
    """State shared by the parts: a warm installation, and the bare handler behind the same nginx configuration."""

    def __init__(self, processes: Processes, stack: Stack, size: Size) -> None:
        self.processes, self.stack, self.size = processes, stack, size
        self.figures = Figures()
        self.tools = Tools(processes, stack)
        self.peak_rate: float | None = None

    def set_up(self) -> None:
        stack = self.stack
        say("==> starting PostgreSQL and Redis")
        stack.start_databases()
        say(f"==> loading {self.size.links:,} links")
        stack.load(self.size.links)
        self.key, self.user_id = stack.create_key()
        say("==> starting shortener, gateway, bare handler and nginx")
        self.shortener = stack.start_shortener("shortener")
        self.gateway, self.gateway_socket = stack.start_gateway("gateway", [self.shortener])
        self.bare_socket = stack.socket("bare")
        self.bare = stack.start_bare("bare", self.bare_socket)
        self.nginx, self.address = stack.start_nginx("nginx", [self.shortener.resolve], self.gateway_socket)
        _, self.bare_address = stack.start_nginx("nginx-bare", [self.bare_socket], self.gateway_socket)
        self.zipf, _ = self.tools.draw(self.size.warm_links, self.size.warm_draws, seed=1)
        self.one = self.tools.codes(1)
        # As long as the other list: the machine is idle while wrk reads it, and a measurement after a pause is faster.
        self.one_link, _ = self.tools.draw(1, self.size.warm_draws, seed=1)
        self.warm(self.address)

    def warm(self, address: str) -> None:
        """Requests every link of the warm set and checks its target. It retries, because cold lookups can time out on a busy
        machine."""
        for _ in range(3):
            report = self.tools.replay(address, self.tools.codes(self.size.warm_links), connections=16)
            if report["redirected"] == self.size.warm_links:
                return
            say(f"  warning: some links do not redirect to their targets: {report}")
        raise BenchError("cannot warm up the links: some still do not redirect to their targets")

    def resident(self, pid: int) -> float:
        return resident_mib(pid)


def selected(only: str) -> list[str]:
    """The parts that ONLY selects, by name or by one of their figures."""
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    if not wanted:
        return list(PARTS)
    parts = set()
    for name in wanted:
        found = {part for part, module in PARTS.items()
                 if name == part or any(fnmatch.fnmatch(name, pattern) for pattern in module.FIGURES)}
        if not found:
            raise BenchError(f"ONLY={name}: unknown part or figure; choose from:\n{listing()}")
        parts |= found
    return [part for part in PARTS if part in parts]


def listing() -> str:
    return "\n".join(f"{part}: {' '.join(module.FIGURES)}" for part, module in PARTS.items())


def warn_if_busy() -> None:
    """Warns if other programs use the processors. Ratios tolerate a slow machine, but not bursts of other load."""
    def ticks() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    idle, total = ticks()
    time.sleep(2)
    idle, total = ticks()[0] - idle, ticks()[1] - total
    busy = 1 - idle / max(total, 1)
    if busy > 0.15:
        say(f"  warning: other programs use {busy:.0%} of the processors, so the figures are unreliable")


def measure(bench: Bench, parts: list[str]) -> None:
    if "users" in parts:
        users.prepare(bench.processes)
    warn_if_busy()
    bench.set_up()
    for part in parts:
        say(f"==> {part}")
        start = time.monotonic()
        # Clicks of the previous part must not affect this one.
        bench.stack.forget_clicks()
        PARTS[part].run(bench)
        bench.processes.check()
        say(f"    ({time.monotonic() - start:.0f} s)")


def main() -> int:
    only = os.environ.get("ONLY", "")
    if only == "list":
        say(listing())
        return 0
    try:
        parts = selected(only)
    except BenchError as error:
        say(f"error: {error}")
        return 64
    if sys.argv[1:] == ["check"]:
        return 0
    out = ROOT / "target" / "bench"
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("run.*"):
        shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="run.", dir=out))
    # nginx's worker processes and PostgreSQL's user must be able to enter.
    folder.chmod(0o711)
    logs = out / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    sockets = Path(bash(f"socket_folder '{folder}/sockets'"))
    processes = Processes(logs)
    stack = Stack(processes, folder, sockets, Path(os.environ["LINNET_BENCH_BINARIES"]))
    bench = Bench(processes, stack, QUICK if os.environ.get("QUICK") == "1" else Size())

    def stop(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    start, status = time.monotonic(), 1
    try:
        measure(bench, parts)
        status = 0
    except BenchError as error:
        say(f"error: {error}\nlogs: {logs}")
    finally:
        # No signal may interrupt the clean-up.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        processes.stop_all()
        stack.remove()
    bench.figures.write(out / "latest.json")
    say("\n" + bench.figures.table())
    say(f"\n{time.monotonic() - start:.0f} s; {out}/latest.json")
    if status == 0 and not bench.figures.all_met():
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
