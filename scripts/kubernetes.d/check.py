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
from reach import Network, Object, Port, operated, peers_of, selects, table, templates

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("1.34", "1.35", "1.36", "1.37")
# Kinds of the core, which kubernetes-validate knows; the others are custom resources.
CORE = re.compile(r"^(v1|apps/v1|batch/v1|autoscaling/v2|policy/v1|networking\.k8s\.io/v1|scheduling\.k8s\.io/v1)$")
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


class Overlay:
    """A rendered overlay."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.objects: list[Object] = [obj for obj in yaml.safe_load_all(text) if obj]

    def of(self, *kinds: str) -> Iterator[Object]:
        """The objects of the kinds."""
        return (obj for obj in self.objects if obj["kind"] in kinds)

    def names(self, kind: str) -> set[str]:
        """The names of the objects of a kind."""
        return {obj["metadata"]["name"] for obj in self.of(kind)}

    def one(self, kind: str, name: str) -> Object | None:
        """The object of the kind and name."""
        return next((obj for obj in self.of(kind) if obj["metadata"]["name"] == name), None)


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


def pods(overlay: Overlay) -> Iterator[tuple[str, str, Object]]:
    """Kind, name and pod template of everything that runs."""
    for obj in overlay.objects:
        for name, template in templates(obj):
            yield obj["kind"], name, template


def containers(template: Object) -> list[Object]:
    """All containers of a template."""
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


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


def secrets_in(value: Any) -> Iterator[str]:
    """Names of secrets in a custom resource, by the keys under which the operators expect them."""
    if isinstance(value, list):
        for item in value:
            yield from secrets_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "secretName":
                yield item
            elif isinstance(item, dict) and "name" in item and re.search(r"(secret|Secret)(KeyRef)?$|^(accessKeyId|secretAccessKey|region)$", key):
                yield item["name"]
            else:
                yield from secrets_in(item)


def wants(template: Object) -> Iterator[tuple[str, str]]:
    """Kind and name of each object that a pod needs."""
    spec = template["spec"]
    yield "service account", spec.get("serviceAccountName", "default")
    if name := spec.get("priorityClassName"):
        yield "priority class", name
    for volume in spec.get("volumes", []):
        sources = volume.get("projected", {}).get("sources", [volume])
        for source in sources:
            if secret := source.get("secret"):
                yield "secret", secret.get("secretName") or secret["name"]
            if (config := source.get("configMap")) and not config.get("optional"):
                yield "config map", config["name"]
        if claim := volume.get("persistentVolumeClaim"):
            yield "claim", claim["claimName"]
    for container in containers(template):
        for source in container.get("envFrom", []):
            yield "config map", source["configMapRef"]["name"]


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


def services_of(rollout: Object) -> tuple[str, str]:
    """The services of the stable and of the new pods."""
    canary = rollout["spec"]["strategy"]["canary"]
    return canary["stableService"], canary["canaryService"]


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


def tls(overlay: Overlay) -> Iterator[str]:
    """Connections to PostgreSQL that verify nothing, and CAs that no pod has."""
    if overlay.one("Cluster", "postgres") is None:
        return
    secret = overlay.one("ExternalSecret", "postgres")
    url = secret["spec"]["target"]["template"]["data"]["url"] if secret else ""
    if secret and "sslmode=verify-full&sslrootcert=/run/authorities/postgres.crt" not in url:
        yield "the URL of PostgreSQL verifies no certificate"
    for _, name, template in pods(overlay):
        found = set(wants(template))
        if ("secret", "postgres") in found and ("secret", "postgres-ca") not in found:
            yield f"{name}: lacks the CA of PostgreSQL"


def routes(overlay: Overlay) -> Iterator[str]:
    """Routes whose proxy ends responses that take longer than its default, such as event streams and exports."""
    for route in overlay.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            if rule.get("backendRefs") and rule.get("timeouts") != {"request": "0s", "backendRequest": "0s"}:
                yield f"HTTPRoute {route['metadata']['name']}: must disable both timeouts; nginx has its own for each kind of request"


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


def setting_map(overlay: Overlay, template: Object) -> dict[str, str]:
    """The settings that a pod has from config maps."""
    values: dict[str, str] = {}
    for container in containers(template):
        for source in container.get("envFrom", []):
            found = overlay.one("ConfigMap", source["configMapRef"]["name"])
            values.update(found["data"] if found else {})
    return values


def settings_of_colors(overlay: Overlay) -> Iterator[str]:
    """Colors that share a config map, and workloads that disagree about the same setting."""
    maps: dict[str, dict[str, str]] = {}
    owners: dict[str, str] = {}
    for obj in overlay.of("Deployment"):
        name, template = obj["metadata"]["name"], obj["spec"]["template"]
        if not re.match("gateway|shortener|worker", name):
            continue
        maps[name] = setting_map(overlay, template)
        color = template["metadata"]["labels"].get("color", "none")
        for container in containers(template):
            for source in container.get("envFrom", []):
                owner = owners.setdefault(source["configMapRef"]["name"], color)
                if owner != color:
                    yield f"{name}: shares its settings with the color {owner}, so a change reaches both colors at once"
    every: dict[str, str] = {}
    for name, values in maps.items():
        for key, value in values.items():
            if every.setdefault(key, value) != value:
                yield f"{name}: {key} differs from that of another workload"


def route_owners(overlay: Overlay) -> Iterator[str]:
    """Fields of the services that the controller of a Rollout owns: applying the manifests again would conflict with it."""
    for rollout in overlay.of("Rollout"):
        for name in services_of(rollout):
            service = overlay.one("Service", name)
            if service is None:
                yield f"Rollout {rollout['metadata']['name']}: the service {name} does not exist"
            elif "selector" in service["spec"]:
                yield f"Service {name}: must have no selector, which the controller of the Rollout sets"
        if "replicas" in rollout["spec"]:
            yield f"Rollout {rollout['metadata']['name']}: sets its replicas against its autoscaler"
        if not rollout["spec"].get("rollbackWindow"):
            yield f"Rollout {rollout['metadata']['name']}: a return takes all steps again, with the bad release as their reference"
        owned = overlay.one("Deployment", rollout["spec"]["workloadRef"]["name"])
        for term in (owned or {"spec": {"template": {"spec": {}}}})["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            if "pod-template-hash" in term.get("matchLabelKeys", []):
                yield f"Rollout {rollout['metadata']['name']}: its pods have no label pod-template-hash, but rollouts-pod-template-hash"


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


def colors(overlay: Overlay) -> Iterator[str]:
    """Whether the color that serves is the same everywhere, and each gateway calls its own color."""
    rollout, nginx = overlay.one("Rollout", "nginx"), overlay.one("Deployment", "nginx")
    if rollout and nginx:
        served = nginx["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
        if rollout["metadata"]["labels"].get("color") != served:
            yield f"the Rollout judges another color than {served}, which nginx calls"
    for obj in overlay.of("Deployment"):
        color = obj["spec"]["template"]["metadata"]["labels"].get("color")
        for container in obj["spec"]["template"]["spec"]["containers"]:
            for variable in container.get("env", []):
                if variable["name"] == "LINNET__UPSTREAM__SHORTENERS" and f"-{color}:" not in variable["value"]:
                    yield f"{obj['metadata']['name']}: calls {variable['value']}, which is not of its color"


def order(overlay: Overlay) -> Iterator[str]:
    """The migration before what it needs, or without the time that the stores need for their first start."""
    migrate = overlay.one("Job", "migrate")
    if migrate is None:
        yield "there is no migration"
        return

    def wave(obj: Object) -> int:
        return int(obj["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", "0"))

    if migrate["metadata"]["annotations"].get("argocd.argoproj.io/hook") != "Sync":
        yield "migrate: must be a hook in a wave of the synchronization; PreSync runs before all that it needs"
    for obj in overlay.of("Namespace", "ServiceAccount", "NetworkPolicy", "ExternalSecret", "Cluster", "RedisReplication", "RedisSentinel"):
        if wave(obj) >= wave(migrate):
            yield f"{obj['kind']} {obj['metadata']['name']}: must be in a wave before the migration, which needs it"
    for obj in overlay.of("Deployment", "Rollout"):
        if wave(obj) <= wave(migrate):
            yield f"{obj['kind']} {obj['metadata']['name']}: must be in a wave after the migration"
    # Operators, volumes and images take minutes.
    retries = migrate["spec"].get("backoffLimit", 6)
    if migrate["spec"]["template"]["spec"]["restartPolicy"] != "OnFailure" or retries < 20:
        yield "migrate: gives up before the stores have started for the first time"


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


def operators(overlay: Overlay) -> Iterator[str]:
    """Policies that select no pod, and so protect nothing, and pods of operators that no policy names."""
    peers = peers_of(overlay.objects)
    for policy in overlay.of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        if selector and not any(selects(selector, peer.labels) for peer in peers):
            yield f"NetworkPolicy {policy['metadata']['name']}: selects no pod"
    for obj in overlay.of("Cluster", "RedisReplication", "RedisSentinel"):
        peer = operated(obj)
        if peer and not any(
            selects(policy["spec"]["podSelector"], peer.labels) and policy["spec"]["podSelector"]
            for policy in overlay.of("NetworkPolicy")
        ):
            yield f"{obj['kind']} {peer.name}: no policy names its pods"


CHECKS = (
    schemas, references, service_ports, promises, affinities, sentinels, tls, routes, scaling, known_settings, images, colors,
    settings_of_colors, route_owners, order, network, operators,
)


def faults(overlay: Overlay) -> Iterable[str]:
    """All faults of an overlay."""
    return (f"{overlay.name}: {fault}" for check in CHECKS for fault in check(overlay))


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
