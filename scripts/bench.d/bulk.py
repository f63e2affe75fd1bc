"""Bulk jobs from a client's view: files of rows, uploads, and the state of a job."""

from __future__ import annotations

import csv
import http.client
import json
import random
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Callable, Iterator, TextIO

from processes import BenchError
from stack import Stack

HEADER = ("original_url", "short_code", "title", "is_active")
COLUMNS = "user_id, short_code, original_url, title, is_active"
# Codes as in crates/bench/src/links.rs: length and alphabet of generated codes, a different one for each rank.
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz"
CODES = 56**7
SCATTER = 982_451_653_117
WORDS = ("autumn breeze candle delta ember forest garden harbor island journey kettle lantern meadow needle orchard paper quarry "
         "river saddle timber umbrella valley window yellow zephyr anchor basket copper dragon engine feather granite").split()
JOBS = "/api/v1/jobs"
# Longer than any acceptable import of the full size.
END_S = 3600


def code(rank: int) -> str:
    rest, digits = rank * SCATTER % CODES, []
    for _ in range(7):
        rest, digit = divmod(rest, 56)
        digits.append(ALPHABET[digit])
    return "".join(digits)


def rows(first: int, count: int) -> Iterator[tuple[str, str, str, str]]:
    """Links of these ranks. The same ranks give the same rows. One title of eight needs quotes; one link of sixteen is inactive."""
    draw = random.Random(first)
    for rank in range(first, first + count):
        bits = draw.getrandbits(40)
        one, two, three, four = (WORDS[bits >> shift & 31] for shift in (0, 5, 10, 15))
        comma = "," if bits >> 20 & 7 == 0 else ""
        yield (f"https://www.{one}-{two}.example/{three}/{four}-{bits:x}?utm_source=linnet", code(rank),
               f"{one.title()}{comma} {two} and {three} {bits % 1000}", "false" if bits >> 23 & 15 == 0 else "true")


def write_csv(file: TextIO, lines: Iterator[tuple[str, str, str, str]]) -> None:
    writer = csv.writer(file)
    writer.writerow(HEADER)
    writer.writerows(lines)


def write_copy(file: TextIO, lines: Iterator[tuple[str, str, str, str]], user_id: int) -> None:
    """The same for `COPY urls (…) FROM STDIN`. No value contains a character that COPY would have to escape."""
    file.writelines(f"{user_id}\t{short}\t{url}\t{title}\t{active}\n" for url, short, title, active in lines)


@dataclass
class Answer:
    status: int
    body: dict


class Client:
    """An administrator with one connection to nginx."""

    def __init__(self, address: str, key: str) -> None:
        self.headers = {"Authorization": f"Bearer {key}"}
        self.connection = http.client.HTTPConnection(address, timeout=60)

    def close(self) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, media_type: str | None = None) -> Answer:
        headers = self.headers | ({"Content-Type": media_type} if media_type else {})
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{method} {path} failed without a response: {error!r}") from None
        return Answer(response.status, json.loads(text) if text else {})

    def expect(self, status: int, method: str, path: str, *body) -> dict:
        answer = self.ask(method, path, *body)
        if answer.status != status:
            raise BenchError(f"{method} {path} returned {answer.status}: {answer.body}")
        return answer.body


class Bulk:
    """Uploads with an administrator's key, and their jobs."""

    def __init__(self, stack: Stack, address: str) -> None:
        self.stack, self.address = stack, address
        self.key, self.user_id = stack.create_key("admin")

    def client(self) -> Client:
        return Client(self.address, self.key)

    def file(self, first: int, count: int) -> Path:
        path = self.stack.folder / f"rows-{first}-{count}.csv"
        with path.open("w", newline="") as file:
            write_csv(file, rows(first, count))
        return path

    def upload(self, path: Path) -> int:
        """Returns the id of the job."""
        answer = self.stack.folder / "answer.json"
        argv = ["curl", "-q", "-sS", "--noproxy", "*", "-H", f"Authorization: Bearer {self.key}", "-F", f"file=@{path}",
                "-o", str(answer), "-w", "%{http_code}", f"http://{self.address}/api/v1/urls/bulk"]
        status = self.stack.processes.run(argv, env=self.stack.environment).stdout
        if status != "202":
            raise BenchError(f"the upload returned {status}: {answer.read_text()[:500]}")
        return json.loads(answer.read_text())["job"]["id"]

    def wait(self, number: int, until: Callable[[dict], bool], every_s: float = 0.5,
             meanwhile: Callable[[], None] = lambda: None) -> dict:
        """Polls the job until the condition holds, and returns it. 503 and 504 are retried, because a poll can time out
        under full load, which this figure does not measure."""
        deadline = time.monotonic() + END_S
        with closing(self.client()) as client:
            while True:
                answer = client.ask("GET", f"{JOBS}/{number}")
                if answer.status == 200 and until(answer.body):
                    return answer.body
                if answer.status not in (200, 503, 504) or time.monotonic() > deadline:
                    raise BenchError(f"job {number} did not reach the expected state: {answer.status} {answer.body}")
                self.stack.processes.check()
                meanwhile()
                time.sleep(every_s)

    def wait_writing(self, number: int) -> dict:
        """Waits until rows of the job are written, and returns it."""
        job = self.wait(number, lambda job: job["rows_written"] > 0 or is_over(job), every_s=0.1)
        if is_over(job):
            raise BenchError(f"job {number} finished before anything could be measured: {job}")
        return job

    def cancel(self, number: int) -> None:
        """Cancels a job unless it has finished, and waits until its worker has released it."""
        with closing(self.client()) as client:
            self.wait(number, is_over, meanwhile=lambda: client.ask("POST", f"{JOBS}/{number}/cancel"))


def is_over(job: dict) -> bool:
    return job["state"] not in ("queued", "running")


def moment(text: str) -> float:
    """An RFC 3339 time of the API as seconds since 1970. PostgreSQL runs on this machine, so the clocks agree."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
