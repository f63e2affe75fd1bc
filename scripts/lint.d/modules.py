#!/usr/bin/env python3
"""Checks that dependencies point one way: between modules of a crate, and between crates.

  modules.py              circles between modules, and crates against the table of docs/ARCHITECTURE.md
  modules.py --edges      prints the module graph instead: crate, parent, from, to, place

A module depends on another one by a `use` or by a path in its code that begins with `crate`, `super` or `self`.
Re-exports are followed to the module that declares the item. A dependency between two modules counts as one between
the siblings that contain them: `a::x` uses `b::y` means that `a` depends on `b`. A module and its parent may use each
other. Tests (`#[cfg(test)]`) are left out.

`cargo modules dependencies --acyclic` is no replacement: version 0.27 also counts a type and its own method as a circle,
stops at the first one, and needs 7 s of processor time for each crate.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sources import EX_USAGE, ROOT, Finding, Lines, closing, report, rust_code

ModulePath = tuple[str, ...]
MAX_REEXPORTS = 16  # A chain of re-exports that is longer is a loop.


@dataclass
class Module:
    path: ModulePath
    file: Path
    code: str  # Blank where other modules, tests, comments and literals are: offsets are those of the file.
    lines: Lines
    children: set[str] = field(default_factory=set)
    imports: dict[str, list[str]] = field(default_factory=dict)  # name → path as it is written
    globs: list[list[str]] = field(default_factory=list)
    items: set[str] = field(default_factory=set)
    uses: list[tuple[list[str], int]] = field(default_factory=list)  # path as it is written, offset


@dataclass(frozen=True)
class Edge:
    """One of a parent's modules depends on another one."""

    parent: ModulePath
    source: str
    target: str
    file: str
    line: int
    path: str


_TEST_ITEM = re.compile(r"#\s*\[\s*cfg\s*\(\s*(?:all\s*\(\s*)?test\b[^\]]*\]")
_MOD = re.compile(r"(?<![\w:])mod\s+(?:r#)?(\w+)\s*([;{])")
_USE = re.compile(r"(?<![\w:])use\s+([^;]+);")
_PATH = re.compile(r"(?<![\w:])(?:crate|super|self)(?:\s*::\s*[A-Za-z_]\w*)+")
_ITEM = re.compile(
    r"(?<![\w:])(?:fn|struct|enum|trait|union|type|const|static|macro_rules!)\s+(?:mut\s+)?([A-Za-z_]\w*)"
)
_PATH_ATTRIBUTE = re.compile(r'#\[path\s*=\s*"([^"]+)"\]\s*(?:pub(?:\([^)]*\))?\s+)?\Z')


def without_tests(code: str) -> str:
    """Blanks every item behind `#[cfg(test)]`."""
    while match := _TEST_ITEM.search(code):
        end = re.compile(r"[;{]").search(code, match.end())
        stop = len(code) if end is None else end.end() if end.group() == ";" else closing(code, end.start()) + 1
        code = _blanked(code, match.start(), stop)
    return code


def _blanked(code: str, start: int, stop: int) -> str:
    return code[:start] + re.sub(r"[^\n]", " ", code[start:stop]) + code[stop:]


