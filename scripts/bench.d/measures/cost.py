"""Processor time of a redirect by process, and what lookups, clicks and invalidations add: the costs of `linnet-bench model`.

Every amount is processor time divided by counted requests, and a run counts until the worker has written its last click.
Other load on the machine makes the same work take up to twice the time. Short runs of the bare handler precede and follow
each sample: its times are multiplied by what the bare handler took in the median and divided by what it took then."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from figures import median, say
from processes import BenchError, cpu_us
from stack import Shortener, http_get, is_ok

FIGURES = ("cost_bare", "cost_round_s", "cost_one_link_*", "cost_uniform_*", "cost_again_*", "cost_zipf_*", "cost_warm_*",
           "cost_database_*", "cost_l2_*", "cost_hit_*", "cost_ratio", "cost_l2_bytes", "cost_publish_*")

DRAIN_S = 180
BARE_S = 2
CLICK_TABLES = "raw_clicks, click_link_days, click_hours, click_days, click_days_by_value, click_batches"
WARM_UP = 3_000
SUBSCRIBERS, MESSAGES = 40, 20_000


@dataclass
class Sample:
    """One run: microseconds of each process for a redirect, and how the redirects were answered."""

    cpu: dict[str, float]
    requests: int
    shares: dict[str, float]
    group: float
    wal: float
    disk: float
    bare: float


class Bare:
    """The bare handler behind its nginx, as a measure of how fast the machine is at the moment."""

    def __init__(self, bench) -> None:
        self.bench = bench
        self.nginx = [process.pid for process in bench.processes.running if process.name == "nginx-bare"]
        self.times: list[float] = []

    def measure(self) -> float:
        before = cpu_us(*self.nginx, self.bench.bare.pid)
        rate = self.bench.tools.wrk_visits(self.bench.bare_address, self.bench.one, BARE_S, 0).rate
        self.times.append((cpu_us(*self.nginx, self.bench.bare.pid) - before) / (rate * BARE_S))
        return self.times[-1]


class Side:
    """A shortener of its own with an empty L1 and its nginx, and a worker unless clicks are not recorded. `keep` leaves L2
    and the clicks of the side before."""

    def __init__(self, bare: Bare, name: str, clicks: bool, keep: bool = False) -> None:
        self.bare, self.bench = bare, bare.bench
        stack = self.bench.stack
        if not keep:
            if stack.redis_command("FLUSHALL") != "+OK":
                raise BenchError("cannot empty Redis")
            # A worker that finds clicks of today but not their visitors would rebuild them from all rows.
            stack.sql(f"TRUNCATE {CLICK_TABLES}")
        settings = {"LINNET__CACHE__WARMUP_LINKS": "0", "LINNET__CLICKS__ENABLED": str(clicks).lower()}
        self.shortener: Shortener = stack.start_shortener(f"shortener-{name}", **settings)
        self.nginx, self.address = stack.start_nginx(f"nginx-{name}", [self.shortener.resolve], self.bench.gateway_socket)
        self.admin = f"127.0.0.1:{stack.port()}"
        self.worker = stack.start_worker(f"worker-{name}", LINNET__WORKER__ADMIN_LISTEN=self.admin) if clicks else None
        self.parts = {"nginx": self.nginx.pid, "shortener": self.shortener.process.pid, "redis": stack.redis.pid,
                      "postgres": stack.postgres.pid} | ({"worker": self.worker.pid} if self.worker else {})
        if self.worker:
            self.bench.processes.wait_until(self.worker, "the worker to be ready", lambda: is_ok(self.admin, "/readyz"))
        # Opens connections and starts every task, with links that no sample requests.
        self.replay(self.bench.cost_warm_up)

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
        stack, bare = self.bench.stack, self.bare.measure()
        recorded = stack.recorded() if self.worker else 0
        lookups, served, groups = self.shortener.lookups(), self.shortener.redirects(), self.groups()
        wal, disk = wal_bytes(stack), click_bytes(stack)
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
                      (wal_bytes(stack) - wal) / requests, (click_bytes(stack) - disk) / requests,
                      (bare + self.bare.measure()) / 2)


def wal_bytes(stack) -> int:
    """All WAL that PostgreSQL has written."""
    return int(stack.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))


def click_bytes(stack) -> int:
    """The size of all raw clicks with their indexes."""
    return int(stack.sql("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('raw_clicks')"))


def run(bench) -> None:
    codes = bench.tools.codes(bench.size.links).read_text().splitlines(keepends=True)
    # Links are stored in the order of the list. Visits in that order would change all rows of a page in one transaction,
    # where the page has no room for so many new versions: PostgreSQL would write all indexes of each link.
    random.Random(1).shuffle(codes)
    bench.cost_warm_up = bench.stack.folder / "codes-warm-up"
    bench.cost_warm_up.write_text("".join(codes[-WARM_UP:]))
    even = bench.stack.folder / "codes-even"
    even.write_text("".join(codes[:-WARM_UP]))
    few = bench.stack.folder / "codes-few"
    few.write_text("".join(codes[:bench.size.cost_lookups]))
    lists = {links: bench.tools.draw(links, bench.size.warm_draws, seed=links)[0] for links in bench.size.cost_links}
    bare = Bare(bench)
    samples: dict[str, list[Sample]] = {}
    for turn in range(bench.size.cost_rounds):
        for name, sample in round_of(bare, turn, even, few, lists):
            samples.setdefault(name, []).append(sample)
            say(f"  round {turn + 1}, {name}: {sum(sample.cpu.values()):.1f} us, bare {sample.bare:.1f} us")
    report(bench, samples, median(bare.times))
    bench.figures.add("cost_l2_bytes", l2_bytes(bench.stack), "bytes/link")
    publications(bench)


def round_of(bare: Bare, turn: int, even: Path, few: Path, lists: dict[int, Path]) -> Iterator[tuple[str, Sample]]:
    """All clicks on one link; none twice on a link; each link again, with a click of the day already; the same links from
    PostgreSQL, L2 and L1. Zipf loads on cold caches, and one on a filled L2, which `linnet-bench model` predicts."""
    size = bare.bench.size
    for name, codes in {"one_link": bare.bench.one, "uniform": even, **{f"zipf_{links}": codes for links, codes in lists.items()}}.items():
        side = Side(bare, f"cost-{name}-{turn}", clicks=True)
        yield name, side.visits(codes, size.cost_s, turn / size.cost_rounds if name == "uniform" else 0)
        side.stop()
    # The last Zipf load has filled L2. wrk's two threads begin half a list apart, so these are other draws.
    links = size.cost_links[-1]
    warm = Side(bare, f"cost-warm-{turn}", clicks=True, keep=True)
    yield f"warm_{links}", warm.visits(lists[links], size.cost_s, 0.25)
    warm.stop()
    again = Side(bare, f"cost-again-{turn}", clicks=True)
    again.replay(few)
    yield "again", again.visits(few, size.cost_s, 0)
    again.stop()
    first = Side(bare, f"cost-cold-{turn}", clicks=False)
    yield "database", first.replay(few)
    first.stop()
    second = Side(bare, f"cost-l2-{turn}", clicks=False, keep=True)
    yield "l2", second.replay(few)
    yield "hit", second.replay(few)
    second.stop()


def report(bench, samples: dict[str, list[Sample]], bare: float) -> None:
    """The medians of each kind of sample, on a machine on which the bare handler takes `bare` microseconds."""
    figures = bench.figures
    figures.add("cost_bare", bare, "us/req", note="nginx and the bare handler")
    figures.add("cost_round_s", bench.size.cost_s, "s", note="length of each load but the lookups")
    for name, values in samples.items():
        for part in values[0].cpu:
            figures.add(f"cost_{name}_{part}", median([sample.cpu[part] * bare / sample.bare for sample in values]), "us/req")
        for tier in ("local", "shared", "database"):
            figures.add(f"cost_{name}_{tier}", 100 * median([sample.shares.get(tier, 0.0) for sample in values]), "%")
        figures.add(f"cost_{name}_requests", median([sample.requests for sample in values]), "requests")
        figures.add(f"cost_{name}_wal", median([sample.wal for sample in values]), "bytes/req")
        figures.add(f"cost_{name}_disk", median([sample.disk for sample in values]), "bytes/req", note="raw clicks with their indexes")
        figures.add(f"cost_{name}_group", median([sample.group for sample in values]), "clicks", note="in a group that the worker wrote")
    ratios = [sum(sample.cpu.values()) / sample.bare for sample in samples["one_link"]]
    figures.add("cost_ratio", median(ratios), "of bare", note="processor time of everything, clicks on one link included")


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
