"""promql.py finds the selectors of an expression and rejects invalid ones."""

from __future__ import annotations

import unittest

from promql import Malformed, selectors


def found(expr: str) -> list[str]:
    return [str(selector) for selector in selectors(expr)]


class Selectors(unittest.TestCase):
    def test_finds_a_metric_with_and_without_conditions(self) -> None:
        self.assertEqual(found("up"), ["up"])
        self.assertEqual(found('up{job="x",instance!~"a.*"} == 0'), ['up{job="x",instance!~"a.*"}'])
        self.assertEqual(found('{__name__=~"a|b"}'), ['{__name__=~"a|b"}'])
        self.assertEqual(found('up{ job = "x", }'), ['up{job="x"}'])

    def test_skips_functions_and_aggregations(self) -> None:
        self.assertEqual(found("sum(rate(a_total[5m]))"), ["a_total"])
        self.assertEqual(found("sum by (job, le) (rate(a_bucket[5m]))"), ["a_bucket"])
        self.assertEqual(found("sum without (job) (a)"), ["a"])
        self.assertEqual(found("sum(a) by (job)"), ["a"])
        self.assertEqual(found("topk(3, count by (cpu) (a))"), ["a"])

    def test_skips_the_labels_of_joins(self) -> None:
        self.assertEqual(found("a / on (job) group_left (release, version) b"), ["a", "b"])
        self.assertEqual(found("a * ignoring (state) group_right b"), ["a", "b"])

    def test_skips_operators_numbers_offsets_and_ranges(self) -> None:
        self.assertEqual(found("a and b or c unless d > bool 1e3"), ["a", "b", "c", "d"])
        self.assertEqual(found("a offset 5m > Inf or vector(0)"), ["a"])
        self.assertEqual(found("max_over_time(rate(a[5m])[1h:30s] @ 1609746000)"), ["a"])
        self.assertEqual(found("a offset 1h30m + 0x1f * .5"), ["a"])

    def test_finds_recorded_names_with_colons(self) -> None:
        self.assertEqual(found("job:http_errors:rate5m > 0"), ["job:http_errors:rate5m"])

    def test_skips_the_contents_of_strings(self) -> None:
        self.assertEqual(found('label_replace(a, "x", "$1", "y", "(.*) by (b)")'), ["a"])
        self.assertEqual(found(r'a{b="c\"d{e}"}'), [r'a{b="c\"d{e}"}'])
        self.assertEqual(found("a{b='c',d=`e`}"), ['a{b="c",d="e"}'])

    def test_skips_comments_across_lines(self) -> None:
        self.assertEqual(found("a # not b\n  / c"), ["a", "c"])

    def test_returns_each_selector_once(self) -> None:
        self.assertEqual(found('a{b="c"} / a{b="c"} + a'), ['a{b="c"}', "a"])

    def test_rejects_invalid_syntax(self) -> None:
        for expr in ('a{b="c"', "a{b=c}", 'a{b>"c"}', 'a{b="c" d="e"}', "sum by (a", "a ~ b", 'a{"b"}', ""):
            with self.subTest(expr), self.assertRaises(Malformed):
                selectors(expr)

    def test_rejects_what_prometheus_rejects(self) -> None:
        for expr in ("nosuch(a)", "rate(a)", "sum(a[5m])", "max_over_time(a[5m]) @ 5", 'a{b="c" or d="e"}', "a[5m:1m"):
            with self.subTest(expr), self.assertRaises(Malformed):
                selectors(expr)


if __name__ == "__main__":
    unittest.main()
