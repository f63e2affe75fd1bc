"""nginx → shortener over unix sockets against TCP over a bridge network: redirects per second and processor time of each.

The second path is what the containers had before they had sockets: a second nginx with the same configuration, and green
with a TCP listener. A client over the bridge adds its own way to nginx; one in nginx's network namespace does not.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from statistics import median

from colors import is_healthy
from engine import ROOT, SCRATCH, address_of, compose, containers, http, inspect, require, run, shorten, wait
from isolation import processes
from startup import receiver_files

ROUNDS = 5
ROUND_S = 3
CONNECTIONS = 32
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CLIENTS = ("bridge", "loopback")
PATHS = {"sockets": ("nginx", "shortener-blue"), "bridge": ("nginx-bridge", "shortener-green")}


def with_bridge() -> tuple[str, ...]:
    """Adds the path over the bridge."""
    file = SCRATCH / "bridge.yaml"
    file.write_text(f"""
services:
  shortener-green:
    environment: {{LINNET__SHORTENER__RESOLVE_LISTEN: "0.0.0.0:8082"}}
    networks: {{edge: }}
  nginx-bridge:
    extends: {{file: {ROOT}/deploy/compose.yaml, service: nginx}}
    ports: !reset []
    depends_on: !reset {{}}
    healthcheck: {{disable: true}}
    cgroup_parent: linnet-nginx-bridge.slice
    environment:
      LINNET_NGINX_SLOTS: ""
      LINNET_NGINX_RESOLVE: shortener-green:8082
      LINNET_NGINX_GATEWAY: shortener-green:8082
    networks: !override [front, edge]
networks:
  edge: {{internal: true}}
""")
    return (*receiver_files(), str(file))


def processor_s(service: str) -> float:
    """Processor time of all processes of a service so far."""
    total = 0
    for pid in processes(containers(service)[0]):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def measure(path: str, client: str, code: str) -> tuple[float, dict[str, float]]:
    """Redirects per second over kept connections, and the processor time of one in microseconds by service."""
    nginx = containers(PATHS[path][0])[0]
    if client == "loopback":
        way, address = ("nsenter", "-t", str(inspect(nginx)["State"]["Pid"]), "-n"), "127.0.0.1"
    else:
        way, address = (), address_of(nginx, "front")
    before = {service: processor_s(service) for service in PATHS[path]}
    output = run(*way, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{ROUND_S}s", "-H", "User-Agent: Mozilla/5.0 Firefox/140.0",
                 f"http://{address}:8080/{code}").stdout
    rate, total = re.search(r"Requests/sec:\s+(\S+)", output), re.search(r"(\d+) requests in", output)
    require(rate and total and "Non-2xx" not in output and "Socket errors" not in output, f"{path}: requests failed:\n{output}")
    used = {service.split("-")[0]: (processor_s(service) - before[service]) / int(total[1]) * 1e6 for service in PATHS[path]}
    return float(rate[1]), used


def sockets_and_bridge_are_compared(figure) -> None:
    files = with_bridge()
    try:
        compose("up", "-d", "--no-build", "--no-deps", "shortener-green", files=files)
        wait(30, "the shortener with a TCP listener", lambda: is_healthy("shortener-green"))
        compose("up", "-d", "--no-build", "--no-deps", "nginx-bridge", files=files)
        site = f"http://{address_of(containers('nginx-bridge')[0], 'front')}:8080"
        code = f"bridge-{os.getpid()}"
        shorten(code)
        wait(20, "a redirect over the bridge", lambda: http(f"/{code}", site=site)[0] == 302)
        rounds = [{(path, client): measure(path, client, code) for client in CLIENTS for path in PATHS} for _ in range(ROUNDS)]
    finally:
        compose("rm", "-fs", "nginx-bridge", "shortener-green", check=False, files=files)
        run("docker", "network", "rm", f"{os.environ['LINNET_PROJECT']}_edge", check=False)
    for client in CLIENTS:
        cost = {}
        for path in PATHS:
            rates = [one[path, client][0] for one in rounds]
            nginx, shortener = (median(one[path, client][1][service] for one in rounds) for service in ("nginx", "shortener"))
            cost[path] = nginx + shortener
            figure(f"client over {client}, shortener over {path}: {min(rates):,.0f} to {max(rates):,.0f}/s", f"{median(rates):,.0f}/s", "")
            figure("  processor time of a redirect in nginx and shortener", f"{nginx:.1f} + {shortener:.1f} µs", "")
        ratio = cost["bridge"] / cost["sockets"]
        # No bar: it was 1.06 to 1.5 on one machine (docs/BENCHMARKS.md).
        figure(f"processor time with a client over {client}: bridge / sockets", f"{ratio:.2f}", "")
