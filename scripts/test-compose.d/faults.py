"""Faults of single containers while requests continue."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

from engine import (CORE, PROJECT, SCRATCH, address_of, admin_key, compose, containers, http, inspect, is_redirected,
                    prometheus, redis_cli, require, run, shorten, wait)
from fault_reports import assert_reported, background_requests
from startup import receiver_files


def kill(service: str) -> str:
    container = containers(service)[0]
    # Not through the engine, which would treat it as a requested stop and not restart the container.
    os.kill(inspect(container)["State"]["Pid"], signal.SIGKILL)
    return container


def all_requests_succeed() -> bool:
    return is_redirected("first") and http("/api/v1/urls?limit=1", key=admin_key(), timeout=2)[0] == 200


def killed_services_restart(_figure) -> None:
    for service in CORE:
        before = inspect(containers(service)[0])["RestartCount"]
        kill(service)
        wait(60, f"{service} to restart", lambda service=service, before=before: any(
            inspect(one)["RestartCount"] > before for one in containers(service)))
        took = wait(60, f"requests to succeed after {service} was killed", all_requests_succeed)
        code = f"after-{service}"
        shorten(code)
        wait(10, f"a redirect after {service} was killed", lambda code=code: is_redirected(code))
        print(f"    {service}: all requests succeed {took:.1f} s after its restart", flush=True)


@contextmanager
def continuous_redirects(code: str):
    """Requests a link continuously; yields the list [succeeded, failed]."""
    counts = [0, 0]
    stop = threading.Event()

    def request() -> None:
        while not stop.wait(0.005):
            counts[0 if http(f"/{code}", timeout=2)[0] == 302 else 1] += 1

    thread = threading.Thread(target=request)
    thread.start()
    try:
        yield counts
    finally:
        stop.set()
        thread.join()


def shorten_and_cache(code: str) -> None:
    shorten(code)
    for _ in range(20):
        http(f"/{code}")


def eviction_spares_the_streams(_figure) -> None:
    """Fills Redis far beyond its memory with evictable keys. The streams must survive."""
    redis_cli("XADD", "linnet:test", "*", "kept", "yes")
    script = "for i = 1, 5000 do redis.call('SET', KEYS[1] .. i, string.rep('x', 1000), 'EX', 600) end"
    for part in range(40):
        redis_cli("EVAL", script, "1", f"fill:{part}:")
    evicted = next(line for line in redis_cli("INFO", "stats").splitlines() if line.startswith("evicted_keys:"))
    require(int(evicted.split(":")[1]) > 10_000, f"nothing was evicted: {evicted}")
    require(redis_cli("XLEN", "linnet:test").strip() == "1", "a stream was evicted")
    require(is_redirected("first"), "a redirect failed while Redis was full")
    redis_cli("DEL", "linnet:test")
    print(f"    {evicted.strip()}; the stream survived", flush=True)


def redirects_continue_without_redis(_figure) -> None:
    shorten_and_cache("no-redis")
    shorten("no-redis-cold")
    compose("stop", "-t", "5", "redis", files=receiver_files())
    try:
        with continuous_redirects("no-redis") as counts:
            wait(5, "a redirect that is not in L1", lambda: is_redirected("no-redis-cold"))
            wait(10, "a hundred redirects", lambda: sum(counts) >= 100)
            shorten("created-without-redis")
            wait(5, "a redirect of a link created without Redis", lambda: is_redirected("created-without-redis"))
    finally:
        compose("start", "redis", files=receiver_files())
    require(counts[1] == 0, f"{counts[1]} of {sum(counts)} redirects failed without Redis")
    print(f"    {counts[0]} redirects, none failed", flush=True)
    wait(60, "requests to succeed", all_requests_succeed)
    with background_requests():
        assert_reported("redis-down")


def redirects_continue_without_postgresql(_figure) -> None:
    # With a stale bus there would be two faults at once, for which another promise holds.
    wait(30, "a live invalidation bus", bus_is_live)
    shorten_and_cache("no-postgres")
    compose("stop", "-t", "10", "postgres", files=receiver_files())
    try:
        with continuous_redirects("no-postgres") as counts:
            wait(20, "200 redirects", lambda: sum(counts) >= 200)
            # An uncached code may exist, so the response is not a 404.
            status, _ = http("/not-cached", timeout=10)
            require(status == 503, f"without PostgreSQL an uncached link returned {status}")
            status, _ = http("/api/v1/urls?limit=1", key=admin_key(), timeout=15)
            require(status == 503, f"without PostgreSQL the API returned {status}")
    finally:
        compose("start", "postgres", files=receiver_files())
    require(counts[1] == 0, f"{counts[1]} of {sum(counts)} redirects failed without PostgreSQL")
    print(f"    {counts[0]} redirects, none failed", flush=True)
    wait(60, "requests to succeed", all_requests_succeed)
    with background_requests():
        assert_reported("postgresql-down")


def bus_is_live() -> bool:
    address = address_of(containers("shortener-blue")[0], "scrape")
    lines = http("/metrics", site=f"http://{address}:9082")[1].splitlines()
    return "linnet_invalidation_bus_live 1" in lines and 'linnet_redis_clients{state="down"} 0' in lines


def redirects_continue_with_a_full_disk(_figure) -> None:
    """Moves PostgreSQL's volume to a small disk and fills it completely."""
    wait(30, "a live invalidation bus", bus_is_live)
    volume = run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", f"{PROJECT}_postgres").stdout.strip()
    # node-exporter must be able to see the disk; Docker's own directory is closed to it.
    SCRATCH.chmod(0o711)
    disk, image, override = SCRATCH / "disk", SCRATCH / "disk.img", SCRATCH / "disk.yaml"
    override.write_text(f"services: {{postgres: {{volumes: ['{disk}:/var/lib/postgresql/data']}}}}\n")
    files = (*receiver_files(), str(override))
    disk.mkdir()
    compose("stop", "-t", "20", "postgres", files=files)
    try:
        mount_small_disk(disk, image, int(run("du", "-sm", volume).stdout.split()[0]) + 200)
        run("cp", "-a", f"{volume}/.", str(disk))
        run("chown", "999:999", str(disk))
        run("chmod", "700", str(disk))
        compose("up", "-d", "--no-build", "--force-recreate", "--no-deps", "postgres", files=files)
        wait(60, "requests to succeed on the small disk", all_requests_succeed)
        shorten_and_cache("full-disk")
        with continuous_redirects("full-disk") as counts:
            fill_disk(disk / "ballast")
            until_full = wait(240, "a create to fail", lambda: not can_create())
            wait(20, "200 redirects", lambda: sum(counts) >= 200)
            took = wait(150, "the alert DiskAlmostFull", lambda: is_firing("DiskAlmostFull", str(disk)))
        require(counts[1] == 0, f"{counts[1]} of {sum(counts)} redirects failed with a full disk")
        print(f"    creates fail after {until_full:.1f} s, the alert fires after {took:.0f} s; {counts[0]} redirects, none failed", flush=True)
        (disk / "ballast").unlink()
        wait(60, "creates to succeed with free space", can_create)
    finally:
        compose("stop", "-t", "10", "postgres", check=False, files=files)
        run("umount", str(disk), check=False)
        image.unlink(missing_ok=True)


