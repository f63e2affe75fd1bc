#!/usr/bin/env python3
"""Runs the unit tests of a crate once for each mutant, with one program that has all mutants as branches.

  main.py CRATE --sources DIR --out DIR --cargo-mutants PROGRAM [--file PATTERN]… [--skip TEST]…

`scripts/mutants` calls it. `--sources` is a copy of the sources, which is changed. cargo-mutants lists the mutants.

- Compiling is most of the work of a mutant, so one program for all of them takes a twentieth of the time.
- A branch that the compiler rejects is an unviable mutant; it is left out and the rest is compiled again.
- A constant, an operator between patterns and the like cannot be a branch. `unplaced.regex` matches the names of such
  mutants, which `scripts/mutants` then gives to cargo-mutants one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branches import CHOICE, NotPlaced, SourceFile, mutant_at

MAX_BUILDS = 20
MAX_BASELINE_S = 900
# A mutant's tests may take this many times as long as all tests without a mutant, and at least MIN_TIMEOUT_S.
TIMEOUT_FACTOR = 8
MIN_TIMEOUT_S = 60.0
NO_MUTANT = 2**32 - 1


@dataclass
class Crate:
    name: str
    sources: Path
    environment: dict[str, str]
    skipped_tests: list[str]

    @property
    def package(self) -> str:
        return f"linnet-{self.name}"

    @property
    def root(self) -> str:
        return f"crates/{self.name}/src/lib.rs"


@dataclass
class Result:
    outcome: str
    detail: str = ""


def listed_mutants(crate: Crate, program: str, patterns: list[str]) -> list[dict[str, Any]]:
    command = [program, "mutants", "--dir", str(crate.sources), "--package", crate.package, "--list", "--json"]
    for pattern in patterns:
        command += ["--file", pattern]
    listed: list[dict[str, Any]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return listed


def placed(crate: Crate, mutants: list[dict[str, Any]]) -> tuple[dict[str, SourceFile], dict[int, Result]]:
    """The files with their mutants, and those mutants that cannot be branches."""
    files: dict[str, SourceFile] = {}
    results: dict[int, Result] = {}
    for number, mutant in enumerate(mutants):
        name = mutant["file"]
        if name not in files:
            files[name] = SourceFile((crate.sources / name).read_bytes())
        try:
            files[name].add(number, mutant)
        except NotPlaced as reason:
            results[number] = Result("unplaced", str(reason))
    return files, results


def compiled(crate: Crate, texts: dict[str, bytes]) -> tuple[str | None, list[dict[str, Any]]]:
    """The test program, or the errors of the compiler."""
    for name, text in texts.items():
        if (crate.sources / name).read_bytes() != text:
            (crate.sources / name).write_bytes(text)
    command = ["cargo", "test", "--locked", "--package", crate.package, "--lib", "--no-run", "--message-format=json"]
    build = subprocess.run(command, cwd=crate.sources, env=crate.environment, capture_output=True, text=True)
    program, errors = None, []
    for line in build.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("reason") == "compiler-artifact" and message["package_id"].rpartition("/")[2].startswith(f"{crate.name}#"):
            program = message.get("executable") or program
        if message.get("reason") == "compiler-message" and message["message"]["level"] == "error":
            errors.append(message["message"])
    if build.returncode != 0 and not errors:
        sys.exit(build.stderr)
    return (program if build.returncode == 0 else None), errors


def build(crate: Crate, files: dict[str, SourceFile], results: dict[int, Result]) -> str:
    """Compiles until no branch is rejected; returns the test program. Adds the unviable mutants to `results`."""
    original_root = (crate.sources / crate.root).read_bytes()
    for number in range(MAX_BUILDS):
        began = time.monotonic()
        texts = {name: file.render(set(results)) for name, file in files.items()}
        texts[crate.root] = texts.get(crate.root, original_root) + CHOICE
        program, errors = compiled(crate, texts)
        print(f"build {number + 1}: {time.monotonic() - began:.0f} s, {len(errors)} errors", flush=True)
        if program:
            return program
        before = len(results)
        for error in errors:
            for span in sorted(error["spans"], key=lambda span: not span["is_primary"]):
                found = mutant_at(texts.get(span["file_name"], b""), span["byte_start"])
                if found is None:
                    continue
                mutant, is_alone = found
                if is_alone:
                    results[mutant] = Result("unviable", error["message"])
                else:
                    for sibling in siblings(files, mutant):
                        results.setdefault(sibling, Result("unplaced", error["message"]))
                break
        if len(results) == before:
            sys.exit("".join(error["rendered"] for error in errors))
    sys.exit(f"the program does not compile after {MAX_BUILDS} builds")


def siblings(files: dict[str, SourceFile], mutant: int) -> list[int]:
    return next((found for file in files.values() if (found := file.siblings(mutant))), [mutant])


def run_tests(crate: Crate, program: str, mutant: int, chosen: list[str], timeout_s: float) -> Result:
    folder = crate.sources.absolute() / "crates" / crate.name
    environment = crate.environment | {"LINNET_MUTANT": str(mutant), "CARGO_MANIFEST_DIR": str(folder), "RUST_BACKTRACE": "0"}
    command = [program, *chosen, *(word for test in crate.skipped_tests for word in ("--skip", test))]
    try:
        run = subprocess.run(command, cwd=folder, env=environment, timeout=timeout_s, capture_output=True)
    except subprocess.TimeoutExpired:
        return Result("timeout")
    if run.returncode == 0:
        return Result("missed")
    failed = re.findall(r"^test (\S+) \.\.\. FAILED", run.stdout.decode(errors="replace"), re.MULTILINE)
    return Result("caught", ", ".join(failed[:3]) or f"exit code {run.returncode}")


def module_of(file: str) -> str:
    return re.sub(r"(/mod)?\.rs$", "", file.split("/src/", 1)[1]).replace("/", "::")


def run_mutants(crate: Crate, program: str, mutants: list[dict[str, Any]], results: dict[int, Result]) -> None:
    began = time.monotonic()
    baseline = run_tests(crate, program, NO_MUTANT, [], MAX_BASELINE_S)
    if baseline.outcome != "missed":
        sys.exit(f"the tests fail without a mutant: {baseline.detail or baseline.outcome}")
    seconds = time.monotonic() - began
    timeout_s = max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * seconds)
    print(f"{len(mutants) - len(results)} mutants; the tests take {seconds:.1f} s", flush=True)
    for number, mutant in enumerate(mutants):
        if number in results:
            continue
        # The tests of the mutant's module first: they usually notice it.
        result = run_tests(crate, program, number, [f"{module_of(mutant['file'])}::"], timeout_s)
        if result.outcome == "missed":
            result = run_tests(crate, program, number, [], timeout_s)
        results[number] = result
        if result.outcome != "caught":
            print(f"{result.outcome}: {mutant['name']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("crate")
    for option in ("--sources", "--out"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--cargo-mutants", required=True)
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("--skip", action="append", default=[])
    arguments = parser.parse_args()
    crate = Crate(arguments.crate, arguments.sources, dict(os.environ), arguments.skip)
    mutants = listed_mutants(crate, arguments.cargo_mutants, arguments.file)
    files, results = placed(crate, mutants)
    program = build(crate, files, results)
    run_mutants(crate, program, mutants, results)

    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = [mutant["name"] + "\t" + results[number].detail for number, mutant in enumerate(mutants)]
    for outcome in ("caught", "missed", "timeout", "unviable", "unplaced"):
        lines = [row for number, row in enumerate(rows) if results[number].outcome == outcome]
        (arguments.out / f"{outcome}.txt").write_text("".join(line + "\n" for line in lines))
    unplaced = [mutant["name"] for number, mutant in enumerate(mutants) if results[number].outcome == "unplaced"]
    (arguments.out / "unplaced.regex").write_text("".join(f"^{re.escape(name)}$\n" for name in unplaced))
    for file in sorted({mutant["file"] for mutant in mutants}):
        counts = Counter(results[n].outcome for n, m in enumerate(mutants) if m["file"] == file)
        print(file, ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
