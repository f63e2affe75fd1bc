"""Ordinary requests during a drill, the flood, and the visits of a hot link."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable

VISITOR = "198.51.100.7"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Client:
    """Requests from one address over one connection. A failed request returns 0."""

    def __init__(self, address: str, forwarded_for: str = VISITOR, key: str = "") -> None:
        parts = urllib.parse.urlsplit(address)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.headers = {"User-Agent": AGENT, "X-Forwarded-For": forwarded_for}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.connection: http.client.HTTPConnection | None = None

    def request(self, path: str, body: object = None) -> tuple[int, bytes]:
        """GET, or POST with a body as JSON. Returns status and body."""
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.host, self.port, timeout=12)
            headers = dict(self.headers)
            if body is not None:
                headers["Content-Type"] = "application/json"
            self.connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
            response = self.connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            if self.connection:
                self.connection.close()
            self.connection = None
            return 0, b""


class Load:
    """Calls an action at a rate in threads of its own, until it is stopped."""

    def __init__(self, per_second: float, threads: int, action: Callable[[], Callable[[], object]]) -> None:
        self.stopped = threading.Event()
        pause = threads / per_second
        self.threads = [threading.Thread(target=self._call, args=(action, pause), daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _call(self, action: Callable[[], Callable[[], object]], pause: float) -> None:
        call = action()
        due = time.monotonic()
        while not self.stopped.is_set():
            call()
            # After a slow call it does not make up for the lost time.
            due = max(due + pause, time.monotonic() - pause)
            self.stopped.wait(max(due - time.monotonic(), 0))

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(20)


def shorten(client: Client) -> str:
    """Creates a link and returns its short code, or nothing if that failed."""
    status, text = client.request("/api/v1/urls", {"original_url": f"https://example.com/{secrets.token_hex(8)}"})
    return str(json.loads(text)["short_code"]) if status == 201 else ""


def ordinary(address: str, key: str) -> Load:
    """Twice a second: visits of a cached and of a new link, a creation, a list, a code that does not exist."""

    def action() -> Callable[[], object]:
        api, visitor = Client(address, key=key), Client(address)
        old = shorten(api)

        def call() -> None:
            new = shorten(api)
            for path in (old, new):
                if path:
                    visitor.request(f"/{path}")
            api.request("/api/v1/urls?limit=1")

        return call

    return Load(2, 1, action)


def flood(address: str) -> Load:
    """A hundred requests a second from one address: random codes, and bad keys."""

    def action() -> Callable[[], object]:
        client = Client(address, "203.0.113.9")

        def call() -> None:
            client.request(f"/{secrets.token_hex(4)}")
            client.headers["Authorization"] = f"Bearer lk_{secrets.token_hex(20)}"
            client.request("/api/v1/urls?limit=1")

        return call

    return Load(50, 2, action)


def hot_link(address: str, code: str) -> Load:
    """Two hundred visits a second of one link, from many addresses."""

    def action() -> Callable[[], object]:
        client = Client(address)

        def call() -> None:
            client.headers["X-Forwarded-For"] = f"192.0.2.{secrets.randbelow(250) + 1}"
            client.request(f"/{code}")

        return call

    return Load(200, 4, action)
