"""Reads the expressions of panels, recording rules and alert rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["panel", "record", "alert", "logs"]

# The labels of log streams. Loki keeps each combination of values in memory as a stream.
LOG_LABELS = frozenset({"service", "level", "color"})

# Values for Grafana's built-in variables. The windows are long enough to include the load of the last minutes.
BUILT_IN = {
    "__rate_interval": "5m",
    "__interval": "1m",
    "__auto": "1m",
    "__range": "1h",
    "__range_s": "3600",
}


class InvalidFile(ValueError):
    """A dashboard, a rule file or the list of exceptions is invalid."""


@dataclass(frozen=True)
class Expression:
    # `linnet-resolve/Responses by outcome`, or the name of a rule.
    where: str
    kind: Kind
    text: str

    @property
    def must_return(self) -> bool:
        """Whether it returns data in normal operation. Alerts do not."""
        return self.kind in ("panel", "record")


def interpolated(text: str, variables: dict[str, str]) -> str:
    """The text with the values of Grafana's variables, in any of their three notations."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name not in variables:
            raise InvalidFile(f"unknown variable ${name}")
        return variables[name]

    # `$1` is an argument of label_replace.
    return re.sub(r"\$\{([a-zA-Z_]\w*)(?::\w+)?\}|\$([a-zA-Z_]\w*)", value, text)


def of_dashboards(folder: Path) -> Iterator[Expression]:
    for path in sorted(folder.glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        variables = dict(BUILT_IN)
        for variable in dashboard["templating"]["list"]:
            variables[variable["name"]] = ".*" if variable["type"] == "query" else ""
        for mark in dashboard.get("annotations", {}).get("list", []):
            yield Expression(f"{dashboard['uid']}/{mark['name']}", "panel", interpolated(mark["target"]["expr"], variables))
        for panel in panels_of(dashboard):
            for target in panel.get("targets", []):
                where = f"{dashboard['uid']}/{panel['title']}"
                logs = target["datasource"]["type"] == "loki"
                try:
                    text = interpolated(target["expr"], variables)
                except InvalidFile as error:
                    raise InvalidFile(f"{where}: {error}") from None
                yield Expression(where, "logs" if logs else "panel", text)


def panels_of(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, including those in collapsed rows."""
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
                    # Several rules may record the same name with different labels.
                    labels = ",".join(f"{key}={value}" for key, value in sorted((rule.get("labels") or {}).items()))
                    yield Expression(rule["record"] + (f"{{{labels}}}" if labels else ""), "record", str(rule["expr"]))
                elif "alert" in rule:
                    yield Expression(rule["alert"], "alert", str(rule["expr"]))
                else:
                    raise InvalidFile(f"{path.name}: a rule in {group.get('name')!r} neither records nor alerts")


STREAM = re.compile(r"\{([^{}]*)\}")
STRING = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`')
LABEL = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*""\s*(,|$)')


def logql_problem(text: str) -> str:
    """The problem of a LogQL expression, or an empty string. It checks brackets and stream labels only."""
    # Brackets within strings do not count.
    bare = STRING.sub('""', text)
    for opening, closing in ("()", "[]", "{}"):
        if bare.count(opening) != bare.count(closing):
            return f"{opening!r} and {closing!r} are not balanced"
    streams = STREAM.findall(bare)
    if not streams:
        return "it selects no stream"
    for stream in streams:
        rest, labels = stream, set()
        while rest.strip():
            match = LABEL.match(rest)
            if match is None:
                return f"invalid labels at {rest!r}"
            labels.add(match.group(1))
            rest = rest[match.end() :]
        if not labels:
            return "it selects every stream, which Loki rejects"
        if labels - LOG_LABELS:
            return f"unknown stream label {', '.join(sorted(labels - LOG_LABELS))}; known are {', '.join(sorted(LOG_LABELS))}"
    return ""
