"""The judgment of a fault of the cluster, the rules of a partition, and the settings of a node."""

from __future__ import annotations

import time
import unittest
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from bars import ClusterFault, ClusterResult, ClusterStage
from cluster import Cluster
from engine import ADDRESSES
from faults import FAULTS, between
from ledger import CACHED, UNCACHED, Checked, Window
from node import Node
from wire import Response


def result(fault: ClusterFault, *failures: tuple[str, float]) -> ClusterResult:
    """`failures`: kinds of requests that failed with 503, and seconds before now at which they began."""
    window = Window()
    for route, ago_s in failures:
        window.record(route, Response(503), time.monotonic() - ago_s, ok=False)
    return ClusterResult(fault, window, time.monotonic(), True, {}, Checked(), ClusterStage(None, None), False)


class Bars(unittest.TestCase):
    def fault(self, **more) -> ClusterFault:
        return ClusterFault("name", "title", lambda _stage: nullcontext(), **more)

    def test_failures_for_longer_than_the_bar_are_outside(self) -> None:
        bar = self.fault(allowed={UNCACHED: "503"}, longest_s={UNCACHED: 10})
        self.assertEqual(result(bar, (UNCACHED, 9)).broken(), [])
        self.assertEqual(result(bar, (UNCACHED, 11)).broken(), ["uncached redirect failed for 11.0 s, 10 s may be"])

    def test_failed_cached_redirect_is_outside_unless_the_bar_names_it(self) -> None:
        self.assertEqual(result(self.fault(), (CACHED, 0)).broken(), ["1 requests failed: cached redirect: 503"])

    def test_bar_names_the_longest_time(self) -> None:
        self.assertIn("uncached redirect for 10 s at most", self.fault(allowed={UNCACHED: "503"}, longest_s={UNCACHED: 10}).bar())

    def test_names_are_unique_and_cached_redirects_fail_only_where_both_stores_are_gone(self) -> None:
        self.assertEqual(len({fault.name for fault in FAULTS}), len(FAULTS))
        self.assertEqual([fault.name for fault in FAULTS if CACHED in fault.allowed], ["node-with-both-killed"])


    def test_short_form_has_at_most_four_faults_of_different_parts(self) -> None:
        short = [fault.name for fault in FAULTS if fault.short]
        self.assertEqual(short, ["node-killed", "postgres-killed", "redis-killed", "rolling-restart"])


class Settings(unittest.TestCase):
    def test_postgres_url_names_every_host(self) -> None:
        url = Node(1).postgres_url()
        self.assertIn("@" + ",".join(f"{address}:5432" for address in ADDRESSES) + "/linnet?target_session_attrs=read-write&", url)

    def test_the_last_release_gets_the_primary_only_and_a_directory(self) -> None:
        cluster = Cluster(Path("/old"))
        self.assertTrue(all(node.is_old() and node.uploads == "directory" for node in cluster.nodes))
        with mock.patch("node.postgres_primary", return_value=ADDRESSES[1]):
            self.assertIn(f"@{ADDRESSES[1]}:5432/linnet?sslmode", cluster.nodes[0].postgres_url())


class Partitions(unittest.TestCase):
    def test_rules_match_only_packets_of_other_nodes_in_the_direction(self) -> None:
        rules = between(Node(1), "out")
        self.assertEqual(rules, [("OUTPUT", "-d", ADDRESSES[1]), ("OUTPUT", "-d", ADDRESSES[2])])
        self.assertEqual(len(between(Node(1), "in", "out")), 4)

    def test_rules_of_ports_match_requests_and_responses(self) -> None:
        rules = between(Node(2), "in", ports="5432")
        self.assertEqual({rule[-2] for rule in rules}, {"--dports", "--sports"})
        self.assertTrue(all(rule[0] == "INPUT" for rule in rules))


if __name__ == "__main__":
    unittest.main()
