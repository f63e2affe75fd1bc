"""The installation that a drill uses: a private one with its monitoring, or a running `make run` with `make monitor`."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy import Proxy
from receiver import Receiver

ROOT = Path(__file__).resolve().parents[2]
# Large enough for a new PostgreSQL and the drill's few writes.
DISK_BYTES = 600 * 1024 * 1024


class DrillError(Exception):
    """The drill cannot continue, or the installation did not behave as it should."""


def wait(seconds: float, what: str, condition: Callable[[], Any]) -> float:
    """Polls until the condition is true. Returns how long that took, in seconds."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if condition():
            return time.monotonic() - start
        time.sleep(0.5)
    raise DrillError(f"timed out after {seconds:.0f} s waiting for {what}")


def run(*command: str, timeout: float = 60, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Runs a command and returns its output, both streams."""
    try:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, timeout=timeout, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except subprocess.TimeoutExpired as expired:
        output = expired.output.decode() if isinstance(expired.output, bytes) else expired.output or ""
        if check:
            raise DrillError(f"{command[0]} took longer than {timeout:.0f} s: {output}") from None
        return f"{output}\n(no response within {timeout:.0f} s)"
    if check and done.returncode:
        raise DrillError(f"{' '.join(command)} returned {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def get_json(url: str) -> Any:
    """The JSON of a GET request, or None if there is no response."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return json.load(response)
    except (OSError, ValueError):
        return None


class Stack:
    """A running installation and its monitoring."""

    def __init__(self, folder: Path, private: bool) -> None:
        self.folder = folder
        self.is_private = private
        self.has_small_disk = False
        self.proxy: Proxy | None = None
        self.receiver: Receiver | None = None
        self.children: list[subprocess.Popen[bytes]] = []

    # --- Files of the run directory -----------------------------------------------------------------------------------
    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8").strip()

    def port(self, name: str) -> int:
        for file in ("ports", "monitor/ports"):
            for line in self.text(file).splitlines():
                key, _, value = line.partition("=")
                if key == name:
                    return int(value)
        raise DrillError(f"no port of {name} in {self.folder}")

    def pid(self, name: str) -> int:
        return int(self.text(f"pids/{name}").split()[0])

    @property
    def address(self) -> str:
        return self.text("address")

    @property
    def env(self) -> dict[str, str]:
        return {"RUN_DIR": str(self.folder)}

    def oncall(self, *command: str, timeout: float = 60) -> str:
        return run("scripts/oncall", *command, env=self.env, timeout=timeout)

    # --- Monitoring ---------------------------------------------------------------------------------------------------
    def alerts(self) -> list[dict[str, Any]]:
        """The firing alerts of Prometheus, without the one that always fires."""
        found = get_json(f"http://127.0.0.1:{self.port('prometheus')}/api/v1/alerts") or {"data": {"alerts": []}}
        return [one for one in found["data"]["alerts"]
                if one["state"] == "firing" and one["labels"]["alertname"] != "Watchdog"]

    def delivered(self, name: str) -> bool:
        """Whether Alertmanager has the alert and no other alert silences it."""
        found = get_json(f"http://127.0.0.1:{self.port('alertmanager')}/api/v2/alerts?inhibited=false&silenced=false")
        return any(one["labels"]["alertname"] == name for one in found or [])

    def query(self, expression: str) -> float | None:
        """The first value of an expression."""
        text = urllib.parse.urlencode({"query": expression})
        found = get_json(f"http://127.0.0.1:{self.port('prometheus')}/api/v1/query?{text}")
        result = found["data"]["result"] if found else []
        return float(result[0]["value"][1]) if result else None

    # --- Processes ----------------------------------------------------------------------------------------------------
    def spawn(self, name: str, command: list[str], env: dict[str, str]) -> int:
        """Starts a process of the installation with its own session, and notes its pid as scripts/run does."""
        with (self.folder / f"logs/{name}.log").open("ab") as log:
            child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     start_new_session=True)
        self.children.append(child)
        fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        (self.folder / f"pids/{name}").write_text(f"{child.pid} {fields[19]}\n", encoding="utf-8")
        return child.pid

    def start_store(self, name: str) -> None:
        """Starts PostgreSQL or Redis again after it has ended."""
        port = {"redis": "redis_port"}.get(name)
        number = self.port(port) if port else int(urllib.parse.urlsplit(self.text("postgres/url")).port or 0)
        self.spawn(name, [str(ROOT / "scripts/service"), name, str(self.folder / name), str(number)], dict(os.environ))

    def restart(self, name: str, extra: dict[str, str]) -> int:
        """Restarts a process of Linnet with more variables in its environment, and waits until it is ready."""
        pid = self.pid(name)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        # A build during the drill replaces the file.
        program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
        os.kill(pid, signal.SIGTERM)
        wait(40, f"{name} to exit", lambda: not is_running(pid))
        pid = self.spawn(name, [program, *command[1:]], {**env, **extra})
        url = f"http://127.0.0.1:{self.port(f'{name}_admin')}/readyz"
        wait(60, f"{name} to be ready", lambda: is_ready(url))
        return pid

    def close(self) -> None:
        for child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.terminate()
                try:
                    child.wait(180)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait(10)
        if self.proxy:
            self.proxy.close()
        if self.receiver:
            self.receiver.close()


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def running_installation(folder: Path, force: bool) -> Stack | None:
    """The installation of a running `make run`, if there is one."""
    stack = Stack(folder, private=False)
    try:
        is_up = is_running(stack.pid("run"))
        host = urllib.parse.urlsplit(stack.address).hostname or ""
    except (OSError, ValueError):
        return None
    if not is_up:
        return None
    if not (folder / "monitor/ports").exists():
        raise DrillError(f"{folder} runs without monitoring: type `make monitor` in another terminal first")
    base = next((pair.partition("=")[2] for pair in Path(f"/proc/{stack.pid('gateway')}/environ").read_text(encoding="utf-8")
                 .split("\0") if pair.startswith("LINNET__PUBLIC__BASE_URL=")), "")
    local = {"localhost", "127.0.0.1", "::1"}
    if not force and not {host, urllib.parse.urlsplit(base).hostname or host} <= local:
        raise DrillError(f"{folder} serves {base or host}, which may be production. FORCE=yes injects the fault all the same")
    return stack


