#!/usr/bin/env python3
"""Compares docs/DEPENDENCIES.md with the crates of other projects that Linnet names in its manifests.

  crates.py          fails for a crate without a row, a row without a crate, or other columns than Cargo's
  crates.py --write  adds and removes rows and rewrites the columns from Cargo; `Used for` is yours

The columns: license; whether code of the crate runs during a build, as a build script or as a macro; whether its
sources contain `unsafe`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from sources import EX_USAGE, ROOT, Finding, report

PAGE = "docs/DEPENDENCIES.md"
_ROW = re.compile(r"^\| `([\w-]+)` \| (.*?) \|")
_UNSAFE = re.compile(r"\bunsafe\b")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def is_unsafe(folder: Path) -> bool:
    """Whether code below the folder contains the word, outside of comments and of attributes that forbid it."""
    for file in sorted(folder.rglob("*.rs")):
        code = _COMMENT.sub("", file.read_text(encoding="utf-8", errors="replace"))
        if _UNSAFE.search(re.sub(r"#!?\[[^\]]*unsafe[^\]]*\]", "", code)):
            return True
    return False


def cells(package: dict[str, Any]) -> str:
    """The columns that Cargo knows."""
    kinds = {kind for target in package["targets"] for kind in target["kind"]}
    runs = [name for kind, name in (("custom-build", "build script"), ("proc-macro", "macro")) if kind in kinds]
    unsafe = "yes" if is_unsafe(Path(package["manifest_path"]).parent / "src") else "no"
    licenses = package["license"].replace("/", " OR ")
    return f"{licenses} | {', '.join(runs) or 'no'} | {unsafe}"


def direct(metadata: dict[str, Any]) -> dict[str, str]:
    """The columns of each direct dependency, by name. Of two versions the later one counts."""
    packages = {package["id"]: package for package in metadata["packages"]}
    members = set(metadata["workspace_members"])
    nodes = [node for node in metadata["resolve"]["nodes"] if node["id"] in members]
    found = {dependency["pkg"] for node in nodes for dependency in node["deps"]} - members
    return {packages[name]["name"]: cells(packages[name]) for name in sorted(found)}


def expected_rows(crates: dict[str, str], lines: list[str]) -> dict[str, str]:
    """The row of each crate, with the use that the page has for it."""
    uses = {row[1]: row[2] for line in lines if (row := _ROW.match(line))}
    return {name: f"| `{name}` | {uses.get(name, '')} | {columns} |" for name, columns in sorted(crates.items())}


def findings(crates: dict[str, str], lines: list[str]) -> list[Finding]:
    rows = {row[1]: (number, line) for number, line in enumerate(lines, 1) if (row := _ROW.match(line))}
    found = []
    for name, expected in expected_rows(crates, lines).items():
        number, line = rows.get(name, (1, ""))
        if not line:
            found.append(Finding(PAGE, 1, f"lacks a row for the crate {name}: run scripts/lint.d/crates.py --write"))
        elif line != expected:
            found.append(Finding(PAGE, number, f"must be: {expected}"))
        if line and (use := _ROW.match(line)) and not use[2].strip():
            found.append(Finding(PAGE, number, f"lacks what {name} is used for"))
    found += [Finding(PAGE, number, f"no manifest names {name}") for name, (number, _) in rows.items() if name not in crates]
    return found


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return EX_USAGE
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    crates = direct(json.loads(output))
    page = ROOT / PAGE
    lines = page.read_text(encoding="utf-8").splitlines()
    if arguments:
        table = [number for number, line in enumerate(lines) if _ROW.match(line)]
        start, end = (table[0], table[-1] + 1) if table else (len(lines), len(lines))
        lines[start:end] = expected_rows(crates, lines).values()
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report(findings(crates, lines), f"{len(crates)} direct dependencies, as Cargo has them")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
