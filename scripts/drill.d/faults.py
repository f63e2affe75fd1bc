"""The twelve faults. Each one is prepared, injected, and taken back."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack import ROOT, DrillError, Stack, is_running, run, wait
from traffic import Client, flood, hot_link, shorten

MIB = 1024 * 1024
# A fault that is being injected: the `yield` stands for its duration.
Injection = Iterator[None]


class Fault:
    """One fault, with the alert that must report it."""

    title = ""
    alert = ""
    # A word that the alert's labels or summary must contain.
    component = ""
    # A regular expression that the output of the runbook's checks must match.
    shown_by = ""
    # Needs processes that the drill may restart, the proxy or the small disk.
    needs_private = False

    def prepare(self, stack: Stack) -> None:
        """Steps before the fault, which cause no alert."""

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        raise NotImplementedError
        yield


class WorkerFrozen(Fault):
    title = "worker frozen (`SIGSTOP`)"
    alert, component, shown_by = "WorkerDown", "worker", r"\d+ T\S*\s"

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        pid = stack.pid("worker")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


class RedisRefusesWrites(Fault):
    title = "Redis refuses writes (`maxmemory` 1 MiB, `noeviction`)"
    alert, component, shown_by = "RedisRefusesWrites", "redis", r"refuses writes: OOM"

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        before = {name: stack.oncall("redis", "CONFIG", "GET", name).split()[-1] for name in ("maxmemory", "maxmemory-policy")}
        stack.oncall("redis", "CONFIG", "SET", "maxmemory-policy", "noeviction")
        stack.oncall("redis", "CONFIG", "SET", "maxmemory", "1mb")
        try:
            yield
        finally:
            for name, value in before.items():
                stack.oncall("redis", "CONFIG", "SET", name, value)


@contextmanager
def psql_sessions(stack: Stack, statement: str, count: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Sessions of the application `drill` that run the statement."""
    psql = run("bash", "-c", 'source scripts/lib.sh && postgres_bin ""').strip() + "/psql"
    url = stack.text("postgres/url")
    env = {**os.environ, "PGAPPNAME": "drill"}
    sessions = [subprocess.Popen([psql, url, "-qAtc", statement], env=env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) for _ in range(count)]
    try:
        yield sessions
    finally:
        for session in sessions:
            # psql cancels its statement. A killed one would leave its session until PostgreSQL writes to it.
            session.send_signal(signal.SIGINT)
        for session in sessions:
            try:
                session.wait(20)
            except subprocess.TimeoutExpired:
                session.kill()


class TableLocked(Fault):
    title = "`ACCESS EXCLUSIVE` lock on `urls`"
    alert, component, shown_by = "PostgresExclusiveLock", "postgres", r"drill .* urls +\| t "

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        with psql_sessions(stack, "BEGIN; LOCK TABLE urls IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(900)"):
            yield


class Flood(Fault):
    title = "flood of random codes and bad keys from one address"
    alert, component, shown_by = "RequestsRefused", "gateway", r'"client":"203\.0\.113\.0"|203\.0\.113\.0'

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        load = flood(stack.address)
        try:
            yield
        finally:
            load.stop()


class PostgresFrozen(Fault):
    title = "PostgreSQL frozen (`SIGSTOP` of all its processes)"
    alert, component, shown_by = "PostgresDown", "postgres", r"timeout expired|no response"

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        pid = stack.pid("postgres")
        os.kill(pid, signal.SIGSTOP)
        frozen = [pid, *children(pid)]
        for one in frozen[1:]:
            os.kill(one, signal.SIGSTOP)
        try:
            yield
        finally:
            for one in reversed(frozen):
                if is_running(one):
                    os.kill(one, signal.SIGCONT)


def children(pid: int) -> list[int]:
    found = []
    for file in glob.glob(f"/proc/{pid}/task/*/children"):
        found += [int(one) for one in Path(file).read_text(encoding="utf-8").split()]
    return found


class ConnectionsExhausted(Fault):
    title = "PostgreSQL's connections exhausted"
    alert, component, shown_by = "PostgresConnectionsExhausted", "postgres", r"drill +\|"

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        # More than there is room for: the others are rejected.
        with psql_sessions(stack, "SELECT pg_sleep(900)", 100):
            yield


class DiskFull(Fault):
    title = "disk of PostgreSQL full"
    alert, component, needs_private = "DiskAlmostFull", "postgres", True
    shown_by = r"(?m)(9\d|100)% .*/postgres$"

    def prepare(self, stack: Stack) -> None:
        if not stack.has_small_disk:
            raise DrillError("disk-full needs root, to mount a small disk")

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        ballast = stack.folder / "postgres/ballast"
        with ballast.open("wb") as out:
            subprocess.run(["cat", "/dev/zero"], stdout=out, stderr=subprocess.DEVNULL, check=False)
        try:
            yield
        finally:
            ballast.unlink()
            if not is_running(stack.pid("postgres")):
                stack.start_store("postgres")


class RedisKilled(Fault):
    title = "Redis killed (`SIGKILL`)"
    alert, component, shown_by, needs_private = "RedisDown", "redis", r"redis +ended|Connection refused", True

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        os.kill(stack.pid("redis"), signal.SIGKILL)
        try:
            yield
        finally:
            stack.start_store("redis")


