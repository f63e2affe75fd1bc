"""Faults of PostgreSQL and Redis: killed, stopped, unreachable, slow, exhausted, emptied, without disk."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine import PROJECT, SECRETS, containers, inspect, open_transaction, redis_cli, require, run, sql, wait
from fault import HANGING_POSTGRESQL, WITHOUT_POSTGRESQL, Fault, Stage
from installation import disk, in_network_of, kill, main_pid, metric, popen
from ledger import API, IMPORT

PROXY_PORT = 15_432
SHORTENER_PORT = 9082


def killed(service: str):
    """Kills a service, which Docker restarts."""
    @contextmanager
    def inject(_stage: Stage) -> Iterator[None]:
        before = inspect(containers(service)[0])["RestartCount"]
        kill(service)
        yield
        wait(60, f"{service} to restart", lambda: any(inspect(one)["RestartCount"] > before for one in containers(service)))
    return inject


def stopped(service: str):
    @contextmanager
    def inject(_stage: Stage) -> Iterator[None]:
        container = containers(service)[0]
        run("docker", "stop", "-t", "20", container)
        try:
            yield
        finally:
            run("docker", "start", container)
    return inject


def blackholed(service: str):
    """Drops all packets to the container. Its own health check, over the loopback device, passes."""
    @contextmanager
    def inject(_stage: Stage) -> Iterator[None]:
        rule = ("INPUT", "!", "-i", "lo", "-j", "DROP")
        in_network_of(service, "iptables", "-A", *rule)
        try:
            yield
        finally:
            in_network_of(service, "iptables", "-D", *rule)
    return inject


@contextmanager
def redis_emptied(_stage: Stage) -> Iterator[None]:
    redis_cli("FLUSHALL")
    yield


def proxied(delay_s: float, life_s: float):
    """Leads PostgreSQL's connections through a proxy in its network namespace."""
    @contextmanager
    def inject(_stage: Stage) -> Iterator[None]:
        rule = ("PREROUTING", "!", "-i", "lo", "-p", "tcp", "--dport", "5432", "-j", "REDIRECT", "--to-ports", str(PROXY_PORT))
        proxy = popen("nsenter", "-t", str(main_pid("postgres")), "-n", sys.executable, str(Path(__file__).with_name("proxy.py")),
                      str(PROXY_PORT), "5432", str(delay_s), str(life_s))
        try:
            require(proxy.stdout.readline().strip() == "ready", "the proxy does not listen")
            in_network_of("postgres", "iptables", "-t", "nat", "-A", *rule)
            # Rules apply to new connections only.
            end_sessions()
            yield
            in_network_of("postgres", "iptables", "-t", "nat", "-D", *rule)
        finally:
            proxy.kill()
            proxy.wait()
    return inject


def end_sessions() -> None:
    sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'linnet'")


@contextmanager
def urls_locked(_stage: Stage) -> Iterator[None]:
    """Every statement on links waits, so that the pools have no connection left."""
    with open_transaction("LOCK TABLE urls IN ACCESS EXCLUSIVE MODE"):
        yield


@contextmanager
def connections_exhausted(_stage: Stage) -> Iterator[None]:
    """Sessions of another client of the role `linnet` take all connections. Pools keep those that they have."""
    image = inspect(containers("postgres")[0])["Config"]["Image"]
    name = f"{PROJECT}-sessions"
    password = (SECRETS / "postgres_password").read_text()
    run("docker", "run", "-d", "--rm", "--name", name, "--network", f"{PROJECT}_data", "-e", f"PGPASSWORD={password}", "--entrypoint", "sh",
        image, "-c", "for i in $(seq 60); do psql -XqAt -h postgres -U linnet -d linnet -c 'SELECT pg_sleep(600)' >/dev/null 2>&1 & done; wait")
    try:
        yield
    finally:
        sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%'")
        run("docker", "rm", "-f", name, check=False)


@contextmanager
def filled(name: str) -> Iterator[None]:
    """Fills the disk of a volume completely."""
    ballast = disk(name) / "ballast"
    with ballast.open("wb") as out:
        subprocess.run(["cat", "/dev/zero"], stdout=out, stderr=subprocess.DEVNULL, check=False)
    try:
        yield
    finally:
        ballast.unlink()


