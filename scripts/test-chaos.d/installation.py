"""The installation under test: real containers, small disks, Prometheus and Alertmanager, both colors when needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import (ROOT, SCRATCH, SECRETS, WITHOUT, address_of, compose, containers, http, inspect, is_redirected, prometheus,
                    run, shorten, wait)
from receiver import Receiver

MONITORING = ("prometheus", "alertmanager", "node-exporter", "postgres-exporter", "redis-exporter", "nginx-exporter")
COLORED = ("shortener", "gateway")
# Volume -> size in MiB, owner. The database's has room for its write-ahead log.
DISKS = {"postgres": (1200, 999), "spool": (48, 65532), "uploads": (128, 65532)}
OVERLAY = SCRATCH / "chaos.yaml"


def write_overlay(receiver: Receiver) -> None:
    """The load comes from one address and one user. The volumes are small disks."""
    limits = "{LINNET__LIMITS__KEY_PER_MINUTE: '60000000', LINNET__LIMITS__KEY_BURST: '1000000', " \
             "LINNET__LIMITS__USER_PER_MINUTE: '60000000', LINNET__LIMITS__USER_BURST: '1000000'}"
    alertmanager = SCRATCH / "alertmanager.yml"
    volumes = "".join(f"  {name}: {{driver: local, driver_opts: {{type: none, o: bind, device: {disk(name)}}}}}\n" for name in DISKS)
    services = "".join(f"  gateway-{color}: {{environment: {limits}}}\n" for color in ("blue", "green"))
    # Uploads have a disk of their own here, so the reserve is not for PostgreSQL's write-ahead log.
    services += "".join(f"  {name}: {{environment: {{LINNET__JOBS__FREE_BYTES: '{16 << 20}'}}}}\n" for name in
                        ("shortener-blue", "shortener-green", "worker"))
    OVERLAY.write_text(f"services:\n  nginx: {{environment: {{LINNET_NGINX_API_RATE: 'off'}}}}\n{services}"
                       f"  alertmanager: {{extra_hosts: ['receiver:host-gateway'], volumes: ['{alertmanager}:/etc/alertmanager/alertmanager.yml:ro']}}\n"
                       f"volumes:\n{volumes}")
    # With a dead man's switch, as docs/runbooks/monitoring.md describes it.
    alertmanager.write_text(re.sub(r"(Watchdog.*\n +receiver:) none", r"\1 switch", (ROOT / "monitoring/alertmanager/alertmanager.yml").read_text())
                            + f"\n  - name: switch\n    webhook_configs: [{{url: 'http://receiver:{receiver.port}/watchdog'}}]\n")
    webhook = SECRETS / "discord_webhook"
    webhook.unlink(missing_ok=True)
    webhook.write_text(f"http://receiver:{receiver.port}/api/webhooks/1/token")
    webhook.chmod(0o444)


def disk(name: str) -> Path:
    return SCRATCH / "disks" / name


def mount_disks() -> None:
    # node-exporter must be able to see the disks; Docker's own directory is closed to it.
    SCRATCH.chmod(0o711)
    for name, (mib, owner) in DISKS.items():
        folder = disk(name)
        folder.mkdir(parents=True)
        image = SCRATCH / f"{name}.img"
        with image.open("wb") as file:
            file.truncate(mib << 20)
        run("mkfs.ext4", "-q", "-m", "0", str(image))
        if run("mount", "-o", "loop", str(image), str(folder), check=False).returncode:
            # Without loop devices.
            image.unlink()
            run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder))
        shutil.rmtree(folder / "lost+found", ignore_errors=True)
        os.chown(folder, owner, owner)
        folder.chmod(0o700)


def unmount_disks() -> None:
    for name in DISKS:
        run("umount", "-l", str(disk(name)), check=False)


def up(*services: str) -> None:
    compose("up", "-d", "--no-build", *services, files=(str(OVERLAY),))


def start(receiver: Receiver) -> None:
    run("scripts/compose-secrets")
    mount_disks()
    write_overlay(receiver)
    up("nginx", "gateway-blue", "worker")
    wait(60, "a response through nginx", lambda: http("/health", timeout=2)[0] == 200)
    key = compose("exec", "-T", "shortener-blue", "/linnet-shortener", "admin", "create-key", "--username", "admin", "--email",
                  "admin@localhost", "--name", "chaos", files=(str(OVERLAY),)).stdout.strip().splitlines()[-1]
    (SECRETS / "admin_key").write_text(key)
    shorten("first")
    wait(20, "the first redirect", lambda: is_redirected("first"))
    up(*(name for name in MONITORING if name not in WITHOUT))
    wait(60, "Prometheus to be ready", lambda: http("/-/ready", site=f"http://{address_of(containers('prometheus')[0], 'monitoring')}:9090")[0] == 200)
    wait(90, "Prometheus to discover Alertmanager", lambda: prometheus("/api/v1/alertmanagers")["activeAlertmanagers"])


# --- Colors ----------------------------------------------------------------------------------------------------------
def slots(*words: str) -> str:
    return run("docker", "exec", containers("nginx")[0], "sh", "/etc/nginx/slots.sh", *words).stdout.strip()


def is_healthy(service: str) -> bool:
    return any(inspect(one)["State"].get("Health", {}).get("Status") == "healthy" for one in containers(service))


def start_color(color: str) -> None:
    compose("up", "-d", "--no-build", "--no-deps", *(f"{name}-{color}" for name in COLORED), files=(str(OVERLAY),))
    for name in COLORED:
        wait(60, f"{name}-{color} to be healthy", lambda name=name: is_healthy(f"{name}-{color}"))


@contextmanager
def both_colors(*, wanted: bool) -> Iterator[None]:
    """Half of the requests go to green, if wanted."""
    if not wanted:
        yield
        return
    start_color("green")
    slots("green", "5")
    try:
        yield
    finally:
        if slots() != "resolve blue=10 green=0\nweb blue=10 green=0":
            slots("blue", "10")
        # nginx keeps a connection for at most a second, and green drains for longer.
        time.sleep(1.5)
        compose("rm", "-fs", *(f"{name}-green" for name in COLORED), files=(str(OVERLAY),))


# --- Processes -------------------------------------------------------------------------------------------------------
def main_pid(service: str) -> int:
    return inspect(containers(service)[0])["State"]["Pid"]


def kill(service: str) -> None:
    """Not through the engine, which would treat it as a requested stop and not restart the container."""
    os.kill(main_pid(service), signal.SIGKILL)


def in_network_of(service: str, *command: str, check: bool = True) -> str:
    """Runs a command of this machine in the network namespace of a container."""
    return run("nsenter", "-t", str(main_pid(service)), "-n", *command, check=check).stdout


def metric(service: str, port: int, name: str) -> float:
    """The sum of a metric's series on the admin listener of a process."""
    text = http("/metrics", site=f"http://{address_of(containers(service)[0], 'scrape')}:{port}")[1]
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))


