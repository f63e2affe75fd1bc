"""The commands of docs/runbooks: subcommands of scripts/oncall, and PromQL with metrics that rules or dashboards use."""

from __future__ import annotations

import re
import unittest
from collections.abc import Iterator
from pathlib import Path

from expressions import of_dashboards, of_rules
from promql import selectors

MONITORING = Path(__file__).resolve().parent.parent
RUNBOOKS = MONITORING.parent / "docs/runbooks"
ONCALL = MONITORING.parent / "scripts/oncall"
PARTS = ("**Meaning.**", "**Impact", "**Check", "**Fix", "**Verify")


def pages() -> Iterator[tuple[str, str]]:
    for path in sorted(RUNBOOKS.glob("*.md")):
        yield path.name, path.read_text(encoding="utf-8")


# An action that only containers have, and the forms that the same passage must have.
CONTAINERS = re.compile(r"\bdocker |\bmake up\b|deploy/(compose|linnet\.env|secrets)|containers:", re.IGNORECASE)
UNITS = re.compile(r"\b[Uu]nits?\b|systemctl|journalctl|/etc/linnet")
RUN = re.compile(r"make run|make monitor|\.run/")
# In the line below a heading: the alert exists only with containers.
CONTAINERS_ONLY = "Containers only"


def passages(text: str) -> Iterator[str]:
    """The passages of a page: a code block with the line before it, a table's row, or a paragraph."""
    for block in re.split(r"(?ms)((?:^[^\n|]+\n\n)?^ *```sh\n.*?^ *```$)", text):
        if "```sh" in block:
            yield block
        else:
            for paragraph in block.split("\n\n"):
                yield from paragraph.splitlines() if paragraph.lstrip().startswith("|") else [paragraph]


def without_other_forms(text: str) -> list[str]:
    """The passages of a page that have an action for containers and lack that for units or for `make run`."""
    found = []
    for section in re.split(r"(?m)^(?=## )", text):
        if CONTAINERS_ONLY in "".join(section.splitlines(keepends=True)[:3]):
            continue
        alone = [one for one in passages(section) if CONTAINERS.search(one) and not (UNITS.search(one) and RUN.search(one))]
        # Blocks for units may follow under a line of their own: "Containers:", "Units:".
        found += [one for one in alone if not (one.startswith("Containers:\n\n```") and "\nUnits:\n\n```" in section)]
    return found


def queries() -> Iterator[tuple[str, str]]:
    for name, text in pages():
        for expr in re.findall(r"scripts/oncall query '([^']+)'", text):
            if expr != "EXPRESSION":
                yield name, expr


class Runbooks(unittest.TestCase):
    def test_each_alert_has_all_parts_in_order(self) -> None:
        for name, text in pages():
            if name == "README.md":
                continue
            sections = re.split(r"(?m)^## (?=[A-Z]\w+$)", text)
            for section in sections[1:] or sections:
                with self.subTest(name, section=section.splitlines()[0]):
                    places = [section.find(part) for part in PARTS]
                    self.assertNotIn(-1, places)
                    self.assertEqual(places, sorted(places))

    def test_every_action_has_a_form_for_containers_units_and_make_run(self) -> None:
        for name, text in pages():
            with self.subTest(name):
                self.assertEqual(without_other_forms(text), [])

    def test_an_action_for_containers_alone_is_found(self) -> None:
        row = "| a cause | `docker restart NAME` |"
        block = "```sh\ndocker ps\nscripts/oncall status\n```"
        self.assertEqual(without_other_forms(f"## One\n\n{row}\n"), [row])
        self.assertEqual(len(without_other_forms(f"## One\n\n{block}\n")), 1)
        self.assertEqual(len(without_other_forms("## One\n\nContainers: `make up`; units: restart.\n")), 1)
        self.assertEqual(without_other_forms("| a | `make up`; units: `systemctl …`; `make run`: again |\n"), [])
        self.assertEqual(without_other_forms(f"## One\n\nTicket. Containers only: two.\n\n{row}\n"), [])

    def test_subcommands_of_oncall_exist(self) -> None:
        usage = ONCALL.read_text(encoding="utf-8").split("set -euo pipefail")[0]
        known = {word for words in re.findall(r"#   scripts/oncall ([a-z|]+)", usage) for word in words.split("|")}
        used = [(name, word) for name, text in pages() for word in re.findall(r"scripts/oncall ([a-z]+)", text)]
        self.assertTrue(used)
        for name, word in used:
            # "`scripts/oncall` works …" has a backtick before the next word.
            self.assertIn(word, known, name)

    def test_queries_are_valid_and_use_known_metrics(self) -> None:
        expressions = [*of_dashboards(MONITORING / "grafana/dashboards"), *of_rules(MONITORING / "prometheus/rules")]
        known = {selector.metric for e in expressions if e.kind != "logs" for selector in selectors(e.text)}
        # prometheus.yml keeps it for this use.
        known |= {"container_memory_rss"}
        known |= {e.where.partition("{")[0] for e in expressions if e.kind == "record"}
        found = list(queries())
        self.assertGreater(len(found), 50)
        for name, expr in found:
            with self.subTest(name, expr=expr):
                self.assertEqual([s.metric for s in selectors(expr) if s.metric not in known], [])


if __name__ == "__main__":
    unittest.main()
