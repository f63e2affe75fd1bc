"""scripts/up with a stand-in for Docker: the caller's environment and folder do not matter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent.parent

# Records its arguments and its whole environment.
DOCKER = """#!/usr/bin/env python3
import json, os, sys
record = {"arguments": sys.argv[1:], "environment": dict(os.environ)}
with open(os.environ["DOCKER_LOG"], "a") as log:
    log.write(json.dumps(record) + "\\n")
if "create-key" in sys.argv:
    print("lnt_aaaaaaaa_secret")
"""
CURL = """#!/bin/sh
printf '%s\\n' "$*" >> "$CURL_LOG"
"""


class Up(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="ü x ")))
        for part in ("scripts", "deploy", "nginx", "monitoring"):
            ignored = shutil.ignore_patterns("secrets", "run", "tests")
            shutil.copytree(ROOT / part, self.folder / part, ignore=ignored, symlinks=True)
        tools = self.folder / "tools"
        tools.mkdir()
        for name, text in (("docker", DOCKER), ("curl", CURL)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)

    def up(self, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = os.environ | {
            "PATH": f"{self.folder}/tools:{os.environ['PATH']}", "BUILD": "no", "PORT": "38080",
            "DOCKER_LOG": str(self.folder / "docker.log"), "CURL_LOG": str(self.folder / "curl.log"),
        } | environment
        command = [str(self.folder / "scripts/up")]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False, cwd="/")

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "docker.log").read_text().splitlines()]

    def compose_calls(self) -> list[dict[str, Any]]:
        return [call for call in self.calls() if call["arguments"][:2] == ["compose", "-f"]]

    def test_folder_with_a_blank_and_letters_is_one_argument(self) -> None:
        done = self.up()
        self.assertEqual(done.returncode, 0, done.stderr)
        calls = self.compose_calls()
        self.assertTrue(any("up" in call["arguments"] for call in calls), calls)
        for call in calls:
            self.assertEqual(call["arguments"][2], str(self.folder.resolve() / "deploy/compose.yaml"))
        key = self.folder / "deploy/secrets/admin_key"
        self.assertEqual(key.read_text(), "lnt_aaaaaaaa_secret\n")
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)

    def test_variables_of_the_caller_do_not_reach_compose(self) -> None:
        odd = {
            "COMPOSE_FILE": "/x", "COMPOSE_PROFILES": "tracing", "COMPOSE_PROJECT_NAME": "x", "COMPOSE_ENV_FILES": "/x",
            "PGSSLMODE": "require", "PGHOST": "x", "REDISCLI_AUTH": "x", "CDPATH": "/tmp", "POSIXLY_CORRECT": "1",
            "GREP_OPTIONS": "-v",
        }
        # Docker may need them to reach a registry.
        proxies = {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
        done = self.up(**odd, **proxies)
        self.assertEqual(done.returncode, 0, done.stderr)
        calls = self.compose_calls()
        self.assertTrue(any("up" in call["arguments"] for call in calls), calls)
        for call in calls:
            self.assertEqual(call["environment"].keys() & odd.keys(), set(), call["arguments"])
            self.assertEqual(call["environment"] | proxies, call["environment"], call["arguments"])
        # Requests to this machine use no proxy.
        requests = (self.folder / "curl.log").read_text().splitlines()
        self.assertTrue(requests)
        for request in requests:
            self.assertIn("--noproxy *", request)

    def test_each_kind_of_address_is_published_and_shown(self) -> None:
        for host, published, shown in (
            ("::1", "[::1]", "http://[::1]:38080"),
            ("0.0.0.0", "0.0.0.0", "http://localhost:38080"),
            ("127.0.0.1", "127.0.0.1", "http://localhost:38080"),
        ):
            done = self.up(HOST=host)
            self.assertEqual(done.returncode, 0, done.stderr)
            environment = self.compose_calls()[-1]["environment"]
            self.assertEqual((environment["LINNET_HOST"], environment["LINNET_BASE_URL"]), (published, shown))

    def test_images_by_tag_are_those_of_compose_without_their_digests(self) -> None:
        done = self.up(LINNET_IMAGES_BY_TAG="yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        override = self.folder.resolve() / "deploy/run/images-by-tag.yaml"
        self.assertIn(str(override), self.compose_calls()[-1]["arguments"])
        pinned = re.findall(r"^    image: ([^$\s]+)@sha256:", (self.folder / "deploy/compose.yaml").read_text(), re.MULTILINE)
        self.assertGreater(len(pinned), 5)
        self.assertEqual(re.findall(r'^  [a-z-]+: {image: "([^"]+)"}$', override.read_text(), re.MULTILINE), pinned)
        self.assertEqual(len(override.read_text().splitlines()), 1 + len(pinned))
        override.unlink()
        self.assertEqual(self.up().returncode, 0)
        self.assertNotIn(str(override), self.compose_calls()[-1]["arguments"])

    def test_logs_of_tls_and_backups_are_sent_too(self) -> None:
        deploy = self.folder.resolve() / "deploy"
        tls = {"TLS": "on", "LINNET_NAMES": "go.example.com", "LINNET_HTTP_PORT": "38080"}
        for variables, names in (({}, [""]), (tls, ["", ".tls"]), ({"BACKUP": "yes"}, ["", ".backup"]),
                                 (tls | {"BACKUP": "yes"}, ["", ".tls", ".backup"])):
            for logs, kinds in (("", [""]), ("loki", ["", ".logs"])):
                (self.folder / "docker.log").unlink(missing_ok=True)
                done = self.up(PROFILES="monitoring", LOGS=logs, **variables)
                self.assertEqual(done.returncode, 0, done.stderr)
                expected = {str(deploy / f"compose{name}{kind}.yaml") for name in names for kind in kinds}
                for call in self.compose_calls():
                    found = {argument for argument in call["arguments"] if argument.endswith(".yaml")}
                    self.assertEqual(found, expected)

    def test_messages_name_the_cause(self) -> None:
        for variables, message in (
            ({"PORT": "0"}, "PORT=0"), ({"PORT": "x"}, "PORT=x"), ({"HOST": "no-such-host.invalid"}, "HOST=no-such-host.invalid"),
            ({"PROFILES": "metrics"}, "unknown profile 'metrics'"), ({"GRAFANA": "yes"}, "GRAFANA"), ({"LOGS": "x"}, "LOGS"),
            ({"LINNET_IMAGES_BY_TAG": "no"}, "LINNET_IMAGES_BY_TAG"),
        ):
            done = self.up(**variables)
            self.assertEqual(done.returncode, 64, done.stderr)
            self.assertIn(message, done.stderr)

    def test_other_users_reach_no_log_socket_and_cannot_create_one(self) -> None:
        self.assertEqual(self.up().returncode, 0)
        self.assertEqual((self.folder / "deploy/run").stat().st_mode & 0o7777, 0o700)
        mode = (self.folder / "deploy/run/logs").stat().st_mode & 0o7777
        self.assertIn(mode, (0o700, 0o1733))
        self.assertEqual(mode & 0o004, 0)


if __name__ == "__main__":
    unittest.main()
