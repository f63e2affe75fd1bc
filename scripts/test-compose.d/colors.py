"""Both colors: green takes over under load and blue again, and no request fails."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import contextmanager

from engine import SCRATCH, SITE, Failed, address_of, admin_key, compose, containers, http, inspect, require, run, shorten, wait
from startup import receiver_files

# The load continues for longer than a takeover takes.
LOAD_S = 60
# The sum of keepalive_time and keepalive_timeout in nginx/linnet.conf.template, and a response.
SWITCHED_WITHIN_S = 2.5
ADMIN_PORTS = {"gateway": 9081, "shortener": 9082}


def slots(*words: str) -> str:
    return run("docker", "exec", containers("nginx")[0], "sh", "/etc/nginx/slots.sh", *words).stdout.strip()


def without_limits() -> tuple[str, ...]:
    """The load comes from one address and one user."""
    file = SCRATCH / "without-limits.yaml"
    limits = "{LINNET__LIMITS__KEY_PER_MINUTE: '60000000', LINNET__LIMITS__KEY_BURST: '1000000', " \
             "LINNET__LIMITS__USER_PER_MINUTE: '60000000', LINNET__LIMITS__USER_BURST: '1000000'}"
    file.write_text("services:\n  nginx: {environment: {LINNET_NGINX_API_RATE: 'off'}}\n"
                    f"  gateway-blue: {{environment: {limits}}}\n  gateway-green: {{environment: {limits}}}\n")
    return (*receiver_files(), str(file))


def is_healthy(service: str) -> bool:
    return any(inspect(one)["State"]["Health"]["Status"] == "healthy" for one in containers(service))


def served(color: str) -> dict[str, float]:
    """Requests that a color has served: redirects, and API calls by its gateway. Health checks do not count."""
    counts = {}
    for name, route in (("gateway", "/api/v1/urls"), ("shortener", "/{code}")):
        address = address_of(containers(f"{name}-{color}")[0], "scrape")
        text = http("/metrics", site=f"http://{address}:{ADMIN_PORTS[name]}")[1]
        found = re.findall(r'^http_server_request_duration_seconds_count\{[^}]*http_route="([^"]+)"[^}]*\} (\S+)$', text, re.M)
        counts[name] = sum(float(count) for path, count in found if path == route)
    return counts


@contextmanager
def load(code: str):
    """Redirects and creates, each over kept and over new connections. Yields, then fails if a request has failed."""
    post = SCRATCH / "post.lua"
    post.write_text('wrk.method = "POST"\nwrk.path = "/api/v1/urls"\nwrk.body = \'{"original_url":"https://example.com/"}\'\n'
                    f'wrk.headers["Authorization"] = "Bearer {admin_key()}"\nwrk.headers["Content-Type"] = "application/json"\n')
    agent = ("-H", "User-Agent: Mozilla/5.0 Firefox/140.0")
    close = ("-H", "Connection: close")
    kinds = {"GET, kept": (*agent, "-c8", f"{SITE}/{code}"), "GET, new": (*agent, *close, "-c2", f"{SITE}/{code}"),
             "POST, kept": ("-c4", "-s", str(post), SITE), "POST, new": (*close, "-c2", "-s", str(post), SITE)}
    running = {kind: subprocess.Popen(["wrk", "-t1", f"-d{LOAD_S}s", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      text=True) for kind, options in kinds.items()}
    totals: dict[str, int] = {}
    try:
        yield totals
        for kind, process in running.items():
            require(process.poll() is None, f"the load {kind} ended before the takeover")
            output, _ = process.communicate(timeout=LOAD_S + 30)
            total = re.search(r"(\d+) requests in", output)
            require(total and "Non-2xx" not in output and "Socket errors" not in output, f"{kind}: requests failed:\n{output}")
            totals[kind] = int(total[1])
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def wait_until_idle(color: str) -> float:
    """Waits until a color serves no request. Returns how long it still served some."""
    begun = time.monotonic()
    last, last_change = served(color), begun
    while time.monotonic() - last_change < 1.5:
        time.sleep(0.1)
        now = served(color)
        if now != last:
            last, last_change = now, time.monotonic()
            require(last_change - begun < 30, f"{color} still serves requests")
    return last_change - begun


def take_over(to: str, other: str, files: tuple[str, ...]) -> float:
    """Moves all requests in three steps, and stops the other color. Returns how long that one still served some."""
    compose("up", "-d", "--no-build", "--no-deps", f"shortener-{to}", f"gateway-{to}", files=files)
    for name in ADMIN_PORTS:
        wait(30, f"{name}-{to} to be healthy", lambda name=name: is_healthy(f"{name}-{to}"))
    for count in (1, 5, 10):
        before = served(to)
        state = slots(to, str(count))
        for group in ("resolve", "web"):
            require(f"{group} " in state and f"{to}={count}" in state, f"slots.sh printed {state}")
        wait(10, f"{to} to serve requests with {count} slots", lambda before=before: all(
            value > before[name] for name, value in served(to).items()))
    still = wait_until_idle(other)
    compose("stop", f"shortener-{other}", f"gateway-{other}", files=files)
    return still


def green_takes_over_without_a_failed_request(figure) -> None:
    files = without_limits()
    compose("up", "-d", "--no-build", "nginx", "gateway-blue", files=files)
    wait(30, "a response through nginx", lambda: http("/health", timeout=2)[0] == 200)
    shorten("colors")
    refused = run("docker", "exec", containers("nginx")[0], "sh", "/etc/nginx/slots.sh", "green", "1", check=False)
    require(refused.returncode == 69 and "green does not run" in refused.stdout, f"slots.sh points to an absent color:\n{refused.stdout}")
    with load("colors") as totals:
        there = take_over("green", "blue", files)
        require(not containers("shortener-blue"), "blue still runs")
        back = take_over("blue", "green", files)
    require(slots() == "resolve blue=10 green=0\nweb blue=10 green=0", f"slots.sh printed {slots()}")
    print(f"    requests: {', '.join(f'{kind} {total:,}' for kind, total in totals.items())}; none failed", flush=True)
    figure("two takeovers of a color under load: failed requests", f"0 of {sum(totals.values()):,}", "0")
    for still in (there, back):
        figure("requests to the old color after the last slot", f"{still:.1f} s", f"<= {SWITCHED_WITHIN_S} s")
        if still > SWITCHED_WITHIN_S:
            raise Failed(f"the old color served requests for {still:.1f} s")
    compose("rm", "-fs", "gateway-green", "shortener-green", files=files)
    compose("up", "-d", "--no-build", "nginx", "gateway-blue", files=receiver_files())
    wait(30, "a response through nginx", lambda: http("/health", timeout=2)[0] == 200)
