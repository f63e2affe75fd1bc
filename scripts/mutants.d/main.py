#!/usr/bin/env python3
"""Runs the unit tests of a crate once for each mutant, with one program that has all mutants as branches.

  main.py CRATE --sources DIR --out DIR --cargo-mutants PROGRAM [--file PATTERN]…

`scripts/mutants` calls it. `--sources` is a copy of the sources, which is changed. cargo-mutants lists the mutants.

- Compiling is most of the work of a mutant, so one program for all of them takes a twentieth of the time.
- A branch that the compiler rejects is an unviable mutant; it is left out and the rest is compiled again.
- A constant, an operator between patterns and the like cannot be a branch. `unplaced.regex` matches the names of such
  mutants, which `scripts/mutants` then gives to cargo-mutants one by one.
- A mutant first runs the tests of its module, then all quick tests, then the rest. Most mutants are caught early.
- A mutant can loop, allocate or write without an end, so the processor time, the memory and the file sizes of a run are
  limited. Processor time does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branches import CHOICE, NotPlaced, SourceFile, mutant_at

MAX_BUILDS = 20
MAX_BASELINE_S = 900
# A mutant's tests may take this many times the processor time of all tests without a mutant, and at least MIN_CPU_S.
CPU_FACTOR = 5
MIN_CPU_S = 10
# A mutant that waits forever needs no processor. Its tests end after this many times the duration of all tests without a
# mutant, and at least after MIN_TIMEOUT_S.
TIMEOUT_FACTOR = 10
MIN_TIMEOUT_S = 60.0
# A test that takes longer than this without a mutant runs only if all others have passed.
QUICK_S = 0.3
# Bounds of one run, in bytes: address space, and the size of a file.
MAX_MEMORY = 3 * 1024**3
MAX_FILE = 1024**3
NO_MUTANT = 2**32 - 1


@dataclass
class Crate:
    name: str
    sources: Path
    environment: dict[str, str]

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


@dataclass
class Limits:
    seconds: float
    cpu_seconds: int

    def apply(self) -> None:
        """For the process that runs the tests."""
        resource.setrlimit(resource.RLIMIT_CPU, (self.cpu_seconds, self.cpu_seconds))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_tests(crate: Crate, program: str, mutant: int, chosen: list[str], limits: Limits) -> Result:
    """Runs these tests, or all without a choice."""
    folder = crate.sources.absolute() / "crates" / crate.name
    # With RUSTC_BOOTSTRAP, the stable test runner accepts `--report-time`.
    own = {"LINNET_MUTANT": str(mutant), "CARGO_MANIFEST_DIR": str(folder), "RUST_BACKTRACE": "0", "RUSTC_BOOTSTRAP": "1"}
    command = [program, "-Zunstable-options", "--report-time", *(["--exact", *chosen] if chosen else [])]
    try:
        run = subprocess.run(
            command, cwd=folder, env=crate.environment | own, timeout=limits.seconds, capture_output=True, preexec_fn=limits.apply
        )
    except subprocess.TimeoutExpired:
        return Result("timeout")
    output = run.stdout.decode(errors="replace")
    if run.returncode == 0:
        return Result("missed", output)
    # The limit of processor time ends the process with one of these signals.
    if -run.returncode in (signal.SIGXCPU, signal.SIGKILL):
        return Result("timeout")
    failed = re.findall(r"^test (\S+) .*\.\.\. FAILED", output, re.MULTILINE)
    return Result("caught", ", ".join(failed[:3]) or f"exit code {run.returncode}")


def module_of(file: str) -> str:
    return re.sub(r"(/mod)?\.rs$", "", file.split("/src/", 1)[1]).replace("/", "::") + "::"


@dataclass
class Tests:
    """The tests of a crate that pass without a mutant, with the seconds that each takes, and the limits of a mutant."""

    seconds: dict[str, float]
    limits: Limits

    def groups(self, file: str) -> Iterator[list[str]]:
        """The tests in the order in which they run for a mutant of the file."""
        quick = {test for test, seconds in self.seconds.items() if seconds <= QUICK_S}
        own = {test for test in quick if test.startswith(module_of(file))}
        yield from (sorted(group) for group in (own, quick - own, self.seconds.keys() - quick) if group)


def passing_tests(crate: Crate, program: str) -> Tests:
    began, cpu_before = time.monotonic(), cpu_seconds()
    baseline = run_tests(crate, program, NO_MUTANT, [], Limits(MAX_BASELINE_S, MAX_BASELINE_S))
    seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu_before
    if baseline.outcome != "missed":
        sys.exit(f"the tests fail without a mutant: {baseline.detail or baseline.outcome}")
    passed = re.findall(r"^test (\S+) .*\.\.\. ok <([0-9.]+)s>", baseline.detail, re.MULTILINE)
    if not passed:
        sys.exit(f"no test has passed: {baseline.detail}")
    limits = Limits(max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * seconds), max(MIN_CPU_S, round(CPU_FACTOR * cpu)))
    return Tests({test: float(seconds) for test, seconds in passed}, limits)


def cpu_seconds() -> float:
    """The processor time of all processes that this one has run."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_mutants(crate: Crate, program: str, mutants: list[dict[str, Any]], results: dict[int, Result]) -> None:
    tests = passing_tests(crate, program)
    print(f"{len(mutants) - len(results)} mutants; {len(tests.seconds)} tests; a mutant may take {tests.limits}", flush=True)
    for number, mutant in enumerate(mutants):
        if number in results:
            continue
        result = Result("missed")
        for group in tests.groups(mutant["file"]):
            result = run_tests(crate, program, number, group, tests.limits)
            if result.outcome != "missed":
                break
        results[number] = Result("missed") if result.outcome == "missed" else result
        if result.outcome != "caught":
            print(f"{result.outcome}: {mutant['name']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("crate")
    for option in ("--sources", "--out"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--cargo-mutants", required=True)
    parser.add_argument("--file", action="append", default=[])
    arguments = parser.parse_args()
    crate = Crate(arguments.crate, arguments.sources, dict(os.environ))
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
