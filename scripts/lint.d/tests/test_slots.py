"""nginx/slots.sh with the real nginx: slots move requests between two colors, promptly and without a failed one."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
import unittest
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
SLOTS = ROOT / "nginx/slots.sh"
GROUPS = {"resolve": "redirects", "web": "web"}
# keepalive_time and keepalive_timeout in the template, and a request.
SWITCHED_WITHIN_S = 2.5


class Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers each request with its color, over kept connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, color: str) -> None:
        self.color = color.encode()
        super().__init__(str(path), Handler)


class Handler(socketserver.StreamRequestHandler):
    server: Listener

    def handle(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while (header := self.rfile.readline()) not in (b"\r\n", b""):
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            self.rfile.read(length)
            if not line.strip():
                return
            color = self.server.color
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(color), color))


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="linnet-slots.")))
        self.folder.chmod(0o755)
        for name in ("slots", "redirects", "web", "body"):
            (self.folder / name).mkdir()
        self.listeners: dict[str, list[Listener]] = {}

    def start(self, color: str) -> None:
        self.listeners[color] = [Listener(self.folder / folder / f"{color}.sock", color) for folder in GROUPS.values()]
        for listener in self.listeners[color]:
            threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self, color: str) -> None:
        for folder, listener in zip(GROUPS.values(), self.listeners.pop(color), strict=True):
            (self.folder / folder / f"{color}.sock").unlink()
            listener.shutdown()
            listener.server_close()

    def tearDown(self) -> None:
        for color in list(self.listeners):
            self.stop(color)

    def run_slots(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"LINNET_NGINX_SLOTS": str(self.folder / "slots"), "LINNET_NGINX_SOCKETS": str(self.folder)}
        return subprocess.run(["sh", str(SLOTS), *words], env=environment, capture_output=True, text=True, timeout=20, check=False)

    def state(self, *words: str) -> tuple[int, int]:
        """Runs the script and returns the slots of blue and green, which must be the same for both groups."""
        done = self.run_slots(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines], list(GROUPS))
        (counts,) = {tuple(int(word.split("=")[1]) for word in line.split()[1:]) for line in lines}
        return counts[0], counts[1]

    def green_slots(self, group: str = "resolve") -> list[int]:
        return [n for n in range(10) if "green" in os.readlink(self.folder / f"slots/{group}-{n}")]


class Script(Folder):
    def test_first_run_points_every_slot_to_blue(self) -> None:
        self.assertEqual(self.state(), (10, 0))
        self.assertEqual(len(list((self.folder / "slots").iterdir())), 21)
        self.assertEqual(os.readlink(self.folder / "slots/refusals"), f"{self.folder}/web/blue-refusals.sock")

    def test_every_count_is_reached_from_every_other(self) -> None:
        self.start("blue")
        self.start("green")
        for count in (1, 5, 10, 0, 7, 3, 9, 2, 8, 4, 6):
            self.assertEqual(self.state("green", str(count)), (10 - count, count))
            self.assertEqual(self.state(), (10 - count, count))
        self.assertEqual(self.state("blue", "9"), (9, 1))
        self.assertEqual(len(list((self.folder / "slots").iterdir())), 21, "a temporary link is left")

    def test_slots_of_a_color_are_spread(self) -> None:
        self.start("blue")
        self.start("green")
        self.state("green", "5")
        self.assertEqual(self.green_slots(), [0, 2, 4, 6, 8])
        self.assertEqual(self.green_slots("web"), [0, 2, 4, 6, 8])

    def test_refusals_lead_to_the_color_with_more_requests(self) -> None:
        self.start("blue")
        self.start("green")
        for count, color in (("1", "blue"), ("5", "green"), ("10", "green")):
            self.state("green", count)
            self.assertIn(color, os.readlink(self.folder / "slots/refusals"))

    def test_a_second_run_changes_nothing(self) -> None:
        self.start("blue")
        self.start("green")
        self.state("green", "3")
        before = {slot.name: slot.lstat().st_ino for slot in (self.folder / "slots").iterdir()}
        self.state("green", "3")
        self.assertEqual({slot.name: slot.lstat().st_ino for slot in (self.folder / "slots").iterdir()}, before)

    def test_a_color_without_sockets_gets_no_slot(self) -> None:
        self.start("blue")
        self.state()
        for words in (("green", "1"), ("blue", "9"), ("green", "10")):
            done = self.run_slots(*words)
            self.assertEqual(done.returncode, 69)
            self.assertIn("green does not run", done.stderr)
            self.assertEqual(self.state(), (10, 0))
        self.assertEqual(self.state("blue", "10"), (10, 0))

    def test_wrong_arguments_are_reported(self) -> None:
        for words, message in ((("red", "1"), "blue or green"), (("green", "11"), "0 to 10"), (("green", "x"), "0 to 10"),
                               (("green", "-1"), "0 to 10"), (("green", ""), "0 to 10"), (("green",), "COLOR COUNT")):
            done = self.run_slots(*words)
            self.assertEqual(done.returncode, 64, words)
            self.assertIn(message, done.stderr)

    def test_an_absent_directory_and_a_foreign_slot_are_reported(self) -> None:
        self.start("blue")
        self.state()
        slot = self.folder / "slots/web-3"
        slot.unlink()
        slot.symlink_to("/elsewhere")
        done = self.run_slots()
        self.assertEqual(done.returncode, 73)
        self.assertIn("points elsewhere", done.stderr)
        self.assertEqual(self.state("blue", "10"), (10, 0))
        shutil.rmtree(self.folder / "slots")
        done = self.run_slots()
        self.assertEqual(done.returncode, 73)
        self.assertIn("not a directory", done.stderr)


class Nginx(Folder):
    def setUp(self) -> None:
        super().setUp()
        subprocess.run([ROOT / "scripts/install-packages", "nginx", "envsubst"], check=True, capture_output=True)
        self.start("blue")
        self.state()
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = int(one.getsockname()[1])
        environment = {
            "LINNET_NGINX_SLOTS": f"{self.folder}/slots", "LINNET_NGINX_LISTEN": f"127.0.0.1:{self.port}",
            "LINNET_NGINX_LISTEN_OPTIONS": "", "LINNET_NGINX_TMP": str(self.folder), "LINNET_NGINX_ACCESS_LOG": "/dev/null",
            "LINNET_NGINX_OUT": f"{self.folder}/linnet.conf", "LINNET_NGINX_GATEWAY_CONNECTIONS": "50",
        }
        subprocess.run(["sh", ROOT / "nginx/render.sh"], env=os.environ | environment, check=True)
        (self.folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {self.folder}/pid; error_log {self.folder}/error.log;\n"
            f"events {{ worker_connections 256; }}\nhttp {{ include {self.folder}/linnet.conf; }}\n"
        )
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert nginx is not None
        process = subprocess.Popen([nginx, "-p", self.folder, "-c", self.folder / "nginx.conf"], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.terminate)
        until = time.monotonic() + 10
        while self.served(1)["blue"] != 1:
            self.assertLess(time.monotonic(), until, "nginx does not respond")

    def request(self, client: http.client.HTTPConnection, method: str) -> str:
        path = "/code" if method == "GET" else "/api/v1/urls"
        client.request(method, path, body=None if method == "GET" else b"{}")
        response = client.getresponse()
        text = response.read().decode()
        return text if response.status == 200 else f"status {response.status}"

    def served(self, count: int, method: str = "GET") -> Counter[str]:
        """Which color serves these requests."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        found: Counter[str] = Counter()
        for _ in range(count):
            try:
                found[self.request(client, method)] += 1
            except OSError as error:
                found[type(error).__name__] += 1
                client.close()
        client.close()
        return found

    @contextlib.contextmanager
    def load(self) -> Iterator[dict[str, list[tuple[float, str]]]]:
        """Requests of each method without a pause. Yields the time and color of each."""
        answers: dict[str, list[tuple[float, str]]] = {"GET": [], "POST": []}
        stop = threading.Event()

        def run(method: str) -> None:
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            while not stop.is_set():
                answers[method].append((time.monotonic(), self.request(client, method)))
            client.close()

        threads = [threading.Thread(target=run, args=(method,)) for method in answers for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def test_a_slot_is_a_tenth_of_the_requests(self) -> None:
        self.start("green")
        for method in ("GET", "POST"):
            for count in (1, 5):
                self.state("green", str(count))
                # Kept connections lead to the old color.
                until = time.monotonic() + SWITCHED_WITHIN_S
                while (found := self.served(200, method)) != {"blue": 200 - 20 * count, "green": 20 * count}:
                    self.assertLess(time.monotonic(), until, f"{method}, {count} slots: {found}")

    def test_takeover_under_load_is_prompt_and_no_request_fails(self) -> None:
        self.start("green")
        with self.load() as answers:
            for count in ("1", "5", "10"):
                self.state("green", count)
                seen = {method: len(list_) for method, list_ in answers.items()}
                until = time.monotonic() + 10
                while not all(any(color == "green" for _, color in answers[method][seen[method]:]) for method in answers):
                    self.assertLess(time.monotonic(), until, f"green serves no request with {count} slots")
                    time.sleep(0.01)
            last_slot = time.monotonic()
            until = last_slot + SWITCHED_WITHIN_S + 0.5
            while time.monotonic() < until:
                time.sleep(0.05)
            self.stop("blue")
            more = {method: len(list_) + 200 for method, list_ in answers.items()}
            until = time.monotonic() + 10
            while not all(len(answers[method]) > more[method] for method in answers):
                self.assertLess(time.monotonic(), until, "no requests after blue has stopped")
                time.sleep(0.01)
        for method, list_ in answers.items():
            self.assertEqual({color for _, color in list_}, {"blue", "green"}, method)
            late = max(at for at, color in list_ if color == "blue") - last_slot
            self.assertLess(late, SWITCHED_WITHIN_S, method)

    def test_redirects_survive_a_color_with_half_of_the_slots(self) -> None:
        self.start("green")
        self.state("green", "5")
        self.stop("green")
        self.assertEqual(self.served(100), {"blue": 100})
        # Only the connect failed, so a POST is repeated too.
        self.assertEqual(self.served(100, "POST"), {"blue": 100})

    def test_connections_to_the_gateway_are_shared_by_the_slots(self) -> None:
        text = (self.folder / "linnet.conf").read_text()
        self.assertEqual(text.count("max_conns=5;"), 10)


if __name__ == "__main__":
    unittest.main()
