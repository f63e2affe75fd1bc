"""Broken links, long lines and records that differ from their index are found."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import documents

RECORD = """# 001: A title

**Status:** accepted, 2026-11-20; changed by [002](002-b.md) (in part) and
[003](003-c.md).

**One decision
in bold.**

## Context

## Decision

## Consequences
"""
ROW = (
    "| [001](001-a.md) | A title | accepted, 2026-11-20, changed by [002](002-b.md) and [003](003-c.md) "
    "| One decision in bold. |"
)


class Markdown(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        (self.root / "docs").mkdir()
        (self.root / "docs/other.md").write_text("# The `Other`: page\n\n## Twice\n\n## Twice\n\n```\n# not one\n```\n")

    def messages(self, text: str) -> list[str]:
        (self.root / "a.md").write_text(text)
        documents.anchors_of.cache_clear()
        return [finding.message for finding in documents.markdown_findings(self.root, "a.md", text)]

    def test_links_that_lead_somewhere_pass(self) -> None:
        other = "docs/other.md"
        for link in (other, f"{other}#the-other-page", f"{other}#twice-1", "docs", "https://x.y/z#a", "#own"):
            with self.subTest(link):
                self.assertEqual(self.messages(f"# Own\n\nSee [text `code`]({link})."), [])

    def test_broken_links_are_found(self) -> None:
        other = "docs/other.md"
        for link in ("docs/none.md", f"{other}#none", f"{other}#not-one", "#none", "../out.md", f"/{other}"):
            with self.subTest(link):
                self.assertEqual(len(self.messages(f"# Own\n\nSee [text]({link}).")), 1)
        self.assertEqual(len(self.messages("[![image](none.svg)](docs)")), 1)
        self.assertEqual(len(self.messages('<img src="none.svg">')), 1)
        self.assertEqual(len(self.messages("[name]: none.md")), 1)

    def test_code_is_not_searched(self) -> None:
        self.assertEqual(self.messages("`[a](none.md)`\n\n```\n[a](none.md)\n```\n\n~~~\n[a](none.md)\n~~~"), [])

    def test_long_lines_are_found(self) -> None:
        words = "word " * 24
        self.assertEqual(self.messages(words.strip()), [])
        self.assertEqual(len(self.messages(words + "longer")), 1)
        self.assertEqual(self.messages(f"| {words} | {words} |"), [])
        self.assertEqual(self.messages(f"```\n{words}{words}\n```"), [])
        self.assertEqual(self.messages(f"- [{words}](docs/other.md)"), [])
        self.assertEqual(len(self.messages(f"[{words}](docs/other.md) and more")), 1)

    def test_mentions_in_other_files_are_checked(self) -> None:
        def mentions(text: str) -> int:
            return len(list(documents.mention_findings(self.root, "a.rs", text)))

        self.assertEqual(mentions("// see docs/other.md#twice, and docs/other.md."), 0)
        self.assertEqual(mentions("// see docs/none.md"), 1)
        self.assertEqual(mentions("// see docs/other.md#none"), 1)


class Records(unittest.TestCase):
    def findings(self, record: str, index: str, name: str = "001-a.md") -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / documents.ADR_FOLDER).mkdir(parents=True)
            (root / documents.ADR_FOLDER / name).write_text(record)
            (root / documents.ADR_FOLDER / "README.md").write_text(index)
            return [finding.message for finding in documents.adr_findings(root)]

    def test_a_row_has_the_texts_of_its_record(self) -> None:
        self.assertEqual(documents.adr_row("001-a.md", RECORD), ROW)
        self.assertEqual(self.findings(RECORD, f"{ROW}\n"), [])

    def test_a_difference_is_found(self) -> None:
        self.assertEqual(len(self.findings(RECORD, ROW.replace("A title", "Another"))), 1)
        self.assertEqual(len(self.findings(RECORD, ROW.replace(" and [003](003-c.md)", ""))), 1)
        self.assertEqual(len(self.findings(RECORD, "")), 1)

    def test_a_record_has_its_form(self) -> None:
        for record in (
            RECORD.replace("001:", "1:"),
            RECORD.replace("**Status:**", "Status:"),
            RECORD.replace("accepted, 2026-11-20", "done"),
            RECORD.replace("in bold.**", "in bold."),
            RECORD.replace("## Consequences", "## Other"),
        ):
            with self.subTest(record):
                self.assertNotEqual(self.findings(record, f"{ROW}\n"), [])
        self.assertNotEqual(self.findings(RECORD, ROW.replace("001-a", "002-a"), "002-a.md"), [])


if __name__ == "__main__":
    unittest.main()
