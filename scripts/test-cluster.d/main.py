"""`make test-cluster`: one fault after another in a cluster under mixed load, with every acknowledged write checked after each."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("checks.d", "test-chaos.d")]

import load as load_module
import results
import table
from bars import ClusterFault, ClusterResult, ClusterStage
from checks import Failed, Figure, run_checks
from cluster import Cluster
from engine import BINARIES, PORT, sql
from faults import FAULTS
from invariants import Checker
from ledger import CACHED
from load import RATES, Load
from releases import UPGRADE, old_binaries_folder

# Enough for some faults; it is refilled between them.
load_module.POOL_ROWS = 3_000
# Of an edit whose client has given up: deploy/cluster/sysctl.conf.
LATEST_EDIT_S = 15
SHORT = os.environ.get("FORM") == "short"


def chosen() -> list[ClusterFault]:
    only = [part for part in os.environ.get("ONLY", "").split(",") if part]
    faults = [fault for fault in FAULTS if any(part in fault.name for part in only) or not only and (fault.short or not SHORT)]
    for fault in list(faults):
        if lacking := fault.lacking():
            print(f"NOT run: {fault.name}, because {lacking}", flush=True)
            faults.remove(fault)
    return faults


def latest_edit_s(load: Load, since: float) -> float:
    """The longest time from the sending of an edit that failed to its execution."""
    offset, latest = time.time() - time.monotonic(), 0.0
    for link in load.ledger.edited:
        rows = sql("SELECT details->>'original_url', extract(epoch FROM timestamp) FROM events "
                   f"WHERE url_id = {link.id} AND event_type = 'updated' AND timestamp > to_timestamp({since + offset})")
        for target, at in (row.rsplit("|", 1) for row in rows.splitlines()):
            number = link.number_of(target)
            if number is not None and number not in link.acknowledged:
                latest = max(latest, float(at) - offset - link.sent[number])
    return latest


def inject(fault: ClusterFault, cluster: Cluster, load: Load, checker: Checker) -> ClusterResult:
    stage = ClusterStage(load, None, cluster=cluster)  # type: ignore[arg-type]
    load.pause()
    cluster.wait_until_whole()
    cluster.ensure_apart()
    with fault.prepare(stage):
        load.resume()
        if not load.becomes_calm(60):
            raise Failed(f"requests fail before the fault: {dict(load.window.failed)}")
        window = load.new_window()
        with fault.inject(stage):
            time.sleep(max(fault.hold_s, 0))
        ended = time.monotonic()
        calm = load.becomes_calm(fault.recovers_within_s + 60)
        load.pause()
        cluster.wait_until_whole()
        whole_after_s = time.monotonic() - ended
        checked = checker.check(int(fault.lost_clicks_s * RATES[CACHED]))
    if (late_s := latest_edit_s(load, window.begun)) > LATEST_EDIT_S:
        stage.wrong.append(f"an edit that failed was executed {late_s:.0f} s after it was sent")
    # A crash is a defect. A process that exits for lack of a store when it starts is restarted, as by systemd.
    stage.wrong += [one for one in cluster.exits if one.split()[-1] in ("101", "-11", "-6")]
    if cluster.exits:
        stage.notes.append("; ".join(cluster.exits))
        cluster.exits.clear()
    stage.notes.append(f"whole again {whole_after_s:.0f} s after the end")
    load.new_window()
    load.refill()
    return ClusterResult(fault, window, ended, calm, {}, checked, stage, False, whole_after_s=whole_after_s)


def check_of(fault: ClusterFault, cluster: Cluster, load: Load, checker: Checker, broken: list[str]) -> Callable[[Figure], None]:
    def check(_figure: Figure) -> None:
        result = inject(fault, cluster, load, checker)
        results.write_json(result)
        if os.environ.get("WRITE") == "yes":
            results.write_row(result)
        print(f"    {table.failed(result.window)}; for {table.how_long(result.window)}\n    {table.checked(result)}", flush=True)
        for one in result.broken():
            print(f"    OUTSIDE THE BAR: {one}", flush=True)
            broken.append(f"{fault.name}: {one}")
        if result.broken():
            print(*(f"    first failure, {kind}: {body}" for kind, body in result.window.samples.items()), sep="\n", flush=True)

    check.__name__ = fault.name
    return check


def main() -> int:
    if sys.argv[1:] == ["list"]:
        print("\n".join(f"{fault.name:26} {'short ' if fault.short else '      '} {fault.title}" for fault in FAULTS))
        return 0
    faults = chosen()
    if not faults:
        print(f"no fault is left to run; the names are {', '.join(fault.name for fault in FAULTS)}", file=sys.stderr)
        return 64
    # The upgrade changes the schema, so it comes first, and the cluster starts with the release before.
    faults.sort(key=lambda fault: fault.name != UPGRADE)
    release = old_binaries_folder() if faults[0].name == UPGRADE else BINARIES
    cluster, broken = Cluster(release), []
    try:
        begun = time.monotonic()
        print("==> starting three nodes", flush=True)
        cluster.start()
        print(f"    ok, {time.monotonic() - begun:.0f} s", flush=True)
        load = Load(PORT, cluster.key)
        load.prepare()
        load.start()
        checker = Checker(load)
        status = run_checks([check_of(fault, cluster, load, checker, broken) for fault in faults], cluster.print_logs)
    except (Failed, RuntimeError, OSError) as failure:
        print(f"FAILED: {failure}", flush=True)
        cluster.print_logs()
        return 1
    for one in broken:
        print(f"outside its bar: {one}")
    return 1 if broken else status


if __name__ == "__main__":
    sys.exit(main())
