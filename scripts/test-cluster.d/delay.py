"""A transparent TCP proxy that delays every byte, for connections that iptables' REDIRECT leads to it.

    delay.py PORT MARK DELAY_S

It prints `ready` once it listens. Its own connections have the mark, so that the rule can exempt them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys

SO_ORIGINAL_DST = 80


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Copies until the end; each piece arrives `delay_s` after it was read."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

    async def read() -> None:
        while data := await reader.read(65_536):
            await queue.put((loop.time() + delay_s, data))
        await queue.put((loop.time() + delay_s, b""))

    reading = asyncio.ensure_future(read())
    try:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(due - loop.time(), 0))
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        reading.cancel()


async def main(port: int, mark: int, delay_s: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        family = writer.get_extra_info("socket").getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        target_port, address = struct.unpack("!2xH4s8x", family)
        upstream = socket.socket()
        upstream.setblocking(False)
        upstream.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        try:
            async with asyncio.timeout(5):
                await asyncio.get_running_loop().sock_connect(upstream, (socket.inet_ntoa(address), target_port))
            from_server, to_server = await asyncio.open_connection(sock=upstream)
        except (OSError, TimeoutError):
            upstream.close()
            writer.transport.abort()
            return
        copies = [asyncio.ensure_future(copy(reader, to_server, delay_s)), asyncio.ensure_future(copy(from_server, writer, delay_s))]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for one in copies:
            one.cancel()
        writer.transport.abort()
        to_server.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=256)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
