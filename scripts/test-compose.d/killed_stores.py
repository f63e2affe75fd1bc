"""PostgreSQL and Redis killed under full load: redirects, clicks and imports must survive."""

from __future__ import annotations

import json
import re
import subprocess

from engine import SITE, admin_key, containers, http, inspect, post_csv, redis_cli, require, sql, wait
from fault_reports import assert_reported, background_requests
from faults import all_requests_succeed, bus_is_live, kill, shorten_and_cache

LOAD_S = 20
# wrk's connections. At its end each has a request in flight, which Linnet counts and wrk does not.
CONNECTIONS = 16
IMPORT_ROWS = 60_000


def postgresql_killed_under_load_loses_nothing(_figure) -> None:
    """All redirects succeed and are counted once; an import continues where it was."""
    rows = "".join(f"https://example.com/{number}\n" for number in range(IMPORT_ROWS))
    status, text = post_csv("original_url\n" + rows)
    require(status == 202, f"the import returned {status}: {text}")
    job = json.loads(text)["job"]["id"]
    wait(30, "the import to write rows", lambda: int(sql(f"SELECT rows_written FROM jobs WHERE id = {job}")) > 0)
    served = load_during_kill("kill-postgres", "postgres")
    wait(60, "a click of each redirect", lambda: recorded_clicks("kill-postgres") >= served)
    more = recorded_clicks("kill-postgres") - served
    require(more <= CONNECTIONS, f"{more:,} clicks more than the {served:,} redirects are recorded")
    wait(240, "the import to finish", lambda: get_job(job)["state"] not in ("queued", "running"))
    written = get_job(job)["rows_written"]
    require(written == IMPORT_ROWS, f"only {written:,} of {IMPORT_ROWS:,} rows are written")
    print(f"    {served:,} redirects, none failed, all recorded once; the import wrote all {written:,} rows", flush=True)
    with background_requests():
        assert_reported("connection-lost")


def redis_killed_under_load_loses_at_most_2_s_of_clicks(_figure) -> None:
    """All redirects succeed; only clicks that Redis had not synced are lost, and none is counted twice."""
    served = load_during_kill("kill-redis", "redis")
    # Redis syncs every second, or a second later on a slow disk.
    at_least = served - 2 * served // LOAD_S
    wait(60, "the clicks of all but two seconds", lambda: recorded_clicks("kill-redis") >= at_least)
    wait(60, "an empty stream", stream_is_empty)
    lost = served - recorded_clicks("kill-redis")
    require(-CONNECTIONS <= lost, f"{-lost:,} clicks more than the {served:,} redirects are recorded")
    # Redis replays its append-only file as the user `default`, and logs each transaction that this user may not execute.
    logs = subprocess.run(["docker", "logs", containers("redis")[0]], capture_output=True, text=True, check=True, timeout=30)
    require("NOPERM" not in logs.stdout + logs.stderr, "Redis has dropped transactions of its append-only file")
    print(f"    {served:,} redirects, none failed, {max(0, lost):,} clicks lost", flush=True)


def stream_is_empty() -> bool:
    words = redis_cli("XINFO", "GROUPS", "linnet:clicks").split()
    group = dict(zip(words[::2], words[1::2], strict=True))
    return group["pending"] == group["lag"] == "0"


def recorded_clicks(code: str) -> int:
    return int(sql(f"SELECT clicks FROM urls WHERE short_code = '{code}'"))


def get_job(number: int) -> dict:
    status, text = http(f"/api/v1/jobs/{number}", key=admin_key())
    require(status == 200, f"GET /api/v1/jobs/{number}: {status} {text}")
    return json.loads(text)


def load_during_kill(code: str, service: str) -> int:
    """Kills the service during redirects at full rate, none of which may fail. Returns their number."""
    wait(30, "a live invalidation bus", bus_is_live)
    shorten_and_cache(code)
    wait(20, "a click of each visit", lambda: recorded_clicks(code) == 20)
    before = inspect(containers(service)[0])["RestartCount"]
    command = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{LOAD_S}s", "-H", "User-Agent: Mozilla/5.0 Firefox/140.0", f"{SITE}/{code}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        wait(15, "load", lambda: recorded_clicks(code) > 1_000)
        kill(service)
        wait(60, f"{service} to restart", lambda: any(inspect(one)["RestartCount"] > before for one in containers(service)))
        output, _ = wrk.communicate(timeout=LOAD_S + 60)
    total = re.search(r"(\d+) requests in", output)
    require(total and "Non-2xx" not in output and "Socket errors" not in output, f"redirects failed while {service} was killed:\n{output}")
    wait(60, f"requests to succeed after {service} was killed", all_requests_succeed)
    return 20 + int(total[1])
