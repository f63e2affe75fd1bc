"""The part of HTTP/1.1 that the load needs, over asyncio. Every request has one outcome: a status, or how it failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
# Idle connections of one pool. A burst opens more, which are closed after their response.
IDLE = 64


class Broken(Exception):
    """The connection ended before the end of the response."""


@dataclass
class Response:
    """A status, or 0 and a failure: `timeout`, `refused` or `reset`."""

    status: int
    failure: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def kind(self) -> str:
        return self.failure or str(self.status)


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.used = False
        self.idle_since = 0.0

    async def head(self) -> tuple[int, dict[str, str]]:
        try:
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            raise Broken from error
        first, *lines = text.split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of a body with `Transfer-Encoding: chunked`."""
        try:
            while size := int((await self.reader.readline()).strip() or b"-1", 16):
                if size < 0:
                    raise Broken
                yield (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            raise Broken from error

    async def body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            return b"".join([chunk async for chunk in self.chunks()])
        try:
            return await self.reader.readexactly(int(headers.get("content-length", 0)))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Broken from error


class Pool:
    """Connections to one address."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[Connection] = []

    def _kept(self) -> Connection | None:
        """The connection that was used last. nginx closes one after 65 s, so an older one may break under a POST."""
        while self.idle:
            connection = self.idle.pop()
            if time.monotonic() - connection.idle_since < 30:
                return connection
            connection.writer.close()
        return None

    async def open(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20))

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes = b"", timeout_s: float = 15) -> Response:
        """One request. As in a browser, a GET that meets a kept connection which nginx has closed is sent once more."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    connection = self._kept() or await self.open()
                    try:
                        return await self._exchange(connection, method, path, headers, body)
                    except Broken:
                        connection.writer.close()
                        if not (connection.used and method == "GET"):
                            return Response(0, "reset")
        except TimeoutError:
            if connection:
                connection.writer.close()
            return Response(0, "timeout")
        except OSError:
            return Response(0, "refused")

    async def _exchange(self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        send(connection, method, path, headers, body)
        status, received = await connection.head()
        content = b"" if status in (204, 304) else await connection.body(received)
        if received.get("connection") == "close" or len(self.idle) >= IDLE:
            connection.writer.close()
        else:
            connection.used, connection.idle_since = True, time.monotonic()
            self.idle.append(connection)
        return Response(status, "", received, content)


def send(connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"User-Agent: {AGENT}", *(f"{name}: {value}" for name, value in headers.items())]
    if method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    connection.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@dataclass
class Event:
    """A server-sent event."""

    name: str
    id: str
    data: str


async def events(connection: Connection, headers: dict[str, str]) -> AsyncIterator[Event | None]:
    """The events of a stream until it ends; None for a comment, such as the one that shows that the stream is alive."""
    if headers.get("transfer-encoding") != "chunked":
        raise Broken
    text = ""
    async for chunk in connection.chunks():
        text += chunk.decode()
        while "\n\n" in text:
            block, _, text = text.partition("\n\n")
            pairs = (line.partition(":") for line in block.split("\n"))
            fields = {name: value.strip() for name, _, value in pairs if name}
            yield Event(fields.get("event", "message"), fields.get("id", ""), fields["data"]) if "data" in fields else None
