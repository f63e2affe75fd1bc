#!/usr/bin/env python3
"""Writes the Helm chart from the rendered overlay `production`, and compares what Helm renders from it with the overlay.

    "$(scripts/python-tools kubernetes)/python" scripts/kubernetes.d/chart.py MANIFESTS FOLDER

kustomize owns the manifests, so the templates are no second source: each is an object of the overlay in which some values are
replaced. With the default values both must be equal; with others, only these values may differ.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml
from generate import Dumper
from reach import Object

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "deploy/kubernetes/chart"
# The end of a name that kustomize computes from the contents.
HASHED = re.compile(
    r"\b(linnet-settings-blue|linnet-settings-green|worker-settings|nginx-settings|nginx-files|restore-test|redis-config)-[a-z0-9]{10}\b"
)
TOKEN = re.compile(r"__VALUE_([A-Za-z.]+)__")
# A name that changes with the map's own contents, so that a changed setting replaces the pods that have it, and no others.
HASH_OF_DATA = '{{ include "linnet.data.NAME" . | sha256sum | trunc 10 }}'
# Values that are texts within other texts, by the default.
TEXTS = ("domain", "backups", "podNetwork", "proxyNamespace")


def defaults() -> dict[str, Any]:
    """The values of the chart."""
    return dict(yaml.safe_load((SOURCE / "values.yaml").read_text()))


def token(path: str) -> str:
    """Stands for a value until the YAML is written."""
    return f"__VALUE_{path}__"


def replace_texts(value: Any, values: dict[str, Any]) -> Any:
    """The value with tokens instead of the default texts."""
    if isinstance(value, dict):
        # The private networks that a rule leaves out are not those of the pods.
        return {key: item if key == "except" else replace_texts(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [replace_texts(item, values) for item in value]
    if isinstance(value, str):
        for name in TEXTS:
            # Only whole words: the domain is also part of longer names in documentation.
            value = re.sub(rf"(?<![\w.-]){re.escape(values[name])}(?![\w.-])", token(name), value)
    return value


def containers(obj: Object) -> Iterator[Object]:
    """All containers below an object."""
    stack: list[Any] = [obj]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            for key in ("containers", "initContainers"):
                yield from value.get(key, []) if isinstance(value.get(key), list) else []
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def image_of(name: str) -> str | None:
    """The key of the image of a workload of Linnet."""
    if found := re.fullmatch(r"(gateway|shortener)-(blue|green)", name):
        return found.group(1) + found.group(2).capitalize()
    return {"worker": "worker", "migrate": "migrate", "canary": "bundle"}.get(name)


def parametrize(original: Object, values: dict[str, Any]) -> Object:
    """The object with tokens in the places of values."""
    obj: Object = replace_texts(copy.deepcopy(original), values)
    kind, name = obj["kind"], obj["metadata"]["name"]
    if key := image_of(name):
        for container in containers(obj):
            if "linnet-url/linnet/" in container["image"]:
                container["image"] = token(f"images.{key}")
    if kind == "HorizontalPodAutoscaler":
        obj["spec"]["minReplicas"], obj["spec"]["maxReplicas"] = token("autoscaling.minReplicas"), token("autoscaling.maxReplicas")
    elif kind == "ScaledObject":
        obj["spec"]["minReplicaCount"], obj["spec"]["maxReplicaCount"] = token("worker.minReplicas"), token("worker.maxReplicas")
    elif kind == "Gateway":
        obj["spec"]["gatewayClassName"] = token("gatewayClassName")
    elif kind == "Certificate":
        obj["spec"]["issuerRef"]["name"] = token("clusterIssuer")
    elif kind == "ExternalSecret":
        obj["spec"]["secretStoreRef"]["name"] = token("secretStore")
    elif kind == "Rollout":
        obj["metadata"]["labels"]["color"] = token("color")
    elif kind == "Deployment" and name == "nginx":
        obj["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = token("color")
    return obj


def as_template(value: Any) -> str:
    """YAML as a Helm template, with values in place of the tokens."""
    text = yaml.dump(value, Dumper=Dumper, sort_keys=False, width=10**6, allow_unicode=True)
    # Expressions of Prometheus, Grafana and External Secrets are not Helm's.
    text = re.sub(r"\{\{|\}\}", lambda found: '{{ "' + found.group() + '" }}', text)
    text = HASHED.sub(lambda found: f"{found.group(1)}-{HASH_OF_DATA.replace('NAME', found.group(1))}", text)
    return TOKEN.sub(lambda found: "{{ .Values." + found.group(1) + " }}", text)


def template(obj: Object, values: dict[str, Any]) -> str:
    """The Helm template of an object."""
    changed = parametrize(obj, values)
    if not is_hashed(obj):
        return as_template(changed)
    name = HASHED.sub(r"\1", obj["metadata"]["name"])
    data = as_template({"data": changed.pop("data")})
    return f'{{{{- define "linnet.data.{name}" -}}}}\n{data}{{{{- end }}}}\n{as_template(changed)}{{{{ include "linnet.data.{name}" . }}}}\n'


def is_hashed(obj: Object) -> bool:
    """Whether the name contains a hash of the contents."""
    return obj["kind"] == "ConfigMap" and HASHED.search(obj["metadata"]["name"]) is not None


def in_chart(obj: Object) -> bool:
    """The namespace is made before a release can be stored in it."""
    return obj["kind"] != "Namespace"


def write(objects: list[Object], folder: Path) -> None:
    """Writes the chart."""
    values = defaults()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCE, folder)
    (folder / "templates").mkdir()
    for obj in filter(in_chart, objects):
        name = HASHED.sub(r"\1", obj["metadata"]["name"])
        (folder / "templates" / f"{obj['kind'].lower()}-{name}.yaml").write_text(template(obj, values))


def identity(obj: Object) -> str:
    """Kind and name without a hash."""
    return f"{obj['kind']} {HASHED.sub(lambda found: found.group(1), obj['metadata']['name'])}"


def normal(obj: Object) -> Object:
    """The object without the hashes in names."""
    return dict(json.loads(HASHED.sub(lambda found: found.group(1), json.dumps(obj))))


def objects_of(folder: Path, values: dict[str, Any] | None = None) -> list[Object]:
    """The objects that Helm renders."""
    with helm_python.Chart.load(str(folder)) as chart:
        manifests = chart.render(values or {}, name="linnet", namespace="linnet")
    return [obj for text in manifests.values() for obj in yaml.safe_load_all(text) if obj]


def rendered(folder: Path, values: dict[str, Any] | None = None) -> dict[str, Object]:
    """The objects that Helm renders, by kind and name."""
    return {identity(obj): normal(obj) for obj in objects_of(folder, values)}


def names_with_hash(folder: Path, values: dict[str, Any] | None = None) -> dict[str, str]:
    """The names of the config maps that end with a hash, by the name without it."""
    names = [obj["metadata"]["name"] for obj in objects_of(folder, values) if is_hashed(obj)]
    return {HASHED.sub(r"\1", name): name for name in names}


def hashes(folder: Path) -> Iterator[str]:
    """Names of config maps that change with another map's contents, or do not change with their own."""
    before = names_with_hash(folder)
    image = names_with_hash(folder, {"images": {"gatewayGreen": f"registry.test/gateway@sha256:{'1' * 64}"}})
    for name in before:
        if image[name] != before[name]:
            yield f"{name}: another image changes its name, and so replaces pods of the color that serves"
    domain = names_with_hash(folder, {"domain": "s.test"})
    for name in ("linnet-settings-blue", "linnet-settings-green", "worker-settings", "nginx-settings"):
        if domain[name] == before[name]:
            yield f"{name}: another domain does not change its name, so pods keep the old one"
    texts = json.dumps(objects_of(folder))
    for name in before.values():
        if texts.count(name) < 2:
            yield f"{name}: no pod has this name of the config map"


