"""`make budget`: nginx's sum follows its configuration, and limits that do not fit are found without Docker."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "budget.d"))

nginx = importlib.import_module("nginx")


def rendered(**options: str) -> str:
    """Returns nginx's configuration for these variables."""
    with tempfile.TemporaryDirectory(prefix="linnet-budget.") as folder:
        environment = {
            "PATH": os.environ["PATH"], "LINNET_NGINX_RESOLVE": "shortener:8082", "LINNET_NGINX_GATEWAY": "gateway:8081",
            "LINNET_NGINX_OUT": f"{folder}/linnet.conf",
        } | {f"LINNET_NGINX_{name}": value for name, value in options.items()}
        subprocess.run([ROOT / "scripts/install-packages", "envsubst"], check=True, capture_output=True)
        subprocess.run(["sh", ROOT / "nginx/render.sh"], env=environment, check=True)
        return Path(folder, "events.inc").read_text() + Path(folder, "linnet.conf").read_text()


def total(configuration: str, workers: int = 2, tmpfs: int = 0) -> int:
    return sum(count * each for _, count, each in nginx.terms(configuration, workers, tmpfs))


class Budget(unittest.TestCase):
    def test_number_of_headers_is_limited_where_nginx_can(self) -> None:
        self.assertIn("max_headers 100;", rendered(VERSION="1.30.0"))
        self.assertIn("max_headers 100;", rendered(VERSION="1.31.2"))
        for old in ("1.22.1", "1.26.3", "1.29.8"):
            self.assertNotIn("max_headers 100;", rendered(VERSION=old))
        # Thousands of short headers take several times the memory of long ones.
        self.assertGreater(total(rendered(VERSION="1.22.1")), 4 * total(rendered(VERSION="1.30.0")))

    def test_every_bound_of_nginx_raises_its_sum(self) -> None:
        base = rendered(VERSION="1.30.0")
        self.assertGreater(total(base, workers=4), total(base))
        self.assertGreater(total(rendered(VERSION="1.30.0", WORKER_CONNECTIONS="3000")), total(base))
        self.assertGreater(total(rendered(VERSION="1.30.0", GATEWAY_REQUESTS="3000")), total(base))
        self.assertGreater(total(rendered(VERSION="1.30.0", GRAFANA="grafana:3000")), total(base))
        self.assertGreater(total(rendered(VERSION="1.30.0", COSTLY_REDIRECTS="800")), total(base))
        self.assertEqual(total(base, tmpfs=5), total(base) + 5)
        tls = rendered(VERSION="1.30.0", TLS="on", OPENSSL="3.5.0")
        more = tls.replace("http2_max_concurrent_streams 2;", "http2_max_concurrent_streams 8;")
        # 2 × 1,664 connections with six more streams of 16 KiB of headers and more.
        self.assertGreater(total(more), total(tls) + 3328 * 6 * 16 * nginx.KIB)
        self.assertGreater(total(tls), total(base) + 3328 * 15 * nginx.KIB)
        wide = base.replace("large_client_header_buffers 2 8k", "large_client_header_buffers 4 8k")
        self.assertGreater(total(wide), total(base) + 3000 * 16 * nginx.KIB)

    def test_container_that_does_not_fit_fails(self) -> None:
        with tempfile.TemporaryDirectory(prefix="linnet-budget.") as folder:
            service = {
                "image": "nginx:1.30", "mem_limit": str(32 * nginx.MIB), "command": ["-g", "worker_processes 2;"],
                "environment": {"LINNET_NGINX_RESOLVE": "shortener:8082", "LINNET_NGINX_GATEWAY": "gateway:8081"},
            }
            services = {"nginx": service} | {
                name: {"image": "absent:1", "mem_limit": str(nginx.MIB), "environment": {}}
                for name in ("gateway-blue", "gateway-green", "shortener-blue", "shortener-green", "worker")
            }
            compose = Path(folder, "compose.json")
            compose.write_text(json.dumps({"services": services}))
            command = [
                sys.executable, "-B", str(ROOT / "scripts/budget.d/main.py"), "--compose", str(compose), "--tls", str(compose),
                "--budget", "2048",
                "--images", "no", "--gateway", "", "--shortener", "", "--work", folder,
            ]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(run.returncode, 1, run.stderr)
            self.assertIn("nginx can use", run.stderr)
            self.assertIn("gateway-blue: not checked", run.stdout)
            # Services of other Compose files count in any case.
            self.assertRegex(run.stdout, r"backup +48 MiB  reserved")
            service["mem_limit"] = str(200 * nginx.MIB)
            compose.write_text(json.dumps({"services": services}))
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(run.returncode, 69, run.stdout)


if __name__ == "__main__":
    unittest.main()
