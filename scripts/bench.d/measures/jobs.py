"""Time until the last of many small jobs is finished, while a large job of the same user runs."""

from __future__ import annotations

import io
import threading
import time
from contextlib import closing

from bulk import Bulk, is_over, moment, rows, write_csv
from figures import say
from processes import BenchError

FIGURES = ("jobs_posted", "jobs_last_done_s", "jobs_last_done_from_first_s", "jobs_huge_rows")

CONNECTIONS = 8
# Far above the bar, so that a missed bar is measured too.
DONE_S = 600


def run(bench) -> None:
    stack, size, figures = bench.stack, bench.size, bench.figures
    bulk = Bulk(stack, bench.address)
    worker = stack.start_worker("worker-jobs")
    # Ranks that no other part uses.
    first = size.links + (size.import_resolve_rounds + 1) * size.import_rows
    upload = bulk.file(first, size.import_rows)
    bodies = [body(first + size.import_rows + place * size.small_job_rows, size.small_job_rows) for place in range(size.small_jobs)]
    stack.as_superuser("CHECKPOINT")
    huge = bulk.upload(upload)
    before = bulk.wait_writing(huge)

    start = time.time()
    numbers = post(bulk, bodies)
    posted = time.time()
    low, high = min(numbers), max(numbers)
    wait_done(stack, low, high, size.small_jobs)
    succeeded, written, last = stack.sql(
        f"""SELECT count(*) FILTER (WHERE state = 'succeeded'), sum(rows_written), extract(epoch FROM max(finished_at))
              FROM jobs WHERE id BETWEEN {low} AND {high}""").split("|")
    if (int(succeeded), int(written)) != (size.small_jobs, size.small_jobs * size.small_job_rows):
        raise BenchError(f"{succeeded} of {size.small_jobs} small jobs succeeded, with {written} rows")
    after = bulk.wait(huge, lambda _: True)
    bulk.cancel(huge)
    upload.unlink()
    stack.processes.stop(worker)

    took, from_first = float(last) - posted, float(last) - start
    say(f"  {size.small_jobs:,} jobs posted in {posted - start:.1f} s; the large job is {after['state']}")
    figures.add("jobs_posted", size.small_jobs / (posted - start), "jobs/s",
                note=f"{size.small_jobs:,} of {size.small_job_rows} rows over {CONNECTIONS} connections")
    figures.add("jobs_last_done_from_first_s", from_first, "s", note="from the first POST")
    ran_on = not is_over(after) or moment(after["finished_at"]) >= float(last)
    if ran_on:
        # All can be finished before the last response arrives.
        figures.add("jobs_last_done_s", max(took, 0.0), "s", at_most=60, note="from the response of the last POST; the large job still ran")
    else:
        figures.fail("jobs_last_done_s", "s", "<= 60", f"the large job finished before the last small one ({took:.1f} s)")
    figures.add("jobs_huge_rows", after["rows_written"] - before["rows_written"], "rows", note="written by the large job meanwhile")


def body(first: int, count: int) -> bytes:
    text = io.StringIO(newline="")
    write_csv(text, rows(first, count))
    return text.getvalue().encode()


def post(bulk: Bulk, bodies: list[bytes]) -> list[int]:
    """Uploads all bodies over several connections and returns the ids of the jobs."""
    waiting, numbers, errors = iter(bodies), [], []
    taking = threading.Lock()

    def go_on() -> None:
        try:
            with closing(bulk.client()) as client:
                while not errors:
                    with taking:
                        upload = next(waiting, None)
                    if upload is None:
                        return
                    numbers.append(client.expect(202, "POST", "/api/v1/urls/bulk", upload, "text/csv")["job"]["id"])
        # Any error is raised by the waiting thread.
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=go_on) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise BenchError(f"a small job was rejected: {errors[0]}")
    return numbers


def wait_done(stack, low: int, high: int, count: int) -> None:
    deadline = time.monotonic() + DONE_S
    query = f"SELECT count(*) FROM jobs WHERE id BETWEEN {low} AND {high} AND finished_at IS NOT NULL"
    while (done := int(stack.sql(query))) < count:
        if time.monotonic() > deadline:
            raise BenchError(f"only {done:,} of {count:,} small jobs are finished after {DONE_S} s")
        # Each poll starts a process, which competes with the measurement.
        time.sleep(0.3)
