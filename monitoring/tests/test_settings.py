"""Settings that were found with the real servers. Each test states what happened with another value.

The servers have no packages here, so the tests read the files. A change of one of these values needs a new measurement.
"""

from __future__ import annotations

import json
import re
import unittest
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).resolve().parent.parent
COMPOSE = MONITORING.parent / "deploy/compose.yaml"


def document(path: str | Path) -> Any:
    return yaml.safe_load((MONITORING / path).read_text(encoding="utf-8"))


def mebibytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]+)(?:m|MiB)", text)
    assert found is not None, text
    return int(found.group(1))


class Loki(unittest.TestCase):
    def test_two_viewers_of_the_dashboards_fit_the_memory(self) -> None:
        """With batches of 50 chunks and 250,000 lines an hour, two viewers killed Loki; 192 MiB were not enough."""
        service = document(COMPOSE)["services"]["loki"]
        self.assertLessEqual(document("loki/loki.yaml")["storage_config"]["max_chunk_batch_size"], 5)
        self.assertGreaterEqual(mebibytes(service["mem_limit"]), 256)
        soft = mebibytes(service["environment"]["GOMEMLIMIT"])
        self.assertLessEqual(soft, 0.75 * mebibytes(service["mem_limit"]), "queries allocate outside the soft limit")

    def test_lines_that_waited_for_an_hour_are_accepted(self) -> None:
        """Lines older than half of max_chunk_age are refused: with 1h, 1,000 of 3,200 lines were lost after an outage."""
        age = document("loki/loki.yaml")["ingester"]["max_chunk_age"]
        output = document("fluent-bit/fluent-bit.yaml")["pipeline"]["outputs"][0]
        cap = document("fluent-bit/fluent-bit.yaml")["service"]["scheduler.cap"]
        self.assertTrue(age.endswith("h"), age)
        half_s = int(age.removesuffix("h")) * 3600 / 2
        # Retries wait between zero and `scheduler.cap`, half of it on average.
        self.assertGreater(half_s, output["retry_limit"] * cap / 2, "retries last longer than Loki accepts lines")


class FluentBit(unittest.TestCase):
    def test_a_backlog_is_written_without_checksums(self) -> None:
        """With checksums 60,000 lines of 12 tags took 90 s and blocked the sender for 86 s; without, 20 s."""
        self.assertIs(document("fluent-bit/fluent-bit.yaml")["service"]["storage.checksum"], False)

    def test_split_lines_are_joined_before_their_json_is_read(self) -> None:
        """Docker splits lines at 16 KiB: an error of 20 kB arrived as two `info` lines without ids."""
        first, *others = document("fluent-bit/fluent-bit.yaml")["pipeline"]["filters"]
        self.assertEqual((first["name"], first["mode"]), ("multiline", "partial_message"))
        self.assertEqual(first["multiline.key_content"], "log")
        self.assertEqual(first["emitter_storage.type"], "filesystem")
        self.assertNotIn("multiline", [other["name"] for other in others])


class Grafana(unittest.TestCase):
    def test_the_request_of_a_line_is_a_link_within_grafana(self) -> None:
        """A derived field with a data source opens an empty query of logs."""
        (file,) = (MONITORING / "grafana/provisioning/datasources").iterdir()
        sources = {source["uid"]: source for source in document(file)["datasources"]}
        fields = {field["name"]: field for field in sources["loki"]["jsonData"]["derivedFields"]}
        request = fields["Request"]
        self.assertNotIn("datasourceUid", request)
        self.assertEqual(request["url"], "/grafana/d/linnet-logs?var-request_id=$${__value.raw}")
        variables = json.loads((MONITORING / "grafana/dashboards/linnet-logs.json").read_text(encoding="utf-8"))
        self.assertIn("request_id", [variable["name"] for variable in variables["templating"]["list"]])

    def test_tables_have_no_option_that_grafana_12_3_removed(self) -> None:
        for path in sorted((MONITORING / "grafana/dashboards").glob("*.json")):
            dashboard = json.loads(path.read_text(encoding="utf-8"))
            self.assertGreaterEqual(dashboard["schemaVersion"], 42, path.name)
            for panel in dashboard["panels"]:
                for part in [panel, *panel.get("panels", [])]:
                    if part["type"] == "table":
                        self.assertNotIn("footer", part["options"], f"{path.name}: {part['title']}")


class Alertmanager(unittest.TestCase):
    def test_a_burning_error_budget_silences_no_ticket(self) -> None:
        """In a drill the budget of the API burned, and the ticket about the gateway's leak was silent."""
        rules = document("alertmanager/alertmanager.yml")["inhibit_rules"]
        rule = next(rule for rule in rules if rule.get("equal") == ["service"])
        self.assertEqual(rule["source_matchers"], ['severity = "page"', 'alertname !~ "ErrorBudgetBurn.+"'])


class Tempo(unittest.TestCase):
    def test_no_ring_listens_outside_the_container(self) -> None:
        """By default Tempo gossips on all interfaces and exits on a machine without a private address."""
        memberlist = document("tempo/tempo.yaml")["memberlist"]
        self.assertEqual(memberlist, {"bind_addr": ["127.0.0.1"], "advertise_addr": "127.0.0.1"})


class Prometheus(unittest.TestCase):
    def test_no_rule_of_a_scrape_keeps_a_metric_of_another_shipper(self) -> None:
        """`write_batch_retries_total` is Promtail's; Fluent Bit has names of its own."""
        text = (MONITORING / "prometheus/prometheus.yml").read_text(encoding="utf-8")
        self.assertNotRegex(text, r"write_batch|promtail")


if __name__ == "__main__":
    unittest.main()
