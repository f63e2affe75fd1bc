"""What goes wrong with containers while others are asked."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

from engine import (CORE, PROJECT, SCRATCH, address_of, admin_key, compose, containers, http, inspect, prometheus, redis_cli, require, run,
                    serves, shorten, wait)
from start import watch_files
from told import is_told, visitors


def kill(service: str) -> str:
    container = containers(service)[0]
    # Not by the engine: it would take that for a stop that was asked for, and would not start it again.
    os.kill(inspect(container)["State"]["Pid"], signal.SIGKILL)
    return container


def works() -> bool:
    return serves("first") and http("/api/v1/urls?limit=1", key=admin_key(), timeout=2)[0] == 200


def what_is_killed_comes_back(_figure) -> None:
    for service in CORE:
        before = inspect(containers(service)[0])["RestartCount"]
        kill(service)
        wait(60, f"new {service}", lambda service=service, before=before: any(
            inspect(one)["RestartCount"] > before for one in containers(service)))
        took = wait(60, f"service after {service} was killed", works)
        code = f"after-{service}"
        shorten(code)
        wait(10, f"redirect after {service} was killed", lambda code=code: serves(code))
        print(f"    {service}: back, all works {took:.1f} s after its restart", flush=True)


@contextmanager
def redirects(code: str):
    """Asks for a link all the while; a list of [answered, failed]."""
    counts = [0, 0]
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.005):
            counts[0 if http(f"/{code}", timeout=2)[0] == 302 else 1] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield counts
    finally:
        stop.set()
        thread.join()


def warmed(code: str) -> None:
    shorten(code)
    for _ in range(20):
        http(f"/{code}")


def eviction_takes_no_queue(_figure) -> None:
    """Redis filled with what may go, far beyond its memory: what may not go is there."""
    redis_cli("XADD", "linnet:test", "*", "kept", "yes")
    script = "for i = 1, 5000 do redis.call('SET', KEYS[1] .. i, string.rep('x', 1000), 'EX', 600) end"
    for part in range(40):
        redis_cli("EVAL", script, "1", f"fill:{part}:")
    evicted = next(line for line in redis_cli("INFO", "stats").splitlines() if line.startswith("evicted_keys:"))
    require(int(evicted.split(":")[1]) > 10_000, f"nothing was evicted: {evicted}")
    require(redis_cli("XLEN", "linnet:test").strip() == "1", "a stream was evicted")
    require(serves("first"), "a redirect failed while Redis was full")
    redis_cli("DEL", "linnet:test")
    print(f"    {evicted.strip()}, the stream is there", flush=True)


def redirects_go_on_without_redis(_figure) -> None:
    warmed("no-redis")
    shorten("no-redis-cold")
    compose("stop", "-t", "5", "redis", files=watch_files())
    try:
        with redirects("no-redis") as counts:
            wait(5, "redirect that no memory holds", lambda: serves("no-redis-cold"))
            wait(10, "hundred redirects", lambda: sum(counts) >= 100)
            shorten("made-without-redis")
            wait(5, "redirect that was made without Redis", lambda: serves("made-without-redis"))
    finally:
        compose("start", "redis", files=watch_files())
    require(counts[1] == 0, f"{counts[1]} of {sum(counts)} redirects failed without Redis")
    print(f"    {counts[0]} redirects, none failed", flush=True)
    wait(60, "service", works)
    with visitors():
        is_told("redis-away")


def redirects_go_on_without_postgresql(_figure) -> None:
    # What Redis has missed is told by PostgreSQL: of two faults at a time there is another promise.
    wait(30, "shortener whose change feed is live", feed_is_live)
    warmed("no-postgres")
    compose("stop", "-t", "10", "postgres", files=watch_files())
    try:
        with redirects("no-postgres") as counts:
            wait(20, "200 redirects", lambda: sum(counts) >= 200)
            # What no cache holds is not known to be absent.
            status, _ = http("/never-asked-for", timeout=10)
            require(status == 503, f"without PostgreSQL an unknown link is answered {status}")
            status, _ = http("/api/v1/urls?limit=1", key=admin_key(), timeout=15)
            require(status == 503, f"without PostgreSQL the API answers {status}")
    finally:
        compose("start", "postgres", files=watch_files())
    require(counts[1] == 0, f"{counts[1]} of {sum(counts)} redirects failed without PostgreSQL")
    print(f"    {counts[0]} redirects, none failed", flush=True)
    wait(60, "service", works)
    with visitors():
        is_told("postgres-away")


def feed_is_live() -> bool:
    address = address_of(containers("shortener")[0], "edge")
    lines = http("/metrics", site=f"http://{address}:9082")[1].splitlines()
    return "linnet_change_feed_live 1" in lines and 'linnet_redis_links{state="down"} 0' in lines


def a_full_disk_stops_no_redirect(_figure) -> None:
    """PostgreSQL's volume on a small disk of its own, filled to the last byte."""
    wait(30, "shortener whose change feed is live", feed_is_live)
    volume = run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", f"{PROJECT}_postgres").stdout.strip()
    # Where those who measure the disks of the machine can see it: Docker's own folder is closed to them.
    SCRATCH.chmod(0o711)
    disk, image, override = SCRATCH / "disk", SCRATCH / "disk.img", SCRATCH / "disk.yaml"
    override.write_text(f"services: {{postgres: {{volumes: ['{disk}:/var/lib/postgresql/data']}}}}\n")
    files = (*watch_files(), str(override))
    disk.mkdir()
    compose("stop", "-t", "20", "postgres", files=files)
    try:
        mount_small(disk, image, int(run("du", "-sm", volume).stdout.split()[0]) + 200)
        run("cp", "-a", f"{volume}/.", str(disk))
        run("chown", "999:999", str(disk))
        run("chmod", "700", str(disk))
        compose("up", "-d", "--no-build", "--force-recreate", "--no-deps", "postgres", files=files)
        wait(60, "service on the small disk", works)
        warmed("full-disk")
        with redirects("full-disk") as counts:
            fill(disk / "ballast")
            refused = wait(240, "create that is refused", lambda: not creates())
            wait(20, "200 redirects", lambda: sum(counts) >= 200)
            took = wait(150, "alert of the full disk", lambda: fires("DiskAlmostFull", str(disk)))
        require(counts[1] == 0, f"{counts[1]} of {sum(counts)} redirects failed with a full disk")
        print(f"    creates are refused after {refused:.1f} s, the alert fires after {took:.0f} s; {counts[0]} redirects, none failed", flush=True)
        (disk / "ballast").unlink()
        wait(60, "creates, with room again", creates)
    finally:
        compose("stop", "-t", "10", "postgres", check=False, files=files)
        run("umount", str(disk), check=False)
        image.unlink(missing_ok=True)


