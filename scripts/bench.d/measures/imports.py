"""Import of links, compared with COPY of the same rows; its memory; and its effect on the latency of redirects."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from bulk import COLUMNS, Bulk, is_over, moment, rows, write_copy
from figures import median, median_ratio, say
from processes import BenchError, forget_peak, peak_mib, resident_mib

FIGURES = ("import", "import_copy", "import_ratio", "import_upload_s", "import_memory_*", "import_growth_*", "import_resolve_*")

SAMPLE_S = 1.0


def run(bench) -> None:
    stack = bench.stack
    bulk = Bulk(stack, bench.address)
    worker = stack.start_worker("worker-import")
    memory = {"worker": Memory(worker.pid), "shortener": Memory(bench.shortener.process.pid)}
    speed(bench, bulk, memory)
    # The other parts need their links.
    stack.sql("TRUNCATE urls")
    stack.load(bench.size.links)
    bench.warm(bench.address)
    resolve(bench, bulk)
    for name, seen in memory.items():
        bench.figures.add(f"import_memory_{name}", peak_mib(seen.pid), "MiB", at_most=96,
                          note="peak (VmHWM) in this part")
        bench.figures.add(f"import_growth_{name}", seen.growth(), "of the first half", at_most=1.1,
                          note="median VmRSS of an import's second half; the worst import")
    stack.processes.stop(worker)


@dataclass
class Memory:
    """Resident memory of a process, sampled for each import."""

    pid: int
    imports: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        forget_peak(self.pid)

    def sample(self) -> None:
        self.imports[-1].append(resident_mib(self.pid))

    def growth(self) -> float:
        """The worst ratio of second half to first half. Rows are processed in chunks, so memory should not grow."""
        halves = ((seen[:len(seen) // 2], seen[len(seen) // 2:]) for seen in self.imports if len(seen) >= 2)
        return max((median(second) / median(first) for first, second in halves), default=0.0)


def speed(bench, bulk: Bulk, memory: dict[str, Memory]) -> None:
    """COPY and import of the same rows into the same empty table, in turns."""
    stack, size, figures = bench.stack, bench.size, bench.figures
    count = size.import_rows
    upload = bulk.file(size.links, count)
    copied_file = stack.folder / "rows.copy"
    with copied_file.open("w") as file:
        write_copy(file, rows(size.links, count), bulk.user_id)
    ours, copied, uploads = [], [], []
    for turn in range(size.import_rounds):
        empty(stack)
        start = time.monotonic()
        stack.copy_in(f"urls ({COLUMNS})", copied_file)
        copied.append(count / (time.monotonic() - start))
        expect_links(stack, count)

        empty(stack)
        for seen in memory.values():
            seen.imports.append([])
        start = time.time()
        number = bulk.upload(upload)
        uploads.append(time.time() - start)
        job = bulk.wait(number, is_over, meanwhile=Sampler(memory).sample)
        if (job["state"], job["rows_written"]) != ("succeeded", count):
            raise BenchError(f"the import did not write {count:,} rows: {job}")
        ours.append(count / (moment(job["finished_at"]) - start))
        expect_links(stack, count)
        say(f"  round {turn + 1}: COPY {copied[-1]:,.0f} rows/s, import {ours[-1]:,.0f} rows/s, upload {uploads[-1]:.1f} s")
    copied_file.unlink()
    upload.unlink()
    figures.add("import", median(ours), "rows/s",
                note=f"{count:,} rows of CSV through nginx, from the start of the upload to the end of the job")
    figures.add("import_copy", median(copied), "rows/s", note="the same rows into the same table, with all its indexes")
    figures.add("import_ratio", median_ratio(ours, copied), "of COPY", at_least=0.25)
    figures.add("import_upload_s", median(uploads), "s", note="until the response 202; included in the rate")


class Sampler:
    """Takes at most one sample a second."""

    def __init__(self, memory: dict[str, Memory]) -> None:
        self.memory, self.due = memory, 0.0

    def sample(self) -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + SAMPLE_S
            for seen in self.memory.values():
                seen.sample()


def empty(stack) -> None:
    """Empties the table and flushes the writes of the previous side."""
    stack.sql("TRUNCATE urls")
    stack.as_superuser("CHECKPOINT")


def expect_links(stack, wanted: int) -> None:
    count = int(stack.sql("SELECT count(*) FROM urls"))
    if count != wanted:
        raise BenchError(f"the table has {count:,} links instead of {wanted:,}")


def resolve(bench, bulk: Bulk) -> None:
    """Latency of redirects without and with an import, in turns, at half of the peak. A worker records the clicks throughout, also
    while the peak is measured, as in production."""
    stack, tools, size, figures = bench.stack, bench.tools, bench.size, bench.figures
    peaks = [tools.wrk_paths(bench.address, bench.zipf, size.round_s, turn * 0.37).rate for turn in range(4)]
    rate = median(peaks[1:]) / 2
    without, during = [], []
    for turn in range(size.import_resolve_rounds):
        upload = bulk.file(size.links + (turn + 1) * size.import_rows, size.import_rows)
        stack.forget_clicks()
        stack.as_superuser("CHECKPOINT")
        without.append(tools.pace(bench.address, bench.zipf, rate, size.import_resolve_s))
        number = bulk.upload(upload)
        before = bulk.wait_writing(number)
        during.append(tools.pace(bench.address, bench.zipf, rate, size.import_resolve_s))
        after = bulk.wait(number, lambda _: True)
        bulk.cancel(number)
        upload.unlink()
        if is_over(after):
            raise BenchError(f"the import finished before the latency was measured: {after}")
        written = after["rows_written"] - before["rows_written"]
        say(f"  round {turn + 1} at {rate:,.0f}/s: p99 {without[-1]['p99_ms']:.3f} ms, {during[-1]['p99_ms']:.3f} ms with an import "
            f"that wrote {written:,} rows")
    failed = sum(r["wrong_target"] + r["other_status"] + r["failed"] + r["unsent"] for r in without + during)

    def p99(reports):
        return [report["p99_ms"] for report in reports]

    figures.add("import_resolve_rate", rate, "req/s", note="half of the peak with a worker that records the clicks")
    figures.add("import_resolve_p99_without", median(p99(without)), "ms")
    figures.add("import_resolve_p99", median(p99(during)), "ms", note="while an import runs")
    figures.add("import_resolve_p99_ratio", median_ratio(p99(during), p99(without)), "of without", at_most=2)
    figures.add("import_resolve_failed_requests", failed, "requests", at_most=0)
