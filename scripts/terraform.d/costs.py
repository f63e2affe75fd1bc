#!/usr/bin/env python3
"""Checks the arithmetic of the cost tables in deploy/terraform/README.md: each row, and each total."""

from __future__ import annotations

import re
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent.parent / "deploy/terraform/README.md"
_ROW = re.compile(r"^\| (?P<what>.+?) \| (?P<sum>[\d.× ]*) ?\| (?P<cost>[\d.*]+) \|$")


def product(text: str) -> Decimal:
    result = Decimal(1)
    for factor in text.split("×"):
        result *= Decimal(factor.strip())
    return result.quantize(Decimal("0.01"), ROUND_HALF_UP)


def faults(text: str) -> list[str]:
    """Rows whose product, and totals whose sum, is another one. No table is a fault too."""
    found: list[str] = []
    total, totals = Decimal(0), 0
    section = text.partition("<!-- costs -->")[2].partition("<!-- end of costs -->")[0]
    for line in section.splitlines():
        match = _ROW.match(line)
        if not match:
            if line.startswith("|") and "arithmetic" not in line and not line.startswith("|---"):
                found.append(f"this row has another form: {line}")
            continue
        cost = Decimal(match["cost"].strip("*"))
        if "**total**" in match["what"]:
            if cost != total:
                found.append(f"the total is {total}, not {cost}")
            total, totals = Decimal(0), totals + 1
            continue
        if product(match["sum"]) != cost:
            found.append(f"{match['what']}: {match['sum'].strip()} is {product(match['sum'])}, not {cost}")
        total += cost
    if totals < 2 or total:
        found.append("a table of costs has no total")
    return found


if __name__ == "__main__":
    problems = [f"{PAGE.name}: {fault}" for fault in faults(PAGE.read_text())]
    print("\n".join(problems), end="\n" if problems else "")
    sys.exit(1 if problems else 0)
