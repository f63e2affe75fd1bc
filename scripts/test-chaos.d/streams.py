"""Subscribers: the clicks of a link, and the events of a job. They reconnect with Last-Event-ID, as a browser does."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator

from ledger import Import, Watched
from wire import Broken, Event, Pool, events, send

# A comment every 15 s shows that a stream is alive.
SILENT_S = 35
RECONNECT_S = 1.0


async def _stream(pool: Pool, path: str, headers: dict[str, str], last: str) -> AsyncIterator[Event | None]:
    """The events of one connection. Yields None once it is open; raises Broken for another status than 200."""
    connection = await pool.open()
    try:
        send(connection, "GET", path, headers | {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {}))
        async with asyncio.timeout(15):
            status, received = await connection.head()
        if status == 204:
            return
        if status != 200:
            raise Broken
        yield None
        source = events(connection, received)
        while True:
            async with asyncio.timeout(SILENT_S):
                event = await anext(source, False)
            if event is False:
                return
            yield event
    finally:
        connection.writer.close()


async def watch(pool: Pool, headers: dict[str, str], watched: Watched) -> None:
    """Receives the clicks of a link for ever."""
    last = ""
    while True:
        try:
            watched.connects += 1
            async for event in _stream(pool, f"/api/v1/urls/{watched.id}/live", headers, last):
                if event is None:
                    continue
                if event.name == "gap":
                    watched.gaps += 1
                if event.name == "click":
                    watched.received += 1
                    watched.repeated_ids += event.id in watched.ids
                    watched.ids.add(event.id)
                last = event.id or last
        except (Broken, OSError, TimeoutError):
            pass
        await asyncio.sleep(RECONNECT_S * random.uniform(0.5, 1.5))


async def follow(pool: Pool, headers: dict[str, str], accepted: Import) -> None:
    """Receives the events of a job until it has ended."""
    last = ""
    while accepted.done is None:
        try:
            async for event in _stream(pool, f"/api/v1/jobs/{accepted.job}/events", headers, last):
                if event is None:
                    continue
                if event.name == "row_error":
                    accepted.received_lines.append(json.loads(event.data)["line"])
                    accepted.ids.append(event.id)
                if event.name == "done":
                    accepted.done = json.loads(event.data)
                    return
                last = event.id or last
        except (Broken, OSError, TimeoutError):
            pass
        await asyncio.sleep(RECONNECT_S * random.uniform(0.5, 1.5))
