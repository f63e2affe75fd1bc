"""Checks of network policies that the table of docs/KUBERNETES.md cannot show: rules without effect, and edges with one end only."""

from __future__ import annotations

from collections.abc import Iterator

from overlay import Overlay
from reach import NAMESPACE_LABEL, Network, Object, Peer, Port, peers_of, selects


def within(end: Object) -> bool:
    """Whether an end of a rule is a selector of pods of the policy's own namespace."""
    return "namespaceSelector" not in end and "ipBlock" not in end


def listens(peer: Peer, rule_port: Object) -> bool:
    """Whether a pod has the port of a rule."""
    wanted, protocol = rule_port.get("port"), rule_port.get("protocol", "TCP")
    last = rule_port.get("endPort", wanted)
    return any(
        port.protocol == protocol and (wanted is None or port.name == wanted or (isinstance(wanted, int) and wanted <= port.number <= last))
        for port in peer.ports
    )


def selectors(overlay: Overlay) -> Iterator[str]:
    """Policies and rules that select no pod, or a port that none of the selected pods has: mistyped, they protect or open nothing."""
    peers = peers_of(overlay.objects)
    for policy in overlay.of("NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        chosen = [peer for peer in peers if selects(spec["podSelector"], peer.labels)]
        if spec["podSelector"] and not chosen:
            yield f"NetworkPolicy {name}: selects no pod"
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                ends = [end for end in rule.get(side, []) if within(end)]
                others = [[peer for peer in peers if selects(end.get("podSelector"), peer.labels)] for end in ends]
                for end, found in zip(ends, others, strict=True):
                    if not found:
                        yield f"NetworkPolicy {name}: a rule's {side} selects no pod: {end['podSelector']}"
                # Ports of other namespaces and of addresses are not known.
                targets = chosen if direction == "ingress" else [peer for found in others for peer in found]
                for port in rule.get("ports", []) if targets else []:
                    if not any(listens(peer, port) for peer in targets):
                        yield f"NetworkPolicy {name}: no pod of the rule listens on {port.get('port')}/{port.get('protocol', 'TCP')}"


def half_edges(overlay: Overlay) -> Iterator[str]:
    """Pairs of pods where one end allows the connection and the other does not."""
    peers, network = peers_of(overlay.objects), Network(overlay.objects)
    for policy in overlay.of("NetworkPolicy"):
        spec = policy["spec"]
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                for end in filter(within, rule.get(side, [])):
                    chosen = [peer for peer in peers if selects(spec["podSelector"], peer.labels)]
                    others = [peer for peer in peers if selects(end.get("podSelector"), peer.labels)]
                    sources, targets = (chosen, others) if direction == "egress" else (others, chosen)
                    yield from closed(network, policy["metadata"]["name"], rule, sources, targets)


def closed(network: Network, policy: str, rule: Object, sources: list[Peer], targets: list[Peer]) -> Iterator[str]:
    """The connections of a rule that another end refuses."""
    for source in sources:
        for target in targets:
            for port in target.ports:
                is_meant = not rule.get("ports") or any(listens(Peer("", ports=[port]), wanted) for wanted in rule["ports"])
                if is_meant and not network.may_connect(source, target, Port(port.number, port.protocol, port.name)):
                    yield f"NetworkPolicy {policy}: allows {source.name} to {target.name}:{port}, but the other end does not"


def evaluable(overlay: Overlay) -> Iterator[str]:
    """Selectors that reach.py cannot evaluate, because the labels of other namespaces and their pods are not in the manifests."""
    for policy, rule in Network(overlay.objects).rules():
        for end in [*rule.get("from", []), *rule.get("to", [])]:
            if "namespaceSelector" not in end:
                continue
            namespace, pod = end["namespaceSelector"], end.get("podSelector") or {}
            if set(namespace) - {"matchLabels"} or set(namespace.get("matchLabels", {})) - {NAMESPACE_LABEL} or "matchExpressions" in pod:
                yield f"NetworkPolicy {policy['metadata']['name']}: must name other namespaces by {NAMESPACE_LABEL} and their pods by labels"
