"""Computes the most memory that nginx can use with a rendered configuration.

The sizes of nginx's structures were measured with nginx 1.22 and 3,000 unfinished requests (docs/ARCHITECTURE.md, "Memory").
"""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB
UNITS = {"": 1, "k": KIB, "m": MIB, "g": 1024 * MIB}

# The master process and the configuration.
MASTER_BYTES = 2 * MIB
# A worker process without connections.
WORKER_BYTES = MIB
# A slot for a connection: its structure, two events, and their place in the trees.
SLOT_BYTES = 512
# An unfinished request besides its buffers and pool: the connection's pool and log, the kernel's socket.
REQUEST_BYTES = 4 * KIB + 512
# The pool grows to three blocks before a head is complete.
POOL_BLOCKS = 2
# A large buffer's share of the allocator.
BUFFER_BYTES = 256
# A header in the list of headers.
HEADER_BYTES = 56
# The state of zlib for one response.
ZLIB_BYTES = 264 * KIB
# The fewest bytes of a header (`A:` and a line break).
SHORTEST_HEADER = 4


def size(text: str) -> int:
    """Returns the bytes of a size in nginx's notation."""
    match = re.fullmatch(r"(\d+)([kmg]?)", text.lower())
    if match is None:
        raise ValueError(text)
    return int(match[1]) * UNITS[match[2]]


def directive(configuration: str, name: str) -> list[str] | None:
    """Returns the arguments of the first directive with this name."""
    match = re.search(rf"^\s*{name}\s+([^;]+);", configuration, re.MULTILINE)
    return match[1].split() if match else None


def terms(configuration: str, workers: int) -> list[tuple[str, int, int]]:
    """Returns name, count and bytes of each term. The configuration contains the `events` block too."""

    def value(name: str, default: str) -> int:
        return size((directive(configuration, name) or [default])[0])

    connections = workers * value("worker_connections", "512")
    buffers, buffer_size = directive(configuration, "large_client_header_buffers") or ["4", "8k"]
    large = int(buffers) * (size(buffer_size) + BUFFER_BYTES)
    first = value("client_header_buffer_size", "1k")
    pool = POOL_BLOCKS * value("request_pool_size", "4k")
    most = (int(buffers) * size(buffer_size) + first) // SHORTEST_HEADER
    headers = min(value("max_headers", str(most)), most) * HEADER_BYTES
    head = REQUEST_BYTES + pool + first + large + headers

    def limit(zone: str) -> int:
        found = re.search(rf"limit_conn\s+{zone}\s+(\d+);", configuration)
        return int(found[1]) if found else connections // 2

    buffer = value("proxy_buffer_size", "8k")
    number, each = directive(configuration, "proxy_buffers") or ["8", "8k"]
    buffered = buffer + int(number) * size(each)
    # The head is copied for the upstream. The second connection of the request has no head of its own.
    relayed = buffer + first + int(buffers) * size(buffer_size) + value("client_body_buffer_size", "16k")
    zones = re.findall(r"zone=\w+:(\d+[kmg]?)", configuration)
    logs = re.findall(r"access_log [^;]*buffer=(\d+[kmg]?)", configuration)
    result = [
        ("master and workers", 1, MASTER_BYTES + workers * WORKER_BYTES),
        ("slots for connections", connections, SLOT_BYTES),
        ("connections x largest head", connections, head),
        ("requests to the gateway", limit("linnet_gateway_requests"), relayed),
        ("compressed pages", limit("linnet_pages"), buffered + ZLIB_BYTES),
        ("shared zones", 1, sum(map(size, zones))),
        ("log buffers", workers, size(logs[0]) if logs else 0),
    ]
    if "linnet_grafana_requests" in configuration:
        result.append(("requests to Grafana", limit("linnet_grafana_requests"), buffered))
    return result
