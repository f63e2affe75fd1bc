"""Each pattern of prose.toml finds its example, and sentences in the field's words pass."""

from __future__ import annotations

import unittest
from pathlib import Path

import prose

RULES = prose.read_rules((Path(prose.__file__).parent / "prose.toml").read_text())

# A sentence that each pattern finds. A new pattern needs one.
EXAMPLES = {
    "headless": "What came is written every 200 ms.",
    "whoever": "It is sent to whoever asks.",
    "nobody": "There is nobody to notify.",
    "told": "The gateway is told of it.",
    "hear": "Other processes hear of it.",
    "says": "The header says so.",
    "person": "The worker wants a lease.",
    "away": "Redis is away.",
    "back": "Redis is back.",
    "goes on": "It goes on without Redis.",
    "end": "The job has come to its end.",
    "makes up": "This makes up 3 %.",
    "time": "It runs when a key has had its time.",
    "stands": "The list stands in one place.",
    "lies": "The file lies there.",
    "under way": "A lookup is under way.",
    "as far as": "It is read as far as possible.",
    "as ever": "As ever, it fails.",
    "for good": "The key is gone for good.",
    "not yours": "Not yours to do",
    "welcome": "The next request is welcome in 3 s.",
    "became of": "The job, and what became of it",
    "runs here": "what runs here",
    "drawn": "A drawn code is 7 characters long.",
    "understatement": "That costs nothing.",
    "patience": "It returns after `patience`.",
    "look-up": "One look-up runs.",
    "news": "The news arrive.",
    "change feed": "the change feed",
    "Redis link": "a RedisLink",
    "breaker": "The breaker is shut.",
    "upkeep": "upkeep",
    "absent entry": "an absent entry",
    "old setting": "`cache.local_bytes`",
    "old metric": "linnet_cache_caught_up_total",
    "British": "It retries whilst it waits.",
}  # fmt: skip


def found(file: str, text: str) -> list[str]:
    return [rule.name for rule, _, _ in prose.matches(file, text, RULES)]


class Patterns(unittest.TestCase):
    def test_each_pattern_finds_its_example(self) -> None:
        self.assertEqual({rule.name for rule in RULES}, EXAMPLES.keys())
        for name, text in EXAMPLES.items():
            with self.subTest(name):
                self.assertIn(name, found("a.md", text))

    def test_plain_sentences_pass(self) -> None:
        for text in (
            "The publisher flushes every 200 ms. Redis is unreachable.",
            "## What an operator does",
            "**What it means.** The process has exited.",
            "What does the relay do? It publishes.",
            "| What | Where |\n|---|---|\n| a | b |",
            "`make up` starts the containers; `SIGTERM` goes to the process right away.",
            "There is no job 7, and there are none.",
        ):
            with self.subTest(text):
                self.assertEqual(found("a.md", text), [])

    def test_a_pattern_matches_across_a_line_break(self) -> None:
        self.assertEqual(found("a.md", "Redis is\naway."), ["away"])
        self.assertEqual(found("a.rs", "// Redis is\n// away."), ["away"])
        self.assertEqual(found("a.rs", '    "Redis is \\\n     away"'), ["away"])
        self.assertEqual(found("a.yml", "  # Redis is\n  # away."), ["away"])


class Rust(unittest.TestCase):
    def test_comments_strings_and_names_are_searched(self) -> None:
        self.assertEqual(found("a.rs", "/// Nobody waits.\nfn f() {}"), ["nobody"])
        self.assertEqual(found("a.rs", 'fail("nobody waits");'), ["nobody"])
        self.assertEqual(found("a.rs", "fn must_07_nobody_waits() {}"), ["nobody"])
        self.assertEqual(found("a.rs", "struct ToldNobody;"), ["nobody", "told"])

    def test_code_is_not_searched_except_for_old_names(self) -> None:
        self.assertEqual(found("a.rs", "let told = nobody(away);"), [])
        self.assertEqual(found("a.rs", "let x = change_feed();"), ["change feed"])

    def test_a_pattern_does_not_match_across_code(self) -> None:
        self.assertEqual(found("a.rs", 'f("Redis is", "away")'), [])


class AllowList(unittest.TestCase):
    def test_an_entry_covers_a_file_or_a_glob(self) -> None:
        one, glob = prose.read_allowed("# comment\n\na.md  told  a quotation\ndocs/*.md  *  a reason  of words\n")
        self.assertTrue(one.covers("a.md", "told"))
        self.assertFalse(one.covers("a.md", "away"))
        self.assertFalse(one.covers("b.md", "told"))
        self.assertTrue(glob.covers("docs/b.md", "away"))
        self.assertEqual(glob.reason, "a reason  of words")

    def test_an_entry_needs_a_reason(self) -> None:
        with self.assertRaises(SystemExit):
            prose.read_allowed("a.md  told\n")


if __name__ == "__main__":
    unittest.main()
