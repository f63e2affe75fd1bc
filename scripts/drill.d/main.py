"""`make drill`: injects a fault, waits for its alert, runs the runbook's checks, and waits until the alert resolves."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import table
from faults import FAULTS, Fault
from runbook import run_checks
from stack import ROOT, DrillError, Stack, discard, private_installation, running_installation, wait
from traffic import ordinary

# The promise.
FIRES_WITHIN_S = 120
# Rates over minutes must fall, and a store may have to recover.
RESOLVES_WITHIN_S = 600


def named(alert: dict[str, Any], fault: Fault) -> bool:
    """Whether this is the fault's alert and names the component."""
    text = " ".join([alert["labels"].get("service", ""), alert["labels"].get("mountpoint", ""), alert["annotations"]["summary"]])
    return alert["labels"]["alertname"] == fault.alert and fault.component in text.lower()


def names(alerts: list[dict[str, Any]]) -> list[str]:
    return sorted({one["labels"]["alertname"] for one in alerts})


def drill(stack: Stack, name: str) -> table.Row:
    """One fault from injection to recovery."""
    fault = FAULTS[name]
    print(f"==> {name}: {fault.title}", flush=True)
    fault.prepare(stack)
    wait(RESOLVES_WITHIN_S, f"an earlier {fault.alert} to resolve", lambda: fault.alert not in names(stack.alerts()))
    # A slow machine may burn the budget of latency all the time.
    before = {*names(stack.alerts()), fault.alert}
    began = time.monotonic()
    with fault.injected(stack):
        found: list[dict[str, Any]] = []

        def fires() -> bool:
            found[:] = [one for one in stack.alerts() if named(one, fault)]
            return bool(found)

        try:
            wait(FIRES_WITHIN_S - (time.monotonic() - began), f"the alert {fault.alert}", fires)
        except DrillError as error:
            raise DrillError(f"{error}; firing: {names(stack.alerts()) or 'none'}") from None
        fired = time.monotonic() - began
        print(f"    {fault.alert} fires after {fired:.0f} s: {found[0]['annotations']['summary']}", flush=True)
        wait(30, f"{fault.alert} in Alertmanager", lambda: stack.delivered(fault.alert))
        results = run_checks(stack, found[0])
        others = [one for one in names(stack.alerts()) if one not in before]
        command, evidence = first_evidence(results, fault)
        print(f"    {command}\n        {evidence}", flush=True)
    ended = time.monotonic()
    wait(RESOLVES_WITHIN_S, f"{fault.alert} to resolve", lambda: fault.alert not in names(stack.alerts()))
    resolved = time.monotonic() - ended
    print(f"    resolved {resolved:.0f} s after the fault had ended; also fired: {', '.join(others) or 'none'}", flush=True)
    return table.Row(name, fault.title, fault.alert, round(fired), command, evidence, round(resolved), others)


def first_evidence(results: list[tuple[str, str]], fault: Fault) -> tuple[str, str]:
    """The first check whose output shows the fault, and the line that does."""
    for command, output in results:
        match = re.search(fault.shown_by, output)
        if match:
            start = output.rfind("\n", 0, match.start() + 1) + 1
            end = output.find("\n", match.end())
            line = output[start:len(output) if end < 0 else end]
            # Of a long line, the part around the match.
            skipped = max(match.start() - start - 40, 0) if len(line) > table.EVIDENCE_CHARS else 0
            return command, ("…" if skipped else "") + line[skipped:].strip()
    text = "\n".join(f"$ {command}\n{output}" for command, output in results)
    raise DrillError(f"no check of the runbook of {fault.alert} shows the fault ({fault.shown_by}):\n{text}")


def choose(stack: Stack | None) -> list[str]:
    """The faults to inject, from the environment."""
    wanted = os.environ.get("FAULT", "")
    possible = [name for name, fault in FAULTS.items() if stack is None or not fault.needs_private]
    if wanted == "all":
        return possible
    if wanted:
        chosen = wanted.split(",")
        unknown = [name for name in chosen if name not in FAULTS]
        if unknown:
            raise DrillError(f"unknown fault '{unknown[0]}'; choose from: {', '.join(FAULTS)}")
        if any(name not in possible for name in chosen):
            raise DrillError(f"{wanted} needs a private installation: stop `make run` first")
        return chosen
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"SEED={seed}", flush=True)
    return [random.Random(seed).choice(possible)]


def main() -> int:
    if sys.argv[1:] == ["list"]:
        print("\n".join(f"{name:22} {fault.title}" for name, fault in FAULTS.items()))
        return 0
    # `finally` must run for a requested end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    failed = []
    try:
        folder = Path(os.environ.get("RUN_DIR") or ROOT / ".run")
        stack = running_installation(folder, os.environ.get("FORCE") == "yes")
        chosen = choose(stack)
        if stack is None:
            stack = private_installation(os.environ.get("PROFILE") or "local")
    except (DrillError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 64
    load = ordinary(stack.address, stack.text("admin-key"))
    try:
        for name in chosen:
            try:
                row = drill(stack, name)
                if os.environ.get("WRITE") == "yes":
                    table.write(row)
            except DrillError as error:
                print(f"error: {name}: {error}", file=sys.stderr, flush=True)
                failed.append(name)
    finally:
        load.stop()
        if stack.is_private:
            discard(stack, keep=os.environ.get("KEEP") == "yes")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
