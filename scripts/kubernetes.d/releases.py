"""Checks of releases: one color at a time, in the order of Argo CD, and without the fields that controllers own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from overlay import Overlay, containers, setting_map
from reach import Object


def services_of(rollout: Object) -> tuple[str, str]:
    """The services of the stable and of the new pods."""
    canary = rollout["spec"]["strategy"]["canary"]
    return canary["stableService"], canary["canaryService"]


def routes(overlay: Overlay) -> Iterator[str]:
    """Routes whose proxy ends responses that take longer than its default, such as event streams and exports."""
    for route in overlay.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            if rule.get("backendRefs") and rule.get("timeouts") != {"request": "0s", "backendRequest": "0s"}:
                yield f"HTTPRoute {route['metadata']['name']}: must disable both timeouts; nginx has its own for each kind of request"


def settings_of_colors(overlay: Overlay) -> Iterator[str]:
    """Colors that share a config map, and workloads that disagree about the same setting."""
    maps: dict[str, dict[str, str]] = {}
    owners: dict[str, str] = {}
    for obj in overlay.of("Deployment"):
        name, template = obj["metadata"]["name"], obj["spec"]["template"]
        if not re.match("gateway|shortener|worker|nginx", name):
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
    # Shorteners and workers exchange jobs; nginx and gateways return the same types of problems.
    for name, values in maps.items():
        for key in every:
            is_job = key.startswith("LINNET__JOBS__") and name.startswith(("shortener", "worker"))
            is_type = key in {"LINNET__PUBLIC__BASE_URL", "LINNET__PUBLIC__PROBLEM_TYPES_URL"}
            if (is_job or is_type) and key not in values:
                yield f"{name}: lacks {key}, which another workload sets"


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
