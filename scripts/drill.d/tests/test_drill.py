"""The parts of `make drill` that need no installation."""

from __future__ import annotations

import re
import socket
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import table
from faults import FAULTS
from proxy import Proxy
from runbook import PAGES, commands, section
from stack import ROOT

RULES = sorted((ROOT / "monitoring/prometheus/rules").glob("*.yml"))


def runbook_of(alert: str) -> str:
    """The URL of an alert's runbook."""
    for path in RULES:
        found = re.search(rf"- alert: {alert}\n.*?runbook_url: (\S+)", path.read_text(encoding="utf-8"), re.DOTALL)
        if found:
            return found.group(1)
    return ""


class Faults(unittest.TestCase):
    def test_there_are_twelve_and_each_has_an_alert_with_checks(self) -> None:
        self.assertEqual(len(FAULTS), 12)
        for name, fault in FAULTS.items():
            with self.subTest(name):
                url = runbook_of(fault.alert)
                self.assertIn(PAGES, url)
                self.assertTrue(list(commands(section(url))))
                self.assertTrue(fault.title and fault.component)

    def test_the_page_has_a_row_of_each_fault(self) -> None:
        rows = re.findall(r"(?m)^\| `([a-z-]+)`: ", table.PAGE.read_text(encoding="utf-8"))
        self.assertEqual(rows, list(FAULTS))


class Runbooks(unittest.TestCase):
    def test_commands_of_several_lines_stay_whole(self) -> None:
        text = "**Check.** As follows:\n\n```sh\none 'a\n  b'    # why\ntwo | # three\nfour\n```\n\n**Fix**\n\n```sh\nfix\n```\n"
        self.assertEqual(list(commands(text)), ["one 'a\n  b'    # why", "two | # three\nfour"])

    def test_a_section_ends_at_the_next_heading(self) -> None:
        text = section(f"https://example.com{PAGES}postgres-load.md#postgresexclusivelock")
        self.assertIn("scripts/oncall locks", text)
        self.assertNotIn("## PostgresDeadlocks", text)


class Table(unittest.TestCase):
    def test_a_row_replaces_that_of_the_same_fault(self) -> None:
        row = table.Row("flood", "a title", "RequestsRefused", 70, "oncall query 'x'   # why", "203.0.113.0  |  9", 120, [])
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "DRILLS.md"
            page.write_text("| `flood`: old | |\n| `hot-link`: kept | |\n", encoding="utf-8")
            with mock.patch.object(table, "PAGE", page), mock.patch.object(table, "today", return_value="2026-11-27"):
                table.write(row)
            lines = page.read_text(encoding="utf-8").splitlines()
        self.assertEqual(lines[1], "| `hot-link`: kept | |")
        self.assertEqual(lines[0], "| `flood`: a title | RequestsRefused | 70 s | `oncall query 'x'` → `203.0.113.0 \\| 9` | 120 s "
                                   "| none | 2026-11-27 |")


class BlackHole(unittest.TestCase):
    def test_the_proxy_keeps_connections_and_data_until_it_forwards_again(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            proxy = Proxy(server.getsockname()[1])
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
                peer, _ = server.accept()
                peer.settimeout(10)
                client.sendall(b"one")
                self.assertEqual(peer.recv(3), b"one")
                proxy.forwards.clear()
                client.sendall(b"two")
                peer.settimeout(0.5)
                with self.assertRaises(TimeoutError):
                    peer.recv(3)
                proxy.forwards.set()
                peer.settimeout(10)
                self.assertEqual(peer.recv(3), b"two")
                peer.close()
            proxy.close()


if __name__ == "__main__":
    unittest.main()
