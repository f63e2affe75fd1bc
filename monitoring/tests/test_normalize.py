"""fluent-bit/normalize.lua under LuaJIT, which Fluent Bit embeds: the record for each kind of line.

Only the script is tested. Python parses the JSON here, and Fluent Bit's output is not part of the test.
"""

from __future__ import annotations

import json
import unittest
from pathlib import Path
from typing import Any

from lupa.luajit21 import LuaRuntime

SCRIPT = Path(__file__).resolve().parent.parent / "fluent-bit/normalize.lua"


def normalized(log: Any, service: str = "gateway", color: str | None = "blue", **further: Any) -> dict[str, Any] | None:
    """The script's result for a record from Docker's driver with parsed JSON; None if the script drops it."""
    record = {"log": log, "container_name": f"/linnet-{service}-1", "container_id": "0", "source": "stdout", **further}
    if service:
        record["com.docker.compose.service"] = service
    if color is not None:
        record["linnet.color"] = color
    try:
        parsed = json.loads(log)
    except (TypeError, ValueError):
        parsed = None
    if isinstance(parsed, dict):
        record.update({key: value for key, value in parsed.items() if not isinstance(value, (dict, list))})
    lua = LuaRuntime()
    lua.execute(SCRIPT.read_text(encoding="utf-8"))
    normalize: Any = lua.eval("normalize")
    code, timestamp, result = normalize("linnet.x", 1.5, lua.table_from(record))
    if code == -1:
        return None
    assert (code, timestamp) == (2, 1.5)
    return dict(result)


def level(log: str, service: str) -> str:
    result = normalized(log, service)
    assert result is not None
    return str(result["level"])


class Linnet(unittest.TestCase):
    def test_keeps_line_service_level_color_and_ids(self) -> None:
        line = (
            '{"timestamp":"2026-11-21T19:39:54.873122Z","level":"INFO","message":"request","request_id":"7402fd569eb4397",'
            '"trace_id":"d226542bb49b0267","method":"POST","route":"/api/v1/urls","status":201,"duration_ms":6.82}'
        )
        self.assertEqual(
            normalized(line),
            {
                "log": line,
                "service": "gateway",
                "level": "info",
                "color": "blue",
                "request_id": "7402fd569eb4397",
                "trace_id": "d226542bb49b0267",
            },
        )

    def test_level_is_lower_case_and_overrides_the_status(self) -> None:
        for word in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR"):
            self.assertEqual(level(f'{{"level":"{word}","status":503}}', "shortener"), word.lower())

    def test_omits_empty_ids(self) -> None:
        for line in ('{"level":"INFO","request_id":"","trace_id":"-"}', '{"level":"INFO"}', "plain"):
            result = normalized(line)
            assert result is not None
            self.assertEqual(set(result), {"log", "service", "level", "color"})


class Panics(unittest.TestCase):
    def test_the_end_of_a_program_in_text_is_an_error(self) -> None:
        for line in (
            "thread 'main' panicked at src/main.rs:1:2:", "thread 'actix-rt|system:0' (77) panicked at 'x', a.rs:3",
            "thread 'main' (1) has overflowed its stack", "fatal runtime error: stack overflow, aborting",
            "memory allocation of 1048576 bytes failed", "panic: runtime error: index out of range [5] with length 3",
            "fatal error: all goroutines are asleep - deadlock!", "runtime: goroutine stack exceeds 1000000000-byte limit",
            "SIGSEGV: segmentation violation",
        ):
            self.assertEqual(level(line, "shortener"), "error", line)
        for line in ("no thread panicked at noon", "do not panic: it is a drill", "memory allocation of bytes"):
            self.assertEqual(level(line, "shortener"), "info", line)


class Nginx(unittest.TestCase):
    def test_access_log_level_is_derived_from_the_status(self) -> None:
        line = '{"time":"2026-11-21T19:00:00+00:00","service":"nginx","request_id":"abc","status":%d,"duration_s":0.001}'
        for status, wanted in ((200, "info"), (302, "info"), (404, "warn"), (429, "warn"), (499, "warn"), (502, "error")):
            self.assertEqual(level(line % status, "nginx"), wanted, status)
        result = normalized(line % 200, "nginx")
        assert result is not None
        self.assertEqual(result["request_id"], "abc")

    def test_error_log_level_is_the_word_in_brackets(self) -> None:
        line = "2026/11/21 19:28:25 [%s] 2386#2386: worker process 2636 exited"
        for word, wanted in (("notice", "info"), ("warn", "warn"), ("error", "error"), ("alert", "error"), ("emerg", "error")):
            self.assertEqual(level(line % word, "nginx"), wanted, word)


