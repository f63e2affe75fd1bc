"""Receives Alertmanager's messages for Discord, and the calls for a dead man's switch."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from engine import require


class Receiver:
    """Listens on all addresses of this machine, because a container calls it."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, dict]] = []
        # Times of the calls with the alert Watchdog.
        self.calls: list[float] = []
        self.status = 204
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.status < 300 and self.path == "/watchdog":
                    receiver.calls.append(time.monotonic())
                elif receiver.status < 300:
                    receiver.messages.append((time.monotonic(), json.loads(body)))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_args) -> None:
                pass

        self.server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104 # a container calls it
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def first(self, since: float, *words: str) -> float | None:
        for at, message in self.messages:
            text = json.dumps(message)
            if at >= since and all(word in text for word in words):
                embed = message["embeds"][0]
                require(embed["title"] and embed["description"] and isinstance(embed["color"], int), f"not a Discord message: {message}")
                return at
        return None
