"""The probe's thread: numbers frames, sends them, takes acks and commands, and greets the hub anew after a break.

Go-back-N: frames go out in the order of their numbers, a window ahead of the acks; whenever the hub has lost track
(restart, reconnect, a gap) it asks for a greeting, answers with the last number it has in its journal, and sending
goes on from the next.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import zmq

from driftline import heap, wire
from driftline.frames import DECODE_ERRORS, SCHEMA, Command
from driftline.keys import Keys
from driftline.producer.ring import Ring
from driftline.rundir import Connection
from driftline.sockets import Context, Monitor, Socket, configure, dial, secure_client

TICK_S: Final = 0.02
"""How long a frame may wait for the thread to look: there is no wake-up call, which would cost `emit` more."""
SEEK_S: Final = 0.1
"""A tick at most while there is no hub that has welcomed this producer: greetings are not to wait for a long one."""

PING_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 4.0
STALL_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 0.25
"""Least time between greetings that the hub asks for, unless frames were acknowledged meanwhile: one whose journal
cannot be written asks at once, again and again, and each greeting has everything sent once more."""
SEARCH_SECONDS: Final = 1.0
TRIM_SECONDS: Final = 1.0
_BURST: Final = 64
_IDS: Final = 10_000


log = logging.getLogger("driftline.probe")


class Sender(threading.Thread):
    """Sends what is in the ring. `find` returns the hub's connection; `on_command` gets each command once.

    `tick` in seconds is how long a frame waits for the thread to look, unless `wake` has it look at once.
    """

    def __init__(
        self,
        name: str,
        ring: Ring,
        find: Callable[[], Connection | None],
        keys: Keys,
        on_command: Callable[[Command], None],
        tick: float = TICK_S,
    ) -> None:
        super().__init__(name=f"probe-{name}", daemon=True)
        self._producer, self._ring, self._find, self._keys = name, ring, find, keys
        self._on_command = on_command
        self._incarnation = secrets.randbits(62) + 1
        self._ending = threading.Event()
        self._tick = tick
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._poller: zmq.Poller = zmq.Poller()
        self._poller.register(self._woken, zmq.POLLIN)
        self._context: Context = zmq.Context()
        self._socket: Socket | None = None
        self._monitor: Monitor | None = None
        self._where: Connection | None = None
        self._nonce = 0
        self._greeted = False
        self._ever_welcomed = False
        self._born = time.monotonic()
        self._next = 1
        self._received_at = self._sent_at = self._hello_at = self._progress = self._searched = float("-inf")
        self._hello_asked, self._hello_acked = False, 0
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._warned = ""
        self._reported_drops, self._drops_reported_at = 0, float("-inf")
        self._drops_trimmed, self._trimmed = 0, float("-inf")

    @property
    def connected(self) -> bool:
        """True while the hub has welcomed this producer and answers."""
        return self._greeted and time.monotonic() - self._received_at < SILENT_SECONDS

    @property
    def may_connect(self) -> bool:
        """True while it is worth waiting for an answer: connected, or too young to know."""
        return self.connected or (not self._ever_welcomed and time.monotonic() - self._born < SILENT_SECONDS)

    def wake(self) -> None:
        """Look at the ring now. One system call; any thread."""
        with suppress(OSError):  # as many wake-ups as it takes are under way already, or the thread has ended
            self._waker.send(b"\0")

    def end(self) -> None:
        """Stop within a moment."""
        self._ending.set()
        self.wake()
        if threading.current_thread() is not self:
            self.join(timeout=2.0)

    def run(self) -> None:
        """Send until `end`."""
        try:
            while not self._ending.is_set():
                self._find_hub()
                if self._socket is None:
                    self._ending.wait(0.05)
                    continue
                more = self._greeted and self._send()
                self._wait(0.0 if more else self._tick if self._greeted else min(self._tick, SEEK_S))
                self._keep_alive()
        finally:
            self._disconnect()
            self._waker.close()
            self._woken.close()
            self._context.destroy(linger=0)

    def _wait(self, seconds: float) -> None:
        """Until a message has come, which is received, or a wake-up, or the time has passed."""
        ready = dict(self._poller.poll(round(seconds * 1000)))
        if self._woken.fileno() in ready:
            with suppress(BlockingIOError):
                self._woken.recv(4096)
        if self._socket in ready:
            self._receive()

    def _find_hub(self) -> None:
        """Find the hub: at first, and again while it is silent, because it may have come back elsewhere."""
        now = time.monotonic()
        if self.connected or now - self._searched < (SEARCH_SECONDS if self._socket else 0.1):
            return
        self._searched = now
        where = self._find()
        if where is None or (self._where is not None and _same_endpoint(where, self._where)):
            return
        self._disconnect()
        dealer: Socket = self._context.socket(zmq.DEALER)
        configure(dealer, max_message=wire.REQUEST_BYTES, send_frames=1000, receive_frames=1000)
        dealer.immediate = True  # nothing queues for a hub that is away: the ring is the queue
        secure_client(dealer, where.server, self._keys)
        self._monitor = Monitor(dealer)
        dial(dealer, where.ingest)
        self._poller.register(dealer, zmq.POLLIN)
        self._socket, self._where = dealer, where
        self._hello_at = float("-inf")

    def _disconnect(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._socket.close(linger=100)
        self._socket = self._monitor = None
        self._greeted = False

    def _send(self) -> bool:
        """Send a burst; True if there may be more to send at once."""
        assert self._socket is not None
        highest = self._ring.assign_numbers()
        for _ in range(_BURST):
            if self._next > highest:
                return False
            body = self._ring.frame(self._next)
            if body is None:  # acknowledged meanwhile
                self._next = max(self._next, self._ring.acked) + 1
                continue
            head = wire.DATA_HEAD.pack(wire.DATA, self._incarnation, self._next, self._ring.dropped)
            try:
                self._socket.send(head + body, zmq.NOBLOCK)
            except zmq.Again:
                return False
            self._sent_at = time.monotonic()
            if self._next == self._ring.acked + 1:
                self._progress = self._sent_at
            self._next += 1
        return True

    def _receive(self) -> None:
        assert self._socket is not None
        for _ in range(_BURST):
            try:
                message = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                answer = wire.to_producer_decoder.decode(message)
            except DECODE_ERRORS as error:
                self._warn_once(f"the hub sent something unknown: {error}")
                continue
            self._received_at = time.monotonic()
            match answer:
                case wire.Acked(incarnation=incarnation, last=last) if incarnation == self._incarnation:
                    self._take_ack(last)
                case wire.Welcome(nonce=nonce, last=last) if nonce == self._nonce:
                    self._take_ack(last)
                    self._next = self._ring.acked + 1
                    self._greeted = self._ever_welcomed = True
                    self._reported_drops = 0  # a restarted hub has received no topics
                    self._progress = self._received_at
                    self._warned = ""
                case wire.HelloPlease():
                    self._hello_asked = True
                case wire.Refused(reason=reason):
                    self._greeted = False
                    self._warn_once(f"the hub refuses: {reason}")
                case wire.NotCovered(reason=reason):
                    log.warning(
                        "probe '%s': the hub leaves out what this key does not cover: %s", self._producer, reason
                    )
                case Command():
                    self._take_command(answer)

    def _take_ack(self, last: int) -> None:
        if last > self._ring.acked:
            self._ring.ack(last)
            self._progress = self._received_at

    def _take_command(self, command: Command) -> None:
        if command.id in self._seen:
            return  # handed over again after a break
        self._seen[command.id] = None
        if len(self._seen) > _IDS:
            self._seen.popitem(last=False)
        self._on_command(command)

    def _keep_alive(self) -> None:
        """Greet, ping or greet again, as time goes by."""
        now = time.monotonic()
        stalled = self._next > self._ring.acked + 1 and now - self._progress > STALL_SECONDS
        silent = now - self._received_at > 2 * PING_SECONDS
        if self._hello_asked:
            if self._ring.acked > self._hello_acked or now - self._hello_at > AGAIN_SECONDS:
                self._send_hello()
        elif not self._greeted or stalled or silent:
            if now - self._hello_at > STALL_SECONDS / (1 if self._greeted else 4):
                self._send_hello()
        elif self._ring.dropped != self._reported_drops and now - self._drops_reported_at > PING_SECONDS / 2:
            self._report_lost(now)
        elif now - self._sent_at > PING_SECONDS:
            self._send_message(wire.PING_HEAD.pack(wire.PING, self._incarnation, self._ring.dropped))
        if self._ring.dropped != self._drops_trimmed and now - self._trimmed > TRIM_SECONDS:
            self._drops_trimmed, self._trimmed = self._ring.dropped, now
            heap.trim()  # large frames that made room for many small ones leave holes: twice the ring, without it
        if self._monitor is not None:
            self._monitor.update()
            if self._monitor.refused:
                self._warn_once("the hub does not know this key")

    def _send_hello(self) -> None:
        self._hello_at = time.monotonic()
        self._hello_asked, self._hello_acked = False, self._ring.acked
        self._nonce += 1
        hello = wire.Hello(
            self._producer, self._incarnation, self._ring.acked + 1, self._nonce, self._ring.dropped, SCHEMA
        )
        self._send_message(wire.HELLO + wire.pack(hello))

    def _report_lost(self, now: float) -> None:
        drops = self._ring.drops
        self._drops_reported_at = now
        if self._send_message(wire.LOST + wire.pack(wire.Lost(self._incarnation, drops))):
            self._reported_drops = sum(drops.values())

    def _send_message(self, message: bytes) -> bool:
        assert self._socket is not None
        try:
            self._socket.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._sent_at = time.monotonic()
        return True

    def _warn_once(self, reason: str) -> None:
        if reason != self._warned:
            self._warned = reason
            log.warning("probe '%s': %s", self._producer, reason)


def _same_endpoint(one: Connection, other: Connection) -> bool:
    return (one.ingest, one.server) == (other.ingest, other.server)
