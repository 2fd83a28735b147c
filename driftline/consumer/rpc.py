"""Requests to a hub: snapshot, pages, commands. One socket, one request at a time, safe from any thread."""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import msgspec
import zmq

from driftline import wire
from driftline.frames import DECODE_ERRORS, TERMINAL, Ack, AckState, Command, Stamped, Verb
from driftline.keys import Keys
from driftline.rundir import Connection
from driftline.sockets import Context, Monitor, Socket, configure, dial, secure_client
from driftline.text import sanitize, sanitize_struct

REQUEST_SECONDS: Final = 5.0
COMMAND_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 1.0
RENEW_SECONDS: Final = wire.LEASE_SECONDS / 4
"""Interval at which the holder of the lease renews it."""
RELEASE_SECONDS: Final = 1.0
"""How long `close` tries to release the lease; a lease that is not released expires by itself."""
FOLLOW_SECONDS: Final = 0.05
_MAX_REPLY: Final = 32 * 1024 * 1024

_R = TypeVar("_R", bound=msgspec.Struct)
_stamped: Final[msgspec.msgpack.Decoder[Stamped]] = msgspec.msgpack.Decoder(Stamped)


class ClientError(RuntimeError):
    """The hub cannot be reached or does not follow a request; the message is a whole sentence for the operator."""


class RefusedError(ClientError):
    """The hub has refused the request."""


class LeaseHeldError(RefusedError):
    """Another session holds the lease; the message names it. `Client.take_lease` takes over."""


class HubSilentError(ClientError):
    """No answer in time."""


class Snapshot(msgspec.Struct, frozen=True):
    """Newest RunState, EngineState of each engine, FixState and Effect of each fix, in the order of their numbers.

    `head` is the newest sequence number of the run, `time` the hub's clock, `role` that of the key that asked,
    `missing` are clauses about segments that the journal lacks.
    """

    run: str
    epoch: int
    head: int
    time: float
    states: tuple[Stamped, ...]
    role: str
    missing: tuple[str, ...] = ()


class Page(msgspec.Struct, frozen=True):
    """Frames of the journal in order. The next page begins at `next`; there is none (yet) if `next` > `head`.

    `plain` is the newest number that is not a Tokens frame, `base` the head when the hub's epoch began,
    `first` the oldest number that the journal still has: retention has taken away what was before.
    """

    epoch: int
    head: int
    frames: tuple[Stamped, ...]
    next: int
    plain: int
    base: int
    first: int = 1


