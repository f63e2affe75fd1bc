"""Mixed load at fixed rates: a request is sent when it is due, whether or not earlier ones have ended.

A client that waits for each response would send few requests to a process that hangs, and so hide the failure.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import streams
from ledger import CACHED, CREATE, EDIT, EDITED, IMPORT, LIST, ROUTES, UNCACHED, Edited, Import, Ledger, Watched, Window
from wire import Pool, Response

# Requests per second.
RATES = {CACHED: 60.0, UNCACHED: 8.0, EDITED: 16.0, LIST: 4.0, CREATE: 4.0, EDIT: 4.0, IMPORT: 0.2}
HOT_LINKS, EDITED_LINKS, WATCHED_LINKS = 20, 8, 2
IMPORT_ROWS, IMPORT_BAD_ROWS = 100, 3
IMPORT_ATTEMPTS = 6
# An upload may wait for longer than other requests: for its client, the disk and the database.
UPLOAD_TIMEOUT_S = 60
# Imports wait while this many are unfinished.
UNFINISHED_IMPORTS = 6
# Without a failure for this long, the installation is calm.
CALM_S = 5
POOL_ROWS = 10_000
# Of a link in the pool that nothing has requested yet.
POOL_TARGET = "https://example.com/pool/{}"


class Load:
    """Runs in a thread of its own. Its public methods may be called from any thread."""

    def __init__(self, port: int, key: str) -> None:
        self.pool, self.ledger, self.window = Pool(port), Ledger(), Window()
        self.token = secrets.token_hex(4)
        self.auth = {"Authorization": f"Bearer {key}"}
        self.json = self.auth | {"Content-Type": "application/json"}
        self.hot: list[tuple[str, str]] = []
        self.uncached: list[str] = []
        self.running, self.in_flight = False, 0
        self.loop = asyncio.new_event_loop()
        self.tasks: set[asyncio.Task[Any]] = set()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def call(self, work: Coroutine[Any, Any, Any], timeout_s: float = 120) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(timeout_s)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def prepare(self) -> None:
        """Creates the links, and subscribes to two of them."""
        self.call(self._prepare(), 300)

    def start(self) -> None:
        """Starts all kinds of requests."""
        actions = {CACHED: self._visit_hot, UNCACHED: self._visit_uncached, EDITED: self._visit_edited, LIST: self._list,
                   CREATE: self._create, IMPORT: self._import}
        for route, action in actions.items():
            self.call(self._spawned(self._at_rate(RATES[route], action)))
        for link in self.ledger.edited:
            self.call(self._spawned(self._edit_repeatedly(link, EDITED_LINKS / RATES[EDIT])))
        self.running = True

    def pause(self) -> None:
        """Sends nothing more, and waits for the responses. Subscribers stay."""
        self.running = False
        until = time.monotonic() + 30
        while self.in_flight and time.monotonic() < until:
            time.sleep(0.1)

    def resume(self) -> None:
        self.running = True

    def new_window(self) -> Window:
        self.window = Window()
        return self.window

    def becomes_calm(self, within_s: float) -> bool:
        """Waits until no request fails any more, and requests of each kind succeed."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            window = self.window
            before, since = dict(window.succeeded), time.monotonic()
            while time.monotonic() - since < CALM_S:
                time.sleep(0.25)
                if max(window.last_failure.values(), default=0.0) > since:
                    break
            else:
                if all(window.succeeded[route] > before.get(route, 0) for route in ROUTES if route != IMPORT):
                    return True
        return False

    async def _spawned(self, work: Coroutine[Any, Any, Any]) -> None:
        self.spawn(work)

    async def _at_rate(self, per_second: float, action: Callable[[], Awaitable[None]]) -> None:
        due = self.loop.time()
        while True:
            # Evenly spaced requests would meet the same phase of every timer.
            due = max(due + random.expovariate(per_second), self.loop.time() - 1)
            await asyncio.sleep(max(due - self.loop.time(), 0))
            if self.running:
                self.spawn(self._counted(action()))

    async def _counted(self, work: Awaitable[None]) -> None:
        self.in_flight += 1
        try:
            await work
        finally:
            self.in_flight -= 1

    async def _api(self, method: str, path: str, body: object = None) -> Response:
        data = b"" if body is None else json.dumps(body).encode()
        return await self.pool.request(method, f"/api/v1{path}", self.auth if body is None else self.json, data)

    # --- Preparation -------------------------------------------------------------------------------------------------
    async def _prepare(self) -> None:
        for number in range(HOT_LINKS):
            target = f"https://example.com/hot/{self.token}/{number}"
            link = await self._must_create({"original_url": target, "short_code": f"hot-{self.token}-{number}"})
            self.hot.append((link["short_code"], target))
            if number < WATCHED_LINKS:
                self.ledger.watched.append(Watched(link["id"], link["short_code"]))
        for number in range(EDITED_LINKS):
            base = f"https://example.com/edited/{self.token}/{number}/"
            link = await self._must_create({"original_url": f"{base}0", "short_code": f"edited-{self.token}-{number}"})
            self.ledger.edited.append(Edited(link["id"], link["short_code"], base))
        await self._refill()
        for watched in self.ledger.watched:
            self.spawn(streams.watch(self.pool, self.auth, watched))

    async def _must_create(self, body: dict) -> dict:
        response = await self._api("POST", "/urls", body)
        if response.status != 201:
            raise RuntimeError(f"POST /urls: {response.kind} {response.body!r}")
        return json.loads(response.body)

    def refill(self) -> None:
        """Adds links to the pool of those that no cache has, if it is nearly empty."""
        if len(self.uncached) < POOL_ROWS / 4:
            self.call(self._refill(), 300)

    async def _refill(self) -> None:
        prefix = f"pool-{self.token}-{secrets.token_hex(2)}"
        codes = [f"{prefix}-{number}" for number in range(POOL_ROWS)]
        rows = "original_url,short_code\n" + "".join(f"{POOL_TARGET.format(code)},{code}\n" for code in codes)
        accepted = await self.pool.request("POST", "/api/v1/urls/bulk", self.auth | {"Content-Type": "text/csv"}, rows.encode())
        if accepted.status != 202:
            raise RuntimeError(f"POST /urls/bulk: {accepted.kind} {accepted.body!r}")
        job = json.loads(accepted.body)["job"]["id"]
        until = time.monotonic() + 240
        while True:
            state = json.loads((await self._api("GET", f"/jobs/{job}")).body or b"{}")
            if state.get("state") == "succeeded":
                break
            if time.monotonic() > until:
                raise RuntimeError(f"the import of the pool has not ended: {state}")
            await asyncio.sleep(0.3)
        random.shuffle(codes)
        self.uncached = codes + self.uncached

    # --- Requests ----------------------------------------------------------------------------------------------------
    async def _visit(self, route: str, code: str) -> tuple[Response, str, float]:
        start, window = time.monotonic(), self.window
        response = await self.pool.request("GET", f"/{code}", {})
        window.record(route, response, start, ok=response.status == 302)
        if response.status == 404:
            self.ledger.violation(f"{code} exists, and returned 404")
        return response, response.headers.get("location", ""), start

    async def _visit_hot(self) -> None:
        code, target = random.choice(self.hot)
        response, location, _ = await self._visit(CACHED, code)
        if response.status == 302:
            self.ledger.served += 1
            if location != target:
                self.ledger.violation(f"{code} leads to {location} instead of {target}")
        else:
            self.ledger.unknown += 1

    async def _visit_uncached(self) -> None:
        if not self.uncached:
            return
        code = self.uncached.pop()
        response, location, _ = await self._visit(UNCACHED, code)
        if response.status == 302 and location != POOL_TARGET.format(code):
            self.ledger.violation(f"{code} leads to {location}")

    async def _visit_edited(self) -> None:
        link = random.choice(self.ledger.edited)
        response, location, start = await self._visit(EDITED, link.code)
        if response.status == 302:
            self.ledger.check_edited(link, location, start)

    async def _list(self) -> None:
        start, window = time.monotonic(), self.window
        response = await self._api("GET", "/urls?limit=1")
        window.record(LIST, response, start, ok=response.status == 200)

    async def _create(self) -> None:
        start, window = time.monotonic(), self.window
        target = f"https://example.com/created/{self.token}/{secrets.token_hex(8)}"
        response = await self._api("POST", "/urls", {"original_url": target})
        window.record(CREATE, response, start, ok=response.status == 201)
        if response.status == 201:
            self.ledger.created.append((json.loads(response.body)["short_code"], target))

    async def _edit_repeatedly(self, link: Edited, pause_s: float) -> None:
        """One writer for each link, so that the order of its edits is known."""
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause_s)
            if self.running:
                await self._counted(self._edit(link))

    async def _edit(self, link: Edited) -> None:
        start, window = time.monotonic(), self.window
        number = len(link.sent)
        link.sent.append(start)
        response = await self._api("PATCH", f"/urls/{link.id}", {"original_url": f"{link.base}{number}"})
        window.record(EDIT, response, start, ok=response.status == 200)
        if response.status == 200:
            link.acknowledged[number] = time.monotonic()

    async def _import(self) -> None:
        if sum(one.done is None for one in self.ledger.imports) < UNFINISHED_IMPORTS:
            await self._import_rows(IMPORT_ROWS)

    async def _import_rows(self, number: int) -> Import | None:
        prefix = f"row-{self.token}-{secrets.token_hex(4)}"
        bad = sorted(random.sample(range(number), IMPORT_BAD_ROWS))
        rows = (f"{'no address' if row in bad else f'https://example.com/{prefix}/{row}'},{prefix}-{row}\n" for row in range(number))
        body = ("original_url,short_code\n" + "".join(rows)).encode()
        # A client that wants its import once repeats it with the same key. An earlier attempt may have been executed.
        headers = self.auth | {"Content-Type": "text/csv", "Idempotency-Key": prefix}
        for _ in range(IMPORT_ATTEMPTS):
            start, window = time.monotonic(), self.window
            response = await self.pool.request("POST", "/api/v1/urls/bulk", headers, body, UPLOAD_TIMEOUT_S)
            window.record(IMPORT, response, start, ok=response.status == 202)
            if response.status == 202:
                break
            await asyncio.sleep(random.uniform(1, 3))
        else:
            return None
        # The header is line 1.
        accepted = Import(json.loads(response.body)["job"]["id"], prefix, number - IMPORT_BAD_ROWS, [row + 2 for row in bad])
        self.ledger.imports.append(accepted)
        self.spawn(streams.follow(self.pool, self.auth, accepted))
        return accepted

    def import_rows(self, number: int) -> Import:
        """Uploads an import of this many rows, besides the load."""
        accepted = self.call(self._import_rows(number))
        if accepted is None:
            raise RuntimeError("the import was not accepted")
        return accepted

    def rows_written(self, accepted: Import) -> int:
        """So far; 0 without a response."""
        response = self.call(self._api("GET", f"/jobs/{accepted.job}"))
        return int(json.loads(response.body)["rows_written"]) if response.status == 200 else 0


def rates() -> str:
    """The rates in words."""
    return ", ".join(f"{rate:g}/s {route}" for route, rate in itertools.chain(RATES.items()))