def disk_full(name: str):
    @contextmanager
    def inject(_stage: Stage) -> Iterator[None]:
        with filled(name):
            yield
    return inject


@contextmanager
def spool_full(stage: Stage) -> Iterator[None]:
    """Clicks need the spool only while Redis is unreachable. Every lost click must be counted."""
    before = metric("shortener-blue", SHORTENER_PORT, "linnet_clicks_dropped_total")
    with ExitStack() as stack:
        stack.enter_context(filled("spool"))
        stack.enter_context(blackholed("redis")(stage))
        yield
        # The shortener writes the buffers of the last interval.
        time.sleep(1)
    stage.counted_losses = int(metric("shortener-blue", SHORTENER_PORT, "linnet_clicks_dropped_total") - before)
    stage.notes.append(f"{stage.counted_losses:,} clicks counted as dropped")


FAULTS = (
    Fault("redis-killed", "Redis killed", killed("redis"), short=True, hold_s=0, lost_clicks_s=2,
          no_alert="Docker restarts it sooner than the alert's `for`"),
    Fault("redis-blackholed", "Redis black-holed (packets dropped)", blackholed("redis"), hold_s=75, alert="RedisDown"),
    Fault("redis-emptied", "`FLUSHALL` of Redis", redis_emptied, short=True, lost_clicks_s=1.5, no_alert="nothing is left to repair"),
    Fault("postgres-killed", "PostgreSQL killed", killed("postgres"), short=True, hold_s=0, allowed=WITHOUT_POSTGRESQL,
          recovers_within_s=30, no_alert="Docker restarts it sooner than the alert's `for`"),
    Fault("postgres-stopped", "PostgreSQL stopped", stopped("postgres"), hold_s=75, allowed=WITHOUT_POSTGRESQL, recovers_within_s=20,
          alert="PostgresDown"),
    # Connections of the pools hang until TCP repeats a lost packet: after 75 s, up to 27 s later.
    Fault("postgres-blackholed", "PostgreSQL black-holed (packets dropped)", blackholed("postgres"), hold_s=75, recovers_within_s=45,
          allowed=HANGING_POSTGRESQL, alert="PostgresUnreachable"),
    Fault("postgres-slow", "PostgreSQL 200 ms farther (proxy)", proxied(0.1, 0), hold_s=60, allowed=WITHOUT_POSTGRESQL,
          no_alert="a slow database is a matter of the error budget"),
    Fault("postgres-resetting", "PostgreSQL's connections reset after 0.05 to 1 s (proxy)", proxied(0, 0.5), hold_s=60,
          allowed=WITHOUT_POSTGRESQL, no_alert="the error budget burns"),
    Fault("pool-exhausted", "`ACCESS EXCLUSIVE` lock on `urls`: no connection left in any pool", urls_locked, hold_s=60,
          # 409 (`locked`) after the longest wait for a lock.
          allowed=HANGING_POSTGRESQL | dict.fromkeys(API, "503,504,409,429"), alert="PostgresExclusiveLock", person="ends the session that holds the lock"),
    Fault("connections-exhausted", "PostgreSQL's connections taken by another client", connections_exhausted, hold_s=60,
          allowed=WITHOUT_POSTGRESQL, alert="PostgresConnectionsExhausted", person="ends the other sessions"),
    Fault("disk-full-postgres", "PostgreSQL's disk full", disk_full("postgres"), hold_s=60, recovers_within_s=60,
          allowed=WITHOUT_POSTGRESQL, alert="DiskAlmostFull", alert_within_s=150, person="frees space"),
    Fault("disk-full-spool", "the spool's disk full, and Redis black-holed", spool_full, hold_s=60, alert="ClicksDropped", person="frees space"),
    Fault("disk-full-uploads", "the disk of uploads full", disk_full("uploads"), hold_s=60, allowed={IMPORT: "503,507"}, alert="DiskAlmostFull",
          alert_within_s=150, person="frees space"),
)
