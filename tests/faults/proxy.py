"""A small TCP proxy that swallows, delays, half closes and cuts what goes through it."""

from __future__ import annotations

import contextlib
import queue
import random
import socket
import struct
import threading
import time
from typing import Final, Literal

Mode = Literal["pass", "blackhole", "slow"]
_CHUNK: Final = 65_536
DELAY, STALL, LOSS = 0.2, 0.4, 0.01
"""Seconds one way; seconds that a lost segment's retransmission holds up what follows it; share of those lost."""


class Proxy:
    """Listens on a port of its own and forwards to `target` on loopback; `mode` may change at any time.

    pass: at once. blackhole: nothing comes through, not even an end; it all does once the hole is gone, as what TCP
    sends again does. slow: DELAY later, and now and then STALL more, in order.
    """

    def __init__(self, target: int, dice: random.Random) -> None:
        self.mode: Mode = "pass"
        self._target, self._dice = target, dice
        self._ended = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._half: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> int:
        """Cut every connection with a TCP reset; return how many."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _reset(one)
        return len(pairs)

    def half_open(self) -> int:
        """The hub's side of every connection ends and the other side never learns of it; return how many."""
        pairs, self._pairs = self._pairs, []
        for client, hub in pairs:
            self._half.append(client)  # before the end of the other side comes to be passed on
            _reset(hub)
        return len(pairs)

    def close(self) -> None:
        """Cut everything and listen no more."""
        self._ended.set()
        self._listener.close()
        self.reset()
        for one in self._half:
            _reset(one)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                hub = socket.create_connection(("127.0.0.1", self._target), timeout=5.0)
            except OSError:
                client.close()  # no process listens there, as a network would say
                continue
            hub.settimeout(None)
            self._pairs.append((client, hub))
            for one, other in ((client, hub), (hub, client)):
                pipe: queue.Queue[tuple[float, bytes]] = queue.Queue(256)
                threading.Thread(target=self._read, args=(one, pipe), daemon=True).start()
                threading.Thread(target=self._write, args=(other, pipe), daemon=True).start()

    def _read(self, source: socket.socket, pipe: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(_CHUNK)
            except OSError:
                data = b""
            late = DELAY + (STALL if self._dice.random() < LOSS else 0.0) if self.mode == "slow" else 0.0
            pipe.put((time.monotonic() + late, data))

    def _write(self, target: socket.socket, pipe: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            due, data = pipe.get()
            time.sleep(max(0.0, due - time.monotonic()))
            while self.mode == "blackhole" and not self._ended.is_set():
                time.sleep(0.02)
            try:
                if not data:
                    # An end is passed on, except to a side that has been left half open.
                    if target not in self._half:
                        target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)
            except OSError:
                return


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        one.close()
