"""The parts of a dashboard and their conversion to Grafana's JSON.

- A panel declares what it shows, its unit, and what a bad value means.
- Positions are computed here: panels flow from left to right within their row, and the next row begins below.
- uids, ids and the order of keys are fixed, so the same source always yields the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .marks import MARKS
from .sources import VARIABLE_OF, Json, Source, datasource

Kind = Literal["timeseries", "stat", "bargauge", "table", "logs", "state-timeline"]

# The dashboard schema of Grafana 12.3. Newer versions of Grafana migrate it on load.
SCHEMA_VERSION = 42
COLUMNS = 24
RUNBOOKS = "https://github.com/linnet-url/linnet/blob/main/docs/runbooks"
TAG = "linnet"

HEIGHTS: dict[Kind, int] = {"timeseries": 8, "stat": 4, "bargauge": 8, "table": 8, "logs": 14, "state-timeline": 7}


@dataclass(frozen=True)
class Query:
    """One expression: PromQL or LogQL, depending on the panel's source."""

    expr: str
    legend: str = ""
    # Current value only: for stats and tables.
    instant: bool = False

    def to_json(self, ref: str, source: Source, table: bool) -> Json:
        query: Json = {
            "datasource": datasource(source),
            "editorMode": "code",
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "refId": ref,
        }
        if source == "loki":
            query["queryType"] = "instant" if self.instant else "range"
        else:
            query["instant"] = self.instant
            query["range"] = not self.instant
            query["format"] = "table" if table else "time_series"
        return query


@dataclass(frozen=True)
class Steps:
    """Colors by value: green below `warn`, orange from `warn`, red from `bad`. `falling`: low values are bad."""

    warn: float | None = None
    bad: float | None = None
    falling: bool = False

    def to_json(self) -> Json:
        steps: list[Json] = []
        if self.falling:
            steps.append({"color": "red" if self.bad is not None else "orange", "value": None})
            if self.bad is not None:
                steps.append({"color": "orange" if self.warn is not None else "green", "value": self.bad})
            if self.warn is not None:
                steps.append({"color": "green", "value": self.warn})
        else:
            steps.append({"color": "green", "value": None})
            if self.warn is not None:
                steps.append({"color": "orange", "value": self.warn})
            if self.bad is not None:
                steps.append({"color": "red", "value": self.bad})
        return {"mode": "absolute", "steps": steps}

    @property
    def any(self) -> bool:
        return self.warn is not None or self.bad is not None


@dataclass(frozen=True)
class Meaning:
    """A value and the word that the panel shows for it."""

    value: int
    text: str
    color: str


@dataclass(frozen=True)
class Column:
    """A column of a table: the query's field, its title and its unit. `url` turns its cells into links."""

    source: str
    title: str
    unit: str = "none"
    url: str = ""