class Crate:
    """The modules of one library or program, read from its root file."""

    def __init__(self, name: str, root_file: Path) -> None:
        self.name = name
        self.modules: dict[ModulePath, Module] = {}
        self._read_file((), root_file, root_file.parent)
        for module in self.modules.values():
            self._read_names(module)

    def _read_file(self, path: ModulePath, file: Path, folder: Path) -> None:
        text = file.read_text()
        self._read_module(path, file, folder, without_tests(rust_code(text)), text)

    def _read_module(self, path: ModulePath, file: Path, folder: Path, code: str, text: str) -> None:
        """`folder` holds the files of the module's children."""
        module = Module(path, file, code, Lines(text))
        self.modules[path] = module
        position = 0
        while match := _MOD.search(module.code, position):
            name, position = match.group(1), match.end()
            module.children.add(name)
            if match.group(2) == "{":
                end = closing(module.code, match.end() - 1)
                inner = re.sub(r"[^\n]", " ", module.code[: match.end()]) + module.code[match.end() : end]
                module.code = _blanked(module.code, match.end(), end)
                self._read_module((*path, name), file, folder / name, inner, text)
            else:
                self._read_child((*path, name), folder, file, text[: match.start()])

    def _read_child(self, path: ModulePath, folder: Path, file: Path, before: str) -> None:
        if attribute := _PATH_ATTRIBUTE.search(before):
            child = file.parent / attribute.group(1)
            self._read_file(path, child, child.parent)
            return
        name = path[-1]
        for child in (folder / f"{name}.rs", folder / name / "mod.rs"):
            if child.is_file():
                self._read_file(path, child, folder / name)
                return
        raise SystemExit(f"error: {file}: no file for the module {'::'.join(path)}")

    def _read_names(self, module: Module) -> None:
        for match in _USE.finditer(module.code):
            for segments, name in expand(match.group(1)):
                if name == "*":
                    module.globs.append(segments)
                else:
                    module.imports[name] = segments
                module.uses.append((segments, match.start()))
        rest = _USE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), module.code)
        for match in _PATH.finditer(rest):
            module.uses.append((re.split(r"\s*::\s*", match.group()), match.start()))
        module.items = {match.group(1) for match in _ITEM.finditer(rest)}

    def resolve(self, origin: Module, segments: list[str], depth: int = 0) -> Module | None:
        """The module that declares what `segments` name in `origin`; None if it is another crate's."""
        if depth > MAX_REEXPORTS:
            return None
        first, rest = segments[0], segments[1:]
        current: Module | None
        if first == "crate":
            current = self.modules[()]
        elif first == "self":
            current = origin
        elif first == "super":
            current = self.modules[origin.path[:-1]]
        elif first in origin.children:
            current = self.modules[(*origin.path, first)]
        elif first in origin.imports and origin.imports[first] != segments:
            current = self.resolve(origin, origin.imports[first], depth + 1)
        else:
            return None
        for index, segment in enumerate(rest):
            if current is None:
                return None
            if segment == "super":
                current = self.modules[current.path[:-1]]
            elif segment in current.children:
                current = self.modules[(*current.path, segment)]
            elif segment in current.imports:
                declared = self.resolve(current, [*current.imports[segment], *rest[index + 1 :]], depth + 1)
                return declared or current
            else:
                return self._through_globs(current, rest[index:], depth) or current
        return current

    def _through_globs(self, module: Module, segments: list[str], depth: int) -> Module | None:
        if segments[0] in module.items:
            return None
        for glob in module.globs:
            target = self.resolve(module, glob, depth + 1)
            if target is None or target is module:
                continue
            if segments[0] in target.children | target.items | target.imports.keys():
                return self.resolve(target, ["self", *segments], depth + 1)
        return None

    def edges(self, root: Path = ROOT) -> Iterator[Edge]:
        for module in self.modules.values():
            for segments, offset in module.uses:
                target = self.resolve(module, segments)
                if target is None:
                    continue
                common = 0
                for ours, theirs in zip(module.path, target.path):
                    if ours != theirs:
                        break
                    common += 1
                if common in (len(module.path), len(target.path)):
                    continue  # the same module, or a parent and its child
                yield Edge(
                    module.path[:common],
                    module.path[common],
                    target.path[common],
                    str(module.file.relative_to(root)),
                    module.lines.of(offset),
                    "::".join(segments),
                )


def expand(tree: str) -> Iterator[tuple[list[str], str]]:
    """The paths of a `use` with the name that each brings: `a::{b, c as d, e::*}`."""
    tree = tree.strip()
    if (brace := tree.find("{")) >= 0:
        prefix = [segment for segment in re.split(r"\s*::\s*", tree[:brace].strip()) if segment]
        for part in _split(tree[brace + 1 : closing(tree, brace)]):
            for segments, name in expand(part):
                if segments == ["self"]:
                    yield prefix, prefix[-1] if name == "self" else name
                else:
                    yield [*prefix, *segments], name
        return
    path, _, alias = re.sub(r"\s+", " ", tree).partition(" as ")
    segments = [segment.strip() for segment in path.split("::") if segment.strip()]
    if segments[-1] == "*":
        yield segments[:-1], "*"
    else:
        yield segments, alias.strip() or segments[-1]


def _split(text: str) -> Iterator[str]:
    """The parts between the commas that are in no braces."""
    depth, start = 0, 0
    for offset, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            yield text[start:offset]
            start = offset + 1
    if text[start:].strip():
        yield text[start:]


