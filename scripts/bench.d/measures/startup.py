"""Time from process start to readiness and to the first redirect. The machine's file cache is warm."""

from __future__ import annotations

import time

from figures import median
from processes import BenchError
from stack import is_ok

FIGURES = ("cold_start_ready", "cold_start_first_redirect")


def run(bench) -> None:
    stack = bench.stack
    ready, redirected = [], []
    for turn in range(bench.size.starts):
        start = time.monotonic()
        shortener = stack.start_shortener(f"shortener-start{turn}", wait=False)
        stack.processes.wait_until(shortener.process, "readiness", lambda: is_ok(shortener.admin, "/readyz"), every_s=0.002)
        ready.append((time.monotonic() - start) * 1000)
        report = bench.tools.replay(shortener.resolve, bench.one)
        if report["redirected"] != 1:
            raise BenchError(f"the first request did not redirect: {report}")
        redirected.append((time.monotonic() - start) * 1000)
        stack.processes.stop(shortener.process)
    bench.figures.add("cold_start_ready", median(ready), "ms", note="including cache warm-up")
    bench.figures.add("cold_start_first_redirect", median(redirected), "ms", note="including the client's start")
