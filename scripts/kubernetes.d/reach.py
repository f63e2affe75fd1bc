#!/usr/bin/env python3
"""Which pod may reach which, evaluated from the network policies of a rendered overlay.

    scripts/kubernetes render production | "$(scripts/python-tools kubernetes)/python" scripts/kubernetes.d/reach.py

Prints the table of docs/KUBERNETES.md. It evaluates what the manifests say, as a network plugin does: a connection needs a
rule at its source and one at its destination; a pod that no policy selects is open.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

NAMESPACE = "linnet"
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
# Addresses outside the cluster: one of the internet, and one of the private network, such as another server of the company.
INTERNET = "93.184.215.14"
INTERNET_6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
PRIVATE = "10.200.0.9"
# One address of each network that clusters give their pods.
PODS = ("10.1.2.3", "172.20.0.9", "192.168.3.4", "100.64.5.6")

Object = dict[str, Any]


@dataclass(frozen=True)
class Port:
    """A port of a pod."""

    number: int
    protocol: str = "TCP"
    name: str = ""

    def __str__(self) -> str:
        return str(self.number) if self.protocol == "TCP" else f"{self.number}/{self.protocol}"


@dataclass
class Peer:
    """An end of a connection: a pod, or an address outside."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    address: str | None = None
    ports: list[Port] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        return self.address is None and self.namespace == NAMESPACE


def templates(obj: Object) -> Iterator[tuple[str, Object]]:
    """The pod templates of an object, with the name of what they run."""
    kind, spec, name = obj["kind"], obj.get("spec", {}), obj["metadata"]["name"]
    if kind in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
        yield name, spec["template"]
    elif kind == "CronJob":
        yield name, spec["jobTemplate"]["spec"]["template"]
    elif kind == "AnalysisTemplate":
        for metric in spec["metrics"]:
            if job := metric["provider"].get("job"):
                yield "analysis", job["spec"]["template"]


def operated(obj: Object) -> Peer | None:
    """The pods that an operator makes of a custom resource, with the labels that the operator gives them.

    CloudNativePG inherits no label of the resource. The Redis operator sets the name of the StatefulSet as `app` (that of
    sentinels ends with `-sentinel`), and copies all labels of the resource. cert-manager runs a pod while it proves a domain.
    """
    name, own = obj["metadata"]["name"], obj["metadata"].get("labels", {})
    match obj["kind"]:
        case "Cluster":
            labels = {"cnpg.io/cluster": name, "cnpg.io/podRole": "instance"}
            return Peer(name, labels, ports=[Port(5432, name="postgresql"), Port(8000, name="status"), Port(9187, name="metrics")])
        case "RedisReplication":
            labels = {"app": name, "redis_setup_type": "replication", "role": "replication", **own}
            return Peer(name, labels, ports=[Port(6379), Port(9121, name="redis-exporter")])
        case "RedisSentinel":
            labels = {"app": f"{name}-sentinel", "redis_setup_type": "sentinel", "role": "sentinel", **own}
            return Peer(f"{name}-sentinel", labels, ports=[Port(26379)])
        case "Certificate":
            return Peer("acme-solver", {"acme.cert-manager.io/http01-solver": "true"}, ports=[Port(8089)])
    return None


def peers_of(objects: list[Object]) -> list[Peer]:
    """Every pod of the namespace."""
    peers = []
    for obj in objects:
        for name, template in templates(obj):
            ports = [
                Port(port["containerPort"], port.get("protocol", "TCP"), port.get("name", ""))
                for container in template["spec"]["containers"]
                for port in container.get("ports", [])
            ]
            peers.append(Peer(name, template["metadata"]["labels"], ports=ports))
        if peer := operated(obj):
            peers.append(peer)
    return peers