def circles(edges: list[Edge]) -> list[list[Edge]]:
    """For each module that depends on itself, a shortest circle; each circle once."""
    graph: dict[tuple[ModulePath, str], dict[str, Edge]] = {}
    for edge in edges:
        graph.setdefault((edge.parent, edge.source), {}).setdefault(edge.target, edge)
    found: dict[tuple[ModulePath, frozenset[str]], list[Edge]] = {}
    for parent, start in graph:
        queue: deque[list[Edge]] = deque([edge] for edge in graph[parent, start].values())
        seen: set[str] = set()
        while queue:
            way = queue.popleft()
            if way[-1].target == start:
                found.setdefault((parent, frozenset(edge.source for edge in way)), way)
                break
            if way[-1].target not in seen:
                seen.add(way[-1].target)
                queue.extend([*way, edge] for edge in graph.get((parent, way[-1].target), {}).values())
    return list(found.values())


ROOT_FILES = ("src/lib.rs", "src/main.rs", "src/bin/*.rs", "tests/*/main.rs")


def crate_roots(root: Path = ROOT) -> Iterator[tuple[str, Path]]:
    """The root file of each library, program and test program, with its name."""
    for folder in sorted(path.parent for path in root.glob("crates/*/Cargo.toml")):
        for file in sorted(file for pattern in ROOT_FILES for file in folder.glob(pattern)):
            yield f"{folder.name} ({file.relative_to(folder)})", file


def circle_findings(root: Path = ROOT) -> tuple[list[Finding], int]:
    findings, modules = [], 0
    for name, file in crate_roots(root):
        crate = Crate(name, file)
        modules += len(crate.modules)
        for circle in circles(list(crate.edges(root))):
            inside = "::".join(["crate", *circle[0].parent])
            names = " → ".join([edge.source for edge in circle] + [circle[0].source])
            places = ", ".join(f"`{edge.path}` at {edge.file}:{edge.line}" for edge in circle)
            findings.append(Finding(circle[0].file, circle[0].line, f"circle in {inside} of {name}: {names} by {places}"))
    return findings, modules


ARCHITECTURE = "docs/ARCHITECTURE.md"


def documented_crates(document: str) -> dict[str, int]:
    """The crates of the table in the section *Crates*, in its order, with their lines."""
    crates, inside = {}, False
    for number, line in enumerate(document.splitlines(), 1):
        if line.startswith("#"):
            inside = line.strip() == "### Crates"
        elif inside and (match := re.match(r"\|\s*`([a-z-]+)`\s*\|", line)):
            crates[match.group(1)] = number
    return crates


def order_findings(root: Path = ROOT) -> list[Finding]:
    """Each folder of crates/ has a row, and each crate depends only on crates in rows above its own."""
    rows = documented_crates((root / ARCHITECTURE).read_text())
    folders = {path.parent.name for path in root.glob("crates/*/Cargo.toml")}
    if not rows or not folders:
        return [Finding(ARCHITECTURE, 1, "no crates, or no table of crates in the section *Crates*")]
    findings = [Finding(ARCHITECTURE, 1, f"crates/{name} has no row in the table") for name in folders - rows.keys()]
    findings += [Finding(ARCHITECTURE, rows[name], f"there is no crates/{name}") for name in rows.keys() - folders]
    order = list(rows)
    for name in sorted(folders & rows.keys()):
        manifest = f"crates/{name}/Cargo.toml"
        table = tomllib.loads((root / manifest).read_text())
        needed = {**table.get("dependencies", {}), **table.get("build-dependencies", {})}
        for target in table.get("target", {}).values():
            needed |= {**target.get("dependencies", {}), **target.get("build-dependencies", {})}
        for other in sorted(key.removeprefix("linnet-") for key in needed if key.startswith("linnet-")):
            if other in rows and order.index(other) >= order.index(name):
                message = f"depends on `{other}`, which is not above `{name}` in the table of {ARCHITECTURE}"
                findings.append(Finding(manifest, 1, message))
    return findings


def main(arguments: list[str]) -> int:
    if arguments == ["--edges"]:
        for name, file in crate_roots():
            edges = {(edge.parent, edge.source, edge.target): edge for edge in Crate(name, file).edges()}
            for (parent, source, target), edge in sorted(edges.items()):
                print(name, "::".join(["crate", *parent]), source, target, f"{edge.file}:{edge.line}", sep="\t")
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return EX_USAGE
    findings, modules = circle_findings()
    return report(findings + order_findings(), f"{modules} modules without a circle, crates in the documented order")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