class NetworkBlackHoled(Fault):
    title = "network between all processes and PostgreSQL black-holed"
    alert, component, needs_private = "PostgresUnreachable", "postgres", True
    shown_by = r'"postgresql":\{?"?(status":")?down|postgresql.{0,40}down'

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        if stack.proxy is None:
            raise DrillError("network-blackholed needs the proxy of a private installation")
        stack.proxy.forwards.clear()
        try:
            yield
        finally:
            stack.proxy.forwards.set()


class ClockStepped(Fault):
    title = "the shortener's clock stepped by an hour (libfaketime)"
    alert, component, shown_by, needs_private = "ClockStepped", "shortener", r"=> 3(59|60)\d|=> -?3600", True

    def prepare(self, stack: Stack) -> None:
        library = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), "")
        if not library:
            raise DrillError("clock-stepped needs libfaketime: scripts/install-packages libfaketime")
        self._file(stack).write_text("+0\n", encoding="utf-8")
        stack.restart("shortener", {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(self._file(stack)),
                                    # The monotonic clock of a machine whose wall clock is stepped continues.
                                    "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
                                    "FAKETIME_CACHE_DURATION": "1"})

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        self._file(stack).write_text("+3600\n", encoding="utf-8")
        try:
            yield
        finally:
            self._file(stack).write_text("+0\n", encoding="utf-8")

    @staticmethod
    def _file(stack: Stack) -> Path:
        return stack.folder / "clock"


class GatewayLeaking(Fault):
    title = "gateway leaks memory (8 MiB/s, in a control group with a limit)"
    alert, component, shown_by, needs_private = "ProcessMemoryHigh", "gateway", r"gateway.*=> 0?\.?9\d*|=> 0\.9\d", True
    HEADROOM = 128 * MIB

    def prepare(self, stack: Stack) -> None:
        self._library(stack)
        pid = stack.restart("gateway", {
            "LD_PRELOAD": str(stack.folder / "leak.so"), "LINNET_DRILL_LEAK": str(stack.folder / "leak"),
            "LINNET_DRILL_LEAK_STEP": str(2 * MIB),
            # The kernel must not kill the process before the alert fires.
            "LINNET_DRILL_LEAK_MAX": str(int(0.95 * self.HEADROOM))})
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
        self.group = MemoryGroup(f"linnet-drill-{os.getpid()}", pages * os.sysconf("SC_PAGE_SIZE") + self.HEADROOM)
        self.group.add(pid)

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        (stack.folder / "leak").touch()
        try:
            yield
        finally:
            (stack.folder / "leak").unlink()
            # As in the runbook: a restart returns the memory.
            stack.restart("gateway", {"LD_PRELOAD": ""})
            self.group.close()

    @staticmethod
    def _library(stack: Stack) -> None:
        run("cc", "-O2", "-shared", "-fPIC", "-pthread", "-o", str(stack.folder / "leak.so"), str(ROOT / "scripts/drill.d/leak.c"))


class MemoryGroup:
    """A control group with a memory limit, in version 2 or 1."""

    def __init__(self, name: str, limit: int) -> None:
        base = Path("/sys/fs/cgroup")
        controllers = base / "cgroup.controllers"
        if controllers.exists() and "memory" in controllers.read_text(encoding="utf-8").split():
            (base / "cgroup.subtree_control").write_text("+memory", encoding="utf-8")
            self.folder, file = base / name, "memory.max"
        else:
            self.folder, file = base / "memory" / name, "memory.limit_in_bytes"
        try:
            self.folder.mkdir()
            (self.folder / file).write_text(str(limit), encoding="utf-8")
        except OSError as error:
            raise DrillError(f"gateway-leaking needs root and control groups of memory: {error}") from None

    def add(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid), encoding="utf-8")

    def close(self) -> None:
        procs = self.folder / "cgroup.procs"
        # A child of the group, such as the restarted process, cannot be in it: the drill itself is not.
        wait(20, "the control group to be empty", lambda: not procs.read_text(encoding="utf-8").strip())
        self.folder.rmdir()


class HotLink(Fault):
    title = "hot link (200 visits/s of one link)"
    alert, component, shown_by = "HotLink", "link", ""

    def prepare(self, stack: Stack) -> None:
        self.code = shorten(Client(stack.address, key=stack.text("admin-key")))
        if not self.code:
            raise DrillError("the hot link could not be created")
        self.shown_by = rf"(?m)^ +{self.code} +\| +\d{{4,}}"

    @contextmanager
    def injected(self, stack: Stack) -> Injection:
        load = hot_link(stack.address, self.code)
        try:
            yield
        finally:
            load.stop()


FAULTS: dict[str, Fault] = {
    "worker-frozen": WorkerFrozen(),
    "redis-refuses-writes": RedisRefusesWrites(),
    "table-locked": TableLocked(),
    "flood": Flood(),
    "postgres-frozen": PostgresFrozen(),
    "connections-exhausted": ConnectionsExhausted(),
    "disk-full": DiskFull(),
    "redis-killed": RedisKilled(),
    "network-blackholed": NetworkBlackHoled(),
    "clock-stepped": ClockStepped(),
    "gateway-leaking": GatewayLeaking(),
    "hot-link": HotLink(),
}
