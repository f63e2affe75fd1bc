"""A TCP proxy that can become a black hole: it keeps its connections and forwards nothing."""

from __future__ import annotations

import select
import socket
import threading


class Proxy:
    """Forwards 127.0.0.1:port to another port of this machine, in threads of its own."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.forwards = threading.Event()
        self.forwards.set()
        self.ended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self.forwards.set()
        self.listener.close()

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        self.forwards.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=10)
        except OSError:
            client.close()
            return
        pair = {client: server, server: client}
        for one in pair:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while not self.ended.is_set():
                # Wakes up to notice the black hole; then data stay in the kernel's buffers, as in a lost network.
                ready, _, _ = select.select(list(pair), [], [], 0.2)
                self.forwards.wait()
                for source in ready:
                    data = source.recv(65_536)
                    if not data:
                        return
                    pair[source].sendall(data)
        except OSError:
            pass
        finally:
            client.close()
            server.close()
