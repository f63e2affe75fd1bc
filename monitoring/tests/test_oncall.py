"""scripts/oncall with units: each subcommand runs the right program. Stubs replace the programs and print their arguments."""

from __future__ import annotations

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

ONCALL = Path(__file__).resolve().parents[2] / "scripts/oncall"
STUB = '#!/bin/sh\necho "$(basename "$0") $*"\n'
# No container exists, and Redis responds.
SILENT = {"docker": "#!/bin/sh\nexit 0\n"}
# Runs the command after its options.
WRAPPER = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ] && [ "$1" != -- ]; do shift; done\n[ "$1" = -- ] && shift\nexec "$@"\n'
PROGRAMS = ("systemctl", "journalctl", "promtool", "amtool", "systemd-run", "runuser", "redis-cli", "curl", "ps")


class Units(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name, text in {**dict.fromkeys(PROGRAMS, STUB), **SILENT, "sudo": WRAPPER, "cat": "#!/bin/sh\necho secret\n"}.items():
            program = self.folder / name
            program.write_text(text, encoding="utf-8")
            program.chmod(0o755)

    def oncall(self, *command: str, code: int = 0) -> str:
        env = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "RUN_DIR": str(self.folder / "none")}
        done = subprocess.run([str(ONCALL), *command], env=env, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout

    def test_each_subcommand_runs_the_program_of_units(self) -> None:
        expected = {
            ("status",): "systemctl --no-pager list-units --all linnet-gateway.service linnet-shortener.service",
            ("status", "worker"): "systemctl --no-pager --lines 0 status linnet-worker",
            ("logs", "postgres", "50"): "journalctl --no-pager --output cat -u postgresql -n 50",
            ("query", "up"): "promtool query instant http://127.0.0.1:9090 up",
            ("ready", "gateway"): "http://127.0.0.1:9081/readyz",
            ("sql", "SELECT 1"): "runuser -u postgres -- env PGCONNECT_TIMEOUT=5 psql -d linnet -c SELECT 1",
            ("locks",): "pg_blocking_pids",
            ("redis", "PING"): "redis-cli --user operator PING",
            ("admin", "jobs", "list"): "linnet-shortener admin",
            ("certificate",): "linnet-acme status",
            ("start", "redis"): "systemctl start redis-server",
            ("stop", "nginx"): "systemctl stop nginx",
            ("restart", "redis-exporter"): "systemctl restart prometheus-redis-exporter",
            ("silence", "HotLink", "1d", "why"): "amtool silence add alertname=HotLink --duration=1d --comment=why",
        }
        usage = ONCALL.read_text(encoding="utf-8").split("set -euo pipefail")[0]
        known = {word for line in usage.splitlines() if "scripts/oncall " in line and line.startswith("#   ")
                 for word in line.split()[2].split("|")}
        self.assertEqual({command[0] for command in expected} | {"compose"}, known)
        self.assertIn("no containers", self.oncall("compose", "ps", code=69))
        for command, text in expected.items():
            with self.subTest(" ".join(command)):
                self.assertIn(text, self.oncall(*command))


if __name__ == "__main__":
    unittest.main()
