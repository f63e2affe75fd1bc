#!/usr/bin/env python3
"""Compares the users of ElastiCache in deploy/terraform/aws with those of scripts/redis-acl.sh.

The difference that is meant: ElastiCache has no BGREWRITEAOF and no CONFIG, and no user for an operator.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from check import load, unquote

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = ("gateway", "shortener", "worker", "exporter")
MISSING_COMMANDS = {"+bgrewriteaof", "+config|get"}


def scripted() -> dict[str, str]:
    """User to rules, as scripts/redis-acl.sh prints them."""
    with tempfile.TemporaryDirectory() as folder:
        for role in (*ROLES, "operator"):
            (Path(folder) / f"{role}-password").write_text("none")
        command = 'source scripts/lib.sh; source scripts/redis-acl.sh; redis_acl "$1"'
        run = subprocess.run(["bash", "-ec", command, "bash", folder], cwd=ROOT, check=True, capture_output=True, text=True, timeout=30)
    users = re.findall(r"^user (\w+) on #\w+ (.+)$", run.stdout, re.MULTILINE)
    return {name: " ".join(rule for rule in rules.split() if rule not in MISSING_COMMANDS) for name, rules in users if name in ROLES}


def configured(folder: Path) -> dict[str, str]:
    """User to rules, from `cache_users` with its locals filled in."""
    values = load(folder).locals()

    def expand(text: str) -> str:
        return re.sub(r"\$\{local\.(\w+)\}", lambda match: expand(unquote(values[match.group(1)])), text)

    users = values["cache_users"]
    return {name: expand(unquote(rules)) for name, rules in users.items() if not name.startswith("__")}


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    return [
        f"deploy/terraform/aws/cache.tf: cache_users.{name} must be the rules of scripts/redis-acl.sh: {wanted.get(name, 'no user')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]


if __name__ == "__main__":
    faults = differences(scripted(), configured(ROOT / "deploy/terraform/aws"))
    print("\n".join(faults), end="\n" if faults else "")
    sys.exit(1 if faults else 0)