def private_installation(profile: str) -> Stack:
    """Starts `make run` and `make monitor` on free ports, prepared for every fault."""
    folder = Path(tempfile.mkdtemp(prefix="linnet-drill."))
    # PostgreSQL's user and nginx's worker processes must be able to enter.
    folder.chmod(0o711)
    stack = Stack(folder, private=True)
    try:
        start_private(stack, profile)
    except BaseException:
        discard(stack, keep=os.environ.get("KEEP") == "yes")
        raise
    return stack


def start_private(stack: Stack, profile: str) -> None:
    folder = stack.folder
    data = folder / "postgres"
    data.mkdir()
    stack.has_small_disk = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=711", "tmpfs", str(data)],
                                          check=False, stderr=subprocess.DEVNULL).returncode == 0
    password = secrets.token_hex(16)
    write_secret(data / "password", password)
    postgres = free_port()
    stack.proxy = Proxy(postgres)
    write_secret(folder / "url-proxy", f"postgres://linnet:{password}@127.0.0.1:{stack.proxy.port}/linnet")
    print(f"    private installation in {folder}", flush=True)
    env = {**os.environ, **stack.env, "PROFILE": profile, "KEEP_GOING": "yes", "PORT": str(free_port()), "PG_PORT": str(postgres),
           "LINNET__POSTGRES__URL_FILE": str(folder / "url-proxy"),
           # Clients of the drill have addresses of their own, so all limits apply to them.
           "LINNET_NGINX_TRUSTED_PROXIES": "127.0.0.1"}
    start_script(stack, "run", env)
    wait(1_800, "`make run`", lambda: has_started(stack, "run", "Linnet is running."))
    stack.receiver = Receiver()
    start_script(stack, "monitor", {**os.environ, **stack.env, "DISCORD_WEBHOOK": stack.receiver.url})
    wait(120, "`make monitor`", lambda: has_started(stack, "monitor", "/alerts"))
    wait(90, "the first scrapes", lambda: stack.query("count(up == 1)") == stack.query("count(up)") and stack.query("count(up)"))


def start_script(stack: Stack, name: str, env: dict[str, str]) -> None:
    with (stack.folder / f"{name}.log").open("wb") as log:
        stack.children.append(subprocess.Popen([str(ROOT / "scripts" / name)], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                                               stdout=log, stderr=log, start_new_session=True))


def has_started(stack: Stack, name: str, sign: str) -> bool:
    text = (stack.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    if stack.children[-1].poll() is not None:
        raise DrillError(f"scripts/{name} failed:\n{text[-3_000:]}")
    return sign in text


def write_secret(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)


def discard(stack: Stack, keep: bool) -> None:
    """Stops a private installation and deletes its folder."""
    stack.close()
    if stack.has_small_disk:
        run("umount", str(stack.folder / "postgres"), check=False)
    if keep:
        print(f"    kept {stack.folder}", flush=True)
    else:
        shutil.rmtree(stack.folder, ignore_errors=True)
