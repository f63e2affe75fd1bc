"""Writes lines of the table of figures into a document: figures.py DOCUMENT LINES. A line replaces that of the same name."""

from __future__ import annotations

import re
import sys

BEGIN, END = "<!-- figures of scripts/test-deploy -->", "<!-- end of figures -->"


def name(line: str) -> str:
    # The machine's load at the time is a part of some names.
    return re.sub(r" \(load [^)]*\)", "", line.split("|")[1]).strip()


def main() -> None:
    document, lines = sys.argv[1:]
    with open(document, encoding="utf-8") as file:
        before, rest = file.read().split(BEGIN)
    table, after = rest.split(END)
    head, rows = table.strip().splitlines()[:2], table.strip().splitlines()[2:]
    found = {name(row): row for row in rows}
    with open(lines, encoding="utf-8") as file:
        found.update({name(row): row.rstrip("\n") for row in file if row.strip()})
    text = "\n".join([*head, *found.values()])
    with open(document, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


main()
