"""Runs checks in turn and stops at the first one that fails: the loop of test-compose, test-backup and test-chaos.

A check is a function with one parameter, a function that records a figure: what, measured, bar. Its name with spaces is
its title. It fails with `Failed`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

Figure = Callable[[str, str, str], None]
Check = Callable[[Figure], None]


class Failed(Exception):
    """A check that failed."""


def require(condition: object, message: str) -> None:
    if not condition:
        raise Failed(message)


def wait(seconds: float, what: str, condition: Callable[[], object]) -> float:
    """Polls until the condition holds, and returns the seconds that it took. `what` completes "waiting for …"."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise Failed(f"timed out after {seconds:.0f} s waiting for {what}")
        time.sleep(0.1)
    return time.monotonic() - started


def selected(checks: Sequence[Check], always: Sequence[Check] = ()) -> list[Check]:
    """The checks whose names contain a part of ONLY=part-of-a-name,…, and those that always run."""
    only = [part for part in os.environ.get("ONLY", "").split(",") if part]
    return [check for check in checks if not only or check in always or any(part in check.__name__ for part in only)]


def run_checks(checks: Sequence[Check], print_logs: Callable[[], None], *, widths: tuple[int, int] = (62, 12),
               remarks: Sequence[str] = ()) -> int:
    """Runs the checks, prints their figures, and returns the exit code."""
    figures: list[tuple[str, str, str]] = []
    begun_all = time.monotonic()
    for check in checks:
        name = check.__name__.replace("_", " ")
        begun = time.monotonic()
        print(f"==> {name}", flush=True)
        try:
            check(lambda *figure: figures.append(figure))
        except Failed as failure:
            print(f"FAILED: {name}: {failure}", flush=True)
            print_logs()
            return 1
        print(f"    ok, {time.monotonic() - begun:.1f} s", flush=True)
    print()
    for what, measured, bar in figures:
        print(f"{what:{widths[0]}} {measured:>{widths[1]}}  {bar}")
    for remark in remarks:
        print(remark)
    print(f"{len(checks)} passed, 0 failed, {time.monotonic() - begun_all:.0f} s")
    return 0
