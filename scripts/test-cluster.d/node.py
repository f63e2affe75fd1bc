"""A node: a network namespace with a store of each kind, and the processes of Linnet."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from string import Template

from checks import Failed
from engine import (ADDRESSES, BINARIES, CLUSTER, FRONT, MASTER_NAME, NETWORK, PASSWORDS, PG_BIN, REDIS, REPLICA_PORT, ROOT, SCRATCH, http_get,
                    postgres_primary, redis_at, redis_master, run, wait)

TEMPLATES = ROOT / "deploy/cluster"
STORES = ("etcd", "patroni", "redis", "sentinel")
APP = ("worker", "shortener", "gateway", "nginx")
# The ports of the stores: etcd, PostgreSQL, Redis, Patroni's REST interface, the bus of a Redis Cluster, sentinels.
STORE_PORTS = "2379,2380,5432,6379,6380,8008,16379,16380,26379"
# One load from one address and user.
UNREACHED_LIMITS = {
    "LINNET__LIMITS__KEY_PER_MINUTE": "60000000", "LINNET__LIMITS__KEY_BURST": "1000000",
    "LINNET__LIMITS__USER_PER_MINUTE": "60000000", "LINNET__LIMITS__USER_BURST": "1000000", "LINNET_NGINX_API_RATE": "off",
    # Three nodes on one machine keep its processors busy, and an import would wait for redirects that need none of them.
    "LINNET__JOBS__THROTTLE_PERCENT": "100",
}


def rendered(name: str, **values: object) -> str:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    nodes = {f"NODE{number}": address for number, address in enumerate(ADDRESSES, 1)}
    return Template(re.sub(r"^#.*\n", "", text, flags=re.M)).substitute(nodes | values)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def inside(namespace: str, *command: str) -> tuple[str, ...]:
    return ("nsenter", f"--net=/run/netns/{namespace}", *command)


class Node:
    def __init__(self, number: int) -> None:
        self.number, self.name, self.address = number, f"node{number}", ADDRESSES[number - 1]
        self.namespace, self.folder = f"{CLUSTER}-{self.name}", SCRATCH / self.name
        # The end of its cable in the namespace of HAProxy.
        self.link = self.name
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        # Starts a process again.
        self.again: dict[str, Callable[[], None]] = {}
        self.binaries = BINARIES
        # Where uploads wait for a worker: jobs.upload_store.
        self.uploads = UPLOADS
        # Guards `running`: the supervisor of the cluster restarts processes.
        self.lock = threading.RLock()

    # --- Network -----------------------------------------------------------------------------------------------------
    def create(self) -> None:
        run("ip", "netns", "add", self.namespace)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        run("ip", "link", "set", self.link, "master", "nodes", "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            run("ip", "-n", self.namespace, *words)
        # A neighbor that is gone must not be asked for by ARP for seconds: packets to it get lost, as through a router.
        for other, mac in MACS.items():
            if other != self.address:
                run("ip", "-n", self.namespace, "neigh", "replace", other, "lladdr", mac, "dev", "eth0", "nud", "permanent")
        run("ip", "-n", self.namespace, "link", "set", "eth0", "address", MACS[self.address])
        run("ip", "neigh", "replace", self.address, "lladdr", MACS[self.address], "dev", "nodes", "nud", "permanent")
        for setting in re.findall(r"^(net\.\S+) = (\d+)$", (TEMPLATES / "sysctl.conf").read_text(), re.M):
            run(*inside(self.namespace, "sh", "-c", 'echo "$2" > "/proc/sys/$1"', "sh", setting[0].replace(".", "/"), setting[1]))
        for folder in (self.folder, self.folder / "logs"):
            folder.mkdir(mode=0o711)

    def cable(self, state: str) -> None:
        run("ip", "link", "set", self.link, state)

    def iptables(self, *words: str, check: bool = True) -> None:
        run(*inside(self.namespace, "iptables", "-w", *words), check=check)

    @contextmanager
    def dropped(self, *rules: tuple[str, ...]) -> Iterator[None]:
        """Drops the packets of these rules; established connections get no notice."""
        for rule in rules:
            self.iptables("-A", *rule, "-j", "DROP")
        try:
            yield
        finally:
            for rule in rules:
                self.iptables("-D", *rule, "-j", "DROP")

    # --- Processes ---------------------------------------------------------------------------------------------------
    def start(self, name: str, *command: str, user: str = "", **environment: str) -> None:
        self.again[name] = lambda: self.execute(name, command, user, environment)
        self.again[name]()

    def execute(self, name: str, command: tuple[str, ...], user: str, environment: dict[str, str]) -> None:
        if user:
            command = ("setpriv", "--reuid", user, "--regid", user, "--init-groups", "--", *command)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LINNET", "PG", "PYTHON"))}
        with self.lock, (self.folder / "logs" / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(inside(self.namespace, *command), cwd="/", env=inherited | environment, stdin=subprocess.DEVNULL,
                                                  stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM, within_s: float = 30) -> None:
        with self.lock:
            process = self.running.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"{name} of {self.name} did not stop within {within_s:g} s") from None

    def supervise(self) -> list[str]:
        """Restarts the processes that exited, as systemd does, and reports each exit."""
        exited = []
        with self.lock:
            for name, process in list(self.running.items()):
                if process.poll() is not None:
                    exited.append(f"{name} of {self.name} exited with {process.returncode}")
                    del self.running[name]
                    self.again[name]()
        return exited

    def pids(self) -> list[int]:
        return [int(pid) for pid in run("ip", "netns", "pids", self.namespace).stdout.split()]

    def kill(self) -> None:
        """A power cut: the cable first, so that no connection is closed properly, then every process."""
        with self.lock:
            self.cable("down")
            while pids := self.pids():
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                for process in self.running.values():
                    process.poll()
                time.sleep(0.05)
            for process in self.running.values():
                process.wait()
            self.running.clear()

    def boot(self, master: str) -> None:
        """Starts everything, as after a power cut."""
        self.cable("up")
        # Its pid can belong to another process of this machine by now.
        (self.folder / "postgres/data/postmaster.pid").unlink(missing_ok=True)
        self.start_etcd()
        self.start_patroni()
        self.start_redis(master)
        self.start_sentinel(master)
        self.start_app()

    # --- Stores ------------------------------------------------------------------------------------------------------
    def start_etcd(self) -> None:
        cluster = ",".join(f"node{number}=http://{address}:2380" for number, address in enumerate(ADDRESSES, 1))
        folder = self.folder / "etcd"
        folder.mkdir(mode=0o700, exist_ok=True)
        own = f"http://{self.address}"
        self.start("etcd", "etcd", "--name", self.name, "--data-dir", str(folder), "--listen-peer-urls", f"{own}:2380", "--initial-advertise-peer-urls",
                   f"{own}:2380", "--listen-client-urls", f"{own}:2379", "--advertise-client-urls", f"{own}:2379", "--initial-cluster", cluster,
                   "--initial-cluster-token", CLUSTER, "--pre-vote", "--heartbeat-interval", "200", "--election-timeout", "2000", "--logger", "zap",
                   "--log-level", "warn")

    def start_patroni(self) -> None:
        folder = self.folder / "postgres"
        if not folder.exists():
            folder.mkdir(mode=0o700)
            shutil.chown(folder, "postgres", "postgres")
        file = folder / "patroni.yml"
        file.write_text(rendered("patroni.yml", NAME=self.name, ADDRESS=self.address, NETWORK=NETWORK, PG_BIN=PG_BIN, FOLDER=folder, TTL_S=TTL_S,
                                 LOOP_S=LOOP_S, SHARED_BUFFERS="64MB", SUPERUSER_PASSWORD=PASSWORDS["superuser"],
                                 REPLICATION_PASSWORD=PASSWORDS["replication"], REWIND_PASSWORD=PASSWORDS["rewind"]))
        file.chmod(0o600)
        shutil.chown(file, "postgres", "postgres")
        # Modules that this folder lacks are those of Debian.
        self.start("patroni", "/usr/bin/python3", "-m", "patroni", str(file), user="postgres", HOME=str(folder), PYTHONPATH=str(SCRATCH / "python"))

    def start_redis(self, master: str) -> None:
        if REDIS == "cluster":
            for name, port in (("redis", 6379), ("redis-replica", REPLICA_PORT)):
                if name not in self.running:
                    self.start_one_redis(name, self.address, f"port {port}\n{(TEMPLATES / 'redis-cluster.conf').read_text()}")
        else:
            self.start_one_redis("redis", master, "")

    def start_one_redis(self, name: str, master: str, more: str) -> None:
        folder = self.folder / name
        file = folder / "redis.conf"
        if not file.exists():
            folder.mkdir(mode=0o700)
            hashes = {"REPLICA_HASH": sha256(PASSWORDS["replica"]), "SENTINEL_HASH": sha256(PASSWORDS["sentinel"])}
            roles = run("bash", "-c", 'source scripts/lib.sh; source scripts/redis-acl.sh; redis_acl "$1"', "bash", str(SCRATCH / "redis-users")).stdout
            (folder / "users.acl").write_text(f"user default reset on ~* &* +@all\n{roles}{Template((TEMPLATES / 'users.acl').read_text()).substitute(hashes)}")
            text = rendered("redis.conf", ADDRESS=self.address, FOLDER=folder, REPLICA_PASSWORD=PASSWORDS["replica"], MAXMEMORY="128mb")
            file.write_text(text + more + ("" if master == self.address else f"replicaof {master} 6379\n"))
        self.start(name, "redis-server", str(file))

    def start_sentinel(self, master: str) -> None:
        if REDIS == "cluster":
            return
        folder = self.folder / "sentinel"
        file = folder / "sentinel.conf"
        if not file.exists():
            folder.mkdir(mode=0o700)
            file.write_text(rendered("sentinel.conf", ADDRESS=self.address, FOLDER=folder, MASTER=master, SENTINEL_PASSWORD=PASSWORDS["sentinel"]))
        self.start("sentinel", "redis-server", str(file), "--sentinel")

    # --- Linnet ------------------------------------------------------------------------------------------------------
    def environment(self, role: str) -> dict[str, str]:
        uploads = {"LINNET__JOBS__UPLOAD_STORE": "postgres"} if self.uploads == "postgres" else {"LINNET__JOBS__UPLOAD_DIR": str(SCRATCH / "uploads")}
        return UNREACHED_LIMITS | uploads | {
            "LINNET__PUBLIC__BASE_URL": "http://short.test",
            "LINNET__SERVICE__TOKEN_FILE": str(SCRATCH / "service-token"),
            "LINNET__POSTGRES__URL": self.postgres_url(),
            "LINNET__REDIS__URL": self.redis_url(role),
            "LINNET__SHORTENER__RESOLVE_LISTEN": "127.0.0.1:8082",
            "LINNET__SHORTENER__API_LISTEN": "127.0.0.1:8083",
            "LINNET__SHORTENER__ADMIN_LISTEN": f"{self.address}:9082",
            "LINNET__GATEWAY__LISTEN": "127.0.0.1:8081",
            "LINNET__GATEWAY__ADMIN_LISTEN": f"{self.address}:9081",
            "LINNET__UPSTREAM__SHORTENERS": "127.0.0.1:8083",
            "LINNET__WORKER__ADMIN_LISTEN": f"{self.address}:9083",
            "LINNET__CLICKS__SPOOL_DIR": str(self.folder / "spool"),
            "LINNET_NGINX_RESOLVE": "127.0.0.1:8082",
            "LINNET_NGINX_GATEWAY": "127.0.0.1:8081",
            "LINNET_NGINX_LISTEN": f"{self.address}:8080",
            "LINNET_NGINX_TRUSTED_PROXIES": FRONT,
            "LINNET_NGINX_WORKERS": "1",
            "LINNET_NGINX_RESOLVE_LOG_SAMPLE": "1%",
        }

    def is_old(self) -> bool:
        """Whether the node runs the last release. It may know one host of each store only."""
        return self.binaries != BINARIES

    def postgres_url(self) -> str:
        if self.is_old():
            hosts = f"{postgres_primary()}:5432/linnet?"
        elif POSTGRES == "haproxy":
            hosts = "127.0.0.1:5000/linnet?"
        else:
            hosts = ",".join(f"{one}:5432" for one in ADDRESSES) + "/linnet?target_session_attrs=read-write&"
        return f"postgres://linnet:{PASSWORDS['linnet']}@{hosts}sslmode=disable"

    def redis_url(self, role: str) -> str:
        password = (SCRATCH / f"redis-users/{role}-password").read_text().strip()
        if self.is_old():
            return f"redis://{role}:{password}@{redis_master()}:6379/0"
        if REDIS == "cluster":
            nodes = ",".join(f"{address}:{port}" for address in ADDRESSES for port in (6379, REPLICA_PORT))
            return f"redis+cluster://{role}:{password}@{nodes}"
        sentinels = ",".join(f"{address}:26379" for address in ADDRESSES)
        return f"redis+sentinel://{role}:{password}@{sentinels}/{MASTER_NAME}/0"

    def start_haproxy(self) -> None:
        """HAProxy in front of PostgreSQL."""
        if POSTGRES == "haproxy" and "haproxy" not in self.running:
            file = self.folder / "haproxy.cfg"
            file.write_text(rendered("haproxy-postgres.cfg"))
            self.start("haproxy", "haproxy", "-db", "-f", str(file))

    def start_app(self) -> None:
        """Starts the processes of Linnet, without waiting for the stores: they must wait themselves."""
        self.start_haproxy()
        for name in APP:
            self.start_process(name)

    def start_process(self, name: str) -> None:
        command = {
            "worker": (self.binaries / "linnet-shortener", "worker"), "shortener": (self.binaries / "linnet-shortener", "serve"),
            "gateway": (self.binaries / "linnet-gateway", "serve"), "nginx": (ROOT / "scripts/service", "nginx", self.folder / "nginx"),
        }[name]
        self.start(name, *map(str, command), **self.environment("gateway" if name == "nginx" else name))

    def stop_app(self) -> None:
        """HAProxy has taken the node out of service. The shortener ends its event streams, for which nginx would wait 20 s."""
        for name in ("shortener", "gateway"):
            self.stop(name)
        self.stop("nginx", signal.SIGQUIT)
        self.stop("worker")

    def is_serving(self) -> bool:
        """Whether the node's own nginx, gateway, shortener and worker work, and reach the stores."""
        ready = all(http_get(self.address, port, "/readyz")[0] == 200 for port in (9081, 9082, 9083))
        return ready and http_get(self.address, 8080, "/health")[0] == 200

    def admin(self, *words: str) -> str:
        """The command line of the shortener."""
        return self.run_admin(*words).stdout

    def run_admin(self, *words: str, check: bool = True, binaries: Path | None = None) -> subprocess.CompletedProcess[str]:
        """By default with the binaries that the node runs."""
        program = (binaries or self.binaries) / "linnet-shortener"
        return run(*inside(self.namespace, str(program), *words), check=check, timeout=120, **self.environment("shortener"))

    def wait_for_redis(self) -> None:
        wait(20, f"Redis of {self.name}", lambda: redis_at(self.address, "PING").strip() == "PONG")


POSTGRES = os.environ.get("POSTGRES", "hosts")
UPLOADS = os.environ.get("UPLOADS", "postgres")
TTL_S, LOOP_S = 20, 2
MACS = {FRONT: "02:00:00:00:77:10"} | {address: f"02:00:00:00:77:{number + 10}" for number, address in enumerate(ADDRESSES, 1)}
