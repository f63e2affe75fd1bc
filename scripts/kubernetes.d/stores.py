"""Checks of the stores that operators run: reached, verified, spread, and by the labels that their pods have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from overlay import Overlay, pods, wants
from reach import Network, Object, Port, operated, peers_of, selects


def spread_faults(term: Object) -> Iterator[str]:
    """Constraints that keep pods pending while a node is drained or dead, or beside nodes of the control plane."""
    if term["whenUnsatisfiable"] != "ScheduleAnyway":
        yield f"stays pending if {term['topologyKey']} cannot be balanced, and so blocks the drain of a node"
    if term.get("nodeTaintsPolicy") != "Honor":
        yield f"counts nodes that it may not run on as empty ones of {term['topologyKey']}"


def affinities(overlay: Overlay) -> Iterator[str]:
    """Anti-affinities and spreads of operators' pods that select other labels than these pods have."""
    for obj in overlay.of("RedisReplication", "RedisSentinel", "Cluster"):
        peer, spec = operated(obj), obj["spec"]
        assert peer
        rules = (spec.get("affinity") or {}).get("podAntiAffinity") or {}
        terms = [
            *rules.get("requiredDuringSchedulingIgnoredDuringExecution", []),
            *(rule["podAffinityTerm"] for rule in rules.get("preferredDuringSchedulingIgnoredDuringExecution", [])),
        ]
        if not terms and not (spec.get("affinity") or {}).get("enablePodAntiAffinity"):
            yield f"{obj['kind']} {peer.name}: its pods may all run on one node"
        for term in [*terms, *spec.get("topologySpreadConstraints", [])]:
            if not selects(term["labelSelector"], peer.labels):
                yield f"{obj['kind']} {peer.name}: is kept apart from pods with other labels than its own have"
        for term in spec.get("topologySpreadConstraints", []):
            yield from (f"{obj['kind']} {peer.name}: {fault}" for fault in spread_faults(term))


# The secrets with a URL of Redis, and the pods that mount each.
REDIS_URL = re.compile(r"^redis(?:s)?\+sentinel://(?P<user>[a-z]+):\{\{ \.password \| urlquery \}\}@(?P<hosts>[^/]+)/(?P<name>[^/]+)/\d+$")


def sentinels(overlay: Overlay) -> Iterator[str]:
    """URLs of Redis that do not list every sentinel by its own address, and processes that may not connect to them.

    Without sentinels in the URL, a process can use an old master after a failover (docs/adr/032).
    """
    replication, sentinel = overlay.one("RedisReplication", "redis"), next(overlay.of("RedisSentinel"), None)
    if replication is None or sentinel is None:
        return
    peers = {peer.name: peer for peer in peers_of(overlay.objects)}
    master, config = operated(replication), sentinel["spec"]["redisSentinelConfig"]
    watcher = operated(sentinel)
    assert master and watcher
    if config["redisReplicationName"] != master.name:
        yield f"the sentinels watch {config['redisReplicationName']}, which does not exist"
    # Milliseconds; see "Not covered" in docs/adr/032.
    if int(config.get("failoverTimeout", "0")) < 60_000:
        yield "failoverTimeout must be a minute or more, or a second failover can promote an isolated master"
    hosts = [f"{watcher.name}-{index}.{watcher.name}-headless:26379" for index in range(sentinel["spec"]["clusterSize"])]
    if len(hosts) < 3 or int(config["quorum"]) <= len(hosts) // 2:
        yield "three sentinels or more must agree by a majority"
    network = Network(overlay.objects)
    for obj in overlay.of("ExternalSecret"):
        url = obj["spec"]["target"].get("template", {}).get("data", {}).get("url", "")
        if not url.startswith("redis"):
            continue
        secret = obj["spec"]["target"]["name"]
        found = REDIS_URL.match(url)
        if not found or found["hosts"].split(",") != hosts or found["name"] != config["masterGroupName"]:
            yield f"{secret}: {url} must list {','.join(hosts)} and the name {config['masterGroupName']}"
        for _, name, template in pods(overlay):
            if ("secret", secret) in wants(template):
                for target, port in ((watcher, 26379), (master, 6379)):
                    if not network.may_connect(peers[name], target, Port(port)):
                        yield f"{name}: mounts {secret}, but may not connect to {target.name}:{port}"


CA = re.compile(r"sslmode=verify-full&sslrootcert=/run/authorities/[\w.-]+")


def tls(overlay: Overlay) -> Iterator[str]:
    """Connections to stores that verify nothing, and pods without the folder of the CAs."""
    urls = {
        f"{obj['metadata']['name']}: {key}": text
        for obj in overlay.of("ExternalSecret")
        for key, text in obj["spec"]["target"].get("template", {}).get("data", {}).items()
        if key in {"url", "uri", "address"}
    }
    for name, url in urls.items():
        if name.startswith("postgres") and not CA.search(url):
            yield f"{name} of PostgreSQL verifies no certificate"
        # The name follows a failover, but connections to the old primary hang: Linnet must observe it (docs/adr/033).
        if name == "postgres: url" and "target_session_attrs=read-write" not in url:
            yield f"{name} does not follow a failover"
        # The operator's sentinels name the master by its address, which no certificate has (docs/adr/034).
        if name.startswith("redis") and not url.startswith(("rediss://", "redis+sentinel://")):
            yield f"{name} of Redis is not encrypted"
    for _, name, template in pods(overlay):
        found = set(wants(template))
        if urls and found & {("secret", "postgres"), ("secret", "postgres-exporter")}:
            mounted = {mount["mountPath"] for container in template["spec"]["containers"] for mount in container.get("volumeMounts", [])}
            if "/run/authorities" not in mounted or (overlay.one("Cluster", "postgres") and ("secret", "postgres-ca") not in found):
                yield f"{name}: lacks the CA of PostgreSQL"


def operators(overlay: Overlay) -> Iterator[str]:
    """Pods of operators that no policy names."""
    for obj in overlay.of("Cluster", "RedisReplication", "RedisSentinel"):
        peer = operated(obj)
        if peer and not any(
            selects(policy["spec"]["podSelector"], peer.labels) and policy["spec"]["podSelector"]
            for policy in overlay.of("NetworkPolicy")
        ):
            yield f"{obj['kind']} {peer.name}: no policy names its pods"
