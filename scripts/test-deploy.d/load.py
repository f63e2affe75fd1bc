#!/usr/bin/env python3
"""Mixed load at a constant rate: redirects and creates, on kept and on new connections. Prints the counts when terminated.

  load.py ADDRESS KEY_FILE RATE
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import sys
import threading
import time
from collections import Counter

THREADS = 8
TIMEOUT_S = 10
CREATES = 0.03
NEW_CONNECTIONS = 0.2


class Load:
    def __init__(self, address: str, key: str, rate: float) -> None:
        self.address, self.key, self.pause = address, key, THREADS / rate
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.stop = threading.Event()
        connection = self.connect()
        self.codes = [json.loads(self.create(connection)[1])["short_code"] for _ in range(20)]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, 80, timeout=TIMEOUT_S)

    def create(self, connection: http.client.HTTPConnection) -> tuple[int, bytes]:
        body = json.dumps({"original_url": f"https://target.example/{random.random()}"})
        headers = {"Host": "go.example.com", "Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection.request("POST", "/api/v1/urls", body, headers)
        response = connection.getresponse()
        return response.status, response.read()

    def redirect(self, connection: http.client.HTTPConnection) -> tuple[int, bytes]:
        connection.request("GET", "/" + random.choice(self.codes), headers={"Host": "go.example.com"})
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
            try:
                if connection is None or random.random() < NEW_CONNECTIONS:
                    connection = self.connect()
                status = call(connection)[0]
                result = "ok" if status == wanted else str(status)
            except (OSError, http.client.HTTPException) as error:
                connection, result = None, type(error).__name__
            with self.lock:
                self.counts[f"{name} {result}"] += 1


def main() -> None:
    address, key_file, rate = sys.argv[1:]
    with open(key_file, encoding="utf-8") as file:
        load = Load(address, file.read().strip(), float(rate))
    signal.signal(signal.SIGTERM, lambda *_: load.stop.set())
    threads = [threading.Thread(target=load.work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(load.counts, sort_keys=True), flush=True)


main()
