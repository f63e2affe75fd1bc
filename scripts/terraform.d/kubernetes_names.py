#!/usr/bin/env python3
"""Compares deploy/terraform/aws with deploy/kubernetes where one names what the other creates.

- The overlay `aws` reads each secret that Terraform creates for programs, under the same name, and no other.
- Its policies name the networks of the stores' subnets.
- Its service accounts have the names of the roles for pods, and its dumps are made by the major version of the database.
- The role of deployer.yaml contains each kind of object that the manifests have in a namespace.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from check import load, unquote

ROOT = Path(__file__).resolve().parent.parent.parent
MODULE = ROOT / "deploy/terraform/aws"
# People read it, with a role of their own.
FOR_PEOPLE = {"postgres-password-admin"}
# An administrator applies these: they belong to no namespace, or give rights.
OF_ADMINISTRATORS = {"Namespace", "PriorityClass", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def overlay() -> list[dict[str, Any]]:
    """The objects of the overlay `aws`."""
    command = [str(ROOT / "scripts/kubernetes"), "render", "aws"]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def created_secrets() -> set[str]:
    """Names below `linnet/`, from passwords.tf and the users of cache.tf."""
    values = load(MODULE).locals()
    users = [name for name in values["cache_users"] if not name.startswith("__")]
    text = (MODULE / "passwords.tf").read_text()
    listed = re.search(r"passwords = toset\(concat\(\s*\[(.*?)\]", text, re.DOTALL)
    if not listed:
        raise SystemExit("deploy/terraform/aws/passwords.tf: the list of passwords has another form")
    addresses = {unquote(name) for name in values["addresses"] if not name.startswith("__")}
    return set(re.findall(r'"([\w-]+)"', listed[1])) | {f"redis-password-{unquote(user)}" for user in users} | addresses


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


def default(variable: str) -> str:
    """The default of a variable, which is a text."""
    item = load(MODULE).find("variable", variable)
    assert item
    return unquote(item.body["default"])


def networks() -> set[str]:
    """The networks of the stores' subnets: the eighth /24 of the VPC and the next two (network.tf)."""
    text = (MODULE / "network.tf").read_text()
    found = re.search(r'resource "aws_subnet" "stores" .*?cidrsubnet\(var\.vpc_cidr, 8, each\.value \+ (\d+)\)', text, re.DOTALL)
    if not found:
        raise SystemExit("deploy/terraform/aws/network.tf: the networks of the stores have another form")
    subnets = list(ipaddress.ip_network(default("vpc_cidr")).subnets(new_prefix=24))
    return {str(subnet) for subnet in subnets[int(found[1]) :][:3]}


def named_networks(manifests: list[dict[str, Any]]) -> set[str]:
    """The networks of the policies about stores."""
    policies = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy" and "store" in manifest["metadata"].get("labels", {})]
    return {end["ipBlock"]["cidr"] for policy in policies for rule in policy["spec"]["egress"] for end in rule["to"]}


def accounts(manifests: list[dict[str, Any]]) -> list[str]:
    """Roles for pods of Linnet's namespace whose service account no pod has."""
    names = {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "ServiceAccount"}
    found = []
    for item in load(MODULE).of("resource"):
        if item.labels[0] == "aws_eks_pod_identity_association" and "kubernetes_namespace" in str(item.body["namespace"]):
            account = unquote(item.body["service_account"])
            if account not in names:
                found.append(f"deploy/terraform/aws/eks.tf: the overlay aws has no service account {account}")
    return found


def versions(manifests: list[dict[str, Any]], database: str) -> list[str]:
    """Jobs with another major version of PostgreSQL than the database."""
    text = "\n".join(str(manifest) for manifest in manifests if manifest["kind"] == "CronJob")
    majors = set(re.findall(r"/postgresql:(\d+)\.", text))
    return [] if majors == {database} else [f"the overlay aws dumps with PostgreSQL {sorted(majors)}, and the database is {database}"]


def faults(manifests: list[dict[str, Any]], created: set[str], allowed: set[tuple[str, str]]) -> list[str]:
    found = []
    read = read_secrets(manifests)
    found += [f"deploy/terraform/aws/passwords.tf: no ExternalSecret reads linnet/{name}" for name in sorted(created - FOR_PEOPLE - read)]
    found += [f"deploy/terraform/aws/passwords.tf: an ExternalSecret reads linnet/{name}, which does not exist" for name in sorted(read - created)]
    for manifest in manifests:
        kind, group = manifest["kind"], manifest["apiVersion"].rpartition("/")[0]
        if kind in OF_ADMINISTRATORS:
            continue
        if (group, plural(kind)) not in allowed:
            found.append(f"deploy/terraform/aws/deployer.yaml: {plural(kind)} of the group '{group}' are missing")
    return sorted(set(found))


def main() -> int:
    manifests = overlay()
    found = faults(manifests, created_secrets(), allowed_kinds())
    if named_networks(manifests) != networks():
        found.append(f"deploy/kubernetes/overlays/aws: the policies of the stores must name {', '.join(sorted(networks()))}")
    found += [*accounts(manifests), *versions(manifests, default("database_version"))]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
