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
# A redirect of a shorter request, over HTTP/1.1, has no limit of its own ($linnet_costly).
SHORT_REQUEST = 2_000
# A connection with TLS, and with HTTP/2 (nginx 1.30.6, OpenSSL 3.5): buffers of records, and tables of headers.
TLS_BYTES = 15 * KIB
HTTP2_BYTES = 13 * KIB
# A request in a stream besides its headers and path, measured with responses that the client does not accept.
STREAM_BYTES = 14 * KIB
# The path of a stream is kept as a field, in the request line, decoded, and in variables.
PATH_COPIES = 3
# A worker process reads from all connections into this buffer (http2_recv_buffer_size).
HTTP2_RECEIVE_BYTES = 256 * KIB
# nginx takes at least this for a body that it streams from HTTP/2 (http2_body_preread_size).
HTTP2_BODY_BYTES = 64 * KIB
# A page of memory: the least that a file in a tmpfs takes.
PAGE_BYTES = 4 * KIB


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


def largest_connection(configuration: str) -> int:
    """Returns the most bytes that a client can make nginx keep for a connection, without a place in a zone of limit_conn."""

    def value(name: str, default: str) -> int:
        return size((directive(configuration, name) or [default])[0])

    number, each = directive(configuration, "large_client_header_buffers") or ["4", "8k"]
    buffers, buffer = int(number), size(each)
    first = value("client_header_buffer_size", "1k")
    pool = POOL_BLOCKS * value("request_pool_size", "4k")
    most = (buffers * buffer + first) // SHORTEST_HEADER
    headers = min(value("max_headers", str(most)), most) * HEADER_BYTES
    common = REQUEST_BYTES + pool + first + headers
    # An unfinished head with a path that nginx had to decode.
    head = common + buffers * (buffer + BUFFER_BYTES) + buffer
    # A redirect whose response is not read: the head fits one buffer, and its copy for the upstream is as long.
    redirect = common + buffer + BUFFER_BYTES + value("proxy_buffer_size", "8k") + SHORT_REQUEST
    plain = max(head, redirect)
    if "ssl_certificate " not in configuration:
        return plain
    streams = value("http2_max_concurrent_streams", "128")
    stream = STREAM_BYTES + buffers * buffer + PATH_COPIES * buffer + headers
    return TLS_BYTES + max(plain, HTTP2_BYTES + streams * stream)


def terms(configuration: str, workers: int, tmpfs: int) -> list[tuple[str, int, int]]:
    """Returns name, count and bytes of each term.

    The configuration contains the `events` block too. `tmpfs` is the size of the container's file systems in memory.
    """

    def value(name: str, default: str) -> int:
        return size((directive(configuration, name) or [default])[0])

    connections = workers * value("worker_connections", "512")
    has_tls = "ssl_certificate " in configuration

    def limit(zone: str) -> int:
        found = re.findall(rf"limit_conn\s+{zone}\s+(\d+);", configuration)
        return max(map(int, found)) if found else connections // 2

    buffers, buffer_size = directive(configuration, "large_client_header_buffers") or ["4", "8k"]
    buffer = value("proxy_buffer_size", "8k")
    number, each = directive(configuration, "proxy_buffers") or ["8", "8k"]
    buffered = buffer + int(number) * size(each)
    # The head is copied for the upstream. The second connection of the request has no head of its own.
    relayed = buffer + value("client_header_buffer_size", "1k") + int(buffers) * size(buffer_size)
    bodies = re.findall(r"client_body_buffer_size\s+(\d+[kmg]?);", configuration)
    body = max([size(text) for text in bodies] + [HTTP2_BODY_BYTES if has_tls else 0])
    zones = re.findall(r"(?:zone=|shared:)\w+:(\d+[kmg]?)", configuration)
    logs = re.findall(r"access_log [^;]*buffer=(\d+[kmg]?)", configuration)
    worker = WORKER_BYTES + (HTTP2_RECEIVE_BYTES if has_tls else 0)
    result = [
        ("master and workers", 1, MASTER_BYTES + workers * worker),
        ("slots for connections", connections, SLOT_BYTES),
        ("connections x largest", connections, largest_connection(configuration)),
        ("requests to the gateway", limit("linnet_gateway_requests"), relayed + body),
        ("health checks", limit("linnet_health"), relayed + PAGE_BYTES),
        ("redirects of large requests", limit("linnet_redirects"), relayed + PAGE_BYTES),
        ("redirects of bodies", limit("linnet_redirected_bodies"), relayed + body),
        ("compressed pages", limit("linnet_pages"), buffered + ZLIB_BYTES),
        ("shared zones", 1, sum(map(size, zones))),
        ("log buffers", workers, size(logs[0]) if logs else 0),
        ("files in memory (tmpfs)", 1, tmpfs),
    ]
    if "linnet_grafana_requests" in configuration:
        result.append(("requests to Grafana", limit("linnet_grafana_requests"), buffered))
    return result
