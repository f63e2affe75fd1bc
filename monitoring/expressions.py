"""Every expression that the monitoring has: of panels, recording rules and alert rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["panel", "record", "alert", "logs"]

# The only labels that a stream of logs may have: each combination of values is a stream that Loki keeps in memory.
LOG_LABELS = frozenset({"service", "level", "colour"})

# What Grafana puts in before it asks. The windows are wide, so that load of the last minutes is seen.
BUILT_IN = {
    "__rate_interval": "5m",
    "__interval": "1m",
    "__auto": "1m",
    "__range": "1h",
    "__range_s": "3600",
}


class Wrong(ValueError):
    """A file that does not say what it should."""


@dataclass(frozen=True)
class Expression:
    # `linnet-resolve/Answers by outcome`, or the name of a rule.
    where: str
    kind: Kind
    text: str

    @property
    def must_return(self) -> bool:
        """Whether it returns something while all is well. An alert does not: that is its job."""
        return self.kind in ("panel", "record")


def replaced(text: str, variables: dict[str, str]) -> str:
    """With the values of Grafana's variables, in any of their three notations."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name not in variables:
            raise Wrong(f"the variable ${name} is unknown")
        return variables[name]

    # `$1` belongs to label_replace.
    return re.sub(r"\$\{([a-zA-Z_]\w*)(?::\w+)?\}|\$([a-zA-Z_]\w*)", value, text)


def of_dashboards(folder: Path) -> Iterator[Expression]:
    for path in sorted(folder.glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        variables = dict(BUILT_IN)
        for variable in dashboard["templating"]["list"]:
            variables[variable["name"]] = ".*" if variable["type"] == "query" else ""
        for panel in panels_of(dashboard):
            for target in panel.get("targets", []):
                where = f"{dashboard['uid']}/{panel['title']}"
                logs = target["datasource"]["type"] == "loki"
                try:
                    text = replaced(target["expr"], variables)
                except Wrong as error:
                    raise Wrong(f"{where}: {error}") from None
                yield Expression(where, "logs" if logs else "panel", text)


def panels_of(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels, those within collapsed rows as well."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def of_rules(folder: Path) -> Iterator[Expression]:
    for path in sorted(folder.glob("*.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for group in document.get("groups") or []:
            for rule in group.get("rules") or []:
                if "record" in rule:
                    # Several rules may record one name; their labels tell them apart.
                    labels = ",".join(f"{key}={value}" for key, value in sorted((rule.get("labels") or {}).items()))
                    yield Expression(rule["record"] + (f"{{{labels}}}" if labels else ""), "record", str(rule["expr"]))
                elif "alert" in rule:
                    yield Expression(rule["alert"], "alert", str(rule["expr"]))
                else:
                    raise Wrong(f"{path.name}: a rule in {group.get('name')!r} neither records nor alerts")


STREAM = re.compile(r"\{([^{}]*)\}")
STRING = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`')
LABEL = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*""\s*(,|$)')


def wrong_with_logs(text: str) -> str:
    """What is wrong with an expression of LogQL, or nothing. Its shape only: there is no Loki here to ask."""
    # Strings may hold any sign, and none of them counts.
    bare = STRING.sub('""', text)
    for opening, closing in ("()", "[]", "{}"):
        if bare.count(opening) != bare.count(closing):
            return f"{opening!r} and {closing!r} do not match"
    streams = STREAM.findall(bare)
    if not streams:
        return "it selects no stream"
    for stream in streams:
        rest, labels = stream, set()
        while rest.strip():
            match = LABEL.match(rest)
            if match is None:
                return f"cannot read the labels at {rest!r}"
            labels.add(match.group(1))
            rest = rest[match.end() :]
        if not labels:
            return "it selects every stream, which Loki refuses"
        if labels - LOG_LABELS:
            return f"no stream has the label {', '.join(sorted(labels - LOG_LABELS))}; there are {', '.join(sorted(LOG_LABELS))}"
    return ""
