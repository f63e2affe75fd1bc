"""Faults of processes: killed, frozen, without memory, restarted all at once, replaced by the other color."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import compose, containers, inspect, require, run, wait
from fault import EVERYTHING, WITHOUT_POSTGRESQL, Fault, Stage
from installation import COLORED, OVERLAY, is_healthy, kill, main_pid, slots, start_color
from ledger import API, CREATE, EDIT, IMPORT
from store_faults import blackholed, killed, stopped

BIG_IMPORT_ROWS = 20_000


def frozen(service: str):
    @contextmanager
    def inject(_stage: Stage) -> Iterator[None]:
        pid = main_pid(service)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
    return inject


@contextmanager
def worker_killed_in_a_job(stage: Stage) -> Iterator[None]:
    big = stage.load.import_rows(BIG_IMPORT_ROWS)
    wait(60, "the import to write rows", lambda: stage.load.rows_written(big) > 0)
    begun = time.monotonic()
    kill("worker")
    written = stage.load.rows_written(big)
    if written >= big.rows:
        stage.wrong.append("the import ended before the worker was killed")
    yield
    wait(200, "the import to end", lambda: big.done)
    stage.notes.append(f"the job of {BIG_IMPORT_ROWS:,} rows had {written:,} and ended {time.monotonic() - begun:.0f} s after the kill")


def squeezed(service: str):
    """Lowers the memory limit of a container to its present use: the kernel kills what needs a page more."""
    @contextmanager
    def inject(stage: Stage) -> Iterator[None]:
        container = containers(service)[0]
        details = inspect(container)
        before, restarts = details["HostConfig"]["Memory"], details["RestartCount"]
        mib = resident_kib(details["State"]["Pid"]) // 1024 + 1
        try:
            # A control group of version 1 refuses a limit below the memory that it cannot reclaim.
            while not set_memory(container, mib << 20):
                mib += 1
            yield
        finally:
            require(set_memory(container, before), f"the limit of {service} cannot be restored")
        stage.notes.append(f"limit {mib} MiB, {inspect(container)['RestartCount'] - restarts} restarts of the container")
    return inject


def set_memory(container: str, limit_bytes: int) -> bool:
    return run("docker", "update", "--memory", str(limit_bytes), "--memory-swap", str(limit_bytes), container, check=False).returncode == 0


def resident_kib(pid: int) -> int:
    """Of the main process alone, so that the search for the lowest limit begins below it."""
    return int(re.search(r"^RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


@contextmanager
def rebooted(_stage: Stage) -> Iterator[None]:
    """Kills all containers together, as a power cut does, and starts them in random order, as Docker does after one."""
    all_of_them = [one for one in containers() if inspect(one)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"]
    run("docker", "kill", *all_of_them)
    yield
    random.shuffle(all_of_them)
    for one in all_of_them:
        run("docker", "start", one)


def deployed_during(fault, *, ready: bool):
    """Moves all requests to green and stops blue while a store has failed. `ready`: whether green is ready without it."""
    @contextmanager
    def inject(stage: Stage) -> Iterator[None]:
        # The old release's successor may start before the fault or in it.
        if not ready:
            start_color("green")
        with fault(stage):
            if ready:
                start_color("green")
            for count in ("1", "5", "10"):
                slots("green", count)
                time.sleep(5)
            compose("stop", *(f"{name}-blue" for name in COLORED), files=(str(OVERLAY),))
            yield
        for name in COLORED:
            wait(60, f"{name}-green to be healthy", lambda name=name: is_healthy(f"{name}-green"))
        start_color("blue")
        slots("blue", "10")
        time.sleep(1.5)
        compose("rm", "-fs", *(f"{name}-green" for name in COLORED), files=(str(OVERLAY),))
    return inject


SHORT = "Docker restarts it sooner than the alert's `for`"
FAULTS = (
    Fault("gateway-color-killed", "one of two gateways killed", killed("gateway-green"), both_colors=True, short=True, most=6,
          allowed=dict.fromkeys((CREATE, EDIT, IMPORT), "502,reset"), recovers_within_s=5, no_alert=SHORT),
    Fault("shortener-killed", "the only shortener killed", killed("shortener-blue"), short=True, allowed=EVERYTHING,
          recovers_within_s=5, hold_s=0, lost_clicks_s=0.5, no_alert=SHORT),
    Fault("shortener-color-killed", "one of two shorteners killed", killed("shortener-green"), both_colors=True, short=True,
          allowed=dict.fromkeys(API, "502,503,reset"), recovers_within_s=5, hold_s=0, lost_clicks_s=0.5, no_alert=SHORT),
    Fault("shortener-frozen", "the only shortener stopped (`SIGSTOP`) for 30 s", frozen("shortener-blue"), hold_s=30, allowed=EVERYTHING,
          recovers_within_s=5, no_alert="ShortenerDown detects a process that hangs within 50 s"),
    Fault("shortener-color-frozen", "one of two shorteners stopped (`SIGSTOP`) for 30 s", frozen("shortener-green"), hold_s=30,
          both_colors=True, allowed=EVERYTHING, recovers_within_s=5, no_alert="InstanceDown has `for: 1m`"),
    Fault("worker-killed", "the worker killed in the middle of a job", worker_killed_in_a_job, short=True, hold_s=0, no_alert=SHORT),
    Fault("memory-shortener", "memory limit of one of two shorteners lowered to its present use", squeezed("shortener-green"),
          both_colors=True, hold_s=60, allowed=dict.fromkeys(API, "502,503,reset"), recovers_within_s=30, lost_clicks_s=5,
          no_alert="OomKill, if the kernel kills"),
    Fault("memory-postgres", "memory limit of PostgreSQL lowered to its present use", squeezed("postgres"), hold_s=60,
          allowed=WITHOUT_POSTGRESQL, recovers_within_s=30, no_alert="OomKill, if the kernel kills"),
    Fault("deploy-without-postgres", "switch to green, ready beforehand, while PostgreSQL is stopped",
          deployed_during(stopped("postgres"), ready=False), hold_s=5, allowed=WITHOUT_POSTGRESQL, recovers_within_s=20, alert="PostgresDown"),
    Fault("deploy-without-redis", "deployment of green while Redis is black-holed", deployed_during(blackholed("redis"), ready=True), short=True,
          hold_s=5, alert="RedisDown"),
    Fault("reboot", "all containers killed at once and started in random order", rebooted, hold_s=5, allowed=EVERYTHING,
          recovers_within_s=30, lost_clicks_s=2.5, no_alert="the alerting restarts too"),
)
