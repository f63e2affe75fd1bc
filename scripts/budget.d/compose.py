"""Prints the services of a Compose file as JSON, as `docker compose config` does, for machines without Docker.

It supports what deploy/compose.yaml uses: merge keys, `${NAME:-default}`, and sizes such as `96m`. Of each further file
it takes the variables that it sets for the services of the first.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


def substitute(value: Any) -> Any:
    """Replaces variables in all texts."""
    if isinstance(value, dict):
        return {key: substitute(item) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item) for item in value]
    if isinstance(value, str):
        # Innermost first: a default can be another variable.
        variable = re.compile(r"\$\{(\w+)(?::[-?]([^${}]*))?\}")
        while variable.search(value):
            value = variable.sub(lambda m: os.environ.get(m[1]) or m[2] or "", value)
        return value
    return value


def in_bytes(size: str) -> str:
    """Returns the bytes of a size as Compose prints them."""
    return str(int(size[:-1]) * UNITS[size[-1]])


class Loader(yaml.SafeLoader):
    """Also reads Compose's tag `!override`."""


Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def read(path: str) -> Any:
    """Returns the content of a Compose file."""
    # The loader is a safe one.
    return substitute(yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader))  # noqa: S506


def main() -> None:
    """Prints the services."""
    document = read(sys.argv[1])
    for path in sys.argv[2:]:
        for name, service in read(path)["services"].items():
            if name in document["services"]:
                document["services"][name].setdefault("environment", {}).update(service.get("environment") or {})
    for service in document["services"].values():
        service["mem_limit"] = in_bytes(service["mem_limit"])
        environment = service.get("environment") or {}
        service["environment"] = {name: str(value) for name, value in environment.items()}
    json.dump({"services": document["services"]}, sys.stdout)


if __name__ == "__main__":
    main()
