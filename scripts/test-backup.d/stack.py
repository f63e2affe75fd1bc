"""The containers of one project, its database, its bucket, and a writer whose every acknowledged row is known."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from checks import Failed as Failed, require as require, wait as wait

ROOT = Path(__file__).resolve().parents[2]
SECRETS = Path(os.environ["LINNET_SECRETS"])
PROJECT = os.environ["LINNET_PROJECT"]
# The time, as `restore --to` takes it.
NOW = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
RESTORE = ROOT / "deploy/host/restore"


def run(*command: str, check: bool = True, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=timeout, check=False)
    if check and done.returncode:
        raise Failed(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stdout[-3000:]}")
    return done


def compose(*words: str, check: bool = True, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("docker", "compose", "--progress", "quiet", *words, check=check, timeout=timeout, **environment)


# The sidecar runs jobs by itself, and a command does not wait for them.
BUSY = "is in progress; try again"


def when_idle(command: Callable[[bool], subprocess.CompletedProcess[str]], check: bool) -> subprocess.CompletedProcess[str]:
    """Repeats a command while another job is in progress, for at most 5 min."""
    started = time.monotonic()
    while True:
        done = command(False)
        if BUSY not in done.stdout or time.monotonic() - started > 300:
            break
        time.sleep(1)
    if check and done.returncode:
        raise Failed(f"exit code {done.returncode}:\n{done.stdout[-3000:]}")
    return done


def at_once(*words: str, check: bool = True, timeout: float = 900, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of the sidecar in a container of its own."""
    options = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    return compose("run", "--rm", "--no-deps", "-T", *options, "backup", *words, check=check, timeout=timeout)


def once(*words: str, check: bool = True, timeout: float = 900, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same, when no job is in progress."""
    return when_idle(lambda check: at_once(*words, check=check, timeout=timeout, **environment), check)


def restore(*words: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    return when_idle(lambda check: run(str(RESTORE), *words, check=check, timeout=timeout), check)


def container(service: str) -> str:
    found = compose("ps", "-aq", service).stdout.split()
    require(found, f"no container of {service}")
    return found[0]


def sql(statement: str, *, check: bool = True) -> str:
    done = compose("exec", "-T", "postgres", "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "linnet", "-c", statement, check=check)
    return done.stdout.strip()


def volume(name: str) -> Path:
    return Path(json.loads(run("docker", "volume", "inspect", f"{PROJECT}_{name}").stdout)[0]["Mountpoint"])


def bucket() -> Path:
    return volume("s3") / "backups"


def metrics() -> dict[str, float]:
    text = run("docker", "exec", container("backup"), "bash", "-c",
               "exec 3<>/dev/tcp/127.0.0.1/9085; printf 'GET /metrics HTTP/1.1\\r\\n\\r\\n' >&3; cat <&3").stdout
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("linnet_backup_")]
    return {name: float(value) for name, value in lines}


def metric(name: str) -> float:
    return metrics().get(f"linnet_backup_{name}", -1.0)


def log(service: str, since: str = "10m") -> str:
    return run("docker", "logs", "--since", since, container(service), check=False).stdout


def require_refused(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    """The command failed, and its message names the way out."""
    require(done.returncode != 0, f"it succeeded:\n{done.stdout[-1500:]}")
    for text in texts:
        require(text in done.stdout, f"the message lacks `{text}`:\n{done.stdout[-1500:]}")
    errors = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    if errors:
        print(f"    {errors[-1][:300]}", flush=True)


def up(*services: str) -> None:
    compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "180", *services)


def wait_for_first_backup() -> float:
    return wait(180, "the first backup", lambda: metrics().get('linnet_backup_last_success_timestamp_seconds{kind="full"}', 0) > 0)


def wait_until_drained(seconds: float = 120) -> float:
    return wait(seconds, "no WAL to wait", lambda: metric("archive_waiting_segments") == 0 and metric("archive_unarchived_segments") == 0)


# Both colors exist in other profiles than the default one.
USERS_OF_DATABASE = ("shortener-blue", "gateway-blue", "worker", "migrate", "preflight")


def lose_everything(*volumes: str) -> None:
    """The disk is gone: the containers that use the volumes, and the volumes themselves."""
    compose("rm", "--stop", "--force", "postgres", "backup", "restore", *USERS_OF_DATABASE, check=False)
    for name in volumes:
        run("docker", "volume", "rm", "--force", f"{PROJECT}_{name}")


class Writer:
    """Inserts events one by one, and notes when PostgreSQL acknowledged each."""

    def __init__(self, per_second: float = 20) -> None:
        self.acknowledged: list[tuple[int, float]] = []
        self._pause = 1 / per_second
        self._stop = threading.Event()
        self._process = subprocess.Popen(
            ["docker", "exec", "-i", container("postgres"), "psql", "-XqAt", "-U", "postgres", "-d", "linnet"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        assert self._process.stdin and self._process.stdout
        try:
            while not self._stop.is_set():
                self._process.stdin.write("INSERT INTO events (event_type) VALUES ('test.written') RETURNING id;\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
                if not line:
                    return
                self.acknowledged.append((int(line), time.time()))
                self._stop.wait(self._pause)
        except (OSError, ValueError):
            return

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._process.kill()
        self._process.wait()

    def lost(self, at: float) -> tuple[int, float]:
        """How many acknowledged rows the database lacks, and how long before `at` the first of them was written."""
        present = set(map(int, sql("SELECT id FROM events WHERE event_type = 'test.written'").split()))
        absent = [(number, time) for number, time in self.acknowledged if number not in present]
        if not absent:
            return 0, 0.0
        first = min(absent)[0]
        require(all(number in present for number, _ in self.acknowledged if number < first), "a row is missing among older ones")
        return len(absent), at - absent[0][1]
