"""Faults of nodes, networks and stores, each with its bar, which is stated before the run."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bars import OF_A_DEAD_NODE, WITHOUT_PRIMARY, ClusterFault, ClusterStage, cluster_of
from cluster import fail_over_redis
from engine import ADDRESSES, REDIS, http_post, redis_master, redis_master_at, require, sql, wait
from ledger import API, CACHED, EDITED, ROUTES, UNCACHED
from node import LOOP_S, STORE_PORTS, TTL_S, Node
from releases import UPGRADE, old_binaries, one_node, rolling_restart, rolling_upgrade, scaled, starts_on_the_old_release

HOLD_S = 20
# The lease of the leader, the election, and the health check of HAProxy.
DEAD_PRIMARY_S = TTL_S + LOOP_S + 8
DELAY_S = 0.02
PROXY_PORT, PROXY_MARK = 15_001, 77


def note_takeover(stage: ClusterStage, what: str, begun: float) -> None:
    stage.notes.append(f"{what} after {time.monotonic() - begun:.1f} s")


# --- Nodes -----------------------------------------------------------------------------------------------------------
def node_killed(which: str):
    """`which`: bystander, primary, master."""
    @contextmanager
    def inject(stage: ClusterStage) -> Iterator[None]:
        cluster = cluster_of(stage)
        node = {"bystander": cluster.bystander, "primary": cluster.must_primary, "master": cluster.master}[which]()
        synchronous, master, begun = cluster.synchronous() is node, redis_master(), time.monotonic()
        with cluster.killed(node):
            if which == "primary":
                wait(90, "another primary", lambda: cluster.primary() not in (None, node))
                note_takeover(stage, "another primary", begun)
            if which == "master":
                wait(60, "another master", lambda: redis_master() not in ("", master))
                note_takeover(stage, "another master", begun)
            if synchronous:
                stage.notes.append("the node had the synchronous standby")
            yield
    return inject


@contextmanager
def both_killed(stage: ClusterStage) -> Iterator[None]:
    """The primary and the master on one node, which an operator should avoid."""
    cluster = cluster_of(stage)
    node, begun, master = cluster.must_primary(), time.monotonic(), redis_master()
    with cluster.killed(node):
        wait(60, "another master", lambda: redis_master() not in ("", master))
        note_takeover(stage, "another master", begun)
        wait(90, "another primary", lambda: cluster.primary() not in (None, node))
        note_takeover(stage, "another primary", begun)
        yield


@contextmanager
def together(stage: ClusterStage) -> Iterator[None]:
    """Moves the primary to the master's node, before the requests that count."""
    cluster = cluster_of(stage)
    target = cluster.master()
    switch_over(stage, target)
    cluster.wait_until_whole()
    yield
    cluster.ensure_apart()


# --- Networks --------------------------------------------------------------------------------------------------------
def between(node: Node, *directions: str, ports: str = "") -> list[tuple[str, ...]]:
    """Rules for the packets between a node and the other nodes, of these ports."""
    rules: list[tuple[str, ...]] = []
    for other in (address for address in ADDRESSES if address != node.address):
        for direction in directions:
            chain, end = ("INPUT", "-s") if direction == "in" else ("OUTPUT", "-d")
            rule = (chain, end, other)
            if not ports:
                rules.append(rule)
            else:
                rules += [(*rule, "-p", "tcp", "-m", "multiport", which, ports) for which in ("--dports", "--sports")]
    return rules


def partitioned(which: str, *directions: str, ports: str = ""):
    @contextmanager
    def inject(stage: ClusterStage) -> Iterator[None]:
        cluster = cluster_of(stage)
        node = {"bystander": cluster.bystander, "primary": cluster.must_primary, "master": cluster.master}[which]()
        begun, master = time.monotonic(), redis_master()
        with node.dropped(*between(node, *directions, ports=ports)):
            if which == "primary":
                wait(90, "another primary", lambda: any(one is not node and is_primary(one) for one in cluster.nodes))
                note_takeover(stage, "another primary", begun)
            if which == "master":
                wait(60, "another master", lambda: redis_master() not in ("", master))
                note_takeover(stage, "another master", begun)
            yield
    return inject


