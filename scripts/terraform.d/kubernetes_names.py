#!/usr/bin/env python3
"""Compares deploy/terraform/aws with deploy/kubernetes where one names what the other creates.

- Each secret that Terraform creates for programs is read by an ExternalSecret under the same name.
- The role of deployer.yaml contains each kind of object that the manifests have in a namespace.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml
from check import load

ROOT = Path(__file__).resolve().parent.parent.parent
MODULE = ROOT / "deploy/terraform/aws"
MANIFESTS = ROOT / "deploy/kubernetes"
# People read it, with a role of their own.
FOR_PEOPLE = {"postgres-password-admin"}
# An administrator applies these: they belong to no namespace, or give rights.
OF_ADMINISTRATORS = {"Namespace", "PriorityClass", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
# Stores in the cluster, which AWS replaces.
OF_STORES = {"Cluster", "ScheduledBackup", "ObjectStore", "RedisReplication", "RedisSentinel", "Secret"}


def documents(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in sorted(folder.rglob("*.yaml")):
        text = file.read_text()
        if "chart" in file.relative_to(folder).parts or "apiVersion:" not in text:
            continue
        found += [document for document in yaml.safe_load_all(text) if isinstance(document, dict) and "kind" in document]
    return found


def created_secrets() -> set[str]:
    """Names below `linnet/`, from passwords.tf and the users of cache.tf."""
    values = load(MODULE).locals()
    users = [name for name in values["cache_users"] if not name.startswith("__")]
    text = (MODULE / "passwords.tf").read_text()
    listed = re.search(r"passwords = toset\(concat\(\s*\[(.*?)\]", text, re.DOTALL)
    if not listed:
        raise SystemExit("deploy/terraform/aws/passwords.tf: the list of passwords has another form")
    return set(re.findall(r'"([\w-]+)"', listed[1])) | {f"redis-password-{user.strip(chr(34))}" for user in users}


def read_secrets(manifests: list[dict[str, Any]]) -> set[str]:
    keys = {
        entry["remoteRef"]["key"]
        for manifest in manifests
        if manifest["kind"] == "ExternalSecret"
        for entry in manifest["spec"].get("data", [])
    }
    return {key.removeprefix("linnet/") for key in keys}


def plural(kind: str) -> str:
    lower = kind.lower()
    return lower[:-1] + "ies" if re.search("[^aeiou]y$", lower) else lower + "s"


def allowed_kinds() -> set[tuple[str, str]]:
    role = next(document for document in yaml.safe_load_all((MODULE / "deployer.yaml").read_text()) if document["kind"] == "Role")
    return {(group, name) for rule in role["rules"] if "create" in rule["verbs"] for group in rule["apiGroups"] for name in rule["resources"]}


def faults(manifests: list[dict[str, Any]], created: set[str], allowed: set[tuple[str, str]]) -> list[str]:
    found = []
    unread = created - FOR_PEOPLE - read_secrets(manifests)
    found += [f"deploy/terraform/aws/passwords.tf: no ExternalSecret reads linnet/{name}" for name in sorted(unread)]
    for manifest in manifests:
        kind, group = manifest["kind"], manifest["apiVersion"].rpartition("/")[0]
        if kind in OF_ADMINISTRATORS | OF_STORES or group.startswith("kustomize"):
            continue
        if (group, plural(kind)) not in allowed:
            found.append(f"deploy/terraform/aws/deployer.yaml: {plural(kind)} of the group '{group}' are missing")
    return sorted(set(found))


if __name__ == "__main__":
    found = faults(documents(MANIFESTS), created_secrets(), allowed_kinds())
    print("\n".join(found), end="\n" if found else "")
    sys.exit(1 if found else 0)