def mount_small(folder: Path, image: Path, mib: int) -> None:
    with image.open("wb") as file:
        file.truncate(mib * 1024 * 1024)
    run("mkfs.ext4", "-q", "-m", "0", str(image))
    done = run("mount", "-o", "loop", str(image), str(folder), check=False)
    if done.returncode:
        # A kernel without loop devices.
        done = run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder), check=False)
    require(done.returncode == 0, f"no small disk can be mounted: {done.stdout}")


def fill(file: Path) -> None:
    with file.open("wb") as out:
        subprocess.run(["cat", "/dev/zero"], stdout=out, stderr=subprocess.DEVNULL, check=False)


def creates() -> bool:
    # Large, and nothing to compress, so that the table needs a new page soon: the log may have much room that it has kept.
    body = {"original_url": "https://example.com/" + secrets.token_hex(2_000), "title": "full disk"}
    return http("/api/v1/urls", method="POST", body=body, key=admin_key(), timeout=15)[0] == 201


def fires(name: str, mountpoint: str) -> bool:
    alerts = prometheus("/api/v1/alerts")["alerts"]
    return any(alert["labels"]["alertname"] == name and alert["labels"]["mountpoint"] == mountpoint and alert["state"] == "firing"
               for alert in alerts if "mountpoint" in alert["labels"])