def is_primary(node: Node) -> bool:
    return sql("SELECT pg_is_in_recovery()", host=node.address, writable=False, check=False) == "f"


@contextmanager
def slow_network(stage: ClusterStage) -> Iterator[None]:
    """Every TCP connection that one node opens to another passes a proxy that delays each byte."""
    cluster = cluster_of(stage)
    with ExitStack() as stack:
        for node in cluster.nodes:
            stack.enter_context(delayed(node))
        yield


@contextmanager
def delayed(node: Node) -> Iterator[None]:
    others = ("-p", "tcp", "-m", "multiport", "--dports", "5432,6379,6380,26379", "!", "-d", node.address, "-m", "mark", "!", "--mark", str(PROXY_MARK))
    redirect = ("OUTPUT", *others, "-j", "REDIRECT", "--to-ports", str(PROXY_PORT))
    # A wait for `ready` of an earlier run would end at once.
    (node.folder / "logs/delay.log").unlink(missing_ok=True)
    node.start("delay", sys.executable, str(Path(__file__).with_name("delay.py")), str(PROXY_PORT), str(PROXY_MARK), str(DELAY_S / 2))
    wait(10, "the proxy", lambda: "ready" in (node.folder / "logs/delay.log").read_text())
    node.iptables("-t", "nat", "-A", *redirect)
    try:
        # The rule applies to new connections only.
        with reset(node, *others):
            time.sleep(1)
        yield
    finally:
        node.iptables("-t", "nat", "-D", *redirect)
        node.stop("delay", signal.SIGKILL)


