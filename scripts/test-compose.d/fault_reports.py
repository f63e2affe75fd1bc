"""Expressions that return data only after a fault: each fault is caused, then they must. See monitoring/only-in-faults.yml."""

from __future__ import annotations

import itertools
import json
import threading
from contextlib import contextmanager

from engine import (PROJECT, WITHOUT, address_of, admin_key, compose, containers, http, open_transaction, post_csv,
                    redis_cli, require, run, sql, wait)
from startup import receiver_files


@contextmanager
def background_requests():
    """Makes requests of each kind continuously, because a rate without requests returns nothing."""
    stop = threading.Event()

    def visit() -> None:
        key = admin_key()
        for turn in itertools.count():
            if stop.wait(0.5):
                return
            if turn % 20 == 0:
                post_csv(f"original_url\nhttps://example.com/{turn}\nno-address\n", check=False)
            http("/first")
            http("/not-there")
            http("/api/v1/urls?limit=1", key=key)
            http("/api/v1/urls?limit=1")

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# Components that only other Compose files have, a server, and several hosts of PostgreSQL.
OF_SERVERS = {"acme", "backup", "linnet-host", "postgres-hosts"}


def check_expressions(*options: str, wait_s: int) -> str:
    """Evaluates every expression of rules and dashboards in the running Prometheus and returns the summary."""
    address = address_of(containers("prometheus")[0], "monitoring")
    python = run("scripts/python-tools").stdout.split()[-1] + "/python"
    done = run(python, "monitoring/check_expressions.py", "--prometheus", f"http://{address}:9090", "--wait", str(wait_s), "--without",
               ",".join(sorted(WITHOUT | OF_SERVERS)), *options, check=False, timeout=wait_s + 200)
    require(done.returncode == 0, f"expressions return nothing:\n{done.stdout}")
    return done.stdout.strip().splitlines()[-1]


def assert_reported(*faults: str, wait_s: int = 120) -> None:
    """Fails unless the expressions of these faults return data."""
    print(f"    {', '.join(faults)}: {check_expressions('--made', ','.join(faults), '--only-made', wait_s=wait_s)}", flush=True)


def every_expression_returns_data(_figure) -> None:
    with background_requests():
        print(f"    {check_expressions(wait_s=400)}", flush=True)


def worker_faults_are_reported(_figure) -> None:
    """A worker killed between write and acknowledgment, an invalid batch, a lost upload."""
    with background_requests():
        die_before_acknowledging()
        redis_cli("XADD", "linnet:clicks", "*", "b", "garbage")
        lose_an_upload()
        # Not with Compose, which would wait for Redis to be healthy.
        run("docker", "start", containers("worker", all_states=True)[0])
        assert_reported("worker-killed", "bad-batch", "upload-lost", wait_s=240)
    # Resolves the alert before the next check.
    redis_cli("DEL", "linnet:clicks:dead")


def die_before_acknowledging() -> None:
    """Pauses Redis while the worker commits, then kills the worker."""
    redis = containers("redis")[0]
    # The lock allows reads, so the worker proceeds to its first row.
    with open_transaction("LOCK TABLE click_batches IN SHARE MODE"):
        wait(20, "the worker to wait for the lock", lambda: "yes" in sql(
            "SELECT 'yes' FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO click_batches%'"))
        before = sql("SELECT count(*) FROM click_batches")
        run("docker", "pause", redis)
    try:
        wait(20, "a batch to be written", lambda: sql("SELECT count(*) FROM click_batches") != before)
        compose("kill", "worker", files=receiver_files())
    finally:
        run("docker", "unpause", redis)


def lose_an_upload() -> None:
    status, text = post_csv("original_url\nhttps://example.com/lost\n")
    require(status == 202, f"the import returned {status}: {text}")
    folder = run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", f"{PROJECT}_uploads").stdout.strip()
    name = sql(f"SELECT upload FROM jobs WHERE id = {json.loads(text)['job']['id']}")
    run("rm", f"{folder}/{name}")