@dataclass(frozen=True)
class Panel:
    title: str
    # The content of the panel, and the meaning of a bad value.
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    source: Source = "prometheus"
    width: int = 8
    height: int | None = None
    steps: Steps = field(default_factory=Steps)
    meanings: tuple[Meaning, ...] = ()
    columns: tuple[Column, ...] = ()
    least: float | None = None
    most: float | None = None
    decimals: int | None = None
    stacked: bool = False
    # Shown instead of "No data" where no data is normal.
    empty: str = ""
    # The uid of a dashboard with more details.
    more: str = ""
    # A file in docs/runbooks, without `.md`; `#part` may follow.
    runbook: str = ""

    @property
    def tall(self) -> int:
        return self.height if self.height is not None else HEIGHTS[self.kind]

    def to_json(self, number: int, x: int, y: int) -> Json:
        table = self.kind == "table"
        panel: Json = {
            "datasource": datasource(self.source),
            "description": self.description,
            "fieldConfig": {"defaults": self._defaults(), "overrides": self._overrides()},
            "gridPos": {"h": self.tall, "w": self.width, "x": x, "y": y},
            "id": number,
            "links": self._links(),
            "options": self._options(),
            "targets": [q.to_json(chr(ord("A") + i), self.source, table) for i, q in enumerate(self.queries)],
            "title": self.title,
            "type": self.kind,
        }
        if table:
            panel["transformations"] = self._transformations()
        return panel

    def _defaults(self) -> Json:
        defaults: Json = {"unit": self.unit, "thresholds": self.steps.to_json(), "mappings": []}
        if self.meanings:
            by_value = {
                str(m.value): {"text": m.text, "color": m.color, "index": i} for i, m in enumerate(self.meanings)
            }
            defaults["mappings"] = [{"type": "value", "options": by_value}]
        for key, value in (("min", self.least), ("max", self.most), ("decimals", self.decimals)):
            if value is not None:
                defaults[key] = value
        if self.empty:
            defaults["noValue"] = self.empty
        colored = self.steps.any or self.meanings or self.kind == "stat"
        defaults["color"] = {"mode": "thresholds" if colored and self.kind != "timeseries" else "palette-classic"}
        if self.kind == "timeseries":
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 25 if self.stacked else 8,
                "showPoints": "never",
                # Show a gap when scrapes are missing.
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "dashed" if self.steps.any else "off"},
            }
        elif self.kind == "state-timeline":
            defaults["custom"] = {"fillOpacity": 80, "lineWidth": 0}
        elif self.kind == "table":
            defaults["custom"] = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False}
        return defaults

    def _overrides(self) -> list[Json]:
        overrides: list[Json] = []
        for column in self.columns:
            properties: list[Json] = [{"id": "unit", "value": column.unit}]
            if column.url:
                link = {"title": column.title, "url": column.url, "targetBlank": False}
                properties.append({"id": "links", "value": [link]})
            overrides.append({"matcher": {"id": "byName", "options": column.title}, "properties": properties})
        return overrides

    def _options(self) -> Json:
        if self.kind == "timeseries":
            legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        if self.kind == "stat":
            return {
                "reduceOptions": reduce,
                "colorMode": "value",
                "graphMode": "none" if all(q.instant for q in self.queries) else "area",
                "justifyMode": "auto",
                "orientation": "auto",
                "textMode": "auto",
                "wideLayout": True,
            }
        if self.kind == "bargauge":
            return {
                "reduceOptions": reduce,
                "displayMode": "basic",
                "orientation": "horizontal",
                "showUnfilled": True,
                "valueMode": "color",
            }
        if self.kind == "table":
            return {"cellHeight": "sm", "showHeader": True}
        if self.kind == "logs":
            return {
                "dedupStrategy": "none",
                "enableLogDetails": True,
                "prettifyLogMessage": False,
                "showTime": True,
                "sortOrder": "Descending",
                "wrapLogMessage": True,
            }
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
        return {"mergeValues": True, "rowHeight": 0.8, "showValue": "never", "legend": legend}

    def _transformations(self) -> list[Json]:
        """One row for each set of labels, with only the declared columns in their order."""
        wanted = {column.source: i for i, column in enumerate(self.columns)}
        steps: list[Json] = []
        if len(self.queries) > 1:
            steps.append({"id": "merge", "options": {}})
        steps.append({"id": "filterFieldsByName", "options": {"include": {"names": list(wanted)}}})
        renamed = {column.source: column.title for column in self.columns}
        steps.append(
            {"id": "organize", "options": {"excludeByName": {}, "indexByName": wanted, "renameByName": renamed}}
        )
        return steps

    def _links(self) -> list[Json]:
        links: list[Json] = []
        if self.more:
            links.append({"title": f"Details: {self.more}", "url": dashboard_url(self.more), "targetBlank": False})
        if self.runbook:
            page, mark, part = self.runbook.partition("#")
            url = f"{RUNBOOKS}/{page}.md{mark}{part}"
            links.append({"title": f"Runbook: {page}", "url": url, "targetBlank": True})
        return links


