"""Latency of one link's statistics, a year by day, without and with a hundred times as many clicks on other links."""

from __future__ import annotations

import http.client
import json
import time
from datetime import datetime, timedelta, timezone

from figures import median, say
from processes import BenchError

FIGURES = ("stats_fill", "stats_few_p50", "stats_few_p99", "stats_p50", "stats_p99", "stats_ratio")

DAYS = 365
TABLES = ("raw_clicks, click_link_days, click_hours, click_days, click_days_by_value, click_months, click_months_by_value, "
          "click_batches")


def run(bench) -> None:
    stack, size, figures = bench.stack, bench.size, bench.figures
    stack.sql(f"TRUNCATE {TABLES}")
    # All of these clicks are the link's. `generate` folds past months at its end.
    stack.generate(1, size.stats_few, DAYS, 1)
    link = int(stack.sql(f"SELECT max(id) FROM urls WHERE user_id = {bench.user_id}"))
    few = Asked(bench, link, size.stats_few)
    start = time.monotonic()
    stack.generate(size.stats_links, size.stats_many - size.stats_few, DAYS, 2)
    fill = (size.stats_many - size.stats_few) / (time.monotonic() - start)
    many = Asked(bench, link, size.stats_many)
    if few.answer != many.answer:
        raise BenchError("clicks on other links changed the statistics of this link")
    figures.add("stats_fill", fill, "clicks/s", note="`admin generate`, a year in time order, including links and folding")
    figures.add("stats_few_p50", few.p50, "ms", note=f"{size.stats_few:,} clicks, all on this link")
    figures.add("stats_few_p99", few.p99, "ms")
    figures.add("stats_p50", many.p50, "ms", note=f"{size.stats_many:,} clicks, the same number on this link")
    figures.add("stats_p99", many.p99, "ms", at_most=20)
    figures.add("stats_ratio", many.p99 / few.p99, "of few's p99", at_most=1.5)


class Asked:
    """Medians of the rounds' percentiles in milliseconds, and the response."""

    def __init__(self, bench, link: int, clicks: int) -> None:
        stack, size = bench.stack, bench.size
        recorded = int(stack.sql("SELECT count(*) FROM all_clicks"))
        if recorded != clicks:
            raise BenchError(f"{recorded:,} clicks instead of {clicks:,}")
        stack.sql(f"VACUUM (ANALYZE) {TABLES}")
        stack.as_superuser("CHECKPOINT")
        today = datetime.now(timezone.utc).date()
        path = f"/api/v1/urls/{link}/stats?from={today - timedelta(days=DAYS)}&to={today}&interval=day"
        connection = http.client.HTTPConnection(bench.address, timeout=30)
        rounds = []
        try:
            # The first round reads from disk and is dropped.
            for count in (20, *[size.stats_requests] * size.stats_rounds):
                rounds.append(sorted(self.ask(connection, path, bench.key) for _ in range(count)))
        finally:
            connection.close()
        self.p50 = median([of(times, 0.5) for times in rounds[1:]])
        self.p99 = median([of(times, 0.99) for times in rounds[1:]])
        say(f"  {clicks:,} clicks: p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms")

    def ask(self, connection: http.client.HTTPConnection, path: str, key: str) -> float:
        start = time.monotonic()
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        body = response.read()
        took = (time.monotonic() - start) * 1000
        if response.status != 200:
            raise BenchError(f"the statistics returned {response.status}: {body[:300]!r}")
        self.answer = json.loads(body)
        return took


def of(times: list[float], share: float) -> float:
    """A percentile of sorted times."""
    return times[min(int(len(times) * share), len(times) - 1)]
