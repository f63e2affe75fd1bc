"""The three nodes, HAProxy in front of them, and what each role's node is at the moment."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis_cluster
from checks import Failed, require
from engine import (ADDRESSES, BINARIES, FRONT, MASTER_NAME, PASSWORDS, PORT, REDIS, SCRATCH, http_get, postgres_primary, redis_at, redis_master,
                    run, sql, wait)
from node import MACS, Node, rendered

# Of HAProxy: servers of other backends follow those of these two.
CHECKS = ("ready", "alive")
WHOLE_WITHIN_S = 150


class Cluster:
    """`release`: the folder of the binaries with which it starts, and whose schema it gets."""

    def __init__(self, release: Path = BINARIES) -> None:
        self.nodes = [Node(number) for number in range(1, len(ADDRESSES) + 1)]
        for node in self.nodes:
            node.binaries = release
            if node.is_old():
                # The last release does not know the other store.
                node.uploads = "directory"
        self.key = ""
        self.haproxy: subprocess.Popen[bytes] | None = None
        # Nodes whose application runs.
        self.serving = list(self.nodes)
        # Processes that exited although nothing stopped them.
        self.exits: list[str] = []
        threading.Thread(target=self.supervise, daemon=True).start()

    def supervise(self) -> None:
        while True:
            time.sleep(1)
            self.exits += [one for node in self.nodes for one in node.supervise()]

    # --- Start -------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        for words in (("link", "set", "lo", "up"), ("link", "add", "nodes", "address", MACS[FRONT], "type", "bridge"), ("link", "set", "nodes", "up"),
                      ("addr", "add", f"{FRONT}/24", "dev", "nodes")):
            run("ip", *words)
        run("bash", "-c", 'source scripts/lib.sh; source scripts/redis-acl.sh; mkdir -m 700 "$1/redis-users"; secret_file "$1/service-token" 32; '
            'for role in "${redis_roles[@]}"; do secret_file "$1/redis-users/$role-password" 24; done', "bash", str(SCRATCH))
        (SCRATCH / "uploads").mkdir(mode=0o700)
        for node in self.nodes:
            node.create()
            node.start_etcd()
        wait(60, "a quorum of etcd", lambda: all(etcd_is_healthy(node) for node in self.nodes))
        # The first node initializes the database, and the others copy it.
        self.nodes[0].start_patroni()
        wait(90, "the first primary", lambda: self.primary() is self.nodes[0] and http_get(self.nodes[0].address, 8008, "/primary")[0] == 200)
        sql(f"CREATE ROLE linnet LOGIN PASSWORD '{PASSWORDS['linnet']}'; GRANT pg_monitor TO linnet", database="postgres")
        sql("CREATE DATABASE linnet OWNER linnet", database="postgres")
        # The master of Redis is on another node than the primary of PostgreSQL.
        master = self.nodes[1]
        for node in self.nodes:
            node.start_redis(master.address)
            if node is not self.nodes[0]:
                node.start_patroni()
        for node in self.nodes:
            node.wait_for_redis()
        if REDIS == "cluster":
            redis_cluster.create(master.address)
        else:
            wait(30, "two replicas of Redis", lambda: redis_at(master.address, "INFO", "replication").count("state=online") == 2)
        for node in self.nodes:
            node.start_sentinel(master.address)
        wait(90, "two standbys of PostgreSQL", self.postgres_is_whole)
        self.start_haproxy()
        # The schema needs the primary, through the same URL as Linnet.
        self.nodes[0].start_haproxy()
        # HAProxy in front of PostgreSQL leads to standbys too until their first check has failed.
        wait(60, "the migrations", lambda: self.nodes[0].run_admin("migrate", check=False).returncode == 0)
        for node in self.nodes:
            node.start_app()
        self.wait_until_whole()
        self.key = self.nodes[0].admin("admin", "create-key", "--username", "admin", "--email", "admin@localhost", "--name", "cluster").strip().splitlines()[-1]

    def start_haproxy(self) -> None:
        file = SCRATCH / "haproxy.cfg"
        file.write_text(rendered("haproxy.cfg", LISTEN=f"127.0.0.1:{PORT}", STATS_SOCKET=SCRATCH / "haproxy.sock"))
        with (SCRATCH / "haproxy.log").open("ab") as log:
            self.haproxy = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait(10, "HAProxy", lambda: self.haproxy_command("show info"))

    def haproxy_command(self, command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(2)
                connection.connect(str(SCRATCH / "haproxy.sock"))
                connection.sendall(f"{command}\n".encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except OSError:
            return ""

    def set_state(self, node: Node, state: str) -> None:
        """`ready`, or `maint`: no new request."""
        for backend in CHECKS:
            self.haproxy_command(f"set server {backend}/{node.name} state {state}")

    def up_servers(self) -> set[tuple[str, str]]:
        lines = [line.split(",") for line in self.haproxy_command("show stat").splitlines()]
        return {(fields[0], fields[1]) for fields in lines if fields[0] in CHECKS and fields[1].startswith("node") and fields[17] == "UP"}

    # --- State -------------------------------------------------------------------------------------------------------
    def by_address(self, address: str) -> Node | None:
        return next((node for node in self.nodes if node.address == address), None)

    def primary(self) -> Node | None:
        """The node whose Patroni holds the leader's lock."""
        return self.by_address(postgres_primary())

    def must_primary(self) -> Node:
        primary = self.primary()
        if primary is None:
            raise Failed("no node is the primary")
        return primary

    def master(self) -> Node:
        node = self.by_address(redis_master())
        if node is None:
            raise Failed("no majority names a master of Redis")
        return node

    def bystander(self) -> Node:
        """A node that is neither the primary nor the master."""
        taken = (self.primary(), self.master())
        return next(node for node in self.nodes if node not in taken)

    def synchronous(self) -> Node | None:
        """The standby that acknowledges commits."""
        return next((node for node in self.nodes if http_get(node.address, 8008, "/synchronous", 1)[0] == 200), None)

    def postgres_is_whole(self) -> bool:
        status, text = http_get(self.nodes[0].address, 8008, "/cluster")
        if status != 200:
            return False
        members = json.loads(text)["members"]
        roles = sorted(member["role"] for member in members)
        # A standby that streams is `running` until Patroni 3.0.
        return (len(members) == len(self.nodes) and "sync_standby" in roles and "leader" in roles
                and all(member["state"] in ("running", "streaming") and member.get("lag", 0) in range(1 << 20) for member in members)
                and sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", check=False) == str(len(self.nodes) - 1))

    def redis_is_whole(self) -> bool:
        if REDIS == "cluster":
            return redis_cluster.is_whole()
        address = redis_master()
        return bool(address) and redis_at(address, "INFO", "replication").count("state=online") == len(self.nodes) - 1

    def missing(self) -> str:
        """The first part that is absent or does not work; empty if the cluster is whole."""
        if not all(etcd_is_healthy(node) for node in self.nodes):
            return "a member of etcd"
        if not self.postgres_is_whole():
            return "a standby of PostgreSQL"
        if not self.redis_is_whole():
            return "a replica of Redis"
        if waiting := [node.name for node in self.serving if not node.is_serving()]:
            return f"Linnet on {', '.join(waiting)}"
        expected = {(backend, node.name) for backend in CHECKS for node in self.serving}
        if absent := expected - self.up_servers():
            return f"in HAProxy {sorted(absent)[0]}"
        return ""

    def wait_until_whole(self) -> float:
        begun, last = time.monotonic(), ""
        while lacking := self.missing():
            if lacking != last:
                print(f"    lacks {lacking} after {time.monotonic() - begun:.0f} s", flush=True)
            last = lacking
            if time.monotonic() - begun > WHOLE_WITHIN_S:
                raise Failed(f"the cluster still lacks {lacking} after {WHOLE_WITHIN_S} s")
            time.sleep(0.5)
        return time.monotonic() - begun

    def ensure_apart(self) -> None:
        """Moves the master of Redis away from the primary's node, as an operator would after failovers (docs/CLUSTER.md)."""
        if self.primary() is not self.master():
            return
        before = redis_master()
        # The sentinels give a failover up if no replica suits them at this moment, and refuse another one for some time.
        for _ in range(4):
            fail_over_redis()
            with suppress(Failed):
                wait(15, "another master of Redis", lambda: redis_master() not in ("", before))
                break
        require(redis_master() not in ("", before), "no failover moves the master of Redis")
        self.wait_until_whole()

    # --- Changes -----------------------------------------------------------------------------------------------------
    def take_out(self, node: Node) -> None:
        """Ends new requests to a node."""
        self.set_state(node, "maint")
        # Requests in progress; connections of clients stay at HAProxy.
        wait(15, f"the requests to {node.name} to end", lambda: self.sessions_of(node) == 0)

    def sessions_of(self, node: Node) -> int:
        """Requests in progress, without event streams, which end with the node."""
        lines = [line.split(",") for line in self.haproxy_command("show stat").splitlines() if line.startswith("redirects")]
        return sum(int(fields[4]) for fields in lines if fields[1] == node.name)

    def put_back(self, node: Node) -> None:
        wait(60, f"Linnet on {node.name}", node.is_serving)
        self.set_state(node, "ready")
        wait(20, f"{node.name} in HAProxy", lambda: {(backend, node.name) for backend in CHECKS} <= self.up_servers())

    @contextmanager
    def killed(self, *nodes: Node) -> Iterator[None]:
        """A power cut of nodes, and their boot."""
        for node in nodes:
            node.kill()
        try:
            yield
        finally:
            for node in nodes:
                node.boot(redis_master() or ADDRESSES[1])

    def print_logs(self) -> None:
        for folder in (SCRATCH, *(node.folder / "logs" for node in self.nodes)):
            for file in sorted(folder.glob("*.log")):
                lines = file.read_text(errors="replace").splitlines()[-12:]
                print(f"--- {file.relative_to(SCRATCH)}\n" + "\n".join(line[:300] for line in lines), flush=True)


def fail_over_redis() -> None:
    """Sentinels refuse it shortly after another failover."""
    if REDIS == "cluster":
        redis_cluster.fail_over()
        return
    wait(30, "SENTINEL FAILOVER to be accepted", lambda: redis_at(ADDRESSES[0], "SENTINEL", "FAILOVER", MASTER_NAME, port=26379).startswith("OK"))


def etcd_is_healthy(node: Node) -> bool:
    return '"health":"true"' in http_get(node.address, 2379, "/health")[1]
