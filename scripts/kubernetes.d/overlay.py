"""A rendered overlay, and what its pods consist of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from reach import Object, templates


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


def pods(overlay: Overlay) -> Iterator[tuple[str, str, Object]]:
    """Kind, name and pod template of everything that runs."""
    for obj in overlay.objects:
        for name, template in templates(obj):
            yield obj["kind"], name, template


def containers(template: Object) -> list[Object]:
    """All containers of a template."""
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


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
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            for key, kind in (("secretKeyRef", "secret"), ("configMapKeyRef", "config map")):
                if (found := source.get(key)) and not found.get("optional"):
                    yield kind, found["name"]


def setting_map(overlay: Overlay, template: Object) -> dict[str, str]:
    """The settings that a pod has from config maps."""
    values: dict[str, str] = {}
    for container in containers(template):
        for source in container.get("envFrom", []):
            found = overlay.one("ConfigMap", source["configMapRef"]["name"])
            values.update(found["data"] if found else {})
    return values
