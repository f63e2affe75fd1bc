"""Processes of this run.

Each has its own session, so Ctrl-C reaches only this script, which stops them by pid, in reverse order.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable


class BenchError(Exception):
    """An error that is shown without a traceback."""


@dataclass
class Process:
    name: str
    popen: subprocess.Popen
    stop_signal: signal.Signals
    grace_s: float
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid


@dataclass
class Ran:
    """A finished tool: its output, and the processor time of it and its children."""

    stdout: str
    wall_s: float
    cpu_s: float


class Processes:
    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: list[Process] = []

    def start(self, name: str, argv: list[str], env: dict[str, str], *,
              stop_signal: signal.Signals = signal.SIGTERM, grace_s: float = 30) -> Process:
        log = self.logs / f"{name}.log"
        with log.open("ab") as out:
            popen = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                     start_new_session=True)
        process = Process(name, popen, stop_signal, grace_s, log)
        self.running.append(process)
        return process

    def wait_until(self, process: Process, what: str, ready: Callable[[], bool], timeout_s: float = 60,
                   every_s: float = 0.05) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if process.popen.poll() is not None:
                raise BenchError(f"{process.name} exited while waiting for {what}\n{tail(process.log)}")
            if time.monotonic() > deadline:
                raise BenchError(f"timed out after {timeout_s:g} s waiting for {what}\n{tail(process.log)}")
            time.sleep(every_s)

    def stop(self, process: Process) -> None:
        if process in self.running:
            self.running.remove(process)
        end(process.popen, process.stop_signal, process.grace_s, process.name)

    def stop_all(self) -> None:
        while self.running:
            self.stop(self.running[-1])

    def check(self) -> None:
        """Fails if a server has exited: the next figure would be meaningless."""
        for process in self.running:
            if process.popen.poll() is not None:
                raise BenchError(f"{process.name} exited unexpectedly\n{tail(process.log)}")

    def run(self, argv: list[str], *, env: dict[str, str] | None = None, stdin=subprocess.DEVNULL,
            timeout_s: float = 600) -> Ran:
        """Runs a tool until it exits. An exit code other than 0 is an error."""
        before, start = cpu_of_children(), time.monotonic()
        popen = subprocess.Popen(argv, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 start_new_session=True)
        try:
            stdout, stderr = popen.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{argv[0]} did not exit within {timeout_s:g} s") from None
        finally:
            if popen.poll() is None:
                end(popen, signal.SIGTERM, 5, argv[0])
        if popen.returncode != 0:
            raise BenchError(f"{' '.join(argv[:3])} … failed with exit code {popen.returncode}: {stderr[-2000:]}{stdout[-500:]}")
        self.check()
        return Ran(stdout, time.monotonic() - start, cpu_of_children() - before)


def end(popen: subprocess.Popen, stop_signal: signal.Signals, grace_s: float, name: str) -> None:
    if popen.poll() is not None:
        return
    popen.send_signal(stop_signal)
    try:
        popen.wait(grace_s)
    except subprocess.TimeoutExpired:
        print(f"warning: {name} did not exit in time and was killed", flush=True)
        # Its whole session, because nothing else would stop its children.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tail(path: Path, lines: int = 15) -> str:
    with contextlib.suppress(OSError):
        return "\n".join("    | " + line for line in path.read_text(errors="replace").splitlines()[-lines:])
    return ""


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                parents.setdefault(int(stat.rsplit(") ", 1)[1].split()[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        todo.extend(parents.get(current, []))
    return found


def cpu_us(*pids: int) -> float:
    """Processor time of these processes and their descendants, including exited ones, in microseconds."""
    ticks = 0
    for pid in pids:
        for member in tree(pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{member}/stat").read_text().rsplit(") ", 1)[1].split()
                ticks += sum(int(field) for field in fields[11:15])
    return ticks * 1e6 / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """VmRSS, shared pages in full."""
    return status_mib(pid, "VmRSS:")


def peak_mib(pid: int) -> float:
    """VmHWM: the highest VmRSS since the start or `forget_peak`."""
    return status_mib(pid, "VmHWM:")


def forget_peak(pid: int) -> None:
    """Resets `peak_mib`."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def status_mib(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise BenchError(f"process {pid} has no {name}")


def proportional_mib(pid: int) -> float:
    """Pss of a process and its descendants: shared pages count once."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024
