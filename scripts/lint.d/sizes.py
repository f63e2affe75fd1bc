#!/usr/bin/env python3
"""Checks the sizes of what is written by hand: crates, files, functions.

  sizes.py                fails for a crate, file or function over its limit

A crate's size is that of its `src`; its tests do not count. A longer function is allowed with a comment directly above
it that begins with `Long because` and gives the reason. Its lines are those from `fn` to the closing brace.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sources import EX_USAGE, ROOT, Finding, Lines, closing, report, rust_code, tracked_files

MAX_CRATE_LINES = 9_300
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

_FUNCTION = re.compile(r"(?<!\w)fn\s+([A-Za-z_]\w*)")
_REASON = re.compile(r"\s*(?://|#)\s*Long because \w")
# Other comments, attributes and decorators may be between the comment and the function.
_BETWEEN = re.compile(r"\s*(?://|#|@|\)|\]|[\w:]+\s*[=(,])")


def has_reason(lines: list[str], first: int) -> bool:
    """Whether the block directly above line `first` (from 0) gives the reason for a long function."""
    for line in reversed(lines[:first]):
        if _REASON.match(line):
            return True
        if not _BETWEEN.match(line):
            return False
    return False


def rust_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, first and last line (from 1) of each function with a body."""
    code, lines = rust_code(text), Lines(text)
    for match in _FUNCTION.finditer(code):
        if (body := _body(code, match.end())) is not None:
            yield match.group(1), lines.of(match.start()), lines.of(closing(code, body))


def _body(code: str, position: int) -> int | None:
    """The offset of the brace that opens the body; None for a declaration."""
    for match in re.compile(r"[;{(\[]").finditer(code, position):
        if match.start() < position:
            continue
        if match.group() == "{":
            return match.start()
        if match.group() == ";":
            return None
        position = closing(code, match.start())
    return None


def python_functions(text: str) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno or node.lineno


def file_findings(file: str, text: str) -> Iterator[Finding]:
    lines = text.splitlines()
    if len(lines) > MAX_FILE_LINES:
        yield Finding(file, 1, f"the file has {len(lines)} lines, over the limit of {MAX_FILE_LINES}")
    functions = rust_functions(text) if file.endswith(".rs") else python_functions(text) if file.endswith(".py") else ()
    for name, first, last in functions:
        length = last - first + 1
        if length > MAX_FUNCTION_LINES and not has_reason(lines, first - 1):
            limit = f"over the limit of {MAX_FUNCTION_LINES}, without a comment `Long because …` directly above it"
            yield Finding(file, first, f"`{name}` has {length} lines, {limit}")


def is_shell(text: str) -> bool:
    return re.match(r"#!.*[/ ](?:ba|da)?sh\b|# shellcheck shell=", text) is not None


def findings(root: Path = ROOT) -> tuple[list[Finding], int]:
    found: list[Finding] = []
    crates, files = Counter[str](), 0
    for file in tracked_files(root):
        if file.endswith((".rs", ".py", ".lua")) or "." not in Path(file).name or file.endswith(".sh"):
            try:
                text = (root / file).read_text()
            except UnicodeDecodeError:
                continue
            if not file.endswith((".rs", ".py", ".lua")) and not is_shell(text):
                continue
            files += 1
            found += file_findings(file, text)
            if match := re.match(r"crates/([^/]+)/src/", file):
                crates[match.group(1)] += len(text.splitlines())
    for name, lines in crates.items():
        if lines > MAX_CRATE_LINES:
            message = f"the crate has {lines} lines, over the limit of {MAX_CRATE_LINES}"
            found.append(Finding(f"crates/{name}/src", 1, message))
    if not crates:
        found.append(Finding("crates", 1, "no crates found"))
    return found, files


def main(arguments: list[str]) -> int:
    if arguments:
        print(__doc__, file=sys.stderr)
        return EX_USAGE
    found, files = findings()
    return report(found, f"{files} files within the limits of crates, files and functions")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
