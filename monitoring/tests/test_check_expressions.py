"""check_expressions.py against a simulated Prometheus: problems, exceptions, exceptions that are not needed."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import threading
import unittest
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import check_expressions as check
from exceptions import read
from expressions import InvalidFile, interpolated, logql_problem

# Responses of the simulated Prometheus: the values of an expression, or an error message.
Answers = dict[str, list[str] | str]


@contextlib.contextmanager
def prometheus(answers: Answers) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = answers.get(urllib.parse.parse_qs(body)["query"][0], [])
            if isinstance(answer, str):
                self.send(400, {"status": "error", "error": answer})
            else:
                result = [{"metric": {}, "value": [0, value]} for value in answer]
                self.send(200, {"status": "success", "data": {"resultType": "vector", "result": result}})

        def send(self, status: int, document: dict[str, Any]) -> None:
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Checks(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "dashboards").mkdir()
        (self.folder / "rules").mkdir()
        self.exceptions("{}")

    def exceptions(self, text: str) -> None:
        (self.folder / "exceptions.yml").write_text(text)

    def panel(self, expr: str, source: str = "prometheus") -> None:
        target = {"datasource": {"type": source}, "expr": expr}
        variables = [{"name": "datasource", "type": "datasource"}, {"name": "service", "type": "query"}]
        row = {"type": "row", "panels": [{"type": "timeseries", "title": "panel", "targets": [target]}]}
        dashboard = {"uid": "uid", "panels": [row], "templating": {"list": variables}}
        (self.folder / "dashboards/uid.json").write_text(json.dumps(dashboard))

    def rules(self, *rules: dict[str, Any]) -> None:
        # JSON is YAML.
        (self.folder / "rules/rules.yml").write_text(json.dumps({"groups": [{"name": "group", "rules": list(rules)}]}))

    def run_check(self, *options: str) -> tuple[int, str]:
        folders = [
            *("--dashboards", str(self.folder / "dashboards")),
            *("--rules", str(self.folder / "rules")),
            *("--exceptions", str(self.folder / "exceptions.yml")),
        ]
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            status = check.main([*folders, *options])
        return status, errors.getvalue()

    def against(self, answers: Answers, *options: str) -> tuple[int, str]:
        with prometheus(answers) as address:
            return self.run_check("--prometheus", address, *options)

    def test_accepts_expressions_with_data(self) -> None:
        self.panel("sum(rate(a[$__rate_interval]))")
        self.rules({"record": "b:c", "expr": "sum(a)"}, {"alert": "D", "expr": "a > 5"})
        status, errors = self.against({"sum(rate(a[5m]))": ["1"], "sum(a)": ["1"], "a": ["1"]})
        self.assertEqual((status, "3 expressions, 0 problems" in errors), (0, True), errors)

    def test_reports_an_expression_that_prometheus_rejects(self) -> None:
        self.panel("sum(")
        status, errors = self.against({"sum(": "parse error: unexpected end"})
        self.assertEqual(status, 1)
        self.assertIn("panel uid/panel: parse error: unexpected end", errors)

    def test_reports_a_selector_without_series_behind_a_zero(self) -> None:
        self.panel("sum(misspelled) or vector(0)")
        status, errors = self.against({"sum(misspelled) or vector(0)": ["0"]})
        self.assertEqual(status, 1)
        self.assertIn("no series for misspelled", errors)

    def test_reports_a_panel_without_data_and_one_with_only_nan(self) -> None:
        for answer, word in (([], "nothing"), (["NaN", "NaN"], "only NaN")):
            with self.subTest(word):
                self.panel("a / b")
                status, errors = self.against({"a / b": answer, "a": ["1"], "b": ["1"]})
                self.assertEqual(status, 1)
                self.assertIn(f"it returns {word}", errors)

    def test_accepts_an_alert_without_data_but_not_without_series(self) -> None:
        self.rules({"alert": "A", "expr": "a > 5 and b"})
        self.assertEqual(self.against({"a": ["1"], "b": ["1"]})[0], 0)
        status, errors = self.against({"a": ["1"]})
        self.assertEqual(status, 1)
        self.assertIn("alert A: no series for b", errors)

    def test_a_fault_excuses_until_it_is_injected(self) -> None:
        self.panel("a")
        self.exceptions("fault: {f: [{metric: a, because: b}]}")
        status, errors = self.against({})
        self.assertEqual((status, "1 excused" in errors), (0, True), errors)
        self.assertEqual(self.against({}, "--made", "f")[0], 1)
        self.assertEqual(self.against({"a": ["1"]}, "--made", "f")[0], 0)

    def test_only_made_checks_only_the_expressions_of_the_fault(self) -> None:
        self.panel("a")
        self.rules({"record": "b:c", "expr": "sum(missing)"})
        self.exceptions("fault: {f: [{metric: a, because: b}], other: [{metric: missing, because: b}]}")
        self.assertEqual(self.against({}, "--made", "f", "--only-made")[0], 1)
        status, errors = self.against({"a": ["1"]}, "--made", "f", "--only-made")
        self.assertEqual((status, "1 expressions, 0 problems" in errors), (0, True), errors)
        self.assertEqual(self.against({"a": ["1"]}, "--only-made")[0], check.EX_USAGE)

    def test_a_component_excuses_only_while_absent(self) -> None:
        self.panel("a_b")
        self.exceptions("needs: {c: [{metric: a_.*, because: b}]}")
        self.assertEqual(self.against({})[0], 1)
        self.assertEqual(self.against({}, "--without", "c")[0], 0)
        self.assertEqual(self.against({"a_b": ["1"]})[0], 0)

    def test_a_matcher_narrows_an_entry(self) -> None:
        self.panel('a{b="c"} / a{b="d"}')
        self.exceptions("""fault: {f: [{metric: a, matcher: 'b="c"', because: b}]}""")
        status, errors = self.against({})
        self.assertEqual(status, 1)
        self.assertIn('no series for a{b="d"}', errors)
        self.assertNotIn('a{b="c"},', errors.split("no series for")[1].splitlines()[0])

    def test_a_place_excuses_an_expression(self) -> None:
        self.panel("a > 5")
        self.exceptions("fault: {f: [{where: uid/panel, because: b}]}")
        self.assertEqual(self.against({"a": ["1"]})[0], 0)
        # A place does not excuse missing series.
        self.assertEqual(self.against({})[0], 1)

    def test_reports_entries_that_are_not_needed(self) -> None:
        self.panel("a")
        for entry in ("metric: a", "where: uid/panel", "metric: other", "where: other"):
            with self.subTest(entry):
                self.exceptions(f"fault: {{f: [{{{entry}, because: b}}]}}")
                status, errors = self.against({"a": ["1"]})
                self.assertEqual(status, 1)
                self.assertIn("matches no expression" if "other" in entry else "has data", errors)

    def test_reports_a_sometimes_entry_only_when_it_matches_nothing(self) -> None:
        self.panel("a")
        self.exceptions("fault: {f: [{metric: a, because: b, sometimes: true}]}")
        self.assertEqual(self.against({"a": ["1"]})[0], 0)
        self.exceptions("fault: {f: [{metric: other, because: b, sometimes: true}]}")
        self.assertEqual(self.against({"a": ["1"]})[0], 1)

    def test_exits_with_69_without_a_prometheus(self) -> None:
        self.panel("a")
        status, errors = self.run_check("--prometheus", "http://127.0.0.1:1", "--timeout", "2")
        self.assertEqual(status, check.EX_UNAVAILABLE)
        self.assertIn("http://127.0.0.1:1 does not respond", errors)

    def test_wait_repeats_until_data_arrives(self) -> None:
        self.panel("a")
        answers: Answers = {}
        threading.Timer(0.3, lambda: answers.update({"a": ["1"]})).start()
        status, errors = self.against(answers, "--wait", "1")
        self.assertEqual(status, 0, errors)

    def test_rejects_an_empty_set_of_expressions(self) -> None:
        self.assertEqual(self.run_check("--offline")[0], check.EX_USAGE)

    def test_rejects_unknown_faults_and_components(self) -> None:
        self.panel("a")
        for option in ("--made", "--without"):
            status, errors = self.run_check("--offline", option, "nonsense")
            self.assertEqual(status, check.EX_USAGE)
            self.assertIn("nonsense", errors)

    def test_accepts_an_absent_component_without_entries(self) -> None:
        self.panel("a")
        self.exceptions("needs: {c: []}")
        self.assertEqual(self.against({"a": ["1"]}, "--without", "c")[0], 0)

    def test_rejects_an_unknown_variable(self) -> None:
        self.panel("a{b='$nonsense'}")
        status, errors = self.run_check("--offline")
        self.assertEqual(status, check.EX_USAGE)
        self.assertIn("uid/panel: unknown variable $nonsense", errors)

    def test_offline_reports_logql_problems_and_unmatched_entries(self) -> None:
        self.panel('{service="$service", pod="x"}', source="loki")
        self.exceptions("fault: {f: [{metric: other, because: b}]}")
        status, errors = self.run_check("--offline")
        self.assertEqual(status, 1)
        self.assertIn("unknown stream label pod", errors)
        self.assertIn("matches no expression", errors)

    def test_rejects_an_invalid_list(self) -> None:
        self.panel("a")
        for text, word in (
            ("other: {}", "groups"),
            ("fault: {f: [{metric: a}]}", "reason"),
            ("fault: {f: [{because: b}]}", "either"),
            ("fault: {f: [{metric: a, where: b, because: c}]}", "either"),
            ("fault: {f: [{metrik: a, because: b}]}", "metrik"),
            ("fault: {f: [{metric: '(', because: b}]}", "f"),
        ):
            with self.subTest(text), self.assertRaisesRegex(InvalidFile, word):
                self.exceptions(text)
                read(self.folder / "exceptions.yml")

    def test_as_rules_writes_interpolated_expressions(self) -> None:
        self.panel("sum(rate(a[$__rate_interval]))")
        file = self.folder / "out.yml"
        self.assertEqual(self.run_check("--as-rules", str(file))[0], 0)
        self.assertIn("sum(rate(a[5m]))", file.read_text())


class Variables(unittest.TestCase):
    def test_interpolates_all_three_notations(self) -> None:
        values = {"a": "1", "b_c": "2"}
        self.assertEqual(interpolated("$a ${a} ${b_c:regex} $b_c $1 ${1}", values), "1 1 2 2 $1 ${1}")


class Logs(unittest.TestCase):
    def test_reports_logql_problems(self) -> None:
        for text in (
            '{service="nginx"}',
            '{service=~"a|b", level=~"error|warn"} | json | duration_s > 1 |~ "(?i)x{2}"',
            'sum by (level) (count_over_time({service="nginx"}[1m]))',
        ):
            self.assertEqual(logql_problem(text), "", text)
        for text, word in (
            ("count_over_time([1m])", "no stream"),
            ('{container="x"}', "container"),
            ("{}", "every stream"),
            ('{service="x"', "not balanced"),
            ('{service=x}', "invalid labels"),
            ('sum(count_over_time({service="x"}[1m])', "not balanced"),
        ):
            self.assertIn(word, logql_problem(text), text)


if __name__ == "__main__":
    unittest.main()
