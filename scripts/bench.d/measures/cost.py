"""Processor time of a redirect by process, and what lookups, clicks and invalidations add: the costs of `linnet-bench model`.

Every amount is processor time divided by counted requests, so that other load on the machine disturbs it less than a rate.
A run counts until the worker has written its last click."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from figures import median, say
from processes import BenchError, cpu_us
from stack import Shortener, http_get

FIGURES = ("cost_one_link_*", "cost_uniform_*", "cost_bare_*", "cost_ratio", "cost_hit_*", "cost_l2_*", "cost_database_*",
           "cost_sizes_*", "cost_publish_*", "cost_l2_bytes")

DRAIN_S = 180
SUBSCRIBERS, MESSAGES = 40, 20_000


@dataclass
class Sample:
    """One run: microseconds of each process for a redirect, and how the redirects were answered."""

    cpu: dict[str, float]
    requests: int
    shares: dict[str, float]
    group: float
    wal: float


class Side:
    """A shortener of its own with empty caches and its nginx, and a worker unless clicks are not recorded."""

    def __init__(self, bench, name: str, clicks: bool, keep_l2: bool = False) -> None:
        self.bench, stack = bench, bench.stack
        if not keep_l2 and stack.redis_command("FLUSHALL") != "+OK":
            raise BenchError("cannot empty Redis")
        settings = {"LINNET__CACHE__WARMUP_LINKS": "0", "LINNET__CLICKS__ENABLED": str(clicks).lower()}
        self.shortener: Shortener = stack.start_shortener(f"shortener-{name}", **settings)
        self.nginx, self.address = stack.start_nginx(f"nginx-{name}", [self.shortener.resolve], bench.gateway_socket)
        self.admin = f"127.0.0.1:{stack.port()}"
        self.worker = stack.start_worker(f"worker-{name}", LINNET__WORKER__ADMIN_LISTEN=self.admin) if clicks else None
        self.parts = {"nginx": self.nginx.pid, "shortener": self.shortener.process.pid, "redis": stack.redis.pid,
                      "postgres": stack.postgres.pid} | ({"worker": self.worker.pid} if self.worker else {})

    def stop(self) -> None:
        for process in filter(None, (self.nginx, self.shortener.process, self.worker)):
            self.bench.stack.processes.stop(process)

    def groups(self) -> tuple[float, float]:
        """Clicks in all groups that the worker has written, and the number of groups."""
        if not self.worker:
            return 0.0, 0.0
        text = http_get(self.admin, "/metrics")[1]
        found = dict(re.findall(r"^linnet_clicks_ingest_group_size\w*_(sum|count)(?:\{[^}]*\})? (\S+)$", text, re.M))
        return float(found.get("sum", 0)), float(found.get("count", 0))

    def visits(self, codes: Path, seconds: float, offset: float) -> Sample:
        return self.measured(lambda: self.bench.tools.wrk_visits(self.address, codes, seconds, offset))

    def replay(self, codes: Path) -> Sample:
        return self.measured(lambda: self.bench.tools.replay(self.address, codes))

    def measured(self, load: Callable[[], object]) -> Sample:
        stack = self.bench.stack
        recorded = stack.recorded() if self.worker else 0
        lookups, served, groups = self.shortener.lookups(), self.shortener.redirects(), self.groups()
        wal = wal_bytes(stack)
        before = {name: cpu_us(pid) for name, pid in self.parts.items()}
        load()
        threading.Event().wait(0.3)  # requests that wrk has abandoned are still being served
        requests = self.shortener.redirects() - served
        if self.worker:
            stack.wait_recorded(recorded + requests, DRAIN_S)
        cpu = {name: (cpu_us(pid) - before[name]) / requests for name, pid in self.parts.items()}
        tiers = {tier: count - lookups.get(tier, 0) for tier, count in self.shortener.lookups().items()}
        clicks, count = (now - then for now, then in zip(self.groups(), groups))
        total = sum(tiers.values()) or 1.0
        return Sample(cpu, requests, {tier: count / total for tier, count in tiers.items()}, clicks / count if count else 0.0,
                      (wal_bytes(stack) - wal) / requests)


def wal_bytes(stack) -> int:
    """All WAL that PostgreSQL has written."""
    return int(stack.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))


def run(bench) -> None:
    even = bench.tools.codes(bench.size.links)
    extremes(bench, even)
    lookups(bench)
    sizes(bench)
    publications(bench)


def report(bench, name: str, samples: list[Sample]) -> Sample:
    """Adds the medians of a side, and returns them."""
    cpu = {part: median([sample.cpu[part] for sample in samples]) for part in samples[0].cpu}
    shares = {tier: median([sample.shares.get(tier, 0.0) for sample in samples]) for tier in ("local", "shared", "database", "coalesced")}
    middle = Sample(cpu, int(median([sample.requests for sample in samples])), shares, median([sample.group for sample in samples]),
                    median([sample.wal for sample in samples]))
    for part, value in cpu.items():
        bench.figures.add(f"{name}_{part}", value, "us/req")
    bench.figures.add(f"{name}_all", sum(cpu.values()), "us/req", note=f"{middle.requests:,} requests")
    for tier, share in shares.items():
        bench.figures.add(f"{name}_{tier}", 100 * share, "%")
    bench.figures.add(f"{name}_requests", middle.requests, "requests")
    bench.figures.add(f"{name}_wal", middle.wal, "bytes/req")
    bench.figures.add(f"{name}_group", middle.group, "clicks", note="in a group that the worker wrote")
    return middle


def extremes(bench, even: Path) -> None:
    """All clicks on one link, and none twice on a link, in turns with the bare handler."""
    size, samples, bare = bench.size, {"one_link": [], "uniform": []}, []
    bare_nginx = [process.pid for process in bench.processes.running if process.name == "nginx-bare"]
    for turn in range(size.cost_rounds):
        for name, codes in (("one_link", bench.one), ("uniform", even)):
            side = Side(bench, f"cost-{name}-{turn}", clicks=True)
            if name == "one_link":
                side.visits(codes, 1, 0)
            samples[name].append(side.visits(codes, size.cost_s, turn / size.cost_rounds))
            side.stop()
        before = [cpu_us(*bare_nginx), cpu_us(bench.bare.pid)]
        rate = bench.tools.wrk_visits(bench.bare_address, bench.one, size.cost_s, 0).rate
        bare.append([(now - then) / (rate * size.cost_s) for now, then in zip((cpu_us(*bare_nginx), cpu_us(bench.bare.pid)), before)])
        say(f"  round {turn + 1}: one link {sum(samples['one_link'][-1].cpu.values()):.1f} us, uniform "
            f"{sum(samples['uniform'][-1].cpu.values()):.1f} us, bare {sum(bare[-1]):.1f} us")
    for name, values in samples.items():
        report(bench, f"cost_{name}", values)
    bench.figures.add("cost_bare_nginx", median([nginx for nginx, _ in bare]), "us/req")
    bench.figures.add("cost_bare_handler", median([handler for _, handler in bare]), "us/req")
    ratios = [sum(sample.cpu.values()) / sum(other) for sample, other in zip(samples["one_link"], bare)]
    bench.figures.add("cost_ratio", median(ratios), "of bare", note="processor time of everything, clicks on one link included")


def lookups(bench) -> None:
    """The same links three times, without clicks: from PostgreSQL, then by a new process from L2, then from its L1."""
    codes = bench.tools.codes(bench.size.cost_lookups)
    samples: dict[str, list[Sample]] = {"cost_database": [], "cost_l2": [], "cost_hit": []}
    for turn in range(bench.size.cost_rounds):
        first = Side(bench, f"cost-cold-{turn}", clicks=False)
        samples["cost_database"].append(first.replay(codes))
        first.stop()
        if turn == 0:
            bench.figures.add("cost_l2_bytes", l2_bytes(bench.stack), "bytes/link")
        second = Side(bench, f"cost-l2-{turn}", clicks=False, keep_l2=True)
        samples["cost_l2"].append(second.replay(codes))
        samples["cost_hit"].append(second.replay(codes))
        second.stop()
    for name, values in samples.items():
        report(bench, name, values)


def sizes(bench) -> None:
    """Zipf loads on cold caches, which `linnet-bench model` predicts."""
    for links in bench.size.cost_links:
        draws, _ = bench.tools.draw(links, bench.size.warm_draws, seed=links)
        side = Side(bench, f"cost-zipf-{links}", clicks=True)
        report(bench, f"cost_sizes_{links}", [side.visits(draws, bench.size.cost_s, 0)])
        side.stop()


def publications(bench) -> None:
    """Redis's processor time for an invalidation, by the number of its subscribers."""
    stack, spent = bench.stack, {}
    for count in (1, SUBSCRIBERS):
        subscribers = [socket.create_connection(("127.0.0.1", stack.redis_port), timeout=60) for _ in range(count)]
        for subscriber in subscribers:
            subscriber.sendall(b"SUBSCRIBE bench:invalidations\r\n")
            subscriber.recv(4096)
        readers = [threading.Thread(target=drain, args=(subscriber,), daemon=True) for subscriber in subscribers]
        for reader in readers:
            reader.start()
        before = cpu_us(stack.redis.pid)
        with socket.create_connection(("127.0.0.1", stack.redis_port), timeout=60) as publisher:
            replies = publisher.makefile()
            for _ in range(MESSAGES // 100):
                publisher.sendall(b"PUBLISH bench:invalidations l:abcdefg:0000000000123456789\r\n" * 100)
                for _ in range(100):
                    replies.readline()
        spent[count] = (cpu_us(stack.redis.pid) - before) / MESSAGES
        for subscriber in subscribers:
            subscriber.shutdown(socket.SHUT_RDWR)
            subscriber.close()
    each = (spent[SUBSCRIBERS] - spent[1]) / (SUBSCRIBERS - 1)
    bench.figures.add("cost_publish_subscriber", each, "us", note=f"{SUBSCRIBERS} subscribers, pipelined")
    bench.figures.add("cost_publish_message", spent[1] - each, "us")


def drain(subscriber: socket.socket) -> None:
    try:
        while subscriber.recv(65536):
            pass
    except OSError:
        return


def l2_bytes(stack) -> float:
    """Redis's memory for a link in L2."""
    with socket.create_connection(("127.0.0.1", stack.redis_port), timeout=60) as connection:
        connection.sendall(b"INFO\r\n")
        text = ""
        while "# Keyspace" not in text or not text.endswith("\r\n"):
            text += connection.recv(65536).decode()
    used, start = (int(re.search(rf"^{name}:(\d+)", text, re.M).group(1)) for name in ("used_memory_dataset", "used_memory_startup"))
    overhead = int(re.search(r"^used_memory_overhead:(\d+)", text, re.M).group(1)) - start
    return (used + max(overhead, 0)) / int(re.search(r"^db0:keys=(\d+)", text, re.M).group(1))
