"""PostgreSQL and Redis die while there is as much to do as the machine can take."""

from __future__ import annotations

import json
import re
import subprocess

from engine import SITE, admin_key, containers, http, inspect, post_csv, redis_cli, require, sql, wait
from faults import feed_is_live, kill, warmed, works
from told import is_told, visitors

LOAD_S = 20
# Of wrk, each with a request under way when it ends, which only we count.
CONNECTIONS = 16
IMPORT_ROWS = 60_000


def postgresql_is_killed_under_load(_figure) -> None:
    """Redirects, all of them counted once, and an import that goes on where it was."""
    rows = "".join(f"https://example.com/{number}\n" for number in range(IMPORT_ROWS))
    status, text = post_csv("original_url\n" + rows)
    require(status == 202, f"the import was answered {status}: {text}")
    job = json.loads(text)["job"]["id"]
    wait(30, "import under way", lambda: int(sql(f"SELECT rows_written FROM jobs WHERE id = {job}")) > 0)
    served = load_while_killed("kill-postgres", "postgres")
    wait(60, "click of each redirect", lambda: recorded("kill-postgres") >= served)
    more = recorded("kill-postgres") - served
    require(more <= CONNECTIONS, f"{more:,} more clicks are recorded than the {served:,} redirects")
    wait(240, "end of the import", lambda: job_of(job)["state"] not in ("queued", "running"))
    written = job_of(job)["rows_written"]
    require(written == IMPORT_ROWS, f"{written:,} of {IMPORT_ROWS:,} rows are written")
    print(f"    {served:,} redirects, none failed, all recorded once; each of the import's {written:,} rows is there", flush=True)
    with visitors():
        is_told("connection-lost")


def redis_is_killed_under_load(_figure) -> None:
    """Redirects; of their clicks only what Redis had not synced may be gone, and none counts twice."""
    served = load_while_killed("kill-redis", "redis")
    # It syncs every second, and one more if the disk is slow.
    at_least = served - 2 * served // LOAD_S
    wait(60, "click of each redirect but for two seconds", lambda: recorded("kill-redis") >= at_least)
    wait(60, "worker that has nothing left to write", nothing_waits)
    lost = served - recorded("kill-redis")
    require(-CONNECTIONS <= lost, f"{-lost:,} more clicks are recorded than the {served:,} redirects")
    print(f"    {served:,} redirects, none failed, {max(0, lost):,} clicks lost", flush=True)


def nothing_waits() -> bool:
    words = redis_cli("XINFO", "GROUPS", "linnet:clicks").split()
    group = dict(zip(words[::2], words[1::2], strict=True))
    return group["pending"] == group["lag"] == "0"


def recorded(code: str) -> int:
    return int(sql(f"SELECT clicks FROM urls WHERE short_code = '{code}'"))


def job_of(number: int) -> dict:
    status, text = http(f"/api/v1/jobs/{number}", key=admin_key())
    require(status == 200, f"GET /api/v1/jobs/{number}: {status} {text}")
    return json.loads(text)


def load_while_killed(code: str, service: str) -> int:
    """Redirects as fast as they go, none of which may fail; in the midst of it the service is killed. How many there were."""
    wait(30, "shortener whose change feed is live", feed_is_live)
    warmed(code)
    wait(20, "click of each visit", lambda: recorded(code) == 20)
    before = inspect(containers(service)[0])["RestartCount"]
    command = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{LOAD_S}s", "-H", "User-Agent: Mozilla/5.0 Firefox/140.0", f"{SITE}/{code}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        wait(15, "load", lambda: recorded(code) > 1_000)
        kill(service)
        wait(60, f"new {service}", lambda: any(inspect(one)["RestartCount"] > before for one in containers(service)))
        output, _ = wrk.communicate(timeout=LOAD_S + 60)
    total = re.search(r"(\d+) requests in", output)
    require(total and "Non-2xx" not in output and "Socket errors" not in output, f"redirects failed while {service} was killed:\n{output}")
    wait(60, f"service after {service} was killed", works)
    return 20 + int(total[1])