# --- Alerts ----------------------------------------------------------------------------------------------------------
def alerts(*states: str) -> set[str]:
    """Names of alerts in these states. Empty if Prometheus does not respond."""
    try:
        address = address_of(containers("prometheus")[0], "monitoring")
        status, text = http("/api/v1/alerts", site=f"http://{address}:9090", timeout=3)
    except (IndexError, StopIteration):
        return set()
    if status != 200:
        return set()
    return {one["labels"]["alertname"] for one in json.loads(text)["data"]["alerts"] if one["state"] in states} - {"Watchdog"}


class AlertWatch:
    """Notes when each alert begins to fire that did not fire before, and when the invalidation bus of a shortener is stale."""

    def __init__(self) -> None:
        self.before = alerts("firing")
        self.fired: dict[str, float] = {}
        self.stale_bus: dict[str, list[float]] = {}
        self.begun = time.monotonic()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(1):
            for name in alerts("firing") - self.before:
                self.fired.setdefault(name, time.monotonic() - self.begun)
            for service in ("shortener-blue", "shortener-green"):
                if is_bus_stale(service):
                    self.stale_bus.setdefault(service, []).append(round(time.monotonic() - self.begun, 1))

    def stop(self) -> dict[str, float]:
        self.ended.set()
        self.thread.join(20)
        return dict(sorted(self.fired.items(), key=lambda item: item[1]))


def is_bus_stale(service: str) -> bool:
    """Without a stale bus, or without a response: no."""
    try:
        address = address_of(containers(service)[0], "scrape")
    except (IndexError, StopIteration):
        return False
    return "linnet_invalidation_bus_live 0" in http("/metrics", site=f"http://{address}:9082", timeout=2)[1].splitlines()


def popen(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
