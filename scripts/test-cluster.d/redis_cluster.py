"""The Redis Cluster of `REDIS=cluster`: a master on each node, and its replica on the next one."""

from __future__ import annotations

from engine import ADDRESSES, REPLICA_PORT, require, redis_at, redis_master_at, wait

RANGES = ((0, 5460), (5461, 10922), (10923, 16383))
NODES = tuple((address, port) for port in (6379, REPLICA_PORT) for address in ADDRESSES)


def accepted(address: str, port: int, *words: object) -> None:
    reply = redis_at(address, *map(str, words), port=port)
    require(reply.strip() == "OK", f"{words} at {address}:{port}: {reply}")


def create(home: str) -> None:
    """Introduces the nodes to each other. The master of Linnet's slot is the one at `home`."""
    for address, port in NODES:
        wait(20, f"Redis at {address}:{port}", lambda: redis_at(address, "PING", port=port).strip() == "PONG")
    slot = int(redis_at(home, "CLUSTER", "KEYSLOT", "{linnet}"))
    first = next(number for number, (low, high) in enumerate(RANGES) if low <= slot <= high) - ADDRESSES.index(home)
    for number, address in enumerate(ADDRESSES):
        accepted(address, 6379, "CLUSTER", "ADDSLOTSRANGE", *RANGES[(first + number) % len(RANGES)])
        accepted(address, 6379, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for address, port in NODES[1:]:
        accepted(address, port, "CLUSTER", "MEET", ADDRESSES[0], 6379)
    for number, address in enumerate(ADDRESSES):
        name = redis_at(address, "CLUSTER", "MYID").strip()
        replica = ADDRESSES[(number + 1) % len(ADDRESSES)]
        wait(30, f"a replica of {address}", lambda: redis_at(replica, "CLUSTER", "REPLICATE", name, port=REPLICA_PORT).strip() == "OK")
    wait(30, "a whole Redis Cluster", is_whole)


def is_whole() -> bool:
    states = [redis_at(address, "CLUSTER", "INFO", port=port) for address, port in NODES]
    if not all("cluster_state:ok" in state and "cluster_known_nodes:6" in state for state in states):
        return False
    views = [redis_at(address, "CLUSTER", "NODES", port=port) for address, port in NODES]
    if any("fail" in view or view.count(" connected") != len(NODES) for view in views):
        return False
    address, port = redis_master_at()
    return bool(address) and "state=online" in redis_at(address, "INFO", "replication", port=port)


def fail_over() -> None:
    """A replica takes over, in agreement with its master."""
    address, port = redis_master_at()
    name = redis_at(address, "CLUSTER", "MYID", port=port).strip()
    replica, at = next((one, at) for one, at in NODES if f" {name} " in own_line(one, at))
    accepted(replica, at, "CLUSTER", "FAILOVER")


def own_line(address: str, port: int) -> str:
    """The line of a replica about itself, which contains the id of its master."""
    return next((line for line in redis_at(address, "CLUSTER", "NODES", port=port).splitlines() if "myself,slave" in line), "")
