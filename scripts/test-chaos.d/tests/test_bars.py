"""The judgment of a fault: each way to be outside the bar is found, and nothing else is."""

from __future__ import annotations

import time
import unittest
from contextlib import nullcontext

from fault import Fault, Result, Stage
from ledger import CACHED, CREATE, EDIT, Checked, Edited, Ledger, Window
from wire import Response


def result(fault: Fault, *failures: tuple[str, int], after_s: float = 0.0, **more) -> Result:
    window = Window()
    for route, status in failures:
        window.record(route, Response(status), time.monotonic(), ok=False)
    checked = more.pop("checked", Checked())
    return Result(fault, window, time.monotonic() - after_s, more.pop("calm", True), more.pop("fired", {}), checked, Stage(None, None), True)


def fault(**more) -> Fault:
    return Fault("name", "title", lambda _stage: nullcontext(), **more)


class Bars(unittest.TestCase):
    def test_allowed_failures_are_within_the_bar(self) -> None:
        self.assertEqual(result(fault(allowed={CREATE: "502,503"}), (CREATE, 503), (CREATE, 502)).broken(), [])

    def test_failure_of_another_kind_or_route_is_outside(self) -> None:
        bar = fault(allowed={CREATE: "503"})
        self.assertEqual(result(bar, (CREATE, 500), (CACHED, 503)).broken(), ["1 requests failed: cached redirect: 503", "1 requests failed: create: 500"])

    def test_failure_too_long_after_the_end_is_outside(self) -> None:
        bar = fault(allowed={CREATE: "503"}, recovers_within_s=5)
        self.assertEqual(result(bar, (CREATE, 503), after_s=4).broken(), [])
        self.assertIn("after the end of the fault", result(bar, (CREATE, 503), after_s=6).broken()[0])

    def test_more_failures_than_the_most_are_outside(self) -> None:
        bar = fault(allowed={CREATE: "502"}, most=1)
        self.assertEqual(result(bar, (CREATE, 502)).broken(), [])
        self.assertEqual(result(bar, (CREATE, 502), (CREATE, 502)).broken(), ["2 requests failed, 1 may"])

    def test_missing_and_late_alerts_are_outside(self) -> None:
        bar = fault(alert="RedisDown", alert_within_s=90)
        self.assertEqual(result(bar, fired={"RedisDown": 60.0}).broken(), [])
        self.assertIn("91 s", result(bar, fired={"RedisDown": 91.0}).broken()[0])
        self.assertIn("no time", result(bar, fired={"Other": 1.0}).broken()[0])

    def test_violations_stale_redirects_and_lasting_failures_are_outside(self) -> None:
        found = result(fault(), checked=Checked(violations=["a lost link"], stale=1, stalest_s=2.0), calm=False).broken()
        self.assertEqual(found, ["a lost link", "requests still fail", "1 redirects to a replaced target, up to 2.0 s after the edit"])


class Edits(unittest.TestCase):
    def setUp(self) -> None:
        self.link, self.ledger, self.now = Edited(1, "code", "https://example.com/"), Ledger(), time.monotonic()
        self.link.sent += [self.now - 10, self.now - 8, self.now - 6]

    def read(self, number: int) -> tuple[int, int]:
        self.ledger.check_edited(self.link, f"https://example.com/{number}", self.now)
        return self.ledger.stale, len(self.ledger.violations)

    def test_target_replaced_more_than_a_second_before_is_stale(self) -> None:
        self.link.acknowledged = {1: self.now - 9, 2: self.now - 7}
        self.assertEqual(self.read(1), (1, 0))
        self.assertAlmostEqual(self.ledger.stalest_s, 7, places=1)

    def test_target_replaced_within_a_second_is_not_stale(self) -> None:
        self.link.acknowledged = {1: self.now - 9, 2: self.now - 0.9}
        self.assertEqual(self.read(1), (0, 0))

    def test_edit_without_acknowledgment_may_be_executed_late(self) -> None:
        self.link.acknowledged = {1: self.now - 9, 3: self.now - 5}
        self.assertEqual(self.read(2), (0, 0))

    def test_target_that_the_link_never_had_is_a_violation(self) -> None:
        self.assertEqual(self.read(4), (0, 1))

    def test_failures_are_counted_by_route(self) -> None:
        window = Window()
        window.record(EDIT, Response(0, "timeout"), self.now, ok=False)
        window.record(CREATE, Response(503), self.now, ok=False)
        self.assertEqual(window.failures(EDIT), {"timeout": 1})


if __name__ == "__main__":
    unittest.main()
