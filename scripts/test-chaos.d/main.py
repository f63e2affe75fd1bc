"""`make test-chaos`: one fault after another under mixed load, with every acknowledged write checked after each."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import alert_faults
import clock_faults
import process_faults
import store_faults
import table
from checks import Failed, Figure, run_checks
from engine import PORT, admin_key, compose, print_logs
from fault import Fault, Result, Stage
from installation import AlertWatch, alerts, both_colors, start, unmount_disks
from invariants import Checker
from ledger import CACHED
from load import RATES, Load
from receiver import Receiver

FAULTS: tuple[Fault, ...] = (*process_faults.FAULTS, *store_faults.FAULTS, *clock_faults.FAULTS, *alert_faults.FAULTS)
SHORT = os.environ.get("FORM") == "short"
# FORM=short waits for alerts that must fire within this time.
SHORT_WAIT_S = 60
EXPECTED_REDIRECTS_PER_S = RATES[CACHED]


def chosen() -> list[Fault]:
    only = [part for part in os.environ.get("ONLY", "").split(",") if part]
    faults = [fault for fault in FAULTS if any(part in fault.name for part in only) or not only and (fault.short or not SHORT)]
    if lacking := clock_faults.missing():
        for fault in clock_faults.FAULTS:
            if fault in faults:
                print(f"NOT run: {fault.name}, because {lacking}", flush=True)
                faults.remove(fault)
    return faults


def hold(fault: Fault, watch: AlertWatch) -> bool:
    """Holds the fault, until its alert fires if that is waited for. Returns whether it is."""
    waits = bool(fault.alert) and (not SHORT or fault.alert_within_s <= SHORT_WAIT_S)
    while (held := time.monotonic() - watch.begun) < fault.hold_s or (waits and fault.alert not in watch.fired and held <= fault.alert_within_s):
        time.sleep(0.25)
    return waits


def wait_until_silent(fault: Fault) -> None:
    """An alert of the fault before must not count for this one."""
    until = time.monotonic() + 720
    while fault.alert in alerts("firing", "pending"):
        if time.monotonic() > until:
            raise Failed(f"{fault.alert} still fires before the fault")
        time.sleep(1)


def inject(fault: Fault, load: Load, checker: Checker, receiver: Receiver) -> Result:
    stage = Stage(load, receiver)
    wait_until_silent(fault)
    load.pause()
    with both_colors(wanted=fault.both_colors), fault.prepare(stage):
        load.resume()
        if not load.becomes_calm(60):
            raise Failed(f"requests fail before the fault: {dict(load.window.failed)}")
        window, watch = load.new_window(), AlertWatch()
        with fault.inject(stage):
            waited = hold(fault, watch)
        ended = time.monotonic()
        calm = load.becomes_calm(fault.recovers_within_s + 60)
        fired = watch.stop()
        load.pause()
        checked = checker.check(int(fault.lost_clicks_s * EXPECTED_REDIRECTS_PER_S), stage.counted_losses)
    load.new_window()
    load.refill()
    return Result(fault, window, ended, calm, fired, checked, stage, waited, watch.stale_bus)


def check_of(fault: Fault, load: Load, checker: Checker, receiver: Receiver, broken: list[str]) -> Callable[[Figure], None]:
    def check(_figure: Figure) -> None:
        result = inject(fault, load, checker, receiver)
        table.write_json(result)
        if os.environ.get("WRITE") == "yes":
            table.write_row(result, FAULTS)
        print(f"    {table.failed(result.window)}; for {table.how_long(result.window)}\n    {table.alert(result)}\n    {table.checked(result)}", flush=True)
        for one in result.broken():
            print(f"    OUTSIDE THE BAR: {one}", flush=True)
            broken.append(f"{fault.name}: {one}")
        if result.broken():
            print(*(f"    first failure, {kind}: {body}" for kind, body in result.window.samples.items()), sep="\n", flush=True)

    check.__name__ = fault.name
    return check


def main() -> int:
    faults = chosen()
    if not faults:
        print(f"no fault has this name; the names are {', '.join(fault.name for fault in FAULTS)}", file=sys.stderr)
        return 64
    receiver, broken = Receiver(), []
    try:
        start(receiver)
        load = Load(PORT, admin_key())
        load.prepare()
        load.start()
        checker = Checker(load)
        status = run_checks([check_of(fault, load, checker, receiver, broken) for fault in faults], print_logs)
    except Failed as failure:
        print(f"FAILED: {failure}", flush=True)
        print_logs()
        return 1
    finally:
        if os.environ.get("KEEP") != "yes":
            compose("kill", check=False)
            unmount_disks()
    for one in broken:
        print(f"outside its bar: {one}")
    return 1 if broken else status


if __name__ == "__main__":
    sys.exit(main())