def selects(selector: Object | None, labels: dict[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    for key, value in (selector or {}).get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in (selector or {}).get("matchExpressions", []):
        key, values = expression["key"], expression.get("values", [])
        is_match = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[expression["operator"]]
        if not is_match:
            return False
    return True


def in_block(address: str, block: Object) -> bool:
    """Whether an address is in an `ipBlock`."""
    networks = [ipaddress.ip_network(net) for net in (block["cidr"], *block.get("except", []))]
    found = [ipaddress.ip_address(address) in network for network in networks]
    return found[0] and not any(found[1:])


def matches(rule_peer: Object, peer: Peer, namespace: str) -> bool:
    """Whether a peer of a rule of a policy in `namespace` is this one."""
    if block := rule_peer.get("ipBlock"):
        # A block names addresses, which may be those of pods as well: with `0.0.0.0/0`, all of them. Pods have private ones.
        return any(in_block(address, block) for address in ([peer.address] if peer.address else PODS))
    if peer.address is not None:
        return False
    if "namespaceSelector" in rule_peer:
        if not selects(rule_peer["namespaceSelector"], {NAMESPACE_LABEL: peer.namespace}):
            return False
    elif peer.namespace != namespace:
        return False
    return selects(rule_peer.get("podSelector"), peer.labels)


def has_port(rule_ports: list[Object] | None, port: Port) -> bool:
    """Whether the ports of a rule contain this one; none means all."""
    if not rule_ports:
        return True
    for rule in rule_ports:
        if rule.get("protocol", "TCP") != port.protocol:
            continue
        wanted = rule.get("port")
        if wanted is None or wanted == port.name or wanted == port.number:
            return True
        if isinstance(wanted, int) and wanted <= port.number <= rule.get("endPort", wanted):
            return True
    return False


class Network:
    """All policies of a rendered overlay."""

    def __init__(self, objects: list[Object]) -> None:
        self.policies = [obj for obj in objects if obj["kind"] == "NetworkPolicy"]

    def permits(self, direction: str, pod: Peer, other: Peer, port: Port) -> bool:
        """Whether the pod's own policies allow a connection in the direction `Ingress` or `Egress`."""
        if not pod.is_ours:
            return True
        key, side = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        is_isolated = False
        for policy in self.policies:
            spec, namespace = policy["spec"], policy["metadata"].get("namespace", NAMESPACE)
            types = spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"])
            if direction not in types or namespace != pod.namespace or not selects(spec["podSelector"], pod.labels):
                continue
            is_isolated = True
            for rule in spec.get(key, []):
                ends = rule.get(side)
                if (not ends or any(matches(end, other, namespace) for end in ends)) and has_port(rule.get("ports"), port):
                    return True
        return not is_isolated

    def may_connect(self, source: Peer, target: Peer, port: Port) -> bool:
        """Whether a connection needs and has a rule at both ends."""
        return self.permits("Egress", source, target, port) and self.permits("Ingress", target, source, port)

    def rules(self) -> Iterator[tuple[Object, Object]]:
        """Each rule, with its policy."""
        for policy in self.policies:
            for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]:
                yield policy, rule

    def outside(self) -> list[Peer]:
        """The pods of other namespaces and the networks that a policy names, and others that none does."""
        found: dict[str, Peer] = {}
        for _, rule in self.rules():
            for end in [*rule.get("from", []), *rule.get("to", [])]:
                if block := end.get("ipBlock"):
                    network = ipaddress.ip_network(block["cidr"])
                    # The whole internet has addresses of its own below.
                    if network.prefixlen > 0:
                        found[block["cidr"]] = Peer(block["cidr"], address=str(network[min(1, network.num_addresses - 1)]))
                elif "namespaceSelector" in end:
                    namespace = end["namespaceSelector"].get("matchLabels", {}).get(NAMESPACE_LABEL, "*")
                    labels = (end.get("podSelector") or {}).get("matchLabels", {})
                    name = f"{namespace}: {', '.join(labels.values()) or 'all pods'}"
                    found[name] = Peer(name, labels, namespace)
        return [
            *found.values(),
            Peer("any other namespace", {}, "elsewhere"),
            Peer("a private address", address=PRIVATE),
            Peer("the internet", address=INTERNET),
            Peer("the internet (IPv6)", address=INTERNET_6),
        ]

    def ports_in_rules(self) -> set[Port]:
        """Every port that a rule names by its number."""
        ports = {Port(9999), Port(443), Port(22)}
        for _, rule in self.rules():
            for port in rule.get("ports", []):
                if isinstance(port.get("port"), int):
                    ports |= {Port(number, port.get("protocol", "TCP")) for number in (port["port"], port.get("endPort", port["port"]))}
        return ports


def reachable(objects: list[Object]) -> list[tuple[str, str, str]]:
    """From, to and ports of each pair that may connect."""
    network = Network(objects)
    ours = [*peers_of(objects), Peer("an unknown pod", {"app.kubernetes.io/name": "unknown"})]
    outside = network.outside()
    named = network.ports_in_rules()
    rows = []
    for source in [*ours, *outside]:
        for target in [*ours, *outside]:
            if source is target and not any(source.labels == other.labels for other in ours if other is source):
                continue
            if not (source.is_ours or target.is_ours):
                continue
            # A pod listens on the ports that it names; a rule may allow others too, which is a fault of its own.
            ports = {(port.number, port.protocol): port for port in sorted(named, key=str)}
            ports.update({(port.number, port.protocol): port for port in target.ports})
            allowed = [port for port in ports.values() if network.may_connect(source, target, port)]
            if allowed:
                text = ", ".join(str(port) for port in sorted(allowed, key=lambda port: (port.number, port.protocol)))
                rows.append((source.name, target.name, text))
    return rows


def table(objects: list[Object]) -> str:
    """The rows in Markdown."""
    lines = ["| from | to | ports |", "|---|---|---|"]
    lines += [f"| {source} | {target} | {ports} |" for source, target, ports in merged(reachable(objects))]
    return "\n".join(lines) + "\n"


def merged(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The same with sources of equal targets and ports, and targets of equal sources and ports, in one row."""
    by_target: dict[tuple[str, str], list[str]] = {}
    for source, target, ports in rows:
        by_target.setdefault((target, ports), []).append(source)
    by_source: dict[tuple[str, str], list[str]] = {}
    for (target, ports), sources in by_target.items():
        by_source.setdefault((", ".join(sorted(set(sources))), ports), []).append(target)
    return sorted((source, ", ".join(sorted(set(targets))), ports) for (source, ports), targets in by_source.items())


def main() -> int:
    """Prints the table of the manifests on the standard input."""
    sys.stdout.write(table([obj for obj in yaml.safe_load_all(sys.stdin) if obj]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
