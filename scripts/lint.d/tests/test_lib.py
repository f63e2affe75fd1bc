"""scripts/lib.sh and nginx/render.sh: addresses, the caller's environment, and paths with blanks."""

from __future__ import annotations

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def bash(script: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'set -euo pipefail; source "{ROOT}/scripts/lib.sh"; {script}', "bash", *args]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=20, check=False)


class Address(unittest.TestCase):
    def parts(self, host: str) -> list[str]:
        done = bash('public_address "$1"; echo "$listen_host $shown_host $local_host"', host)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.split()

    def test_each_kind_of_address_has_the_form_of_its_use(self) -> None:
        self.assertEqual(self.parts("127.0.0.1"), ["127.0.0.1", "localhost", "127.0.0.1"])
        self.assertEqual(self.parts("0.0.0.0"), ["0.0.0.0", "localhost", "127.0.0.1"])
        self.assertEqual(self.parts("192.0.2.7"), ["192.0.2.7", "192.0.2.7", "192.0.2.7"])
        self.assertEqual(self.parts("::1"), ["[::1]", "[::1]", "[::1]"])
        self.assertEqual(self.parts("[::1]"), ["[::1]", "[::1]", "[::1]"])
        self.assertEqual(self.parts("::"), ["[::]", "localhost", "[::1]"])
        self.assertEqual(self.parts("localhost"), ["127.0.0.1", "localhost", "127.0.0.1"])

    def test_the_message_names_a_host_that_does_not_resolve(self) -> None:
        for host in ("no-such-host.invalid", "1.2.3.4.5", "999.1.1.1", "::zz"):
            done = bash('public_address "$1"', host)
            self.assertEqual(done.returncode, 64, done.stdout)
            self.assertIn(f"HOST={host}", done.stderr)


class Environment(unittest.TestCase):
    def test_variables_of_libpq_redis_and_compose_are_removed_and_options_are_kept(self) -> None:
        removed = {"PGSSLMODE": "require", "PGHOST": "x", "PGSERVICE": "x", "PGOPTIONS": "-c x=1", "REDISCLI_AUTH": "x",
                   "REDIS_ADDR": "x", "COMPOSE_FILE": "x", "COMPOSE_PROFILES": "x", "CDPATH": "/"}
        kept = {"PG_PORT": "5555", "REDIS_PORT": "6666", "LINNET_BASE_URL": "http://x"}
        lines = bash("env", **removed, **kept).stdout.splitlines()
        names = {line.split("=")[0] for line in lines}
        self.assertEqual(names & set(removed), set())
        self.assertEqual(set(kept) - names, set())

    def test_requests_to_this_machine_use_no_proxy(self) -> None:
        proxies = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY")}
        done = bash('curl -sv -m 2 http://127.0.0.1:1/ 2>&1 || true', **proxies)
        self.assertNotIn("127.0.0.1 port 9", done.stdout)
        self.assertIn("127.0.0.1:1", done.stdout.replace(" port ", ":"))


class Paths(unittest.TestCase):
    def test_nginx_accepts_files_in_a_directory_with_blanks_and_letters(self) -> None:
        with tempfile.TemporaryDirectory(prefix="ü x ") as folder:
            environment = {
                "LINNET_NGINX_RESOLVE": "127.0.0.1:1", "LINNET_NGINX_GATEWAY": "127.0.0.1:2",
                "LINNET_NGINX_OUT": f"{folder}/linnet.conf", "LINNET_NGINX_TMP": folder,
                "LINNET_NGINX_ACCESS_LOG": f"{folder}/access.log",
            }
            render = ["sh", str(ROOT / "nginx/render.sh")]
            done = subprocess.run(render, env=os.environ | environment, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            text = Path(folder, "linnet.conf").read_text(encoding="utf-8")
            self.assertIn(f'access_log "{folder}/access.log"', text)
            environment["LINNET_NGINX_ACCESS_LOG"] = f'{folder}/"; load_module x;'
            done = subprocess.run(render, env=os.environ | environment, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 64)

    def test_sockets_are_in_a_directory_with_a_plain_name(self) -> None:
        with tempfile.TemporaryDirectory(prefix="ü x ") as folder:
            done = bash('socket_folder "$1/sockets"', folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            found = Path(done.stdout.strip())
            self.assertRegex(str(found), r"^[0-9A-Za-z/._-]+$")
            self.assertEqual(found.stat().st_mode & 0o007, 0)
            found.rmdir()


if __name__ == "__main__":
    unittest.main()
