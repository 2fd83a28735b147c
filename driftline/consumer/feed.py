"""Following a run: every frame once, in order, from any point, over hub restarts and for as long as it takes.

The clone pattern with pages: subscribe first; the first beacon (or frame) says where the head is; what lies between
is paged in; from then on live frames count while each directly follows the one before. Whatever goes missing,
because the subscription was slow, overrun or cut, shows as a hole before the next frame or beacon, and is paged in.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import zmq

from driftline import wire
from driftline.consumer.rpc import Client, ClientError, HubSilentError, unknown_key
from driftline.frames import DECODE_ERRORS, MAX_BODY, TOPIC, Stamped, Tokens
from driftline.keys import Keys
from driftline.rundir import Connection, RunError
from driftline.sockets import Context, Monitor, Socket, configure, dial, secure_client
from driftline.text import sanitize, sanitize_struct

STALE_SECONDS: Final = 3.0
REFUSED_SECONDS: Final = 1.0
"""Until a key that was refused is tried again."""
PAGE_SECONDS: Final = 1.5
QUEUE_FRAMES: Final = 20_000
QUEUE_BYTES: Final = 128 * 1024 * 1024
_BURST: Final = 512

_stamped: Final[msgspec.msgpack.Decoder[Stamped]] = msgspec.msgpack.Decoder(Stamped)


class FeedStatus(msgspec.Struct, frozen=True):
    """How fresh a feed is. `age` is seconds since the hub's last message, `received` the number up to which the feed
    has everything it asked for, `error` a sentence while something is wrong, `degraded` the hub's own error,
    `rewinds` how often a crash of the hub's machine has taken back frames that were already delivered, `skipped` how
    many of the numbers asked for retention had deleted before they could be read, `missing` the hub's own clause about
    segments that the journal lacks, None where it has not said."""

    connected: bool
    head: int
    received: int
    age: float
    epoch: int
    reconnects: int
    error: str
    degraded: str = ""
    rewinds: int = 0
    skipped: int = 0
    missing: str | None = None

    @property
    def behind(self) -> int:
        """Frames that are still to come."""
        return max(0, self.head - self.received)

    @property
    def stale(self) -> bool:
        """True when the hub has sent nothing for STALE_SECONDS."""
        return self.age > STALE_SECONDS


def next_beacon(connection: Connection, keys: Keys, timeout: float) -> wire.Beacon | None:
    """The next beacon of a hub, None if there is none within `timeout` seconds."""
    context: Context = zmq.Context()
    try:
        socket: Socket = context.socket(zmq.SUB)
        configure(socket, max_message=MAX_BODY + 8192, send_frames=16, receive_frames=16)
        secure_client(socket, connection.server, keys)
        socket.subscribe(wire.BEACON)
        dial(socket, connection.live)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not socket.poll(int(left * 1000) + 1):
                continue
            parts = socket.recv_multipart()
            if len(parts) == 3 and parts[0] == wire.BEACON:
                with contextlib.suppress(*DECODE_ERRORS):
                    return sanitize_struct(wire.beacon_decoder.decode(parts[2]))
        return None
    finally:
        context.destroy(linger=0)


class Feed:
    """Follows a run on a thread of its own, from sequence number `since` on; `tokens` asks for Tokens frames too.

    Without tokens the numbers have gaps where Tokens frames are; nothing else is ever missing, double or out of
    order. Reconnects for ever. `refresh`, if given, is asked for the connection while the hub is silent, for a hub
    that came back elsewhere. A consumer that does not drain stops the feed from reading on, nothing else.
    """

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        since: int = 1,
        tokens: bool = False,
        refresh: Callable[[], Connection] | None = None,
    ) -> None:
        self._connection, self._keys, self._tokens, self._refresh = connection, keys, tokens, refresh
        self._at = max(since, 1) - 1
        self._goal = -1
        self._head = self._epoch = self._reconnects = self._rewinds = self._skipped = self._beat = 0
        self._heard = time.monotonic()
        self._spoke = False
        self._lost = False
        self._page_failed = False
        self._page_frames = wire.PAGE_FRAMES
        self._error = self._degraded = ""
        self._missing: str | None = None
        self._queue: deque[tuple[Stamped, int]] = deque()
        self._queued_bytes = 0
        self._filled = threading.Condition()
        self._ending = threading.Event()
        self._context: Context = zmq.Context()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def drain(self, limit: int = 10_000) -> list[Stamped]:
        """Take what has arrived, at most `limit` frames; never blocks."""
        with self._filled:
            taken = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
            self._queued_bytes -= sum(size for _, size in taken)
        return [stamped for stamped, _ in taken]

    def wait(self, timeout: float) -> bool:
        """Wait until there is something to drain; False if there is nothing after `timeout` seconds."""
        with self._filled:
            self._filled.wait_for(lambda: bool(self._queue) or self._ending.is_set(), timeout)
            return bool(self._queue)

    @property
    def status(self) -> FeedStatus:
        """How fresh the feed is now."""
        age = time.monotonic() - self._heard
        received = self._head if self._spoke and self._at >= self._goal else min(self._at, self._head)
        return FeedStatus(
            connected=self._spoke and age <= STALE_SECONDS,
            head=self._head,
            received=received,
            age=age,
            epoch=self._epoch,
            reconnects=self._reconnects,
            error=self._error,
            degraded=self._degraded,
            rewinds=self._rewinds,
            skipped=self._skipped,
            missing=self._missing,
        )

    def close(self) -> None:
        """Stop following; what has arrived can still be drained."""
        self._ending.set()
        with self._filled:
            self._filled.notify_all()
        self._thread.join(timeout=2.0)

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                self._follow(self._connection)
        finally:
            self._context.destroy(linger=0)

    def _follow(self, connection: Connection) -> None:
        """Follow the hub at one place until the end, or until it has moved."""
        socket: Socket = self._context.socket(zmq.SUB)
        per_peer = 256 if self._tokens else 10_000
        configure(socket, max_message=MAX_BODY + 8192, send_frames=64, receive_frames=per_peer)
        secure_client(socket, connection.server, self._keys)
        for topic in sorted({*TOPIC.values(), wire.BEACON} - (set() if self._tokens else {TOPIC[Tokens]})):
            socket.subscribe(topic)
        monitor = Monitor(socket)
        dial(socket, connection.live)
        client = Client(connection, self._keys)
        looked = time.monotonic()
        try:
            while not self._ending.is_set():
                if self._full():
                    self._ending.wait(0.02)
                    continue
                if socket.poll(0 if self._at < self._goal else 50):
                    self._read(socket)
                if self._at < self._goal:
                    self._page(client)
                monitor.update()
                if monitor.refused or time.monotonic() - self._heard > STALE_SECONDS:
                    self._silent(monitor, connection)
                    if monitor.refused:
                        # libzmq does not connect again where a key was refused; it may be known by now.
                        self._ending.wait(REFUSED_SECONDS)
                        if self._refresh is not None:
                            self._connection = self._moved(connection) or connection
                        return
                    if self._refresh is not None and time.monotonic() - looked > 1.0:
                        looked = time.monotonic()
                        moved = self._moved(connection)
                        if moved is not None:
                            self._connection = moved
                            return
        finally:
            client.close()
            monitor.close()
            socket.close(linger=0)

    def _full(self) -> bool:
        return len(self._queue) >= QUEUE_FRAMES or self._queued_bytes >= QUEUE_BYTES

    def _silent(self, monitor: Monitor, connection: Connection) -> None:
        self._lost = self._spoke
        if monitor.refused:
            self._error = unknown_key(connection)
        else:
            self._error = f"the hub of run {connection.run} is silent at {connection.live}"

    def _moved(self, old: Connection) -> Connection | None:
        assert self._refresh is not None
        try:
            new = self._refresh()
        except RunError:
            return None
        return new if (new.live, new.rpc, new.server) != (old.live, old.rpc, old.server) else None

    def _read(self, socket: Socket) -> None:
        """Take what the subscription has, up to a burst."""
        ready: list[tuple[Stamped, int]] = []
        at = self._at
        for _ in range(_BURST):
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            if len(parts) != 3 or len(parts[1]) != wire.LIVE_HEAD.size:
                self._error = "the hub sent something unknown"
                continue
            topic, head, body = parts
            epoch, seq, previous = wire.LIVE_HEAD.unpack(head)
            self._hear()
            try:
                if topic == wire.BEACON:
                    beacon = wire.beacon_decoder.decode(body)
                    self._arrive(ready, at)
                    self._on_beacon(beacon)
                    ready, at = [], self._at
                    continue
                if epoch != self._epoch:
                    continue  # the beacon comes first; what is passed over here is paged in
                if seq <= at:
                    continue
                if at < (seq - 1 if self._tokens else previous):
                    self._goal = max(self._goal, seq)
                    self._head = max(self._head, seq)
                    continue
                ready.append((_stamped.decode(body), len(body)))
            except DECODE_ERRORS as error:
                self._error = f"the hub sent something unknown: {error}"
                continue
            at = seq
        self._arrive(ready, at)

    def _arrive(self, ready: list[tuple[Stamped, int]], at: int) -> None:
        """Live frames up to `at` can be drained from now on; only then may `status` count them."""
        if ready:
            self._deliver(ready)
            self._at = at
            self._head = max(self._head, at)
            self._beat = max(self._beat, at)

    def _hear(self) -> None:
        if self._lost or not self._spoke:
            self._reconnects += self._lost
            self._lost = False
            self._error = ""
        self._heard = time.monotonic()
        self._spoke = True

    def _on_beacon(self, beacon: wire.Beacon) -> None:
        # Heads of one epoch only grow: another hub counts on from a journal that was put back from an older copy.
        if beacon.epoch != self._epoch or beacon.head < self._beat:
            if self._epoch:
                self._reconnects += 1
            self._epoch = beacon.epoch
            self._check_base(beacon.base)
        self._beat = beacon.head
        self._goal = beacon.head if self._tokens else beacon.plain
        self._head = beacon.head
        self._degraded = sanitize(beacon.degraded)
        self._missing = None if beacon.missing is None else sanitize(beacon.missing)

    def _check_base(self, base: int) -> None:
        """A new epoch: frames that the journal no longer has are taken back, even where they were delivered."""
        if self._at > base and self._head:
            self._rewinds += 1
            self._error = f"a crash of the hub's machine has taken back {self._at - base} frames"
            self._at = base
        self._head = max(base, 0)

    def _page(self, client: Client) -> None:
        asked = time.monotonic()
        try:
            page = client.page(self._at + 1, self._page_frames, tokens=self._tokens, timeout=PAGE_SECONDS)
        except ClientError as error:
            if isinstance(error, HubSilentError):  # perhaps the line is too slow for so much at once
                self._page_frames = max(1, self._page_frames // 2)
            self._error, self._page_failed = str(error), True
            self._ending.wait(0.1)
            return
        if time.monotonic() - asked < PAGE_SECONDS / 3:
            self._page_frames = min(wire.PAGE_FRAMES, 2 * self._page_frames)
        if self._page_failed:
            self._error, self._page_failed = "", False
        if self._epoch != page.epoch:
            return  # a beacon of that epoch will come and say where it began
        self._head = max(self._head, page.head)
        self._goal = page.head if self._tokens else page.plain
        self._skipped += max(0, page.first - 1 - self._at)
        self._deliver([(stamped, len(stamped.body)) for stamped in page.frames])
        self._at = max(self._at, page.next - 1)

    def _deliver(self, frames: list[tuple[Stamped, int]]) -> None:
        if not frames:
            return
        with self._filled:
            self._queue.extend(frames)
            self._queued_bytes += sum(size for _, size in frames)
            self._filled.notify_all()
