"""`make profile`: loads one part of Linnet and records its processes. See CONTRIBUTING.md.

    record.py PART SAMPLER DURATION OUT INFERNO
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bulk import Bulk, is_over  # noqa: E402
from figures import say  # noqa: E402
from processes import BenchError, Process, Processes  # noqa: E402
from recorders import Recorder, recorder_of  # noqa: E402
from stack import Stack, bash  # noqa: E402
from tools import Tools  # noqa: E402

LINKS = 100_000
DRAWS = 1_000_000
CREATE_CONNECTIONS = 32
# About 15 s of work each; counting allocations slows the programs down.
CLICKS, HEAP_CLICKS = 2_000_000, 200_000
ROWS, HEAP_ROWS = 100_000, 20_000


class Target:
    """The servers, and the recorder of those under load."""

    def __init__(self, processes: Processes, stack: Stack, recorder: Recorder, duration_s: float) -> None:
        self.processes, self.stack, self.recorder, self.duration_s = processes, stack, recorder, duration_s
        self.tools = Tools(processes, stack)
        stack.start_databases()

    def start_servers(self, *, record_gateway: bool) -> None:
        """Starts shortener, gateway and nginx."""
        stack, recorder = self.stack, self.recorder
        self.shortener = stack.start_shortener("shortener", **recorder.settings("linnet-shortener"))
        settings = recorder.settings("linnet-gateway") if record_gateway else {}
        self.gateway, socket = stack.start_gateway("gateway", [self.shortener], **settings)
        self.nginx, self.address = stack.start_nginx("nginx", [self.shortener.resolve], socket)

    def record(self, processes: dict[str, Process], load: Callable[[], object]) -> None:
        """Records these processes, by name, while the load runs, and stops them so that they write what they recorded."""
        say("==> recording")
        start = time.monotonic()
        self.recorder.start({name: process.pid for name, process in processes.items()})
        load()
        self.recorder.stop()
        say(f"    ({time.monotonic() - start:.0f} s)")
        for process in processes.values():
            self.processes.stop(process)


def resolve(target: Target) -> None:
    target.stack.load(LINKS)
    target.start_servers(record_gateway=False)
    codes, _ = target.tools.draw(LINKS, DRAWS, seed=1)
    target.tools.replay(target.address, target.tools.codes(LINKS), connections=16)
    target.record({"linnet-shortener": target.shortener.process},
                  lambda: target.tools.wrk_visits(target.address, codes, target.duration_s, 0.0))


def creates(target: Target) -> None:
    target.stack.load(LINKS)
    key, _ = target.stack.create_key()
    target.start_servers(record_gateway=True)
    target.record({"linnet-shortener": target.shortener.process, "linnet-gateway": target.gateway},
                  lambda: target.tools.wrk_create(target.address, key, "profile", target.duration_s, CREATE_CONNECTIONS))


def ingest(target: Target) -> None:
    stack = target.stack
    stack.create_key()
    clicks = HEAP_CLICKS if target.recorder.is_slow else CLICKS
    stack.generate(LINKS, clicks, 1, 1, "--to-stream")
    worker = stack.start_worker("worker", **target.recorder.settings("linnet-worker"))

    def drain() -> None:
        recorded = stack.wait_recorded(clicks, 600)
        if recorded != clicks:
            raise BenchError(f"the worker recorded {recorded:,} clicks instead of {clicks:,}")

    target.record({"linnet-worker": worker}, drain)


def imports(target: Target) -> None:
    stack = target.stack
    target.start_servers(record_gateway=False)
    worker = stack.start_worker("worker", **target.recorder.settings("linnet-worker"))
    bulk = Bulk(stack, target.address)
    file = bulk.file(0, HEAP_ROWS if target.recorder.is_slow else ROWS)

    def upload() -> None:
        job = bulk.wait(bulk.upload(file), is_over)
        if job["state"] != "succeeded":
            raise BenchError(f"the import did not succeed: {job}")

    target.record({"linnet-worker": worker, "linnet-shortener": target.shortener.process}, upload)


PARTS = {"resolve": resolve, "creates": creates, "ingest": ingest, "import": imports}


def main() -> int:
    part, sampler, duration, out, inferno = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="run.", dir=out))
    # nginx's worker processes and PostgreSQL's user must be able to enter.
    folder.chmod(0o711)
    logs = Path(out) / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    processes = Processes(logs)
    stack = Stack(processes, folder, Path(bash(f"socket_folder '{folder}/sockets'")), Path(os.environ["LINNET_BENCH_BINARIES"]))
    recorder = recorder_of(sampler, processes, folder, Path(inferno))

    def stop(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        say("==> starting the servers and loading data")
        PARTS[part](Target(processes, stack, recorder, float(duration)))
        say("==> writing the flame graph and the list")
        recorder.write(part, Path(out))
    except BenchError as error:
        say(f"error: {error}\nlogs: {logs}")
        return 1
    finally:
        # No signal may interrupt the clean-up.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        processes.stop_all()
        stack.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
