#!/usr/bin/env python3
"""Searches documents, comments, messages and names for the patterns of prose.toml.

  prose.py                fails for each match that prose.allow does not list, and for each unused entry of it
  prose.py --counts       prints the number of findings for each file instead

- Markdown, scripts, YAML, TOML, SQL, HTML, Lua and nginx's files are searched as a whole.
- In Rust, comments, string literals and the names of declared items are searched. A name is read as words:
  `must_07_a_change_is_seen` as "must 07 a change is seen".
- A line of prose.allow is `FILE  PATTERN  REASON`, separated by two blanks or more. FILE may be a glob (`docs/*.md`),
  and PATTERN is the pattern's name or `*`.
"""

from __future__ import annotations

import fnmatch
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sources import EX_USAGE, ROOT, Finding, Lines, report, rust_code, rust_tokens, tracked_files

HERE = Path(__file__).resolve().parent
ALLOW = "scripts/lint.d/prose.allow"

# Files whose text is prose, code with comments, or both. Generated files and locks are not among them.
SUFFIXES = {
    ".conf", ".css", ".html", ".lua", ".md", ".py", ".rs", ".sh", ".sql", ".svg", ".template", ".toml", ".yaml", ".yml",
}  # fmt: skip
WITHOUT_SUFFIX = re.compile(r"(^|/)(Makefile|Dockerfile|[\w.-]*ignore)$|^scripts/|^\.ci/")

# Between two words: blanks, or a line break with the mark that begins a line of a comment or quotation.
GAP = r"(?:[ \t]+|[ \t]*\\?\n[ \t]*(?:(?://[/!]?|#+|--|>|\*)[ \t]*)?)"
# The marks of comments, lists, cells and emphasis that may precede the first word of a line.
_LINE_START = re.compile(r"[\s/#!>*_|+\x00(-]*(?:\d+\.\s+)?[*_`]*\Z")
_SENTENCE_START = re.compile(r"(?:[.!?:;][)*_]*\s+|[\"'|(]\s*)[*_]*\Z")
_NAME = re.compile(r"(?<!\w)(?:fn|struct|enum|trait|union|type|mod|const|static)\s+(?:mut\s+)?([A-Za-z_]\w*)")
# Characters of code, which no pattern may match.
HIDDEN = "\x00"


@dataclass(frozen=True)
class Rule:
    name: str
    expression: re.Pattern[str]
    starts_sentence: bool
    anywhere: bool
    instead: str


@dataclass(frozen=True)
class Allowed:
    file: str
    rule: str
    reason: str
    line: int

    def covers(self, file: str, rule: str) -> bool:
        return fnmatch.fnmatchcase(file, self.file) and self.rule in (rule, "*")


def read_rules(text: str) -> list[Rule]:
    return [_rule(entry) for entry in tomllib.loads(text)["deny"]]


def _rule(entry: dict[str, str | list[str] | bool]) -> Rule:
    starts = entry.get("starts")
    if isinstance(starts, list):
        words = "|".join(re.escape(word).replace(r"\ ", GAP) for word in starts)
        expression = re.compile(rf"(?<![\w'’-])({words})\b")
    else:
        pattern = str(entry["pattern"]).replace("\n", "")
        expression = re.compile(_with_gaps(pattern), re.IGNORECASE)
    return Rule(str(entry["name"]), expression, starts is not None, bool(entry.get("anywhere")), str(entry["instead"]))


def _with_gaps(pattern: str) -> str:
    """Lets each blank match a line break. A blank within a character class stays one."""
    parts = re.split(r"(\[(?:[^\]\\]|\\.)*\])", pattern)
    return "".join(part if index % 2 else part.replace(" ", GAP) for index, part in enumerate(parts))


def read_allowed(text: str) -> list[Allowed]:
    allowed = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = re.split(r"\s{2,}", line.strip(), maxsplit=2)
        if len(parts) != 3:
            raise SystemExit(f"error: {ALLOW}:{number}: not `FILE  PATTERN  REASON`")
        file, rule, reason = parts
        allowed.append(Allowed(file, rule, reason, number))
    return allowed


def is_prose(file: str) -> bool:
    return Path(file).suffix in SUFFIXES or WITHOUT_SUFFIX.search(file) is not None


