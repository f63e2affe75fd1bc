"""check_alerts.py accepts a complete tree and reports each fault."""

from __future__ import annotations

import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import check_alerts  # noqa: E402  (a script next to this one, not a package)

RULES = """\
groups:
  - name: a
    rules:
      - {record: "job:up:sum", expr: "sum by (job) (up)"}
      - alert: GatewayDown
        expr: absent(up{job="gateway"} == 1)
        labels: {severity: page, service: gateway, depends_on: redis}
        annotations:
          summary: gone
          description: gone
          first_check: "scripts/oncall status {{ $labels.job }}"
          runbook_url: https://github.com/linnet-url/linnet/blob/main/docs/runbooks/gateway.md#gatewaydown
          dashboard: /grafana/d/linnet-gateway
"""
EXPECTED = "[{exp_labels: {severity: page}, exp_annotations: {summary: a, description: b, first_check: e, runbook_url: c, dashboard: d}}]"
TESTS = f"""\
tests:
  - alert_rule_test:
      - {{eval_time: 1m, alertname: GatewayDown, exp_alerts: {EXPECTED}}}
      - {{eval_time: 2m, alertname: GatewayDown, exp_alerts: []}}
  - alert_rule_test:
      - {{eval_time: 1m, alertname: GatewayDown, exp_alerts: []}}
"""
PROMETHEUS = """\
scrape_configs:
  - job_name: gateway
    dns_sd_configs: [{names: [gateway], type: A, port: 9081, refresh_interval: 5s}]
"""
FILES = {
    "monitoring/prometheus/prometheus.yml": PROMETHEUS,
    "monitoring/prometheus/rules/a.yml": RULES,
    "monitoring/prometheus/tests/a.yml": TESTS,
    "monitoring/alertmanager/alertmanager.yml": "- target_matchers: ['depends_on =~ \"(.*,)?redis(,.*)?\"']\n",
    "docs/runbooks/README.md": "[GatewayDown](gateway.md#gatewaydown)\n",
    "docs/runbooks/gateway.md": "# Gateway\n\n## GatewayDown\n\nscripts/oncall status SERVICE\n",
}


class Faults(unittest.TestCase):
    """The faults of a tree in which one file differs."""

    def faults(self, path: str = "", old: str = "", new: str = "") -> str:
        root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, root)
        for name, text in FILES.items():
            if name == path:
                self.assertIn(old, text)
                text = text.replace(old, new, 1)
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        config = root / "monitoring/prometheus/prometheus.yml"
        return "\n".join([*check_alerts.discovery_faults(config), *check_alerts.rule_faults(root)])

    def test_accepts_a_complete_tree(self) -> None:
        self.assertEqual(self.faults(), "")

    def test_reports_each_fault(self) -> None:
        rules, tests = "monitoring/prometheus/rules/a.yml", "monitoring/prometheus/tests/a.yml"
        book = "docs/runbooks/gateway.md"
        for path, old, new, expected in (
            (rules, "severity: page", "severity: urgent", "severity is 'urgent'"),
            (rules, "service: gateway, ", "", "the label `service` is missing"),
            (rules, "depends_on: redis", "depends_on: loki", "no inhibit rule"),
            (rules, "          summary: gone\n", "", "annotations are"),
            (rules, "linnet-gateway\n", "linnet-nothing\n", "unknown dashboard"),
            (rules, "blob/main/docs", "wiki", "runbook_url must begin"),
            (rules, "gateway.md#", "other.md#", "docs/runbooks/other.md does not exist"),
            (rules, 'job="gateway"', 'job="gatway"', "which is not scraped"),
            (rules, "job:up:sum", "up_sum", "does not have the form `level:metric:operation`"),
            (book, "oncall status", "oncall logs", "does not have the command of `first_check`"),
            (book, "## GatewayDown", "## Down", "no heading for #gatewaydown"),
            ("docs/runbooks/README.md", "GatewayDown", "Gateway", "README.md has no"),
            (tests, EXPECTED, "[]", "no test in which it fires"),
            (tests, "summary: a, ", "", "no test in which it fires"),
            (tests, "eval_time: 2m", "eval_time: 30s", "no test in which it resolves"),
            (tests, "  - alert_rule_test:\n      - {eval_time: 1m, alertname: GatewayDown, exp_alerts: []}\n", "", "stays silent"),
            (tests, "GatewayDown", "GatewayGone", "unknown alert 'GatewayGone'"),
            ("monitoring/prometheus/prometheus.yml", "dns_sd_configs: [{", "dns_sd_configs: [ {", "cannot replace this form of discovery"),
        ):
            with self.subTest(expected):
                self.assertIn(expected, self.faults(path, old, new))

    def test_parses_durations_like_prometheus_and_anchors_like_github(self) -> None:
        self.assertEqual(check_alerts.seconds("1d2h3m4s"), 93_784)
        self.assertEqual(check_alerts.anchors("# The gateway's `x` breaks\n"), {"the-gateways-x-breaks"})


if __name__ == "__main__":
    unittest.main()
