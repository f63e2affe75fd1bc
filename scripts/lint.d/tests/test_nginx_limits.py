"""The limits of nginx, with the real nginx: IPv6 addresses count by /64, with a second budget for each /48."""

from __future__ import annotations

import http.client
import http.server
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent

# A burst of n lets n + 1 requests pass at once; this rate gives nothing back during the test.
RATE = "1r/m"
KINDS = {"API": "/api/v1/urls", "RESOLVE": "/no-such-code"}


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Limits(unittest.TestCase):
    upstream: http.server.ThreadingHTTPServer

    @classmethod
    def setUpClass(cls) -> None:
        subprocess.run([ROOT / "scripts/install-packages", "nginx", "envsubst"], check=True, capture_output=True)
        cls.upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        threading.Thread(target=cls.upstream.serve_forever, daemon=True).start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.upstream.shutdown()
        cls.upstream.server_close()

    def start(self, **options: str) -> None:
        """Starts nginx, which trusts the addresses that this machine names."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="linnet-limits.")))
        (folder / "body").mkdir()
        self.port, upstream = free_port(), f"127.0.0.1:{self.upstream.server_address[1]}"
        environment = {
            "LINNET_NGINX_RESOLVE": upstream, "LINNET_NGINX_GATEWAY": upstream,
            "LINNET_NGINX_LISTEN": f"127.0.0.1:{self.port}", "LINNET_NGINX_LISTEN_OPTIONS": "",
            "LINNET_NGINX_TMP": str(folder), "LINNET_NGINX_ACCESS_LOG": "/dev/null",
            "LINNET_NGINX_OUT": f"{folder}/linnet.conf", "LINNET_NGINX_TRUSTED_PROXIES": "127.0.0.1",
        } | {f"LINNET_NGINX_{name}": value for name, value in options.items()}
        subprocess.run(["sh", ROOT / "nginx/render.sh"], env=os.environ | environment, check=True)
        (folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
            f"events {{ worker_connections 256; }}\nhttp {{ include {folder}/linnet.conf; }}\n"
        )
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert nginx is not None
        process = subprocess.Popen([nginx, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.terminate)
        for _ in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        self.fail("nginx does not accept connections")

    def passed(self, path: str, addresses: list[str]) -> int:
        """How many of the requests from these addresses pass the limits."""
        count = 0
        for address in addresses:
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            client.request("GET", path, headers={"X-Forwarded-For": address})
            count += client.getresponse().status != 429
            client.close()
        return count

    def test_addresses_of_one_subscriber_share_a_budget(self) -> None:
        for kind, path in KINDS.items():
            with self.subTest(kind):
                self.start(**{f"{kind}_RATE": RATE, f"{kind}_BURST": "3", f"{kind}_SITE_BURST": "1000"})
                first = [f"2001:db8:0:1::{n:x}:{n:x}" for n in range(1, 9)]
                self.assertEqual(self.passed(path, first), 4)
                self.assertEqual(self.passed(path, [f"2001:db8:0:2::{n:x}" for n in range(1, 9)]), 4, "another /64")
                self.assertEqual(self.passed(path, first), 0, "the budget is used up")
                # An IPv4 address that is written as IPv6 has the budget of the IPv4 address, and not that of a /64.
                self.assertEqual(self.passed(path, ["::ffff:192.0.2.1"] * 3), 3)
                self.assertEqual(self.passed(path, ["192.0.2.1"] * 5), 1)
                self.assertEqual(self.passed(path, ["::ffff:192.0.2.2"] * 5), 4)

    def test_a_client_in_a_trusted_network_cannot_choose_its_address(self) -> None:
        """As in a cluster, where the proxy may see a load balancer's address, which is in the trusted network too."""
        self.start(RESOLVE_RATE=RATE, RESOLVE_BURST="3", TRUSTED_PROXIES="127.0.0.1,10.0.0.0/8")
        self.assertEqual(self.passed("/no-such-code", [f"192.0.2.{n}, 10.0.0.7" for n in range(1, 9)]), 4)
        self.start(RESOLVE_RATE=RATE, RESOLVE_BURST="3", TRUSTED_PROXIES="127.0.0.1,10.0.0.7", PROXY_CHAIN="on")
        self.assertEqual(self.passed("/no-such-code", [f"192.0.2.{n}, 10.0.0.7" for n in range(1, 9)]), 8, "the chain's visitors")

    def test_subscribers_of_one_site_share_a_second_budget(self) -> None:
        for kind, path in KINDS.items():
            with self.subTest(kind):
                wide = {f"{kind}_RATE": "1000r/s", f"{kind}_BURST": "1000"}
                self.start(**wide, **{f"{kind}_SITE_RATE": RATE, f"{kind}_SITE_BURST": "5"})
                self.assertEqual(self.passed(path, [f"2001:db8:1:{n:x}::1" for n in range(1, 21)]), 6)
                self.assertEqual(self.passed(path, [f"2001:db8:2:{n:x}::1" for n in range(1, 21)]), 6, "another /48")
                # IPv4 addresses have no site.
                self.assertEqual(self.passed(path, [f"192.0.2.{n}" for n in range(1, 21)]), 20)

    def test_budget_of_a_site_is_four_times_that_of_a_subscriber(self) -> None:
        self.start(RESOLVE_RATE=RATE, RESOLVE_BURST="1")
        self.assertEqual(self.passed("/no-such-code", [f"2001:db8:1:{n:x}::1" for n in range(1, 21)]), 5)


if __name__ == "__main__":
    unittest.main()
