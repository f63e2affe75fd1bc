"""Commands, requests and waits of the cluster: the same names as those of `scripts/checks.d/engine.py` for containers, which
the modules of `scripts/test-chaos.d` import.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
from pathlib import Path

from checks import Failed as Failed, require as require, wait as wait

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = Path(os.environ.get("LINNET_SCRATCH", "/nonexistent"))
CLUSTER = os.environ.get("LINNET_CLUSTER", "")
PG_BIN = Path(os.environ.get("LINNET_PG_BIN", "/nonexistent"))
BINARIES = Path(os.environ.get("BIN_DIR", "/nonexistent"))
# HAProxy and the load are in one namespace.
PORT = 8080
# A network for benchmarks (RFC 2544), which only the run's namespaces have.
NETWORK, FRONT = "198.18.77.0/24", "198.18.77.10"
ADDRESSES = ("198.18.77.11", "198.18.77.12", "198.18.77.13")
MASTER_NAME = "linnet"
# `sentinel`, or `cluster`: a Redis Cluster, whose replicas have the second port.
REDIS = os.environ.get("REDIS", "sentinel")
REPLICA_PORT = 6380
PASSWORDS = {name: secrets.token_hex(16) for name in ("superuser", "replication", "rewind", "linnet", "replica", "sentinel")}


def run(*command: str, check: bool = True, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=timeout, check=False)
    if check and done.returncode:
        raise Failed(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stdout}")
    return done


def http_get(address: str, port: int, path: str, timeout: float = 2) -> tuple[int, str]:
    return http_request("GET", address, port, path, None, timeout)


def http_post(address: str, port: int, path: str, body: dict) -> tuple[int, str]:
    return http_request("POST", address, port, path, json.dumps(body), 60)


def http_request(method: str, address: str, port: int, path: str, body: str | None, timeout: float) -> tuple[int, str]:
    """Status and text; the status is 0 without a response."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def sql(statement: str, *, host: str = ",".join(ADDRESSES), database: str = "linnet", writable: bool = True, check: bool = True) -> str:
    """Runs a statement as superuser, by default on the primary, and returns its output."""
    target = f"host={host} port=5432 user=postgres dbname={database} connect_timeout=3"
    if writable:
        target += " target_session_attrs=read-write"
    return run(str(PG_BIN / "psql"), "-XqAt", "-d", target, "-c", statement, check=check, PGPASSWORD=PASSWORDS["superuser"]).stdout.strip()


def postgres_primary() -> str:
    """The address of the node whose Patroni holds the leader's lock; empty if there is none."""
    return next((address for address in ADDRESSES if http_get(address, 8008, "/primary", 1)[0] == 200), "")


def redis_master() -> str:
    """The address of the master; empty without a majority."""
    return redis_master_at()[0]


def redis_master_at() -> tuple[str, int]:
    """The address and port that most sentinels, or nodes of the Redis Cluster, name; an empty address without a majority."""
    if REDIS == "cluster":
        owners = [owner for address in ADDRESSES for port in (6379, REPLICA_PORT) if (owner := slot_owner(address, port)) is not None]
        return next((one for one in set(owners) if owners.count(one) > len(ADDRESSES)), ("", 0))
    named = [reply.split()[0] for address in ADDRESSES
             if len((reply := redis_at(address, "SENTINEL", "get-master-addr-by-name", MASTER_NAME, port=26379)).split()) == 2]
    return next(((one, 6379) for one in set(named) if named.count(one) > len(ADDRESSES) / 2), ("", 0))


def slot_owner(address: str, port: int) -> tuple[str, int] | None:
    """The master of Linnet's slot, as a node sees it."""
    slot = redis_at(address, "CLUSTER", "KEYSLOT", "{linnet}", port=port).strip()
    lines = (line.split() for line in redis_at(address, "CLUSTER", "NODES", port=port).splitlines() if slot)
    for fields in lines:
        for range_ in fields[8:]:
            low, _, high = range_.partition("-")
            if low.isdigit() and int(low) <= int(slot) <= int(high or low):
                host, _, at = fields[1].partition("@")[0].rpartition(":")
                return host, int(at)
    return None


def redis_at(address: str, *words: str, port: int = 6379) -> str:
    """The reply of one server; empty if it does not respond within 2 s."""
    user = ["--user", "operator"] if port != 26379 else []
    password = {"REDISCLI_AUTH": (SCRATCH / "redis-users/operator-password").read_text().strip()} if user else {}
    try:
        done = run("redis-cli", *user, "-h", address, "-p", str(port), *words, check=False, timeout=2, **password)
    except subprocess.TimeoutExpired:
        return ""
    return "" if done.returncode else done.stdout


def redis_cli(*words: str) -> str:
    """A command at the master."""
    address, port = redis_master_at()
    return redis_at(address, *words, port=port)
