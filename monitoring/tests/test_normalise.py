"""fluent-bit/normalise.lua, run by LuaJIT as Fluent Bit does: what each kind of line becomes.

It stands in for the shipper as far as the script goes: the parser before it is Python's, and what the shipper sends is not seen.
"""

from __future__ import annotations

import json
import unittest
from pathlib import Path
from typing import Any

from lupa.luajit21 import LuaRuntime

SCRIPT = Path(__file__).resolve().parent.parent / "fluent-bit/normalise.lua"


def normalised(log: Any, service: str = "gateway", colour: str | None = "blue", **further: Any) -> dict[str, Any] | None:
    """What becomes of a record as Docker's driver sends it, its JSON read; nothing if it is dropped."""
    record = {"log": log, "container_name": f"/linnet-{service}-1", "container_id": "0", "source": "stdout", **further}
    if service:
        record["com.docker.compose.service"] = service
    if colour is not None:
        record["linnet.colour"] = colour
    try:
        parsed = json.loads(log)
    except (TypeError, ValueError):
        parsed = None
    if isinstance(parsed, dict):
        record.update({key: value for key, value in parsed.items() if not isinstance(value, (dict, list))})
    lua = LuaRuntime()
    lua.execute(SCRIPT.read_text(encoding="utf-8"))
    normalise: Any = lua.eval("normalise")
    code, timestamp, result = normalise("linnet.x", 1.5, lua.table_from(record))
    if code == -1:
        return None
    assert (code, timestamp) == (2, 1.5)
    return dict(result)


def level(log: str, service: str) -> str:
    result = normalised(log, service)
    assert result is not None
    return str(result["level"])


class Linnet(unittest.TestCase):
    def test_a_request(self) -> None:
        line = (
            '{"timestamp":"2026-11-21T19:39:54.873122Z","level":"INFO","message":"request","request_id":"7402fd569eb4397",'
            '"trace_id":"d226542bb49b0267","method":"POST","route":"/api/v1/urls","status":201,"duration_ms":6.82}'
        )
        self.assertEqual(
            normalised(line),
            {
                "log": line,
                "service": "gateway",
                "level": "info",
                "colour": "blue",
                "request_id": "7402fd569eb4397",
                "trace_id": "d226542bb49b0267",
            },
        )

    def test_levels_are_lower_case_and_win_over_the_status(self) -> None:
        for word in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR"):
            self.assertEqual(level(f'{{"level":"{word}","status":503}}', "shortener"), word.lower())

    def test_without_ids_there_are_none(self) -> None:
        for line in ('{"level":"INFO","request_id":"","trace_id":"-"}', '{"level":"INFO"}', "plain"):
            result = normalised(line)
            assert result is not None
            self.assertEqual(set(result), {"log", "service", "level", "colour"})


class Nginx(unittest.TestCase):
    def test_access_log(self) -> None:
        line = '{"time":"2026-11-21T19:00:00+00:00","service":"nginx","request_id":"abc","status":%d,"duration_s":0.001}'
        for status, wanted in ((200, "info"), (302, "info"), (404, "warn"), (429, "warn"), (499, "warn"), (502, "error")):
            self.assertEqual(level(line % status, "nginx"), wanted, status)
        result = normalised(line % 200, "nginx")
        assert result is not None
        self.assertEqual(result["request_id"], "abc")

    def test_error_log(self) -> None:
        line = "2026/11/21 19:28:25 [%s] 2386#2386: worker process 2636 exited"
        for word, wanted in (("notice", "info"), ("warn", "warn"), ("error", "error"), ("alert", "error"), ("emerg", "error")):
            self.assertEqual(level(line % word, "nginx"), wanted, word)


class Stores(unittest.TestCase):
    def test_postgres(self) -> None:
        line = "2026-11-21 19:33:04.516 UTC [5917] %s:  something"
        for word, wanted in (
            ("LOG", "info"),
            ("DETAIL", "info"),
            ("STATEMENT", "info"),
            ("WARNING", "warn"),
            ("ERROR", "error"),
            ("FATAL", "error"),
            ("PANIC", "error"),
            ("DEBUG2", "debug"),
        ):
            self.assertEqual(level(line % word, "postgres"), wanted, word)
        # With a name and a database in the prefix, too.
        self.assertEqual(level("2026-11-21 19:33:04 UTC [5917] linnet@linnet [api] ERROR:  canceled", "postgres"), "error")

    def test_postgres_lines_that_go_on(self) -> None:
        # A statement that contains the word ERROR is none.
        self.assertEqual(level("\tSELECT 'ERROR:  x' FROM t", "postgres"), "info")
        self.assertEqual(level("\tlevel=error", "postgres"), "info")

    def test_redis(self) -> None:
        for sign, wanted in ((".", "debug"), ("-", "debug"), ("*", "info"), ("#", "warn")):
            self.assertEqual(level(f"1:M 21 Nov 2026 19:28:24.865 {sign} Ready", "redis"), wanted, sign)
        self.assertEqual(level("1:signal-handler (1795280362) Received SIGTERM", "redis"), "info")


class Others(unittest.TestCase):
    def test_key_and_value(self) -> None:
        self.assertEqual(level('ts=2026-11-21T19:29:19Z caller=main.go:9 level=error msg="x"', "prometheus"), "error")
        self.assertEqual(level('time="2026-11-21T19:29:13Z" level=warning msg=x', "redis-exporter"), "warn")
        self.assertEqual(level("time=2026-11-21T19:29:13Z level=INFO source=x", "node-exporter"), "info")

    def test_grafana(self) -> None:
        self.assertEqual(level('{"logger":"x","lvl":"eror"}', "grafana"), "error")
        self.assertEqual(level('{"logger":"x","level":"warn"}', "grafana"), "warn")

    def test_fluent_bit(self) -> None:
        self.assertEqual(level("[2026/11/21 19:29:13] [ warn] [engine] failed to flush chunk", "fluent-bit"), "warn")

    def test_unknown_words_are_info(self) -> None:
        self.assertEqual(level('{"level":"LOUD"}', "gateway"), "info")
        self.assertEqual(level("hello [world] level=loud", "migrate"), "info")


class Labels(unittest.TestCase):
    def test_without_composes_label_the_container_gives_its_name(self) -> None:
        result = normalised("x", "", container_name="/linnet-nginx-2")
        assert result is not None
        self.assertEqual(result["service"], "linnet-nginx")

    def test_without_a_colour_there_is_none(self) -> None:
        for colour in (None, ""):
            result = normalised("x", colour=colour)
            assert result is not None
            self.assertEqual(result["colour"], "none")

    def test_a_line_cannot_choose_its_labels(self) -> None:
        result = normalised('{"level":"INFO","service":"other","colour":"red"}')
        assert result is not None
        self.assertEqual((result["service"], result["colour"]), ("gateway", "blue"))

    def test_empty_lines_are_dropped_and_ends_of_lines_cut(self) -> None:
        for line in ("", "  ", "\r\n"):
            self.assertIsNone(normalised(line))
        result = normalised("text\r\n")
        assert result is not None
        self.assertEqual(result["log"], "text")

    def test_odd_records(self) -> None:
        self.assertIsNone(normalised(None))
        result = normalised(5)
        assert result is not None
        self.assertEqual(result["log"], "5")
        result = normalised('{"level":7,"status":"x","request_id":5}')
        assert result is not None
        self.assertEqual((result["level"], "request_id" in result), ("info", False))


if __name__ == "__main__":
    unittest.main()
