"""Measured figures and their bars."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Figure:
    """One line of the table. Without a bar `met` is true."""

    name: str
    value: float
    unit: str
    bar: str | None
    met: bool
    note: str = ""


class Figures:
    """All lines, in the order in which they were measured."""

    def __init__(self) -> None:
        self.all: list[Figure] = []

    def add(self, name: str, value: float, unit: str, *, at_least: float | None = None,
            at_most: float | None = None, exactly: float | None = None, note: str = "") -> None:
        bar, met = None, True
        if at_least is not None:
            bar, met = f">= {at_least:g}", value >= at_least
        elif at_most is not None:
            bar, met = f"<= {at_most:g}", value <= at_most
        elif exactly is not None:
            bar, met = f"= {exactly:g}", value == exactly
        figure = Figure(name, round(value, 4), unit, bar, met, note)
        self.all.append(figure)
        say(f"  {name}: {shown(figure.value)} {unit}" + (f" ({bar}: {'met' if met else 'NOT MET'})" if bar else ""))

    def fail(self, name: str, unit: str, bar: str, note: str) -> None:
        """Adds a figure that could not be measured and has therefore missed its bar."""
        self.all.append(Figure(name, 0.0, unit, bar, False, note))

    def all_met(self) -> bool:
        return bool(self.all) and all(figure.met for figure in self.all)

    def write(self, path: Path) -> None:
        rows = [{"name": f.name, "value": f.value, "unit": f.unit, "bar": f.bar, "met": f.met} for f in self.all]
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(rows, indent=1) + "\n")
        beside.replace(path)

    def table(self) -> str:
        rows = [("figure", "value", "unit", "bar", "met")]
        for f in self.all:
            met = "-" if f.bar is None else "yes" if f.met else "NO"
            rows.append((f.name, shown(f.value), f.unit, f.bar or "-", met))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        notes = ["", *(f.note for f in self.all)]
        lines = []
        for row, note in zip(rows, notes):
            cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1]), *(row[i].ljust(widths[i]) for i in (2, 3, 4))]
            lines.append("  ".join(cells) + (f"  {note}" if note else ""))
        lines.insert(1, "-" * (sum(widths) + 8))
        return "\n".join(line.rstrip() for line in lines)


def shown(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


def median(values: list[float]) -> float:
    return statistics.median(values)


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios: other load affects both sides of a round."""
    return statistics.median(a / b if b else 0.0 for a, b in zip(ours, theirs))


def say(text: str) -> None:
    print(text, flush=True)
