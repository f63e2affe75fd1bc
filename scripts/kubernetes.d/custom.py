#!/usr/bin/env python3
"""Checks custom resources against the types of their projects: unknown and missing fields, and wrong types, are errors.

    custom.py NODE_MODULES CRATES NAME=FILE…        CRATES: the folder that scripts/kubernetes-types prints

Each object becomes a literal of TypeScript with the type of its kind, which the compiler checks. It prints the compiler's errors
with the object's name, and exits with 1 if there is any.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bindings
import yaml
from check import CORE

MODELS = "@kubernetes-models"
# Package and name of the type, by group and kind. A kind that is not here is an error.
TYPES = {
    ("argoproj.io", "Rollout"): (f"{MODELS}/argo-rollouts/argoproj.io/v1alpha1", "IRollout"),
    ("argoproj.io", "AnalysisTemplate"): (f"{MODELS}/argo-rollouts/argoproj.io/v1alpha1", "IAnalysisTemplate"),
    ("cert-manager.io", "Certificate"): (f"{MODELS}/cert-manager/cert-manager.io/v1", "ICertificate"),
    ("cert-manager.io", "ClusterIssuer"): (f"{MODELS}/cert-manager/cert-manager.io/v1", "IClusterIssuer"),
    ("gateway.networking.k8s.io", "Gateway"): (f"{MODELS}/gateway-api/gateway.networking.k8s.io/v1", "IGateway"),
    ("gateway.networking.k8s.io", "GatewayClass"): (f"{MODELS}/gateway-api/gateway.networking.k8s.io/v1", "IGatewayClass"),
    ("gateway.networking.k8s.io", "HTTPRoute"): (f"{MODELS}/gateway-api/gateway.networking.k8s.io/v1", "IHTTPRoute"),
    ("keda.sh", "ScaledObject"): (f"{MODELS}/keda/keda.sh/v1alpha1", "IScaledObject"),
    ("monitoring.coreos.com", "PodMonitor"): (f"{MODELS}/prometheus-operator/monitoring.coreos.com/v1", "IPodMonitor"),
    ("monitoring.coreos.com", "PrometheusRule"): (f"{MODELS}/prometheus-operator/monitoring.coreos.com/v1", "IPrometheusRule"),
}
# Crate, of scripts/kubernetes.d/crates.txt, and file with the type of the specification, by version and kind.
CRATES = {
    ("barmancloud.cnpg.io/v1", "ObjectStore"): ("kcr_barmancloud_cnpg_io", "objectstores"),
    ("external-secrets.io/v1", "ClusterSecretStore"): ("kcr_external_secrets_io", "clustersecretstores"),
    ("external-secrets.io/v1", "ExternalSecret"): ("kcr_external_secrets_io", "externalsecrets"),
    ("gateway.envoyproxy.io/v1alpha1", "EnvoyProxy"): ("kcr_gateway_envoyproxy_io", "envoyproxies"),
    ("postgresql.cnpg.io/v1", "Cluster"): ("kcr_postgresql_cnpg_io", "clusters"),
    ("postgresql.cnpg.io/v1", "ScheduledBackup"): ("kcr_postgresql_cnpg_io", "scheduledbackups"),
    ("redis.redis.opstreelabs.in/v1beta2", "RedisReplication"): ("kcr_redis_redis_opstreelabs_in", "redisreplications"),
    ("redis.redis.opstreelabs.in/v1beta2", "RedisSentinel"): ("kcr_redis_redis_opstreelabs_in", "redissentinels"),
}
METADATA = 'import("@kubernetes-models/apimachinery/apis/meta/v1/ObjectMeta").IObjectMeta'


def of_crate(crates: Path, work: Path, version: str, kind: str) -> str:
    """The type of a kind from its crate, whose declarations are written to `work`."""
    crate, name = CRATES[(version, kind)]
    [source] = crates.glob(f"{crate}-*/src/{version.split('/')[1]}/{name}.rs")
    (work / f"{crate}-{name}.d.ts").write_text(bindings.module(source))
    spec = f'import("./{crate}-{name}").{kind}Spec'
    return f'{{ apiVersion: "{version}"; kind: "{kind}"; metadata: {METADATA}; spec: {spec} }}'


def type_of(obj: dict[str, Any], crates: Path, work: Path) -> str | None:
    """The type of an object; None if no package has it."""
    if (obj["apiVersion"], obj["kind"]) in CRATES:
        return of_crate(crates, work, obj["apiVersion"], obj["kind"])
    if known := TYPES.get((obj["apiVersion"].split("/")[0], obj["kind"])):
        return f'import("{known[0]}").{known[1]}'
    return None


def literals(arguments: list[str], crates: Path, work: Path) -> tuple[list[str], list[str], int]:
    """A line of TypeScript and a label for each object, and the number of objects without a type."""
    lines: list[str] = []
    names: list[str] = []
    seen: set[str] = set()
    unknown = 0
    for argument in arguments:
        overlay, _, path = argument.partition("=")
        for obj in yaml.safe_load_all(Path(path).read_text()):
            text = json.dumps(obj)
            if not obj or CORE.match(obj["apiVersion"]) or text in seen:
                continue
            seen.add(text)
            label = f"{overlay}: {obj['kind']} {obj['metadata']['name']}"
            known = type_of(obj, crates, work)
            if known is None:
                print(f"{label}: no type of {obj['apiVersion']} is known", file=sys.stderr)
                unknown += 1
                continue
            lines.append(f"export const o{len(names)}: {known} = {text};")
            names.append(label)
    return lines, names, unknown


def main(arguments: list[str]) -> int:
    """Checks each NAME=FILE."""
    if len(arguments) < 3:
        print("usage: custom.py NODE_MODULES CRATES NAME=FILE…", file=sys.stderr)
        return 64
    modules = Path(arguments[0])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "node_modules").symlink_to(modules)
        try:
            lines, names, status = literals(arguments[2:], Path(arguments[1]), work)
        except bindings.BindingError as error:
            print(error, file=sys.stderr)
            return 1
        (work / "objects.ts").write_text("\n".join(lines) + "\n")
        options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
        done = subprocess.run(
            [modules / ".bin/tsc", *options, "objects.ts"], cwd=work, capture_output=True, text=True, timeout=600, check=False
        )
        for line in done.stdout.splitlines():
            if found := re.match(r"objects\.ts\((\d+),\d+\): (.*)", line):
                line = f"{names[int(found.group(1)) - 1]}: {found.group(2)}"
            print(line[:600], file=sys.stderr)
        if done.returncode != 0:
            status = 1
            print(done.stderr, end="", file=sys.stderr)
    if status == 0:
        print(f"{len(names)} custom resources")
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
