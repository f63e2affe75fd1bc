"""The generated dashboards: required fields, links, and compatibility with Grafana's published types."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

MONITORING = Path(__file__).resolve().parent.parent
GRAFANA = MONITORING / "grafana"
RUNBOOKS = MONITORING.parent / "docs/runbooks"
sys.path.insert(0, str(GRAFANA))
from generate import __main__ as generator  # noqa: E402
from generate.model import Panel, Query, Row  # noqa: E402
from generate.model import Dashboard as OurDashboard  # noqa: E402

# Bookmarks and alerts refer to these.
UIDS = {f"linnet-{name}" for name in "overview resolve clicks jobs gateway postgres redis nginx host releases logs".split()}
KINDS = {"timeseries", "stat", "bargauge", "table", "logs", "state-timeline"}


def dashboards() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((GRAFANA / "dashboards").glob("*.json")):
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for uid, dashboard in dashboards():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield f"{uid}/{panel['title']}", panel


class Tree(unittest.TestCase):
    def test_the_uids_are_unchanged(self) -> None:
        self.assertEqual({dashboard["uid"] for _, dashboard in dashboards()}, UIDS)
        for name, dashboard in dashboards():
            self.assertEqual(dashboard["uid"], name)

    def test_titles_are_unique(self) -> None:
        titles = [dashboard["title"] for _, dashboard in dashboards()]
        self.assertEqual(len(titles), len(set(titles)))
        # only-in-faults.yml identifies a panel by dashboard and title.
        places = [place for place, _ in panels()]
        self.assertEqual([place for place in places if places.count(place) > 1], [])

    def test_grafanas_types_preserve_every_key(self) -> None:
        register_default_plugins()
        for uid, dashboard in dashboards():
            again = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(dashboard)))
            self.assertEqual(list(lost(dashboard, again, uid)), [])


def lost(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Differences after a round trip through Grafana's types."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            if not isinstance(theirs, dict) or key not in theirs:
                yield f"{path}.{key}"
            else:
                yield from lost(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list):
        if not isinstance(theirs, list) or len(ours) != len(theirs):
            yield path
        else:
            for index, (one, other) in enumerate(zip(ours, theirs)):
                yield from lost(one, other, f"{path}[{index}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


class Panels(unittest.TestCase):
    def test_each_has_a_unit_a_description_and_a_known_kind(self) -> None:
        for place, panel in panels():
            with self.subTest(place):
                self.assertTrue(panel["fieldConfig"]["defaults"].get("unit"))
                self.assertGreater(len(panel["description"]), 30)
                self.assertTrue(panel["description"].endswith("."))
                self.assertIn(panel["type"], KINDS)
                self.assertTrue(panel["targets"])

    def test_each_queries_the_selected_source(self) -> None:
        for uid, dashboard in dashboards():
            variables = {variable["name"] for variable in dashboard["templating"]["list"]}
            self.assertIn("datasource", variables, uid)
            for panel in dashboard["panels"]:
                for target in panel.get("targets", []):
                    name = "loki" if target["datasource"]["type"] == "loki" else "datasource"
                    self.assertEqual(target["datasource"]["uid"], f"${{{name}}}", panel["title"])
                    self.assertIn(name, variables, uid)

    def test_tables_refer_to_columns_of_their_queries(self) -> None:
        for place, panel in panels():
            if panel["type"] != "table":
                continue
            with self.subTest(place):
                names = panel["transformations"][-2]["options"]["include"]["names"]
                several = len(panel["targets"]) > 1
                for name in names:
                    if name.startswith("Value"):
                        loki = panel["targets"][0]["datasource"]["type"] == "loki"
                        self.assertEqual("#" in name, several or loki)
                if several:
                    self.assertEqual(panel["transformations"][0]["id"], "merge")

    def test_panels_do_not_overlap_or_leave_the_grid(self) -> None:
        for uid, dashboard in dashboards():
            taken: set[tuple[int, int]] = set()
            for panel in dashboard["panels"]:
                place = panel["gridPos"]
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(cells & taken, f"{uid}/{panel['title']}")
                self.assertLessEqual(place["x"] + place["w"], 24, f"{uid}/{panel['title']}")
                taken |= cells
            numbers = [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(numbers), len(set(numbers)), uid)


class Links(unittest.TestCase):
    def test_dashboard_links_have_known_uids(self) -> None:
        for _, dashboard in dashboards():
            for uid in re.findall(r'"/d/([a-z-]+)', json.dumps(dashboard)):
                self.assertIn(uid, UIDS)

    def test_runbook_links_have_a_page_and_heading(self) -> None:
        pages = {
            (page, part)
            for _, dashboard in dashboards()
            for page, part in re.findall(r'/docs/runbooks/([^"#]+)#?([^"]*)"', json.dumps(dashboard))
        }
        self.assertTrue(pages)
        if not RUNBOOKS.is_dir():
            self.skipTest("no runbooks")
        for page, part in sorted(pages):
            with self.subTest(page, part=part):
                text = (RUNBOOKS / page).read_text(encoding="utf-8")
                headings = {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"(?m)^#+ (.*)$", text)}
                self.assertIn(part, headings | {""})

    def test_sources_are_provisioned(self) -> None:
        document = yaml.safe_load((GRAFANA / "provisioning/datasources/datasources.yaml").read_text(encoding="utf-8"))
        sources = {source["uid"]: source["type"] for source in document["datasources"]}
        self.assertEqual({uid: uid for uid in sources}, sources)
        for source in document["datasources"]:
            for field in source["jsonData"].get("derivedFields", []):
                self.assertTrue(field.get("datasourceUid") in sources or field["url"].startswith("/grafana/d/"))
        for uid, dashboard in dashboards():
            for variable in dashboard["templating"]["list"]:
                if variable["type"] == "datasource":
                    self.assertEqual(sources[variable["current"]["value"]], variable["query"], uid)

    def test_derived_fields_match_the_ids_of_a_line(self) -> None:
        document = yaml.safe_load((GRAFANA / "provisioning/datasources/datasources.yaml").read_text(encoding="utf-8"))
        fields = {f["name"]: f["matcherRegex"] for s in document["datasources"] for f in s["jsonData"].get("derivedFields", [])}
        line = '{"level":"INFO","request_id":"7402fd569eb439797c9c80edf0a5707d","trace_id":"d226542bb49b02678ccc19b53178d5ee"}'
        for name, wanted in (("Request", "7402fd569eb439797c9c80edf0a5707d"), ("Trace", "d226542bb49b02678ccc19b53178d5ee")):
            match = re.search(fields[name], line)
            assert match is not None
            self.assertEqual(match.group(1), wanted)


class Generator(unittest.TestCase):
    def check(self, folder: Path, *options: str) -> tuple[int, str]:
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            status = generator.main([*options, str(folder)])
        return status, errors.getvalue()

    def test_generated_files_are_up_to_date(self) -> None:
        self.assertEqual(generator.differences(GRAFANA / "dashboards"), [])

    def test_check_reports_changed_added_and_removed_files(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.assertEqual(self.check(folder)[0], 0)
            self.assertEqual(self.check(folder, "--check")[0], 0)
            (folder / "linnet-redis.json").unlink()
            (folder / "other.json").write_text("{}")
            file = folder / "linnet-jobs.json"
            file.write_text(file.read_text().replace("Dead letters", "Dead letter"))
            status, errors = self.check(folder, "--check")
            self.assertEqual(status, 1)
            for sentence in ("linnet-redis.json is missing", "linnet-jobs.json differs", "other.json belongs to no dashboard"):
                self.assertIn(sentence, errors)
            # Writing corrects all three.
            self.assertEqual(self.check(folder)[0], 0)
            self.assertEqual(self.check(folder, "--check")[0], 0)

    def test_rows_begin_below_the_tallest_panel(self) -> None:
        def panel(title: str, width: int, height: int) -> Panel:
            return Panel(title, "x", "none", (Query("up"),), width=width, height=height)

        rows = (Row("one", (panel("a", 12, 4), panel("b", 12, 8), panel("c", 6, 2))), Row("two", (panel("d", 24, 3),)))
        laid_out = OurDashboard("uid", "title", "description", rows).to_json()["panels"]
        places = {p["title"]: (p["gridPos"]["x"], p["gridPos"]["y"]) for p in laid_out}
        self.assertEqual(places, {"one": (0, 0), "a": (0, 1), "b": (12, 1), "c": (0, 9), "two": (0, 11), "d": (0, 12)})


if __name__ == "__main__":
    unittest.main()