def differences(left: dict[str, Object], right: dict[str, Object]) -> Iterator[str]:
    """Differences between two renderings."""
    for name in sorted(left.keys() ^ right.keys()):
        yield f"{name}: only {'kustomize' if name in left else 'Helm'} renders it"
    for name in sorted(left.keys() & right.keys()):
        for path, before, after in paths(left[name], right[name]):
            yield f"{name}{path}: {before!r:.60} with kustomize, {after!r:.60} with Helm"


def paths(left: Any, right: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            yield from paths(left.get(key), right.get(key), f"{at}.{key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from paths(one, other, f"{at}[{index}]")
    elif left != right:
        yield at, left, right


OTHER: dict[str, Any] = {
    "domain": "s.test", "color": "green", "gatewayClassName": "other", "proxyNamespace": "proxies", "podNetwork": "172.16.0.0/12",
    "backups": "s3://else/where", "secretStore": "vault", "clusterIssuer": "ours",
    "autoscaling": {"minReplicas": 5, "maxReplicas": 6}, "worker": {"minReplicas": 7, "maxReplicas": 8},
}


def unused(folder: Path, expected: dict[str, Object]) -> Iterator[str]:
    """Values that change nothing, and places that keep a default."""
    other = copy.deepcopy(OTHER)
    other["images"] = {key: f"registry.test/{key}@sha256:{'1' * 64}" for key in defaults()["images"]}
    changed = rendered(folder, other)
    text = json.dumps([obj for obj in changed.values() if obj["kind"] != "NetworkPolicy"])
    policies = json.dumps([obj for obj in changed.values() if obj["kind"] == "NetworkPolicy"])
    for key, value in flat(other):
        if json.dumps(value).strip('"') not in text + policies:
            yield f"the value {key} changes nothing"
    for name in TEXTS:
        default = str(defaults()[name])
        if re.search(rf"(?<![\w.-]){re.escape(default)}(?![\w.-])", text):
            yield f"the value {name} leaves its default {default} somewhere"
    if changed.keys() != expected.keys():
        yield "other values render other objects"


def flat(values: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its path."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def main(arguments: list[str]) -> int:
    """Writes the chart into a folder and compares it."""
    if len(arguments) != 2:
        print("usage: chart.py MANIFESTS FOLDER", file=sys.stderr)
        return 64
    manifests, folder = Path(arguments[0]), Path(arguments[1])
    objects = [obj for obj in yaml.safe_load_all(manifests.read_text()) if obj]
    write(objects, folder)
    expected = {identity(obj): normal(obj) for obj in objects if in_chart(obj)}
    faults = [*differences(expected, rendered(folder)), *unused(folder, expected), *hashes(folder)]
    for fault in faults:
        print(f"chart: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
