#!/usr/bin/env python3
"""Finds images of others without an exact version or a digest, in Compose files and Dockerfiles.

- A tag can be moved to other content, and a tag such as `postgres:17` moves with every release.
- References are literal, because Dependabot does not read variables. Linnet's own images may come from variables.
- `BY_TAG` has the images without a digest. docs/OPERATIONS.md names each of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sources import EX_USAGE, ROOT, Finding, report, tracked_files

PAGE = "docs/OPERATIONS.md"

# Each has an exact version. `scripts/image-digests` pins them where a registry can be reached.
BY_TAG = {
    "nginxinc/nginx-unprivileged": "its tags are rebuilt every few days, and no digest of 1.30.6 could be confirmed",
    "grafana/loki": "no digest of 3.5.8 could be confirmed, and earlier releases have known vulnerabilities",
    "fluent/fluent-bit": "no digest of 4.2.8 could be confirmed",
}
# Releases of these projects have two numbers.
TWO_NUMBERS = {"postgres"}

# `${A:-${B:-default}}` as well.
_DEFAULT = re.compile(r"(\$\{\w+:?-)+([^${}]*)\}+")
_IMAGE = re.compile(r"""^[^#]*\bimage:\s*["']?([^\s"',}]*\$\{[^}]*\}+[^\s"',}]*|[^\s"',}]+)""")
_FROM = re.compile(r"^FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE)
_OTHER_FROM = re.compile(r"^(?:COPY|ADD|RUN)\b.*?(?:--from=|,from=)([^\s,]+)", re.IGNORECASE)
_ARG = re.compile(r"^ARG\s+(\w+)=(\S+)", re.IGNORECASE)
_REFERENCE = re.compile(r"([a-z0-9][a-z0-9._/:-]*?)(?::([\w][\w.-]*))?(?:@(\S+))?$")
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)(?:-[\w.-]+)?$")


def fault(reference: str) -> str | None:
    """The fault of the reference of an image of others, if it has one."""
    parts = _REFERENCE.match(reference)
    if not parts:
        return "is no literal reference of an image"
    name, tag, digest = parts.groups()
    version = _VERSION.match(tag or "")
    if not version or version.group(1).count(".") < (1 if name in TWO_NUMBERS else 2):
        return "has no exact version: its tag moves with each release"
    if digest is None:
        return None if name in BY_TAG else "has no digest: run scripts/image-digests"
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        return "has a malformed digest"
    return f"has a digest: remove `{name}` from BY_TAG" if name in BY_TAG else None


def compose_images(text: str) -> Iterator[tuple[int, str]]:
    """Line and reference of each image, without those of Linnet."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _IMAGE.match(line):
            default = _DEFAULT.fullmatch(match.group(1))
            if not (default and default.group(2).startswith("linnet/")):
                yield number, match.group(1)


def dockerfile_images(text: str) -> Iterator[tuple[int, str]]:
    """Line and reference of each image that a stage or a copy begins with, without `scratch` and other stages."""
    stages, defaults = {"scratch"}, dict[str, str]()
    for number, line in enumerate(text.splitlines(), 1):
        if argument := _ARG.match(line):
            defaults.setdefault(argument.group(1), argument.group(2))
        stage, other = _FROM.match(line), _OTHER_FROM.match(line)
        if found := stage or other:
            reference = re.sub(r"\$\{?(\w+)\}?", lambda name: defaults.get(name.group(1), name.group()), found.group(1))
            if reference.lower() not in stages and not reference.isdigit():
                yield number, reference
        if stage and stage.group(2):
            stages.add(stage.group(2).lower())


def findings(root: Path = ROOT) -> tuple[list[Finding], int]:
    found: list[Finding] = []
    references: set[str] = set()
    for file in tracked_files(root):
        name = Path(file).name
        if "Dockerfile" in name and not name.endswith(".dockerignore"):
            images = dockerfile_images
        elif "compose" in name and name.endswith((".yaml", ".yml")):
            images = compose_images
        else:
            continue
        for line, reference in images((root / file).read_text()):
            references.add(reference)
            if message := fault(reference):
                found.append(Finding(file, line, f"`{reference}` {message}"))
    page = (root / PAGE).read_text()
    for name in BY_TAG:
        if not any(reference.startswith(f"{name}:") for reference in references):
            found.append(Finding("scripts/lint.d/images.py", 1, f"BY_TAG has `{name}`, which no file uses"))
        if f"`{name}`" not in page:
            found.append(Finding(PAGE, 1, f"`{name}` has no digest, which the page does not say"))
    if not references:
        found.append(Finding("deploy/compose.yaml", 1, "no images found"))
    return found, len(references)


def main(arguments: list[str]) -> int:
    if arguments:
        print(__doc__, file=sys.stderr)
        return EX_USAGE
    found, references = findings()
    return report(found, f"{references} images of others, {len(BY_TAG)} of them without a digest")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