def mount_small_disk(folder: Path, image: Path, mib: int) -> None:
    with image.open("wb") as file:
        file.truncate(mib * 1024 * 1024)
    run("mkfs.ext4", "-q", "-m", "0", str(image))
    done = run("mount", "-o", "loop", str(image), str(folder), check=False)
    if done.returncode:
        # Without loop devices.
        done = run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder), check=False)
    require(done.returncode == 0, f"cannot mount a small disk: {done.stdout}")


def fill_disk(file: Path) -> None:
    with file.open("wb") as out:
        subprocess.run(["cat", "/dev/zero"], stdout=out, stderr=subprocess.DEVNULL, check=False)


def can_create() -> bool:
    # Large and incompressible, so that the table soon needs a new page. The WAL may still have free space.
    body = {"original_url": "https://example.com/" + secrets.token_hex(2_000), "title": "full disk"}
    return http("/api/v1/urls", method="POST", body=body, key=admin_key(), timeout=15)[0] == 201


def is_firing(name: str, mountpoint: str) -> bool:
    alerts = prometheus("/api/v1/alerts")["alerts"]
    return any(alert["labels"]["alertname"] == name and alert["labels"]["mountpoint"] == mountpoint and alert["state"] == "firing"
               for alert in alerts if "mountpoint" in alert["labels"])
