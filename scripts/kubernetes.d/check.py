#!/usr/bin/env python3
"""Checks a rendered overlay of deploy/kubernetes: schemas of every release, references, and what Linnet promises.

    "$(scripts/python-tools kubernetes)/python" scripts/kubernetes.d/check.py NAME=FILE…

Prints one line for each fault and exits with 1 if there is any. Checkov and the types of custom resources have checks of
their own (scripts/lint.d/kubernetes.sh, scripts/test-kubernetes).
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
import yaml
from overlay import Overlay, containers, pods, secrets_in, setting_map, wants
from policies import evaluable, half_edges, selectors
from reach import Object, peers_of, selects, table
from releases import colors, order, route_owners, routes, services_of, settings_of_colors
from stores import affinities, operators, sentinels, spread_faults, tls

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("1.34", "1.35", "1.36", "1.37")
# Kinds of the core, which kubernetes-validate knows; the others are custom resources.
CORE = re.compile(r"^(v1|apps/v1|batch/v1|autoscaling/v2|policy/v1|networking\.k8s\.io/v1|scheduling\.k8s\.io/v1|storage\.k8s\.io/v1)$")
# Seconds of the phases of a shutdown (docs/ARCHITECTURE.md#shutdown), with the default settings.
DRAIN_S, GRACE_S, CLICKS_S, POOLS_S, TELEMETRY_S = 2.5, 15, 6, 3, 5
NGINX_SHUTDOWN_S = 20
# Long-running processes of Linnet.
SERVICES = re.compile(r"^(nginx|worker|(gateway|shortener)-(blue|green))$")
PAGE = ROOT / "docs/KUBERNETES.md"
MARKS = re.compile(r"<!-- network: ([a-z]+) -->\n(.*?)<!-- end -->", re.S)


# The package reads and parses its files again for each object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
_valid: set[tuple[str, str]] = set()


def schemas(overlay: Overlay) -> Iterator[str]:
    """Objects of the core that a release of Kubernetes would reject, unknown keys included."""
    for obj in overlay.objects:
        if not CORE.match(obj["apiVersion"]):
            continue
        # Overlays share most of their objects.
        text = json.dumps(obj, sort_keys=True)
        for version in VERSIONS:
            if (version, text) in _valid:
                continue
            try:
                kubernetes_validate.validate(obj, version, strict=True)
                _valid.add((version, text))
            except Exception as error:  # Each version of the package has its own classes of errors.
                yield f"{obj['kind']} {obj['metadata']['name']}: Kubernetes {version}: {str(error).splitlines()[0]}"


def references(overlay: Overlay) -> Iterator[str]:
    """Names that no object has."""
    # External Secrets and cert-manager make these.
    secrets = overlay.names("Secret") | {obj["spec"]["target"]["name"] for obj in overlay.of("ExternalSecret")}
    secrets |= {obj["spec"]["secretName"] for obj in overlay.of("Certificate")}
    # CloudNativePG makes that of its CA.
    secrets |= {f"{name}-ca" for name in overlay.names("Cluster")}
    if overlay.name == "dev":
        # Of `scripts/kubernetes secrets`.
        secrets |= {"service-token", "postgres", "redis-gateway", "redis-shortener", "redis-worker", "local-postgres", "local-redis"}
    known = {
        "secret": secrets,
        "config map": overlay.names("ConfigMap"),
        "claim": overlay.names("PersistentVolumeClaim"),
        "service account": overlay.names("ServiceAccount"),
        "priority class": overlay.names("PriorityClass"),
    }
    for _, name, template in pods(overlay):
        for kind, wanted in wants(template):
            if wanted not in known[kind]:
                yield f"{name}: the {kind} {wanted} does not exist"
    for obj in overlay.of("HorizontalPodAutoscaler", "ScaledObject", "Rollout"):
        target = obj["spec"].get("scaleTargetRef") or obj["spec"]["workloadRef"]
        kind = target.get("kind", "Deployment")
        if overlay.one(kind, target["name"]) is None:
            yield f"{obj['kind']} {obj['metadata']['name']}: the {kind} {target['name']} does not exist"
    for obj in overlay.of("RedisReplication"):
        config = obj["spec"].get("redisConfig", {}).get("additionalRedisConfig")
        if config and config not in known["config map"]:
            yield f"RedisReplication {obj['metadata']['name']}: the config map {config} does not exist"
    for obj in overlay.objects:
        if not CORE.match(obj["apiVersion"]) and obj["kind"] != "ExternalSecret":
            for wanted in secrets_in(obj["spec"]):
                if wanted not in secrets:
                    yield f"{obj['kind']} {obj['metadata']['name']}: the secret {wanted} does not exist"
    services = {obj["metadata"]["name"]: {port["port"] for port in obj["spec"]["ports"]} for obj in overlay.of("Service")}
    for route in overlay.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule.get("backendRefs", []):
                if backend["port"] not in services.get(backend["name"], set()):
                    yield f"HTTPRoute {route['metadata']['name']}: the service {backend['name']}:{backend['port']} does not exist"
    yield from addresses(overlay, services)


def addresses(overlay: Overlay, services: dict[str, set[int]]) -> Iterator[str]:
    """Addresses in settings whose service or port does not exist."""
    pattern = re.compile(r"\b((?:gateway|shortener|postgres|redis)[a-z-]*):(\d+)\b")
    for _, name, template in pods(overlay):
        for container in containers(template):
            values = {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}
            for key, value in values.items():
                expanded = re.sub(r"\$\((\w+)\)", lambda found: values.get(found.group(1), ""), value)
                for service, port in pattern.findall(expanded):
                    made_by_operator = service == "postgres-rw"
                    if not made_by_operator and int(port) not in services.get(service, set()):
                        yield f"{name}: {key} names {service}:{port}, which no service has"


def service_ports(overlay: Overlay) -> Iterator[str]:
    """Services that select no pod, or a port that the pod does not have."""
    peers = peers_of(overlay.objects)
    for service in overlay.of("Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        owner = next((obj["spec"]["workloadRef"]["name"] for obj in overlay.of("Rollout") if name in services_of(obj)), None)
        # The controller of a Rollout selects the pods of one of its revisions.
        chosen = [peer for peer in peers if (peer.name == owner if owner else selects({"matchLabels": spec["selector"]}, peer.labels))]
        if not chosen:
            yield f"Service {name}: selects no pod"
        for port in spec["ports"]:
            wanted, protocol = port.get("targetPort", port["port"]), port.get("protocol", "TCP")
            for peer in chosen:
                if not any(wanted in {mine.name, mine.number} and mine.protocol == protocol for mine in peer.ports):
                    yield f"Service {name}: {peer.name} has no port {wanted}/{protocol}"


def promises(overlay: Overlay) -> Iterator[str]:
    """Pods without something that each must have, beyond Checkov."""
    for kind, name, template in pods(overlay):
        spec = template["spec"]
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: gets a token of the API"
        if spec.get("enableServiceLinks") is not False:
            yield f"{name}: gets addresses of services as variables"
        if spec.get("serviceAccountName", "default") == "default":
            yield f"{name}: has no service account of its own"
        for container in containers(template):
            yield from (f"{name}/{container['name']}: {fault}" for fault in container_faults(kind, container))
        if SERVICES.match(name) and kind == "Deployment":
            yield from (f"{name}: {fault}" for fault in service_faults(overlay, name, template))
    for account in overlay.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {account['metadata']['name']}: mounts a token by default"
    for namespace in overlay.of("Namespace"):
        if namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
            yield "the namespace does not enforce restricted pods"


def container_faults(kind: str, container: Object) -> Iterator[str]:
    security = container.get("securityContext", {})
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True}
    for key, value in wanted.items():
        if security.get(key) is not value:
            yield f"securityContext.{key} must be {value}"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "must drop all capabilities"
    resources = container.get("resources", {})
    for side in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            if resource not in resources.get(side, {}):
                yield f"lacks resources.{side}.{resource}"
    if resources.get("requests", {}).get("memory") != resources.get("limits", {}).get("memory") and kind == "Deployment" \
            and container["name"] in {"gateway", "shortener", "worker", "nginx"}:
        yield "must request all of its memory: the settings' sum may be used"
    if kind in {"Deployment", "StatefulSet"}:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe not in container:
                yield f"lacks a {probe}"


def service_faults(overlay: Overlay, name: str, template: Object) -> Iterator[str]:
    spec, labels = template["spec"], template["metadata"]["labels"]
    container = spec["containers"][0]
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if name == "nginx":
        needed: float = sleep + NGINX_SHUTDOWN_S
    else:
        clicks = CLICKS_S if name.startswith("shortener") else 0
        needed = sleep + DRAIN_S + GRACE_S + clicks + POOLS_S + TELEMETRY_S
    if spec["terminationGracePeriodSeconds"] <= needed:
        yield f"is killed after {spec['terminationGracePeriodSeconds']} s, but may take {needed:g} s to drain"
    if name != "worker" and sleep < 5:
        yield "must serve for 5 s after its deletion, until its endpoint is gone everywhere"
    liveness = container["livenessProbe"].get("httpGet", {}).get("path")
    if liveness not in {"/livez", "/stub_status"}:
        yield f"a restart does not repair what {liveness} checks"
    if name.startswith("shortener") and container["readinessProbe"]["httpGet"]["path"] != "/readyz?exclude=postgresql":
        yield "would leave its service while PostgreSQL is down, with all others and all cached links"
    budgets = [obj for obj in overlay.of("PodDisruptionBudget") if selects(obj["spec"]["selector"], labels)]
    if len(budgets) != 1:
        yield f"has {len(budgets)} disruption budgets instead of 1"
    if not spec.get("affinity", {}).get("podAntiAffinity") or len(spec.get("topologySpreadConstraints", [])) < 2:
        yield "is not spread over nodes and zones"
    for term in spec.get("topologySpreadConstraints", []):
        if not selects(term["labelSelector"], labels):
            yield "is spread by the labels of other pods"
        yield from spread_faults(term)


def scaling(overlay: Overlay) -> Iterator[str]:
    """Autoscalers, and the connections that the most pods open."""
    most: dict[str, int] = {}
    for obj in overlay.of("HorizontalPodAutoscaler"):
        spec = obj["spec"]
        name = spec["scaleTargetRef"]["name"]
        most[name] = spec["maxReplicas"]
        targets = {
            metric["resource"]["name"]: metric["resource"]["target"].get("averageUtilization") for metric in spec["metrics"]
        }
        if targets != {"cpu": 70, "memory": 80}:
            yield f"HorizontalPodAutoscaler {name}: scales at {targets} instead of 70 % of CPU and 80 % of memory"
        if overlay.name == "production" and (spec["minReplicas"], spec["maxReplicas"]) != (3, 10):
            yield f"HorizontalPodAutoscaler {name}: must have 3 to 10 pods"
        deployment = overlay.one("Deployment", name)
        if deployment and spec["scaleTargetRef"]["kind"] == "Deployment" and "replicas" in deployment["spec"]:
            yield f"Deployment {name}: sets its replicas against its autoscaler"
    for obj in overlay.of("ScaledObject"):
        most[obj["spec"]["scaleTargetRef"]["name"]] = obj["spec"]["maxReplicaCount"]
    cluster = overlay.one("Cluster", "postgres")
    if cluster is None:
        return
    # A pod more of each while a rollout replaces them; migration, exporter, operator, superusers.
    needed = 24
    for name in most:
        if name.startswith(("shortener", "worker")) and (workload := overlay.one("Deployment", name)):
            needed += (most[name] + 1) * int(setting_map(overlay, workload["spec"]["template"])["LINNET__POSTGRES__MAX_CONNECTIONS"])
    allowed = int(cluster["spec"]["postgresql"]["parameters"]["max_connections"])
    if needed > allowed:
        yield f"up to {needed} connections to PostgreSQL, which allows {allowed}"
    restore = (ROOT / "deploy/kubernetes/components/postgres/restore-test.sh").read_text()
    if f"max_connections = '{allowed}'" not in restore:
        yield "restore-test.sh must have the max_connections of the cluster, or a standby does not start"


def known_settings(overlay: Overlay) -> Iterator[str]:
    """Variables that docs/CONFIGURATION.md does not have."""
    page = (ROOT / "docs/CONFIGURATION.md").read_text()
    known = set(re.findall(r"LINNET(?:__[A-Z0-9_]+|_NGINX_[A-Z_]+)", page))
    used = {key for obj in overlay.of("ConfigMap") for key in obj.get("data", {}) if key.startswith("LINNET_")}
    for _, _, template in pods(overlay):
        for container in containers(template):
            used |= {variable["name"] for variable in container.get("env", []) if variable["name"].startswith("LINNET_")}
    for key in sorted(used):
        if key.removesuffix("_FILE") not in known and key not in known:
            yield f"{key} is no setting of docs/CONFIGURATION.md"


def images(overlay: Overlay) -> Iterator[str]:
    """Images of others that differ from those of compose.yaml, and images of Linnet without a digest."""
    compose = (ROOT / "deploy/compose.yaml").read_text()
    same = {found.split(":")[0].split("@")[0]: found for found in re.findall(r"^    image: ([^$\s]+)$", compose, re.M)}
    for _, name, template in pods(overlay):
        for container in containers(template):
            image = container["image"]
            repository = re.sub(r"(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$", "", image)
            if repository in same and image != same[repository]:
                yield f"{name}: {image} differs from deploy/compose.yaml, which has {same[repository]}"
            if "linnet" in repository and overlay.name != "dev" and "@sha256:" not in image:
                yield f"{name}: {image} has no digest"


def network(overlay: Overlay) -> Iterator[str]:
    """The table of docs/KUBERNETES.md against what the policies allow."""
    documented = dict(MARKS.findall(PAGE.read_text())) if PAGE.exists() else {}
    if overlay.name not in documented:
        if overlay.name != "staging":
            yield f"docs/KUBERNETES.md has no table of the network of {overlay.name}"
        return
    allowed = table(overlay.objects)
    for row in difference(documented[overlay.name], allowed):
        yield row


def difference(documented: str, allowed: str) -> Iterator[str]:
    """Rows that only one of the tables has."""
    before, after = ({line for line in text.splitlines() if line.startswith("|")} for text in (documented, allowed))
    for line in sorted(after - before):
        yield f"the policies allow what docs/KUBERNETES.md does not list: {line}"
    for line in sorted(before - after):
        yield f"docs/KUBERNETES.md lists what the policies do not allow: {line}"


CHECKS = (
    schemas, references, service_ports, promises, affinities, sentinels, tls, routes, scaling, known_settings, images, colors,
    settings_of_colors, route_owners, order, network, operators, selectors, half_edges, evaluable,
)


def faults(overlay: Overlay) -> Iterable[str]:
    """All faults of an overlay; `cluster` and `cluster-aws` are objects of the whole cluster, without pods."""
    checks = (schemas,) if overlay.name.startswith("cluster") else CHECKS
    return (f"{overlay.name}: {fault}" for check in checks for fault in check(overlay))


def main(arguments: list[str]) -> int:
    """Checks each NAME=FILE."""
    found: list[str] = []
    for argument in arguments:
        name, _, path = argument.partition("=")
        found += faults(Overlay(name, Path(path).read_text()))
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found or not arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
