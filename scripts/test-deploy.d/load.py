#!/usr/bin/env python3
"""Mixed load over HTTPS at a constant rate: redirects and creates, on kept and on new connections.

  load.py ADDRESS KEY_FILE RATE CA_FILE

When terminated, it prints the counts by result. `bad` is about requests that got a bad answer: the time from the first to
the last of them, and their share of all requests in that time, without the first one: it begins the time, so with it a
tenth of few requests would be more than 10 %. `slow` is the same of slow redirects. `failures` has the first bad ones.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import ssl
import sys
import threading
import time
from collections import Counter

THREADS = 8
TIMEOUT_S = 10
CREATES = 0.03
NEW_CONNECTIONS = 0.2
# A redirect takes a few milliseconds.
SLOW_S = 0.3
DOMAIN = "go.example.com"


class Connection(http.client.HTTPSConnection):
    """To an address, with the certificate of the domain."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        super().__init__(DOMAIN, 443, timeout=TIMEOUT_S, context=context)
        self.address, self.tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection((self.address, 443), TIMEOUT_S)
        self.sock = self.tls.wrap_socket(plain, server_hostname=DOMAIN)


class Load:
    def __init__(self, address: str, key: str, rate: float, ca_file: str) -> None:
        self.address, self.key, self.pause = address, key, THREADS / rate
        self.tls = ssl.create_default_context(cafile=ca_file)
        self.counts: Counter[str] = Counter()
        self.times: list[tuple[float, bool, bool]] = []
        self.failures: list[str] = []
        self.lock = threading.Lock()
        self.stop = threading.Event()
        connection = self.connect()
        self.codes = [json.loads(self.create(connection)[1])["short_code"] for _ in range(20)]

    def connect(self) -> http.client.HTTPConnection:
        return Connection(self.address, self.tls)

    def create(self, connection: http.client.HTTPConnection) -> tuple[int, bytes]:
        body = json.dumps({"original_url": f"https://target.example/{random.random()}"})
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection.request("POST", "/api/v1/urls", body, headers)
        response = connection.getresponse()
        return response.status, response.read()

    def redirect(self, connection: http.client.HTTPConnection) -> tuple[int, bytes]:
        connection.request("GET", "/" + random.choice(self.codes))
        response = connection.getresponse()
        return response.status, response.read()

    def work(self) -> None:
        connection: http.client.HTTPConnection | None = None
        due = time.monotonic()
        while not self.stop.is_set():
            due = max(due + self.pause, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            name, call, wanted = "redirect", self.redirect, 302
            if random.random() < CREATES:
                name, call, wanted = "create", self.create, 201
            detail, began = b"", time.monotonic()
            try:
                if connection is None or random.random() < NEW_CONNECTIONS:
                    connection = self.connect()
                status, detail = call(connection)
                result = "ok" if status == wanted else str(status)
            except (OSError, http.client.HTTPException) as error:
                connection, result, detail = None, type(error).__name__, str(error).encode()
            ended = time.monotonic()
            is_slow = name == "redirect" and ended - began >= SLOW_S
            with self.lock:
                self.counts[f"{name} {result}"] += 1
                self.counts["slow redirect"] += is_slow
                self.times.append((ended, result != "ok", is_slow))
                if result != "ok" and len(self.failures) < 20:
                    clock = time.strftime("%H:%M:%S", time.gmtime())
                    self.failures.append(f"{clock} {name} {result} after {ended - began:.2f} s: {detail[:200].decode(errors='replace')}")

    def exposure(self, kind: int) -> dict[str, float]:
        found = [time[0] for time in self.times if time[kind]]
        if not found:
            return {"requests": 0, "seconds": 0, "share": 0}
        during = sum(found[0] <= time[0] <= found[-1] for time in self.times)
        share = (len(found) - 1) / max(1, during - 1)
        return {"requests": len(found), "seconds": round(found[-1] - found[0], 1), "share": round(share, 4)}


def main() -> None:
    address, key_file, rate, ca_file = sys.argv[1:]
    with open(key_file, encoding="utf-8") as file:
        load = Load(address, file.read().strip(), float(rate), ca_file)
    signal.signal(signal.SIGTERM, lambda *_: load.stop.set())
    threads = [threading.Thread(target=load.work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({**load.counts, "bad": load.exposure(1), "slow": load.exposure(2), "failures": load.failures}, sort_keys=True), flush=True)


main()