def dashboard_url(uid: str) -> str:
    """A link that keeps the time range and the selected data source. Grafana prepends its own sub-path."""
    return f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}"


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Choice:
    """A dashboard variable: a selection of the values of Loki's `label`, or a text field without one."""

    name: str
    title: str
    label: str = ""
    everything: str = ".*"

    def to_json(self) -> Json:
        if not self.label:
            empty = {"text": "", "value": "", "selected": False}
            return {
                "name": self.name,
                "label": self.title,
                "type": "textbox",
                "query": "",
                "current": empty,
                "options": [],
                "hide": 0,
                "skipUrlSync": False,
            }
        return {
            "name": self.name,
            "label": self.title,
            "type": "query",
            "datasource": datasource("loki"),
            "query": {"label": self.label, "refId": "values", "stream": "", "type": 1},
            "current": {"text": ["All"], "value": ["$__all"], "selected": True},
            "includeAll": True,
            "allValue": self.everything,
            "multi": True,
            "options": [],
            "refresh": 2,
            "regex": "",
            "sort": 1,
            "hide": 0,
            "skipUrlSync": False,
        }


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...] = ()
    since: str = "now-3h"
    refresh: str = "30s"

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)

    def to_json(self) -> Json:
        return {
            "annotations": {"list": [mark.to_json() for mark in MARKS]},
            "description": self.description,
            "editable": False,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "links": self._links(),
            "panels": self._laid_out(),
            "refresh": self.refresh,
            "schemaVersion": SCHEMA_VERSION,
            "tags": [TAG],
            "templating": {"list": self._variables()},
            "time": {"from": self.since, "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "title": self.title,
            "uid": self.uid,
            "version": 1,
        }

    def _variables(self) -> list[Json]:
        sources: list[Source] = ["prometheus"]
        if self.choices or any(panel.source == "loki" for panel in self.panels):
            sources.append("loki")
        titles: dict[Source, str] = {"prometheus": "Prometheus", "loki": "Loki"}
        variables: list[Json] = [
            {
                "name": VARIABLE_OF[source],
                "label": titles[source],
                "type": "datasource",
                "query": source,
                "current": {"text": titles[source], "value": source, "selected": True},
                "includeAll": False,
                "multi": False,
                "options": [],
                "refresh": 1,
                "regex": "",
                "hide": 0,
                "skipUrlSync": False,
            }
            for source in sources
        ]
        return variables + [choice.to_json() for choice in self.choices]

    def _links(self) -> list[Json]:
        shared: Json = {"asDropdown": False, "icon": "external link", "tooltip": "", "targetBlank": False}
        others = {**shared, "type": "dashboards", "tags": [TAG], "title": "Linnet", "asDropdown": True}
        runbooks = {**shared, "type": "link", "tags": [], "title": "Runbooks", "url": f"{RUNBOOKS}/README.md"}
        links = [
            {**others, "includeVars": True, "keepTime": True},
            {**runbooks, "includeVars": False, "keepTime": False, "targetBlank": True, "icon": "doc"},
        ]
        if self.uid != "linnet-logs":
            logs = {**shared, "type": "link", "tags": [], "title": "Logs", "url": "/d/linnet-logs"}
            links.append({**logs, "includeVars": False, "keepTime": True, "icon": "bolt"})
        return links

    def _laid_out(self) -> list[Json]:
        laid_out: list[Json] = []
        y = 0
        for row in self.rows:
            number = len(laid_out) + 1
            place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
            laid_out.append(
                {"collapsed": False, "gridPos": place, "id": number, "panels": [], "title": row.title, "type": "row"}
            )
            x, y, lowest = 0, y + 1, y + 1
            for panel in row.panels:
                if x + panel.width > COLUMNS:
                    x, y = 0, lowest
                laid_out.append(panel.to_json(len(laid_out) + 1, x, y))
                x += panel.width
                lowest = max(lowest, y + panel.tall)
            y = lowest
        return laid_out
