"""The running containers: system tests through nginx, and memory under load."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from engine import CORE, PORT, SITE, admin_key, containers, inspect, post_csv, require, run, service_of, shorten

MIB = 1024 * 1024
LOAD_S = 20


def system_tests_pass_through_nginx(_figure) -> None:
    done = run("cargo", "test", "--locked", "-p", "linnet-system-tests", "--test", "compose", "--", "--ignored", "--test-threads", "4",
               check=False, SQLX_OFFLINE="true", LINNET_TEST_PORT=str(PORT), LINNET_TEST_KEY=admin_key())
    summary = re.search(r"test result: (.*)", done.stdout)
    require(done.returncode == 0 and summary, f"the tests failed:\n{done.stdout}")
    print(f"    {summary[1]}", flush=True)


def memory_limits_hold_under_load(figure) -> None:
    """Redirects at full rate, creates and an import together. No container may run out of memory."""
    codes = [f"load{number}" for number in range(50)]
    for code in codes:
        shorten(code)
    rows = "short_code,original_url\n" + "".join(f"bulk-{n},https://example.com/{n}\n" for n in range(20_000))
    status, text = post_csv(rows)
    require(status == 202, f"the import returned {status}: {text}")
    most: dict[str, float] = {}
    stop = threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(most, stop))
    watcher.start()
    try:
        load = run("wrk", "-t2", "-c64", f"-d{LOAD_S}s", "-H", "User-Agent: Mozilla/5.0 Firefox/140.0", f"{SITE}/{codes[0]}", timeout=LOAD_S + 60)
    finally:
        stop.set()
        watcher.join()
    rate = re.search(r"Requests/sec:\s+(\S+)", load.stdout)
    require(rate and "Non-2xx" not in load.stdout, f"requests failed:\n{load.stdout}")
    figure("redirects through the published port (no bar)", f"{float(rate[1]):,.0f}/s", "")
    total = sum(most[name] for name in CORE)
    for name in CORE:
        figure(f"  resident memory of {name} under load", f"{most[name]:.0f} MiB", "")
    figure("total resident memory of the core services under load", f"{total:.0f} MiB", "<= 384 MiB")
    require(total <= 384, f"the core services took {total:.0f} MiB")
    for container in containers():
        details = inspect(container)
        require(not details["State"]["OOMKilled"] and details["RestartCount"] == 0, f"{service_of(details)} was killed")


def watch_memory(most: dict[str, float], stop: threading.Event) -> None:
    """Records the highest resident memory of each service; shared memory counts once."""
    groups = {name: [control_group(one) for one in containers(name)] for name in CORE}
    while not stop.wait(0.5):
        for name, folders in groups.items():
            most[name] = max(most.get(name, 0.0), sum(map(resident_mib, folders)))


def control_group(container: str) -> Path:
    pid = inspect(container)["State"]["Pid"]
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder = Path("/sys/fs/cgroup") / path.lstrip("/")
        elif "memory" in controllers.split(","):
            folder = Path("/sys/fs/cgroup/memory") / path.lstrip("/")
        else:
            continue
        if (folder / "memory.stat").exists():
            return folder
    raise FileNotFoundError(f"no control group of {container}: {lines}")


def resident_mib(group: Path) -> float:
    """Resident memory without the file cache, which the kernel can reclaim."""
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    own = int(stat.get("anon", stat.get("total_rss", 0))) + int(stat.get("shmem", stat.get("total_shmem", 0)))
    return own / MIB