class Client:
    """Asks one hub. Every method raises ClientError; requests that get lost are sent again until time runs out.

    One session of one operator acts on a run at a time: the one that holds the operator lease. The first command that
    acts takes the lease if it is free; while another session holds it, commands raise LeaseHeldError. It is given back
    by `release_lease` or `close`, or expires two minutes after the last command or `renew_lease`.
    """

    def __init__(self, connection: Connection, keys: Keys, *, session: str | None = None) -> None:
        """`session`: this client's name beside others that use the same key (default user@host:pid)."""
        self._connection, self._keys = connection, keys
        self.session = own_session() if session is None else session
        self._holds_lease = False
        # Reentrant: `close` releases the lease while it holds the lock.
        self._lock = threading.RLock()
        self._context: Context = zmq.Context()
        self._socket: Socket | None = None
        self._monitor: Monitor | None = None
        self._last = secrets.randbits(32)
        self._unanswered = float("inf")
        """Time (monotonic) of the oldest request without an answer."""
        self._closed = False

    def snapshot(self) -> Snapshot:
        """The newest states."""
        r = self._ask(wire.SnapshotReply, lambda number: wire.SnapshotRequest(number))
        missing = tuple(map(sanitize, r.missing))
        return Snapshot(sanitize(r.run), r.epoch, r.head, r.time, _frames(r.states), r.role, missing)

    def page(
        self, start: int, limit: int = wire.PAGE_FRAMES, *, tokens: bool = True, timeout: float = REQUEST_SECONDS
    ) -> Page:
        """Frames with seq >= `start`, at most `limit` (256) and about 4 MiB."""
        # On a slow line a page may be on its way for long: asking again would only begin it again.
        resend = max(RETRY_SECONDS, timeout / 2)
        r = self._ask(wire.PageReply, lambda number: wire.PageRequest(number, start, limit, tokens), timeout, resend)
        return Page(r.epoch, r.head, _frames(r.records), r.next, r.plain, r.base, r.first)

    def ping(self, timeout: float = REQUEST_SECONDS) -> float:
        """Round trip in seconds."""
        start = time.perf_counter()
        self._ask(wire.Pong, lambda number: wire.PingRequest(number), timeout)
        return time.perf_counter() - start

    def clock(self, timeout: float = REQUEST_SECONDS) -> tuple[float, float]:
        """How far the hub's clock is ahead of ours, and how sure that is: half of the round trip. Seconds."""
        before = time.time()
        reply = self._ask(wire.Pong, lambda number: wire.PingRequest(number), timeout)
        after = time.time()
        return reply.time - (before + after) / 2, (after - before) / 2

    def command(
        self, verb: Verb, args: dict[str, str] | None = None, *, generation: int = -1, timeout: float = 30.0
    ) -> str:
        """Send a command that must be accepted within `timeout` seconds; return its id once it is durable.

        `generation` is the fix generation that the sender saw; -1 skips the check. Raises LeaseHeldError.
        """
        if not timeout > 0 or not math.isfinite(timeout):
            raise ClientError(f"a command needs a timeout above 0 seconds, not {timeout}")
        try:
            deadline = time.time() + timeout
            made = Command(secrets.token_hex(16), verb, args or {}, generation, deadline, session=self.session)
            command = msgspec.convert(msgspec.to_builtins(made), Command)
        except msgspec.ValidationError as error:
            raise ClientError(f"not a command: {error}") from error
        if len(wire.pack(command)) > wire.REQUEST_BYTES // 2:
            raise ClientError(f"a command is at most {wire.REQUEST_BYTES // 2} bytes")
        request_timeout = min(timeout, COMMAND_SECONDS)
        held = self._holds_lease
        self._holds_lease = holds = held or (verb not in wire.LEASE_FREE_VERBS and bool(self.session))
        try:
            self._ask(wire.CommandReply, lambda number: wire.CommandRequest(number, command), request_timeout)
        except RefusedError as error:  # after a silence, what was asked for may have been done
            self._holds_lease = held and not isinstance(error, LeaseHeldError)
            raise
        self._holds_lease = holds  # a renewal from before it may have been answered meanwhile
        return command.id

    @property
    def holds_lease(self) -> bool:
        """True while this client holds the lease, as far as it knows: another may have taken over since."""
        return self._holds_lease

    def take_lease(self) -> str:
        """Take the lease at once, also from another session; return the former holder ("" if there was none)."""
        reply = self._ask_lease("take")
        return sanitize(reply.former)

    def renew_lease(self) -> bool:
        """Prolong the lease; False if this client does not hold it (any more)."""
        return self._ask_lease("renew").mine

    def release_lease(self) -> None:
        """Release the lease, if this client holds it."""
        self._ask_lease("release")
        self._holds_lease = False

    def _ask_lease(
        self, action: Literal["take", "renew", "release"], timeout: float = REQUEST_SECONDS
    ) -> wire.LeaseReply:
        ask = self._ask(wire.LeaseReply, lambda number: wire.LeaseRequest(number, self.session, action), timeout)
        self._holds_lease = ask.mine
        return ask

    def wait(self, command_id: str, timeout: float, on_ack: Callable[[Ack], None] | None = None) -> Ack:
        """Follow a command to its end; return the terminal ack. A restart of the hub meanwhile only costs time."""
        renewed = time.monotonic()
        deadline, seen = renewed + timeout, 0
        state: AckState = "queued"
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ClientError(f"command {command_id} was not done within {timeout:g} s; its state is '{state}'")
            try:
                r = self._acks(command_id, seen, min(left, 2.0))
            except HubSilentError:
                continue
            if not r.known:
                raise ClientError(f"the hub of run {self._connection.run} does not know command {command_id}")
            for ack in map(sanitize_struct, r.acks):
                seen, state = seen + 1, ack.state
                if on_ack is not None:
                    on_ack(ack)
                if ack.state in TERMINAL:
                    return ack
            if self._holds_lease and time.monotonic() - renewed > RENEW_SECONDS:
                renewed = time.monotonic()
                with contextlib.suppress(HubSilentError):  # it is asked again soon
                    self.renew_lease()
            # Most commands are done within a tenth of a second: ask often at first.
            time.sleep(min(FOLLOW_SECONDS, 0.005 + 0.1 * (timeout - left)))

    def _acks(self, command_id: str, after: int, timeout: float) -> wire.AcksReply:
        return self._ask(wire.AcksReply, lambda number: wire.AcksRequest(number, command_id, after), timeout)

    def close(self) -> None:
        """Release the lease and close the socket; a request on another thread ends with ClientError."""
        if self._holds_lease and self._lock.acquire(timeout=RELEASE_SECONDS):
            try:
                with contextlib.suppress(ClientError):  # a lease that cannot be released expires
                    self._ask_lease("release", RELEASE_SECONDS)
            finally:
                self._lock.release()
        self._closed = True
        with self._lock:
            self._drop()
            self._context.destroy(linger=0)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self,
        kind: type[_R],
        request: Callable[[int], Any],
        timeout: float = REQUEST_SECONDS,
        retry_after: float = RETRY_SECONDS,
    ) -> _R:
        deadline = time.monotonic() + timeout
        with self._lock:
            self._last += 1
            number = self._last
            message = wire.pack(request(number))
            while True:
                left = deadline - time.monotonic()
                if self._closed:
                    raise ClientError(f"the connection to run {self._connection.run} is closed")
                if left <= 0:
                    raise HubSilentError(
                        f"the hub of run {self._connection.run} does not answer (waited {timeout:g} s at "
                        f"{self._connection.rpc})"
                    )
                reply = self._try(number, message, min(left, retry_after))
                if reply is None:
                    # Whatever it was, a fresh connection is the surest way on; but on a slow line one that is still
                    # shaking hands, or has just been asked, would never get to its end.
                    if time.monotonic() - self._unanswered >= retry_after / 2:
                        self._drop()
                elif isinstance(reply, wire.Refusal):
                    refused = LeaseHeldError if reply.kind == wire.HELD else RefusedError
                    raise refused(f"the hub of run {self._connection.run}: {sanitize(reply.reason)}")
                elif isinstance(reply, kind):
                    return reply
                else:
                    raise ClientError(f"the hub of run {self._connection.run} sent a reply of the wrong kind")

    def _try(self, number: int, message: bytes, seconds: float) -> Any:
        """Send once and wait for the reply; None if there is none in time."""
        socket = self._open()
        deadline = time.monotonic() + seconds
        sent = False
        while not self._closed and (left := deadline - time.monotonic()) > 0:
            if not sent:
                try:
                    socket.send(message, zmq.NOBLOCK)
                    sent = True
                    self._unanswered = min(self._unanswered, time.monotonic())
                except zmq.Again:
                    pass
            if not socket.poll(int(min(left, 0.05 if sent else 0.005) * 1000) + 1):
                self._check_key()
                continue
            try:
                reply = wire.reply_decoder.decode(socket.recv(zmq.NOBLOCK))
            except DECODE_ERRORS as error:
                raise ClientError(f"the hub of run {self._connection.run} sent something unknown: {error}") from error
            self._unanswered = float("inf")
            if reply.id in (number, 0):
                return reply
        return None

    def _check_key(self) -> None:
        assert self._monitor is not None
        self._monitor.update()
        if self._monitor.refused:
            self._drop()  # libzmq does not connect again where a key was refused; it may be known by now
            raise RefusedError(unknown_key(self._connection))

    def _open(self) -> Socket:
        if self._socket is None:
            self._socket = self._context.socket(zmq.DEALER)
            configure(self._socket, max_message=_MAX_REPLY, send_frames=64, receive_frames=64)
            self._socket.immediate = True
            secure_client(self._socket, self._connection.server, self._keys)
            self._monitor = Monitor(self._socket)
            dial(self._socket, self._connection.rpc)
        return self._socket

    def _drop(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket = self._monitor = None
        self._unanswered = float("inf")


def own_session() -> str:
    """The default session name of this process: user@host:pid."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in many containers
        user = str(os.getuid())
    tail = f":{os.getpid()}"
    return sanitize(f"{user}@{os.uname().nodename}")[: wire.MAX_SESSION - len(tail)] + tail


def unknown_key(connection: Connection) -> str:
    """The hub refuses a revoked key and a key that never had a grant in the same way: it does not disclose which."""
    return f"the hub of run {connection.run} does not know this key: it was revoked, or is another run's"


def _frames(records: tuple[msgspec.Raw, ...]) -> tuple[Stamped, ...]:
    return tuple(_stamped.decode(record) for record in records)
