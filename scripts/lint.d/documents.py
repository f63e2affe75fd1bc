#!/usr/bin/env python3
"""Checks Markdown: links, line length, and the index of decision records.

  documents.py               fails for a broken link or anchor, a long line, an ADR that differs from its index row
  documents.py --adr-index   prints the rows of docs/adr/README.md, from the records

- Relative links lead to files of the repository, and their anchors to headings. In other files, every mention of a
  Markdown file below docs/ is checked: `docs/ARCHITECTURE.md#outbox`.
- Prose has at most 120 characters a line. Tables, code, and lines that are a single link or a single code span may be
  longer.
- Each `docs/adr/NNN-….md` begins with number, title, status and decision, has its three sections, and has one row in
  the index with the same texts.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sources import EX_USAGE, ROOT, Finding, report, tracked_files

MAX_LINE = 120
ADR_FOLDER = "docs/adr"
ADR_SECTIONS = ("Context", "Decision", "Consequences")

_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_LINK = re.compile(r"\]\(\s*<?([^()\s>]+(?:\([^()\s]*\))?)>?(?:\s+\"[^\"]*\")?\s*\)")
_HTML_LINK = re.compile(r"""<(?:a|img|source)\b[^>]*\b(?:href|src|srcset)=["']([^"'\s]+)""")
_REFERENCE = re.compile(r"^\s{0,3}\[[^\]]+\]:\s+<?(\S+?)>?(?:\s|$)")
_HTML_ANCHOR = re.compile(r"""\b(?:id|name)=["']([^"']+)["']""")
_MENTION = re.compile(r"(?<![\w/.-])(docs/[\w./-]+\.md)(#[\w-]+)?")
_UNBREAKABLE = re.compile(
    r"""
    \s* (?: [-*]\s+ | \d+\.\s+ )? (?:\*\*)?
    (?: !?\[[^\]]*\]\([^)]*\) | <[^>]+> | `[^`]+` | https?://\S+ )
    [.,:;)*|]* \s*
    """,
    re.VERBOSE,
)


def without_code(text: str) -> list[str]:
    """The lines; those of fenced code are empty, front and end of the fence included."""
    lines, fence = [], ""
    for line in text.splitlines():
        match = _FENCE.match(line)
        if fence:
            lines.append("")
            if match and match.group(1).startswith(fence):
                fence = ""
        elif match:
            fence = match.group(1)
            lines.append("")
        else:
            lines.append(line)
    return lines


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", text).strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    found, counts = set(), Counter[str]()
    for line in without_code(text):
        if match := re.match(r"#{1,6}\s+(.*?)\s*#*$", line):
            name = anchor(match.group(1))
            found.add(f"{name}-{counts[name]}" if counts[name] else name)
            counts[name] += 1
        found.update(_HTML_ANCHOR.findall(line))
    return found


@functools.cache
def anchors_of(path: Path) -> frozenset[str]:
    return frozenset(anchors(path.read_text()))


def links(line: str) -> list[str]:
    line = re.sub(r"`[^`]*`", "``", line)
    return [*_LINK.findall(line), *_HTML_LINK.findall(line), *_REFERENCE.findall(line)]


def link_problem(root: Path, file: str, link: str) -> str | None:
    """A sentence about a relative link that leads nowhere."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", link):
        return None
    path, _, wanted = link.partition("#")
    target = os.path.normpath(os.path.join(os.path.dirname(file), path)) if path else file
    if target.startswith("..") or link.startswith("/"):
        return f"`{link}` leads out of the repository"
    if not (root / target).exists():
        return f"`{link}`: there is no {target}"
    if wanted and target.endswith(".md") and wanted not in anchors_of(root / target):
        return f"`{link}`: {target} has no heading with this anchor"
    return None


def markdown_findings(root: Path, file: str, text: str) -> Iterator[Finding]:
    for number, line in enumerate(without_code(text), 1):
        for link in links(line):
            if problem := link_problem(root, file, link):
                yield Finding(file, number, problem)
        is_long = len(line) > MAX_LINE and not line.lstrip(" >").startswith("|")
        if is_long and not _UNBREAKABLE.fullmatch(line):
            yield Finding(file, number, f"the line has {len(line)} characters, over the limit of {MAX_LINE}")


def mention_findings(root: Path, file: str, text: str) -> Iterator[Finding]:
    """Broken mentions of Markdown files in sources and configuration."""
    if "docs/" not in text:
        return
    for number, line in enumerate(text.splitlines(), 1):
        for path, wanted in _MENTION.findall(line):
            if problem := link_problem(root, "README.md", path + wanted):
                yield Finding(file, number, problem)


class BadRecord(Exception):
    """A decision record without its form."""


def adr_row(name: str, text: str) -> str:
    """The row of a record in the index."""
    head = re.match(r"# (\d{3}): (.+)\n\n\*\*Status:\*\* ((?:.+\n)+)\n\*\*((?:.+\n)+)\n", text)
    if head is None:
        raise BadRecord("does not begin with `# NNN: Title`, `**Status:** …` and the decision as one bold sentence")
    number, title = head.group(1), head.group(2).strip()
    status, decision = (" ".join(head.group(group).split()) for group in (3, 4))
    if not decision.endswith("**") or "**" in decision[:-2]:
        raise BadRecord("the paragraph below the status is not one bold sentence")
    if not name.startswith(f"{number}-"):
        raise BadRecord(f"the file's name does not begin with the record's number {number}")
    if missing := [section for section in ADR_SECTIONS if f"\n## {section}\n" not in text]:
        raise BadRecord(f"lacks the sections {', '.join(missing)}")
    return f"| [{number}]({name}) | {title} | {adr_status(status)} | {decision[:-2]} |"


_STATUS = re.compile(r"(?P<state>accepted|proposed|rejected|superseded), (?P<date>\d{4}-\d\d-\d\d)\b(?P<rest>.*)")
_RELATION = re.compile(r"\b((?:superseded(?: in part)?|changed|refined) by|supersedes(?: in part)?) ([^.;]*)")
_RECORD = re.compile(r"\[\d{3}\]\([^)]*\)")


def adr_status(status: str) -> str:
    """State, date and relations, without the remarks of the record."""
    match = _STATUS.match(status)
    if match is None:
        raise BadRecord("the status is not `accepted, YYYY-MM-DD`")
    parts = [f"{match['state']}, {match['date']}"]
    # A link's address has full stops, which end no sentence.
    rest = re.sub(r"\.(?=\S)", "\0", match["rest"])
    for relation in _RELATION.finditer(rest):
        records = [record.replace("\0", ".") for record in _RECORD.findall(relation.group(2))]
        parts.append(f"{relation.group(1)} {' and '.join(records)}")
    return ", ".join(parts)


def adr_rows(root: Path) -> tuple[dict[str, str], list[Finding]]:
    rows, findings, numbers = {}, [], Counter[str]()
    for path in sorted((root / ADR_FOLDER).glob("*.md")):
        if path.name == "README.md":
            continue
        numbers[path.name[:3]] += 1
        try:
            rows[path.name] = adr_row(path.name, path.read_text())
        except BadRecord as problem:
            findings.append(Finding(f"{ADR_FOLDER}/{path.name}", 1, str(problem)))
        if numbers[path.name[:3]] > 1:
            findings.append(Finding(f"{ADR_FOLDER}/{path.name}", 1, "another record has the same number"))
    return rows, findings


def adr_findings(root: Path) -> list[Finding]:
    rows, findings = adr_rows(root)
    index = f"{ADR_FOLDER}/README.md"
    written = {}
    for number, line in enumerate((root / index).read_text().splitlines(), 1):
        if match := re.match(r"\| \[\d{3}\]\(([^)]+)\) \|", line):
            written[match.group(1)] = (number, line)
            if match.group(1) in rows and line != rows[match.group(1)]:
                findings.append(Finding(index, number, f"the record has: {rows[match.group(1)]}"))
    if not rows:
        findings.append(Finding(index, 1, "no records found"))
    findings += [Finding(index, 1, f"{name} has no row: {row}") for name, row in rows.items() if name not in written]
    if list(written) != sorted(written):
        findings.append(Finding(index, 1, "the rows are not in the order of their numbers"))
    return findings


def findings(root: Path = ROOT) -> tuple[list[Finding], int]:
    found, documents = adr_findings(root), 0
    for file in tracked_files(root):
        try:
            text = (root / file).read_text()
        except UnicodeDecodeError:
            continue
        if file.endswith(".md"):
            documents += 1
            found += markdown_findings(root, file, text)
        elif not Path(file).name.startswith("test_"):  # Tests of checks mention files that do not exist.
            found += mention_findings(root, file, text)
    return found, documents


def main(arguments: list[str]) -> int:
    if arguments == ["--adr-index"]:
        print("\n".join(adr_rows(ROOT)[0].values()))
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return EX_USAGE
    found, documents = findings()
    return report(found, f"{documents} documents: links, anchors, lines, index of decisions")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
