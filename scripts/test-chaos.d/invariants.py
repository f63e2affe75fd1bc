"""Compares what Linnet acknowledged with what it serves and stores. The load is paused meanwhile; subscribers stay."""

from __future__ import annotations

import asyncio
import time

from engine import redis_cli, sql
from ledger import Checked, Import
from load import HOT_LINKS, Load

# A worker takes over a killed one's job when its lease has expired, after 15 s, and failed attempts back off.
JOBS_END_WITHIN_S = 240
CLICKS_ARRIVE_WITHIN_S = 90


class Checker:
    """Each call checks what came since the one before."""

    def __init__(self, load: Load) -> None:
        self.load, self.ledger = load, load.ledger
        self.dead_jobs = self.created = self.edits = self.imports = self.violations = 0
        self.clicks = self.unknown = self.served = self.stale = self.reads = self.live = self.gaps = 0

    def check(self, clicks_may_be_lost: int, counted_losses: int = 0) -> Checked:
        """Fails nothing by itself: violations are in the result."""
        found = Checked()
        self._created(found)
        self._edited(found)
        self._imports(found)
        self._clicks(found, clicks_may_be_lost + counted_losses)
        self._reads(found)
        found.violations += self.ledger.violations[self.violations:]
        self.violations = len(self.ledger.violations)
        return found

    def _created(self, found: Checked) -> None:
        new = self.ledger.created[self.created:]
        for (code, target), location in zip(new, self.load.call(self._locations([code for code, _ in new])), strict=True):
            if location != target:
                found.violations.append(f"the acknowledged link {code} leads to {location or 'nothing'} instead of {target}")
        found.created, self.created = len(new), len(self.ledger.created)
        twice = sql(f"SELECT count(*) FROM (SELECT 1 FROM urls WHERE original_url LIKE 'https://example.com/created/{self.load.token}/%' "
                    "GROUP BY original_url HAVING count(*) > 1) AS twice")
        if twice != "0":
            found.violations.append(f"{twice} creates were executed twice")

    async def _locations(self, codes: list[str]) -> list[str]:
        limit = asyncio.Semaphore(16)

        async def location(code: str) -> str:
            async with limit:
                response = await self.load.pool.request("GET", f"/{code}", {})
                return response.headers.get("location", response.kind)

        return await asyncio.gather(*map(location, codes))

    def _edited(self, found: Checked) -> None:
        # No response is older than the bound of the cache.
        time.sleep(1)
        before = time.monotonic() - 1
        for link, location in zip(self.ledger.edited, self.load.call(self._locations([link.code for link in self.ledger.edited])), strict=True):
            number = link.number_of(location)
            if number is None or not link.is_current(number, before):
                found.violations.append(f"{link.code} leads to {location}, but edit {link.newest(before)} was acknowledged")
            stored = sql(f"SELECT original_url FROM urls WHERE id = {link.id}")
            if stored != location:
                found.violations.append(f"{link.code} leads to {location}, but {stored} is stored")
        edits = sum(len(link.acknowledged) for link in self.ledger.edited)
        found.edited, self.edits = edits - self.edits, edits

    def _imports(self, found: Checked) -> None:
        new = self.ledger.imports[self.imports:]
        until = time.monotonic() + JOBS_END_WITHIN_S
        while any(one.done is None for one in new) and time.monotonic() < until:
            time.sleep(0.2)
        for one in new:
            found.violations += self._import(one)
            found.imported_rows += one.rows
            found.row_events += len(one.received_lines)
        self.imports = len(self.ledger.imports)
        dead = int(sql("SELECT count(*) FROM jobs WHERE dead_at IS NOT NULL"))
        found.dead_jobs, self.dead_jobs = dead - self.dead_jobs, dead

    @staticmethod
    def _import(one: Import) -> list[str]:
        if one.done is None:
            return [f"job {one.job} has not ended after {JOBS_END_WITHIN_S} s"]
        wrong = []
        if one.done["state"] != "succeeded" or one.done["rows_written"] != one.rows:
            wrong.append(f"job {one.job}: {one.done['state']}, {one.done['rows_written']} of {one.rows} rows, {one.done.get('error')}")
        stored = int(sql(f"SELECT count(*) FROM urls WHERE short_code LIKE '{one.prefix}-%'"))
        if stored != one.rows:
            wrong.append(f"job {one.job}: {stored} of {one.rows} acknowledged rows are stored")
        if one.received_lines != one.bad_lines or len(set(one.ids)) != len(one.ids):
            wrong.append(f"job {one.job}: its stream sent the bad rows {one.received_lines} instead of {one.bad_lines}")
        return wrong

    def _clicks(self, found: Checked, may_be_lost: int) -> None:
        served, unknown = self.ledger.served - self.served, self.ledger.unknown - self.unknown
        until = time.monotonic() + CLICKS_ARRIVE_WITHIN_S
        # First until they are there, then until no more come: more than were served would be wrong too.
        while self._recorded() - self.clicks < served and time.monotonic() < until and not (self._stream_is_empty() and self._is_still()):
            time.sleep(0.5)
        while not self._is_still() and time.monotonic() < until:
            pass
        recorded = self._recorded() - self.clicks
        found.clicks, found.clicks_lost, found.clicks_extra = recorded, max(served - recorded, 0), max(recorded - served, 0)
        if found.clicks_lost > may_be_lost:
            found.violations.append(f"{found.clicks_lost} of {served} clicks are lost, {may_be_lost} may be")
        # A redirect can have been sent although its client did not receive it; nginx repeats a GET that broke.
        if found.clicks_extra > unknown + 8:
            found.violations.append(f"{found.clicks_extra} clicks more than the {served} redirects are recorded; {unknown} requests failed")
        self.served, self.unknown, self.clicks = self.ledger.served, self.ledger.unknown, self.clicks + recorded

    def _is_still(self) -> bool:
        before = self._recorded()
        time.sleep(2.5)
        return self._recorded() == before

    def _recorded(self) -> int:
        return int(sql(f"SELECT coalesce(sum(clicks), 0) FROM urls WHERE short_code LIKE 'hot-{self.load.token}-%'") or 0)

    @staticmethod
    def _stream_is_empty() -> bool:
        lines = redis_cli("XINFO", "GROUPS", "linnet:clicks").splitlines()
        group = dict(zip(lines[::2], lines[1::2], strict=False))
        if group.get("pending") != "0":
            return False
        if group.get("lag"):
            return group["lag"] == "0"
        # Redis does not know the lag after some deletions and failovers.
        lines = redis_cli("XINFO", "STREAM", "linnet:clicks").splitlines()
        return dict(zip(lines, lines[1:], strict=False)).get("last-generated-id") == group.get("last-delivered-id")

    def _reads(self, found: Checked) -> None:
        ledger = self.ledger
        found.checked_reads, self.reads = ledger.checked_reads - self.reads, ledger.checked_reads
        found.stale, self.stale = ledger.stale - self.stale, ledger.stale
        found.stalest_s, ledger.stalest_s = ledger.stalest_s, 0.0
        live, gaps = sum(one.received for one in ledger.watched), sum(one.gaps for one in ledger.watched)
        found.live_clicks, self.live = live - self.live, live
        found.live_gaps, self.gaps = gaps - self.gaps, gaps
        repeated = sum(one.repeated_ids for one in ledger.watched)
        if repeated:
            found.violations.append(f"{repeated} clicks of {len(ledger.watched)} of {HOT_LINKS} links were sent twice with one id")
            for one in ledger.watched:
                one.repeated_ids = 0