@contextmanager
def reset(node: Node, *match: str) -> Iterator[None]:
    """Resets the connections that these packets belong to."""
    rule = ("OUTPUT", *match, "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "REJECT", "--reject-with", "tcp-reset")
    node.iptables("-A", *rule)
    try:
        yield
    finally:
        node.iptables("-D", *rule)


# --- Stores ----------------------------------------------------------------------------------------------------------
def switch_over(stage: ClusterStage, target: Node | None = None) -> None:
    cluster = cluster_of(stage)
    primary = cluster.must_primary()
    # Only the synchronous standby has every acknowledged commit.
    to = cluster.synchronous()
    if target is not None and target is not to:
        wait_until_synchronous(stage, target)
        to = target
    require(to is not None, "no standby is synchronous")
    begun = time.monotonic()
    status, text = http_post(primary.address, 8008, "/switchover", {"leader": primary.name, "candidate": to.name})
    require(status == 200, f"switchover: {status} {text}")
    wait(60, f"{to.name} to be the primary", lambda: cluster.primary() is to)
    if target is None:
        note_takeover(stage, "another primary", begun)


def wait_until_synchronous(stage: ClusterStage, target: Node) -> None:
    """Patroni chooses the other standby as the synchronous one while the tag `nosync` or a lag keeps one from it."""
    cluster = cluster_of(stage)
    other = cluster.synchronous()
    if other is None or other is target:
        return
    # Without its Patroni and PostgreSQL, it cannot be the synchronous standby.
    other.stop("patroni")
    try:
        wait(60, f"{target.name} to be synchronous", lambda: cluster.synchronous() is target)
    finally:
        other.start_patroni()


@contextmanager
def postgres_switchover(stage: ClusterStage) -> Iterator[None]:
    switch_over(stage)
    yield


@contextmanager
def postgres_killed(stage: ClusterStage) -> Iterator[None]:
    """Only PostgreSQL: Patroni lives and gives its lock up."""
    cluster = cluster_of(stage)
    node, begun = cluster.must_primary(), time.monotonic()
    os.kill(int((node.folder / "postgres/data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    wait(60, "another primary", lambda: cluster.primary() not in (None, node))
    note_takeover(stage, "another primary", begun)
    yield


@contextmanager
def patroni_killed(stage: ClusterStage) -> Iterator[None]:
    """PostgreSQL and Patroni, so that only the end of the lease shows it."""
    cluster = cluster_of(stage)
    node, begun = cluster.must_primary(), time.monotonic()
    postmaster = int((node.folder / "postgres/data/postmaster.pid").read_text().split()[0])
    node.stop("patroni", signal.SIGKILL)
    os.kill(postmaster, signal.SIGKILL)
    wait(90, "another primary", lambda: cluster.primary() not in (None, node))
    note_takeover(stage, "another primary", begun)
    yield
    (node.folder / "postgres/data/postmaster.pid").unlink(missing_ok=True)
    node.start_patroni()


@contextmanager
def redis_killed(stage: ClusterStage) -> Iterator[None]:
    cluster = cluster_of(stage)
    node, (before, port), begun = cluster.master(), redis_master_at(), time.monotonic()
    node.stop("redis" if port == 6379 else "redis-replica", signal.SIGKILL)
    wait(60, "another master", lambda: redis_master() not in ("", before))
    note_takeover(stage, "another master", begun)
    yield
    node.start_redis(redis_master())


@contextmanager
def redis_failover(stage: ClusterStage) -> Iterator[None]:
    before, begun = redis_master(), time.monotonic()
    fail_over_redis()
    wait(60, "another master", lambda: redis_master() not in ("", before))
    note_takeover(stage, "another master", begun)
    yield


@contextmanager
def replicas_behind(stage: ClusterStage) -> Iterator[None]:
    """The standbys receive the write-ahead log and do not apply it. Patroni would resume a replay that is only paused."""
    cluster = cluster_of(stage)
    primary = cluster.must_primary()
    replaying = [startup_process(node) for node in cluster.nodes if node is not primary]
    for pid in replaying:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
        lag = float(sql("SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0) FROM pg_stat_replication"))
        stage.notes.append(f"{lag:,.0f} B behind at the end")
        if lag < 100_000:
            stage.wrong.append("no standby was behind")
    finally:
        for pid in replaying:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def startup_process(node: Node) -> int:
    """PostgreSQL's process that applies the write-ahead log."""
    return next(pid for pid in node.pids() if re.match(rb"postgres: (\S+ )?startup", Path(f"/proc/{pid}/cmdline").read_bytes()))


@contextmanager
def etcd_without_quorum(stage: ClusterStage) -> Iterator[None]:
    cluster = cluster_of(stage)
    two = cluster.nodes[:2]
    for node in two:
        node.stop("etcd", signal.SIGKILL)
    yield
    for node in two:
        node.start_etcd()


LOST_WITH_NODE = "those in the buffer of the node, and in Redis those not replicated yet"
LOST_WITH_MASTER = "Redis replicates asynchronously"
FAULTS = (
    ClusterFault("node-killed", "a node with only standbys: cable, then all processes", node_killed("bystander"), short=True, hold_s=HOLD_S,
                 allowed=OF_A_DEAD_NODE, longest_s=dict.fromkeys(API, 15.0), lost_clicks_s=0.5, clicks_reason=LOST_WITH_NODE, person="starts the node"),
    ClusterFault("node-with-primary-killed", "the node with PostgreSQL's primary", node_killed("primary"), hold_s=HOLD_S,
                 allowed=WITHOUT_PRIMARY | OF_A_DEAD_NODE, lost_clicks_s=0.5,
                 longest_s=dict.fromkeys((UNCACHED, EDITED, *API), DEAD_PRIMARY_S), clicks_reason=LOST_WITH_NODE, person="starts the node"),
    ClusterFault("node-with-master-killed", "the node with Redis's master", node_killed("master"), hold_s=HOLD_S, allowed=OF_A_DEAD_NODE,
                 longest_s=dict.fromkeys(API, 15.0), lost_clicks_s=2, clicks_reason=LOST_WITH_NODE, person="starts the node"),
    ClusterFault("node-with-both-killed", "a node with the primary and the master", both_killed, prepare=together, hold_s=HOLD_S,
                 allowed=WITHOUT_PRIMARY | {CACHED: "503"} | OF_A_DEAD_NODE, lost_clicks_s=2,
                 # After a failover of Redis, L1 and L2 are empty, and without a primary they stay so.
                 longest_s=dict.fromkeys(ROUTES, DEAD_PRIMARY_S), clicks_reason=LOST_WITH_NODE, person="starts the node"),
    ClusterFault("node-without-stores", "a node that reaches no store of the other nodes", partitioned("bystander", "in", "out", ports=STORE_PORTS),
                 hold_s=HOLD_S, allowed=OF_A_DEAD_NODE, longest_s=dict.fromkeys(API, 15.0)),
    ClusterFault("node-partitioned", "a node that reaches no other node, but HAProxy reaches it", partitioned("bystander", "in", "out"), hold_s=HOLD_S,
                 allowed=OF_A_DEAD_NODE, longest_s=dict.fromkeys(API, 15.0)),
    ClusterFault("primary-partitioned", "the same of the node with the primary", partitioned("primary", "in", "out"), hold_s=HOLD_S,
                 allowed=WITHOUT_PRIMARY | OF_A_DEAD_NODE,
                 longest_s=dict.fromkeys((UNCACHED, EDITED, *API), DEAD_PRIMARY_S)),
    ClusterFault("master-partitioned", "the same of the node with the master", partitioned("master", "in", "out"), hold_s=HOLD_S,
                 allowed=OF_A_DEAD_NODE, longest_s=dict.fromkeys(API, 15.0), lost_clicks_s=2, clicks_reason=LOST_WITH_MASTER),
    ClusterFault("one-way-out", "a node whose packets reach no other node", partitioned("bystander", "out"), hold_s=HOLD_S,
                 allowed=OF_A_DEAD_NODE, longest_s=dict.fromkeys(API, 15.0)),
    ClusterFault("one-way-in", "a node that no packet of the other nodes reaches", partitioned("bystander", "in"), hold_s=HOLD_S,
                 allowed=OF_A_DEAD_NODE, longest_s=dict.fromkeys(API, 15.0)),
    ClusterFault("postgres-switchover", "`patronictl switchover`", postgres_switchover, allowed=WITHOUT_PRIMARY,
                 longest_s=dict.fromkeys((UNCACHED, EDITED, *API), 10.0)),
    ClusterFault("postgres-killed", "PostgreSQL's primary killed", postgres_killed, short=True, allowed=WITHOUT_PRIMARY,
                 longest_s=dict.fromkeys((UNCACHED, EDITED, *API), 10.0)),
    ClusterFault("patroni-killed", "PostgreSQL's primary and its Patroni killed", patroni_killed, allowed=WITHOUT_PRIMARY,
                 longest_s=dict.fromkeys((UNCACHED, EDITED, *API), DEAD_PRIMARY_S), person="starts Patroni, if its service manager does not"),
    ClusterFault("redis-failover", "`CLUSTER FAILOVER`" if REDIS == "cluster" else "`SENTINEL FAILOVER`", redis_failover, lost_clicks_s=1,
                 clicks_reason=LOST_WITH_MASTER),
    ClusterFault("redis-killed", "Redis's master killed", redis_killed, short=True, lost_clicks_s=1, clicks_reason=LOST_WITH_MASTER),
    ClusterFault("replicas-behind", "both standbys do not apply the write-ahead log", replicas_behind, hold_s=30),
    ClusterFault("etcd-without-quorum", "two of three members of etcd killed", etcd_without_quorum, hold_s=TTL_S + 15),
    ClusterFault("rolling-restart", "Linnet restarted on each node in turn", rolling_restart, short=True),
    ClusterFault(UPGRADE, "the last release: migration, then Linnet replaced on each node in turn", rolling_upgrade,
                 prepare=starts_on_the_old_release, lacking=old_binaries),
    ClusterFault("scale", "Linnet on one node, three, and one again", scaled, prepare=one_node),
    # Its beginning and its end reset every connection to the stores.
    ClusterFault("slow-network", f"stores {DELAY_S * 1000:g} ms farther (round trip, by a proxy)", slow_network, hold_s=30,
                 allowed=WITHOUT_PRIMARY, most=60, lost_clicks_s=1, clicks_reason="those that Redis did not confirm"),
)
