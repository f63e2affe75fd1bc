#!/usr/bin/env python3
"""Asks the real programs whether they accept the settings and the memory of every pod of a rendered overlay.

    settings.py PROGRAMS NAME=FILE…        PROGRAMS has linnet-gateway and linnet-shortener

Prints one line for each fault and exits with 1 if there is any.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from overlay import Overlay, containers, pods, setting_map

UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
# Contents of the mounted secrets of the overlay `dev`; the others have templates.
SECRETS = {
    "LINNET__SERVICE__TOKEN": "0123456789abcdef0123456789abcdef",
    "LINNET__POSTGRES__URL": "postgres://linnet:secret@postgres:5432/linnet",
    "LINNET__REDIS__URL": "redis://role:secret@redis:6379/0",
}
# The secret of External Secrets whose template is a setting.
TEMPLATES = {"LINNET__POSTGRES__URL": "postgres", "LINNET__REDIS__URL": "redis-shortener"}
IMAGE = re.compile(r"(?:^|/)linnet/(gateway|shortener)(?:[:@]|$)")


def size(text: str) -> int:
    """Bytes of a quantity such as `384Mi`."""
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS.get(unit, 1)


# Where CAs are mounted.
MOUNTED_CA = re.compile(r"/run/authorities/[\w.-]+")


def authority(folder: Path) -> Path:
    """A CA, which the programs read when they check the URL."""
    path = folder / "ca.crt"
    if not path.exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test"]
        subprocess.run([*command, "-keyout", folder / "ca.key", "-out", path], capture_output=True, timeout=60, check=True)
    return path


def secret(overlay: Overlay, name: str) -> str:
    """The value of a setting that is mounted as a file."""
    if found := overlay.one("ExternalSecret", TEMPLATES.get(name, "")):
        return re.sub(r"\{\{.*?\}\}", "secret", found["spec"]["target"]["template"]["data"]["url"])
    return SECRETS[name]


def environment(overlay: Overlay, container: dict[str, Any], folder: Path) -> dict[str, str]:
    """The variables of a container, with files in place of the mounted secrets."""
    values = setting_map(overlay, {"spec": {"containers": [container]}})
    values.update({variable["name"]: variable["value"] for variable in container.get("env", [])})
    for name in [name for name in values if name.endswith("_FILE")]:
        file = folder / name
        file.write_text(MOUNTED_CA.sub(str(authority(folder)), secret(overlay, name.removesuffix("_FILE"))))
        values[name] = str(file)
    return values


def faults(programs: Path, overlay: Overlay) -> Iterator[str]:
    """The errors of the programs."""
    with tempfile.TemporaryDirectory() as folder:
        for _, name, template in pods(overlay):
            for container in containers(template):
                found = IMAGE.search(container["image"])
                if not found:
                    continue
                values = environment(overlay, container, Path(folder))
                kind = re.sub(r"-(blue|green)$", "", name)
                if kind in {"gateway", "shortener", "worker"}:
                    limit = size(container["resources"]["limits"]["memory"])
                    values[f"LINNET__{kind.upper()}__MEMORY_BYTES"] = str(limit)
                command = [programs / f"linnet-{found.group(1)}", "--check-config", *container.get("args", [])]
                done = subprocess.run(command, env=values, capture_output=True, text=True, timeout=60, check=False)
                if done.returncode != 0:
                    yield f"{overlay.name}: {name}/{container['name']}: {done.stderr.strip() or done.stdout.strip()}"


def main(arguments: list[str]) -> int:
    """Checks each NAME=FILE."""
    if len(arguments) < 2:
        print("usage: settings.py PROGRAMS NAME=FILE…", file=sys.stderr)
        return 64
    found = []
    for argument in arguments[1:]:
        name, _, path = argument.partition("=")
        found += faults(Path(arguments[0]), Overlay(name, Path(path).read_text()))
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
