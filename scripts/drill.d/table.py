"""docs/DRILLS.md: a table of all faults, whose rows the drill writes."""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass

from stack import ROOT

PAGE = ROOT / "docs/DRILLS.md"
# Longer outputs are cut.
EVIDENCE_CHARS = 90


@dataclass
class Row:
    """The result of a drill of one fault."""

    name: str
    title: str
    alert: str
    fired_s: int
    command: str
    evidence: str
    resolved_s: int
    others: list[str]

    def text(self) -> str:
        command = re.sub(r"\s+#.*", "", self.command.splitlines()[0]).strip()
        if "\n" in self.command:
            command += " …"
        evidence = re.sub(r"\s+", " ", re.sub(r"/\S*linnet-drill\.\w+", "RUN_DIR", self.evidence))
        if len(evidence) > EVIDENCE_CHARS:
            evidence = evidence[:EVIDENCE_CHARS] + "…"
        cells = [f"`{self.name}`: {self.title}", self.alert, f"{self.fired_s} s", f"{code(command)} → {code(evidence)}",
                 f"{self.resolved_s} s", ", ".join(self.others) or "none", today()]
        return "| " + " | ".join(cells) + " |"


def code(text: str) -> str:
    return "`` " + text.replace("|", "\\|") + " ``" if "`" in text else f"`{text.replace('|', chr(92) + '|')}`"


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def machine() -> str:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {gib:.0f} GB"


def write(row: Row) -> None:
    """Puts the row in the place of the fault's earlier one."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(f"| `{row.name}`:")), None)
    if start is None:
        raise ValueError(f"{PAGE} has no row of {row.name}")
    lines[start] = row.text()
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
