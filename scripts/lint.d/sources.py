"""Finds and reads the repository's files for the checks of scripts/lint.

- Files are those that git knows or would add, so build output and downloads are never checked.
- `rust_tokens` separates comments and literals from code. It needs no compiler, so a check takes a second.
- A check prints its findings as `FILE:LINE: MESSAGE`, sorted, and fails if there is one.
"""

from __future__ import annotations

import bisect
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EX_USAGE = 64


@dataclass(frozen=True, order=True)
class Finding:
    """A place that breaks a rule. `file` is relative to the repository."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


def report(findings: Iterable[Finding], summary: str) -> int:
    """Prints the findings, or what was checked. Returns the exit code."""
    found = sorted(set(findings))
    for finding in found:
        print(finding)
    if found:
        print(f"{len(found)} findings in {len({finding.file for finding in found})} files", file=sys.stderr)
        return 1
    print(f"    {summary}", file=sys.stderr)
    return 0


def tracked_files(root: Path = ROOT) -> list[str]:
    """The repository's files, with those that git would add, relative to `root`. Links are left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted({name for name in names if name and (root / name).is_file() and not (root / name).is_symlink()})


class Lines:
    """Line numbers of offsets in a text."""

    def __init__(self, text: str) -> None:
        self._starts = [0] + [match.end() for match in re.finditer("\n", text)]

    def of(self, offset: int) -> int:
        return bisect.bisect_right(self._starts, offset)


@dataclass(frozen=True)
class Token:
    """A comment, string or character literal. `kind` is `comment`, `string` or `char`."""

    kind: str
    start: int
    end: int


_TOKEN = re.compile(
    r"""
      (?P<comment> //[^\n]* )
    | (?P<block> /\* )
    | (?P<raw> (?<!\w) (?:b|c)? r (?P<hashes>\#*) " .*? " (?P=hashes) )
    | (?P<string> (?<!\w) (?:b|c)? " (?: [^"\\] | \\. )* " )
    | (?P<char> (?<!\w) b? ' (?: [^'\\\n] | \\ [^u\n] [0-9a-fA-F]* | \\u\{ [0-9a-fA-F_]+ \} ) ' )
    """,
    re.VERBOSE | re.DOTALL,
)


def rust_tokens(text: str) -> Iterator[Token]:
    """Comments and literals of a Rust source, in their order."""
    position = 0
    while match := _TOKEN.search(text, position):
        kind, position = match.lastgroup or "", match.end()
        if kind == "block":
            position = _block_end(text, match.end())
            yield Token("comment", match.start(), position)
        else:
            yield Token("string" if kind == "raw" else kind, match.start(), position)


def _block_end(text: str, position: int) -> int:
    """The end of a block comment whose beginning ends at `position`. Block comments nest."""
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(text, position):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def rust_code(text: str) -> str:
    """The source with comments and literals blanked. Offsets and lines stay as they are."""
    parts, position = [], 0
    for token in rust_tokens(text):
        parts.append(text[position : token.start])
        parts.append(_blank(text[token.start : token.end]))
        position = token.end
    parts.append(text[position:])
    return "".join(parts)


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def closing(code: str, opening: int) -> int:
    """The offset of the bracket that closes the one at `opening`. `code` has no comments or literals."""
    pairs = {"{": "}", "(": ")", "[": "]"}
    depth = 0
    for match in re.compile("[" + re.escape(code[opening] + pairs[code[opening]]) + "]").finditer(code, opening):
        depth += 1 if match.group() == code[opening] else -1
        if depth == 0:
            return match.start()
    return len(code)
