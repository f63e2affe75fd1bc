"""Compares the memory that settings allow with the containers' limits. scripts/budget describes the options."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nginx

ROOT = Path(__file__).resolve().parent.parent.parent
MIB = 1024**2
EX_UNAVAILABLE = 69

# The kernel, system services, dockerd, and containerd with a shim for each container.
SYSTEM_MIB = 300
# Services of other Compose files (deploy/compose.tls.yaml, deploy/compose.backup.yaml) that run on a server, unless the
# project has them.
RESERVED = {"acme": 16, "backup": 48}
# They do not run beside the other services.
EXCLUDED = {
    "preflight": "exits before the others start",
    "migrate": "exits before the others start",
    "restore": "runs while PostgreSQL is stopped",
}
# The program and the command that prints its budget. Green has the settings of blue (monitoring/tests/test_deployment.py).
COMMANDS = {
    "gateway-blue": ("linnet-gateway", ["budget"]),
    "shortener-blue": ("linnet-shortener", ["budget"]),
    "worker": ("linnet-shortener", ["budget", "--worker"]),
}


class NotCheckedError(Exception):
    """The sum of a container cannot be computed here."""


def in_mib(count: int) -> str:
    """Returns a number of bytes in MiB, rounded up."""
    return f"{-(-count * 10 // MIB) / 10:.1f}"


def nginx_table(service: dict[str, Any], work: Path) -> tuple[list[str], int]:
    """Renders nginx's configuration with the container's variables, and computes its sum."""
    # A tag such as `1.30`, with or without a digest.
    tag = re.search(r":([0-9]+\.[0-9]+)", service["image"])
    if tag is None:
        raise NotCheckedError("the tag of its image is no version")
    out = work / "nginx" / "linnet.conf"
    environment = {
        "PATH": os.environ["PATH"],
        **service["environment"],
        "LINNET_NGINX_OUT": str(out),
        "LINNET_NGINX_VERSION": f"{tag[1]}.0",
    }
    subprocess.run(["sh", str(ROOT / "nginx" / "render.sh")], env=environment, check=True)
    configuration = (out.parent / "events.inc").read_text() + out.read_text()
    found = re.search(r"worker_processes (\d+);", " ".join(service["command"]))
    if found is None:
        raise NotCheckedError("its number of worker processes is not fixed")
    sizes = [re.search(r"size=(\d+[kmg]?)", entry) for entry in service.get("tmpfs", [])]
    if not all(sizes):
        raise NotCheckedError("a tmpfs has no size")
    tmpfs = sum(nginx.size(match[1]) for match in sizes if match)
    terms = nginx.terms(configuration, int(found[1]), tmpfs)
    lines = [f"{'nginx':32} {'count':>9} {'bytes each':>12} {'sum':>11}"]
    lines += [f"{name:32} {count:>9} {each:>12} {in_mib(count * each):>7} MiB" for name, count, each in terms]
    return lines, sum(count * each for _, count, each in terms)


def process_table(name: str, service: dict[str, Any], options: argparse.Namespace) -> tuple[list[str], int]:
    """Runs the command `budget` of a process with the container's settings."""
    program, arguments = COMMANDS[name]
    settings = {key: value for key, value in service["environment"].items() if not key.endswith("_FILE")}
    # Secrets have no influence, but one is required. The limit is compared here, to print the table in any case.
    settings["LINNET__SERVICE__TOKEN"] = "0" * 32
    settings = {key: value for key, value in settings.items() if not key.endswith("__MEMORY_BYTES")}
    image = service["image"]
    has_image = (
        options.images == "yes"
        and subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0
    )
    binary = options.gateway if program == "linnet-gateway" else options.shortener
    if has_image:
        variables = [part for key, value in settings.items() for part in ("--env", f"{key}={value}")]
        command = ["docker", "run", "--rm", "--network", "none", *variables, image, *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    elif binary:
        environment = {"PATH": os.environ["PATH"], **settings}
        run = subprocess.run([binary, *arguments], env=environment, capture_output=True, text=True, check=False)
    else:
        raise NotCheckedError(f"neither its image nor {program} in target/ is built")
    if run.returncode != 0:
        raise NotCheckedError(run.stderr.strip() or f"{program} budget failed")
    lines = run.stdout.splitlines()
    return lines[:-1], int(lines[-1].removeprefix("total "))


def limits(services: dict[str, Any], budget: int) -> bool:
    """Prints the limits of all containers. Returns whether they fit the machine."""
    rows, total = [("system and Docker", SYSTEM_MIB, "")], SYSTEM_MIB
    product = SYSTEM_MIB
    for name, limit in RESERVED.items():
        if name not in services:
            rows.append((name, limit, "reserved for a server"))
            total += limit
            product += limit
    beyond = []
    for name, service in sorted(services.items(), key=lambda item: (item[1].get("profiles", []), item[0])):
        limit = int(service["mem_limit"]) // MIB
        profiles = ", ".join(service.get("profiles", []))
        if name in EXCLUDED:
            beyond.append((name, limit, EXCLUDED[name]))
        elif profiles == "tracing":
            beyond.append((name, limit, "profile tracing: for a larger machine"))
        else:
            rows.append((name, limit, profiles))
            total += limit
            product += limit if profiles in ("", "green") else 0
    for name, mib, profiles in rows:
        print(f"{name:20}{mib:>7} MiB  {profiles}")
    print(f"{'':20}{product:>7} MiB  without monitoring")
    print(f"{'':20}{total:>7} MiB  of {budget}, with both colors during a deployment")
    for name, mib, why in beyond:
        print(f"  excluded: {name} {mib} MiB ({why})")
    return total <= budget


def main() -> int:
    """Prints the tables and returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--compose", type=Path, required=True)
    parser.add_argument("--tls", type=Path, required=True, help="the same with compose.tls.yaml")
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--shortener", required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    services = json.loads(options.compose.read_text())["services"]
    failed = not limits(services, options.budget)
    if failed:
        print("error: the limits exceed the machine's memory", file=sys.stderr)
    unchecked = False
    tls = json.loads(options.tls.read_text())["services"]["nginx"]
    checked = [("nginx", services["nginx"]), ("nginx with TLS", tls), *((name, services[name]) for name in COMMANDS)]
    for name, service in checked:
        limit = int(service["mem_limit"])
        print()
        try:
            lines, total = (
                process_table(name, service, options) if name in COMMANDS else nginx_table(service, options.work)
            )
        except NotCheckedError as reason:
            unchecked = True
            print(f"{name}: not checked: {reason}")
            continue
        print("\n".join(lines))
        fits = total <= limit
        print(f"{name}: {in_mib(total)} MiB of {in_mib(limit)} ({'fits' if fits else 'does not fit'})")
        if not fits:
            failed = True
            print(f"error: {name} can use {in_mib(total)} MiB, above its mem_limit", file=sys.stderr)
    print("\nNot computed: the limits of other programs, which bound themselves (compose.yaml has their options).")
    if failed:
        return 1
    return EX_UNAVAILABLE if unchecked else 0


if __name__ == "__main__":
    sys.exit(main())
