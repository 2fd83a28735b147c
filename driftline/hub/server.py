"""The hub's edge: sockets, disk and clock around the pure core; one thread, one poller.

The order on every frame is write, publish, acknowledge. Only the fdatasync runs elsewhere, in a thread of its own,
because a disk may take its time and a trainer must not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Final

import msgspec
import zmq

from driftline import keys as run_keys
from driftline import wire
from driftline.audit import AuditError
from driftline.frames import MAX_BODY, Event
from driftline.hub import ports
from driftline.hub.auth import Authenticator, AuthError, GrantTable, secure_server
from driftline.hub.core import Core
from driftline.hub.effects import HUB, Effect, Note, Now, Publish, SendPage, Sync, ToClient, ToProducer, Write, clock
from driftline.hub.hole_watch import HoleWatch
from driftline.hub.hub_audit import HubAudit
from driftline.hub.journal_watch import JournalWatch
from driftline.hub.live_socket import LiveSocket
from driftline.hub.retention import RetentionPolicy
from driftline.hub.supervisor_watch import SupervisorWatch
from driftline.hub.syncer import Syncer
from driftline.journal.disk import DISK, Disk
from driftline.journal.journal import Journal, JournalError, next_epoch
from driftline.keys import Grant
from driftline.rundir import Connection, RunDir, RunError
from driftline.sockets import Context, Socket, configure

ACK_SECONDS: Final = 0.02
BEACON_SECONDS: Final = 0.2
GREET_SECONDS: Final = 0.02
"""A new subscriber gets a beacon at once, because it cannot ask for pages before; but no sooner than this."""
TABLE_SECONDS: Final = 1.0
_MESSAGES_A_TURN: Final = 256
_LOGGED: Final = ("engine.", "hub.refused")
"""Kinds of the hub's own events that stand in its log too: who was refused, and what became of an engine's name."""

log = logging.getLogger("driftline.hub")


class Server:
    """One hub. The caller holds the run's lock, with the descriptor `lock`.

    Raises RunError, AuthError, JournalError before it is ready.
    """

    def __init__(
        self,
        run: RunDir,
        bind: str = "127.0.0.1",
        synthetic: bool = False,
        parent: int | None = None,
        *,
        keep: RetentionPolicy = RetentionPolicy(),  # noqa: B008  it is frozen
        disk: Disk = DISK,
        lock: int = -1,
    ) -> None:
        self._run, self._keep, self._disk = run, keep, disk
        run_keys.make_run_keys(run)
        server = run_keys.load(run, "server")
        self._table = GrantTable(run.keys / "authorized")
        self._supervisor = SupervisorWatch(run, parent)
        self.stopping = False
        self._degraded = ""
        self._greet = False
        """Whether a subscriber has come since the last beacon."""

        self._core = Core(run.id, next_epoch(run.journal))
        self._journal = Journal(run.journal, state=self._core, disk=disk)
        self._core.start(self._journal.head)
        if self._journal.damage.bytes:
            log.warning("journal: %d bytes were damaged and left out", self._journal.damage.bytes)
        self._holes = HoleWatch(run)
        self._core.missing = self._holes.missing
        self._watch = JournalWatch(run, self._journal, self._core, lock)
        self._audit = HubAudit(run.audit, self._core, disk)
        self._syncer = Syncer(self._journal, self._audit.log)

        self._context: Context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 8192)
        self._gate = Authenticator(self._context, self._table)
        # The send limits are frames a peer: a console that stops reading costs the hub that much memory and no more,
        # and finds what it missed in the pages.
        self._ingest = self._socket(zmq.ROUTER, server, MAX_BODY + 4096, send=1000, receive=1000)
        self._rpc = self._socket(zmq.ROUTER, server, wire.REQUEST_BYTES, send=8, receive=256)
        self._ingest.router_mandatory = True
        self._rpc.router_mandatory = True
        old = _old_connection(run)
        self._live = LiveSocket(
            lambda: self._socket(zmq.XPUB, server, 1024, send=256, receive=1000),
            self._grant,
            bind,
            old.live if old else "",
        )
        endpoints = [
            ports.bind(self._ingest, bind, old.ingest if old else ""),
            self._live.endpoint,
            ports.bind(self._rpc, bind, old.rpc if old else ""),
        ]
        self._poller = zmq.Poller()
        self._gate.self_test(list(zip(endpoints, (zmq.DEALER, zmq.SUB, zmq.DEALER), strict=True)), server.public)
        # The sockets are bound to the address that was asked for; consoles elsewhere dial the same one.
        self._connection = Connection(
            run=run.id,
            ingest=endpoints[0],
            live=endpoints[1],
            rpc=endpoints[2],
            server=server.public,
            pid=os.getpid(),
            started=time.time(),
            synthetic=synthetic,
        )

    def run(self) -> None:
        """Serve until `stopping`, then take what has already arrived and close the journal."""
        self._syncer.start()
        self._run.write_connection(self._connection)
        core = self._core
        log.info(
            "run %s: epoch %d, head %d, %d bytes of the journal read, ingest at %s",
            core.run,
            core.epoch,
            core.head,
            self._journal.scanned,
            self._connection.ingest,
        )
        poller = self._poller
        for socket in (self._gate.socket, self._ingest, self._live.socket, self._rpc):
            poller.register(socket, zmq.POLLIN)
        poller.register(self._syncer.wake, zmq.POLLIN)
        parent = self._supervisor.fd
        if parent is not None:
            poller.register(parent, zmq.POLLIN)
        next_ack = next_table = time.monotonic()
        beaconed = float("-inf")
        while not self.stopping:
            ready = dict(poller.poll(int(ACK_SECONDS * 1000)))
            if parent is not None and parent in ready:
                poller.unregister(parent)
                self._supervisor.parent_ended(time.monotonic())
                parent = None
            self._turn()
            now = clock()
            if now.mono >= next_ack:
                next_ack = now.mono + ACK_SECONDS
                self._look(now)
                self._do(self._core.acks())
            if now.mono >= beaconed + (GREET_SECONDS if self._greet else BEACON_SECONDS):
                beaconed, self._greet = now.mono, False
                self._do(self._core.on_tick(now))
                self._do([self._core.beacon(now, self._trouble)])
            if now.mono >= next_table:
                next_table = now.mono + TABLE_SECONDS
                self._refresh(now)
            if self._supervisor.orphaned(now.mono, self._core.producers.seen):
                log.info("the process that started this hub has gone, and so have its producers")
                self.stopping = True
        self._drain()

    def close(self) -> None:
        """Sync and close everything; the connection file stays, `hub.lock` shows that no hub runs."""
        self._syncer.stop()
        with contextlib.suppress(JournalError):
            self._journal.close()
        with contextlib.suppress(AuditError):
            self._audit.log.close()
        self._context.destroy(linger=200)

    @property
    def _trouble(self) -> str:
        return self._watch.trouble or self._degraded or self._syncer.error

    def _look(self, now: Now) -> None:
        """See to it that nothing is acknowledged that is in files which were taken away."""
        effects = self._watch.look(now)
        if not effects:
            return
        self._do(effects)
        self._syncer.request_sync()
        if not self._run.connection_file.exists():  # another run directory was put in the place of the old one
            self._write_connection()

    def _write_connection(self) -> None:
        try:
            self._run.write_connection(self._connection)
        except OSError as error:  # consoles that are connected stay, others cannot find the hub
            log.error("%s: %s", self._run.connection_file, error.strerror or error)

    def _drain(self) -> None:
        deadline = time.monotonic() + 1.0
        while self._turn() and time.monotonic() < deadline:
            pass
        self._look(clock())
        self._do(self._core.acks())
        self._watch.report()
        self._do([*self._core.refusals.all_notes(clock())])

    def _turn(self) -> bool:
        """Handle what is waiting on every socket, a bounded amount of each; True if there was something."""
        self._gate.serve()
        if self._table.changed:  # a handshake had a look at the file: in the audit log the key comes before its acts
            self._apply_grants(clock())
        while self._gate.refused_addresses:
            self._do(self._core.on_unknown_key(self._gate.refused_addresses.pop(), clock()))
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._syncer.wake)
        self._do(self._core.on_synced(self._syncer.synced, clock()))
        busy = self._subscriptions()
        for socket, handle in ((self._ingest, self._core.on_ingest), (self._rpc, self._core.on_request)):
            for _ in range(_MESSAGES_A_TURN):
                try:
                    parts = socket.recv_multipart(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    break
                busy = True
                if len(parts) != 2:
                    self._core.producers.bad_frames += 1
                    continue
                try:
                    effects = handle(parts[0].bytes, self._grant(parts[1]), parts[1].bytes, clock())
                except Exception:  # a message that uncovers an error in this code must not end the hub for all others
                    self._core.producers.bad_frames += 1
                    log.exception("a message of %d bytes was not handled", len(parts[1]))
                    continue
                self._do(effects)
        return busy

    def _grant(self, frame: zmq.Frame) -> Grant | None:
        try:
            return self._table.grant(str(frame.get("User-Id")))
        except zmq.ZMQError:
            return None  # made by the library itself, such as the unsubscriptions of a peer that has gone

    def _subscriptions(self) -> bool:
        asked = self._live.subscriptions()
        for grant, topic in asked.refused:
            self._do(self._core.on_refused_subscription(grant, topic, clock()))
        for public in asked.offenders:
            grant = self._table.ban(public)
            log.error(
                "%s is banned for a while: it sends messages that are not subscriptions",
                grant.identity if grant else "?",
            )
            self._do(self._core.on_banned(grant, clock()))
            self._do(self._core.on_grants(self._table.in_force(), clock()))
        self._greet |= asked.new_listener
        if asked.offenders or asked.out_of_step:
            self._reopen(self._live.reopen)
        return asked.busy

    def _refresh(self, now: Now) -> None:
        """Apply changes of the table of grants, also to open connections, and apply retention."""
        if self._audit.look():
            self._syncer.request_sync()
        self._do(self._supervisor.look(now))
        if gone := self._keep.expired(self._journal, self._run, self._journal.now):
            log.info("retention: segments up to %s go, frames from %d on stay", gone[-1].stem, self._journal.first)
            self._syncer.run_later(lambda: self._journal.delete(gone))
        self._core.missing = self._holes.missing
        if self._holes.changed():
            self._syncer.run_later(self._holes.look)
        self._apply_grants(now)

    def _apply_grants(self, now: Now) -> None:
        changes = self._table.take_changes()
        self._do([Note(change.entry(now)) for change in changes])
        self._do(self._core.on_grants(self._table.in_force(), now))
        if changes:
            self._reopen(lambda: self._live.disconnect_revoked(changes))

    def _reopen(self, cut: Callable[[], object]) -> None:
        """Let `cut` disconnect all subscribers, where it has to, and publish the new endpoint."""
        self._poller.unregister(self._live.socket)
        old = self._live.socket
        cut()
        self._poller.register(self._live.socket, zmq.POLLIN)
        if self._live.socket is old:
            return
        log.info("every console is disconnected and must authenticate again")
        if self._live.endpoint != self._connection.live:
            self._connection = msgspec.structs.replace(self._connection, live=self._live.endpoint)
            self._write_connection()

    def _do(self, effects: list[Effect]) -> None:
        """Carry effects out in order; what a write leads to comes before what follows it."""
        for effect in effects:
            match effect:
                case Write():
                    self._write(effect)
                case Publish():
                    self._live.publish(effect)
                case ToProducer(peer=peer, message=message):
                    self._to_producer(peer, message)
                case ToClient(peer=peer, message=message):
                    # A client that has gone, or does not read: it will ask again.
                    with contextlib.suppress(zmq.ZMQError):
                        self._rpc.send_multipart((peer, message), zmq.NOBLOCK)
                case Sync():
                    self._syncer.request_sync()
                case SendPage():
                    self._send_page(effect)
                case Note(entry=entry):
                    if self._audit.note(entry):
                        self._syncer.request_sync()

    def _write(self, write: Write) -> None:
        now = clock()
        stamp = self._core.stamp(write, now)
        try:
            if write.audit is not None:
                self._audit.log.append(write.audit)
            self._journal.append(stamp.record, stamp.seq, stamp.plain)
        except (JournalError, AuditError) as error:
            if not self._degraded:
                log.error("the journal cannot be written: %s", error)
            self._degraded = str(error)
            self._do(self._core.on_write_failed(write, self._degraded, now))
            return
        if self._degraded:
            log.info("the journal can be written again")
            self._degraded = ""
        if write.producer == HUB and isinstance(write.frame, Event) and write.frame.kind.startswith(_LOGGED):
            log.warning("%s", write.frame.text)
        self._do(self._core.on_written(write, stamp))

    def _to_producer(self, peer: bytes, message: bytes) -> None:
        try:
            self._ingest.send_multipart((peer, message), zmq.NOBLOCK)
        except zmq.Again:
            pass  # it does not read; acks are cumulative and commands are handed over again when it greets
        except zmq.ZMQError:
            self._do(self._core.on_gone(peer, clock()))

    def _send_page(self, page: SendPage) -> None:
        records, following = self._journal.page(page.start, page.limit, wire.PAGE_BYTES, page.tokens)
        core = self._core
        reply = wire.PageReply(
            page.id,
            core.epoch,
            core.head,
            core.plain,
            core.base,
            following,
            tuple(map(msgspec.Raw, records)),
            self._journal.first,
        )
        with contextlib.suppress(zmq.ZMQError):
            self._rpc.send_multipart((page.peer, wire.pack(reply)), zmq.NOBLOCK)

    def _socket(self, kind: int, server: run_keys.Keys, max_message: int, send: int, receive: int) -> Socket:
        socket: Socket = self._context.socket(kind)
        configure(socket, max_message=max_message, send_frames=send, receive_frames=receive)
        secure_server(socket, server)
        return socket


def _old_connection(run: RunDir) -> Connection | None:
    try:
        return run.connection()
    except RunError:
        return None


__all__ = ["AuthError", "Server"]
