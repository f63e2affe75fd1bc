"""The schemas reject unknown keys, wrong units and additional labels, which the programs ignore or fail on."""

from __future__ import annotations

import copy
import json
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import yaml

MONITORING = Path(__file__).resolve().parent.parent
Change = Callable[[dict[str, Any]], None]


class Text(yaml.SafeLoader):
    """`on` and `off` stay strings, as in Fluent Bit and YAML 1.2."""


Text.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool" or letter in "tTfF"]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def problems(name: str, path: str, change: Change) -> list[str]:
    document = yaml.load((MONITORING / path).read_text(encoding="utf-8"), Loader=Text)
    changed = copy.deepcopy(document)
    change(changed)
    schema = json.loads((MONITORING / f"schemas/{name}.json").read_text(encoding="utf-8"))
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(changed)]


def setting(where: str, value: Any) -> Change:
    """Sets a value by its path; numbers are list indexes. None deletes it."""

    def change(document: dict[str, Any]) -> None:
        *parents, last = where.split("/")
        target: Any = document
        for part in parents:
            target = target[int(part)] if part.isdigit() else target[part]
        if value is None:
            del target[last]
        else:
            target[last] = value

    return change


def nothing(document: dict[str, Any]) -> None:
    pass


class Loki(unittest.TestCase):
    def problems(self, change: Change) -> list[str]:
        return problems("loki", "loki/loki.yaml", change)

    def test_accepts_the_configuration(self) -> None:
        self.assertEqual(self.problems(nothing), [])

    def test_rejects_invalid_values(self) -> None:
        for where, value in (
            ("limits_config/retention", "2160h"),
            ("limits_config/enforce_metric_name", False),
            ("ingester/max_transfer_retries", 0),
            ("compactor/shared_store", "filesystem"),
            ("limits_config/retention_period", 2160),
            ("limits_config/retention_period", None),
            ("limits_config/max_line_size", "64 KB"),
            ("compactor/retention_enabled", False),
            ("analytics/reporting_enabled", True),
            ("schema_config/configs/0/schema", "v11"),
            ("schema_config/configs/0/index/period", "168h"),
            ("server/http_listen_port", "3100"),
            ("serverr", {}),
        ):
            with self.subTest(where, value=value):
                self.assertTrue(self.problems(setting(where, value)))


class FluentBit(unittest.TestCase):
    def problems(self, change: Change) -> list[str]:
        return problems("fluent-bit", "fluent-bit/fluent-bit.yaml", change)

    def test_accepts_the_configuration(self) -> None:
        self.assertEqual(self.problems(nothing), [])
        self.assertEqual(self.problems(setting("service/http_server", "on")), [])

    def test_rejects_invalid_values(self) -> None:
        for where, value in (
            ("service/http_serverr", True),
            ("service/http_server", "perhaps"),
            ("pipeline/inputs/0/unix_paht", "/x"),
            ("pipeline/inputs/0/name", "tail"),
            ("pipeline/filters/2/script", None),
            ("pipeline/filters/2/code", "function normalize() end"),
            ("pipeline/filters/1/key", "log"),
            ("pipeline/filters/0/mode", "parser"),
            ("pipeline/filters/0/emitter_storage.type", None),
            # Additional labels, and a label with the wrong value.
            ("pipeline/outputs/0/labels", "service=$service, request_id=$request_id"),
            ("pipeline/outputs/0/labels", "service=$level"),
            ("pipeline/outputs/0/label_keys", "$request_id"),
            ("pipeline/outputs/0/auto_kubernetes_labels", True),
            # Unbounded.
            ("pipeline/outputs/0/retry_limit", "no_limits"),
            ("pipeline/outputs/0/retry_limit", None),
            ("pipeline/outputs/0/storage.total_limit_size", None),
        ):
            with self.subTest(where, value=value):
                self.assertTrue(self.problems(setting(where, value)))

    def test_the_lua_script_defines_the_configured_function(self) -> None:
        document = yaml.safe_load((MONITORING / "fluent-bit/fluent-bit.yaml").read_text(encoding="utf-8"))
        lua = document["pipeline"]["filters"][2]
        script = (MONITORING / "fluent-bit" / lua["script"]).read_text(encoding="utf-8")
        self.assertIn(f"function {lua['call']}(tag, timestamp, record)", script)
        # The output removes every field that the script adds.
        removed = {key.strip() for key in document["pipeline"]["outputs"][0]["remove_keys"].split(",")}
        self.assertEqual(removed, {"service", "level", "color", "request_id", "trace_id"})


if __name__ == "__main__":
    unittest.main()