class Stores(unittest.TestCase):
    def test_postgres_level_is_the_word_before_the_colon(self) -> None:
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
        # Also with user and database in the prefix.
        self.assertEqual(level("2026-11-21 19:33:04 UTC [5917] linnet@linnet [api] ERROR:  canceled", "postgres"), "error")

    def test_continuation_lines_of_postgres_are_info(self) -> None:
        # A statement may contain the word ERROR.
        self.assertEqual(level("\tSELECT 'ERROR:  x' FROM t", "postgres"), "info")
        self.assertEqual(level("\tlevel=error", "postgres"), "info")

    def test_redis_level_is_the_sign_after_the_time(self) -> None:
        for sign, wanted in ((".", "debug"), ("-", "debug"), ("*", "info"), ("#", "warn")):
            self.assertEqual(level(f"1:M 21 Nov 2026 19:28:24.865 {sign} Ready", "redis"), wanted, sign)
        self.assertEqual(level("1:signal-handler (1795280362) Received SIGTERM", "redis"), "info")


class Others(unittest.TestCase):
    def test_logfmt_level(self) -> None:
        self.assertEqual(level('ts=2026-11-21T19:29:19Z caller=main.go:9 level=error msg="x"', "prometheus"), "error")
        self.assertEqual(level('time="2026-11-21T19:29:13Z" level=warning msg=x', "redis-exporter"), "warn")
        self.assertEqual(level("time=2026-11-21T19:29:13Z level=INFO source=x", "node-exporter"), "info")

    def test_grafana_level(self) -> None:
        self.assertEqual(level('{"logger":"x","lvl":"eror"}', "grafana"), "error")
        self.assertEqual(level('{"logger":"x","level":"warn"}', "grafana"), "warn")

    def test_fluent_bit_level(self) -> None:
        self.assertEqual(level("[2026/11/21 19:29:13] [ warn] [engine] failed to flush chunk", "fluent-bit"), "warn")

    def test_unknown_levels_are_info(self) -> None:
        self.assertEqual(level('{"level":"LOUD"}', "gateway"), "info")
        self.assertEqual(level("hello [world] level=loud", "migrate"), "info")


class Labels(unittest.TestCase):
    def test_service_falls_back_to_the_container_name(self) -> None:
        result = normalized("x", "", container_name="/linnet-nginx-2")
        assert result is not None
        self.assertEqual(result["service"], "linnet-nginx")

    def test_service_is_the_same_for_both_colors(self) -> None:
        for color in ("blue", "green"):
            result = normalized("x", f"shortener-{color}", color)
            assert result is not None
            self.assertEqual((result["service"], result["color"]), ("shortener", color))

    def test_color_defaults_to_none(self) -> None:
        for color in (None, ""):
            result = normalized("x", color=color)
            assert result is not None
            self.assertEqual(result["color"], "none")

    def test_fields_of_a_line_do_not_override_labels(self) -> None:
        result = normalized('{"level":"INFO","service":"other","color":"red"}')
        assert result is not None
        self.assertEqual((result["service"], result["color"]), ("gateway", "blue"))

    def test_drops_empty_lines_and_trims_line_ends(self) -> None:
        for line in ("", "  ", "\r\n"):
            self.assertIsNone(normalized(line))
        result = normalized("text\r\n")
        assert result is not None
        self.assertEqual(result["log"], "text")

    def test_accepts_records_with_unexpected_types(self) -> None:
        self.assertIsNone(normalized(None))
        result = normalized(5)
        assert result is not None
        self.assertEqual(result["log"], "5")
        result = normalized('{"level":7,"status":"x","request_id":5}')
        assert result is not None
        self.assertEqual((result["level"], "request_id" in result), ("info", False))


if __name__ == "__main__":
    unittest.main()
