"""A TCP proxy for the network namespace of a server: it delays every byte, and resets connections after a random time.

    proxy.py PORT TARGET_PORT DELAY_S LIFE_S     LIFE_S = 0: no connection is reset

It prints `ready` once it listens. A connection that it resets ends with RST on both sides, as through a failing router.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Delays by the same time whatever the number of bytes: a pipeline, not a narrow link."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def read() -> None:
        while data := await reader.read(65_536):
            queue.put_nowait((loop.time() + delay_s, data))
        queue.put_nowait((0.0, b""))

    reading = asyncio.ensure_future(read())
    try:
        while True:
            due, data = await queue.get()
            if not data:
                return
            await asyncio.sleep(max(due - loop.time(), 0))
            writer.write(data)
            await writer.drain()
    finally:
        reading.cancel()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main(port: int, target: int, delay_s: float, life_s: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, to_server = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            reset(writer)
            return
        copies = [asyncio.ensure_future(copy(reader, to_server, delay_s)), asyncio.ensure_future(copy(upstream, writer, delay_s))]
        life = random.uniform(0.05, 2 * life_s) if life_s else None
        await asyncio.wait(copies, timeout=life, return_when=asyncio.FIRST_COMPLETED)
        for one in copies:
            one.cancel()
        reset(writer)
        reset(to_server)

    server = await asyncio.start_server(serve, "0.0.0.0", port, backlog=256)  # noqa: S104 # of one container
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