def rust_prose(text: str) -> str:
    """The source with its code hidden. Comments, string literals and line breaks stay where they are."""
    hidden = re.compile(r"[^\n\s]")
    parts, position = [], 0
    for token in rust_tokens(text):
        parts.append(hidden.sub(HIDDEN, text[position : token.start]))
        literal = text[token.start : token.end]
        parts.append(hidden.sub(HIDDEN, literal) if token.kind == "char" else literal)
        position = token.end
    parts.append(hidden.sub(HIDDEN, text[position:]))
    return "".join(parts)


def rust_names(text: str) -> Iterator[tuple[int, str]]:
    """Offset and words of the name of each declared item."""
    for match in _NAME.finditer(rust_code(text)):
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_+", " ", match.group(1))
        yield match.start(1), words.lower()


def matches(file: str, text: str, rules: list[Rule]) -> Iterator[tuple[Rule, int, str]]:
    """Rule, offset and matched text of each match."""
    is_rust = file.endswith(".rs")
    prose = rust_prose(text) if is_rust else text
    for rule in rules:
        searched = text if rule.anywhere else prose
        for match in rule.expression.finditer(searched):
            if rule.starts_sentence:
                if _begins_statement(file, searched, match):
                    yield rule, match.start(), searched[match.start() : match.end() + 24].partition(HIDDEN)[0] + "…"
            else:
                yield rule, match.start(), match.group()
    if is_rust:
        for offset, words in rust_names(text):
            for rule in rules:
                if not rule.starts_sentence and not rule.anywhere and (name := rule.expression.search(words)):
                    yield rule, offset, name.group()


_TABLE_HEAD = re.compile(r"\|[^\n]*\n\|\s*:?---")
# `**What it means.**`, before the text that it names.
_RUN_IN_TITLE = re.compile(r"[^*\n]{1,40}\*\*")
_SENTENCE_END = re.compile(r"[.!?](?=[\s\"'|*)]|$)|\n[ \t]*\n|[\"|\x00]|\Z")


def _begins_statement(file: str, text: str, match: re.Match[str]) -> bool:
    """Whether the match begins a sentence that is neither a question nor a title of a document."""
    line_start = text.rfind("\n", 0, match.start()) + 1
    before = text[line_start : match.start()]
    if file.endswith(".md") and (before.startswith("#") or _TABLE_HEAD.match(text, line_start)):
        return False
    if not _LINE_START.match(before) and not _SENTENCE_START.search(before):
        return False
    if _RUN_IN_TITLE.match(text, match.start()) and before.endswith("**"):
        return False
    end = _SENTENCE_END.search(text, match.end())
    return end is None or end.group() != "?"


def _one_line(matched: str) -> str:
    return re.sub(rf"[\s{HIDDEN}]+(?:(?://[/!]?|#+|--|>)\s+)?", " ", matched).strip()


def findings(root: Path = ROOT) -> tuple[list[Finding], int]:
    rules = read_rules((HERE / "prose.toml").read_text())
    allowed = read_allowed((root / ALLOW).read_text()) if (root / ALLOW).is_file() else []
    found, used, files = [], set[Allowed](), 0
    for file in tracked_files(root):
        if not is_prose(file):
            continue
        try:
            text = (root / file).read_text()
        except UnicodeDecodeError:
            continue
        files += 1
        lines = Lines(text)
        for rule, offset, matched in matches(file, text, rules):
            excuses = [entry for entry in allowed if entry.covers(file, rule.name)]
            used.update(excuses)
            if not excuses:
                message = f"`{_one_line(matched)}` ({rule.name}); write: {rule.instead}"
                found.append(Finding(file, lines.of(offset), message))
    names = {rule.name for rule in rules} | {"*"}
    for entry in allowed:
        if entry.rule not in names:
            found.append(Finding(ALLOW, entry.line, f"there is no pattern `{entry.rule}`"))
        elif entry not in used:
            found.append(Finding(ALLOW, entry.line, f"`{entry.rule}` does not match in {entry.file}: remove the entry"))
    return found, files


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--counts"]):
        print(__doc__, file=sys.stderr)
        return EX_USAGE
    found, files = findings()
    if arguments:
        counts = Counter(finding.file for finding in found)
        for file, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
            print(f"{count:5}  {file}")
        return 1 if found else 0
    return report(found, f"{files} files")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
