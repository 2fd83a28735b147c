"""One writer at a time: which session of which operator holds the run, as a pure state machine.

The first command that acts takes the run for its session, if nobody has it. The holder keeps it for LEASE_SECONDS
after the last sign of life: a command, or a word that it is still there. Meanwhile the commands of others are refused,
with a sentence that names the holder; who wants to act all the same takes the run over, at once, and everybody is
told. `mark` changes nothing in a run and is anybody's.

What counts is what is in the journal, as with everything else of the hub, and so the lease survives the hub's death
with what was left of it: nobody gets in between by accident. Its end is measured on the steady clock; a wall clock
that jumps neither ends nor prolongs it. A command that names no session (a client of an older version) takes no lease
and is followed while nobody holds one.

A session is the client's own word. It tells apart the consoles of people who share a key; it keeps nobody out.
"""

from __future__ import annotations

import time
from typing import Final

from driftline import wire
from driftline.audit import Entry
from driftline.frames import Command, Event, Frame, Lease, encode
from driftline.hub.effects import Effect, Now, ToClient, Write
from driftline.text import sanitize
from driftline.wire import LEASE_FREE_VERBS, LEASE_SECONDS, MAX_SESSION

RENEW_STEP: Final = 15.0
"""A sign of life is journaled only where it prolongs the lease by this much; so it may end this much early."""
END_RETRY: Final = 10.0
"""Seconds between attempts to journal that a lease has run out; it is free for everybody from the first on."""

NO_LEASE: Final = Lease()


def name(writer: Lease) -> str:
    """A holder in words: `operator ana (ana@box:812)`."""
    return f"{writer.issuer} ({writer.session})"


class LeaseState:
    """Who holds one run. Its methods return what to write; the state changes once that is written."""

    def __init__(self) -> None:
        self.writer = NO_LEASE
        self._ends: float | None = None
        self._end_written = float("-inf")

    def apply(self, frame: Frame) -> None:
        """A frame is in the journal, from now or before this hub's time."""
        if isinstance(frame, Lease):
            self.writer, self._ends = frame, None

    def current(self, now: Now) -> Lease:
        """Who has the run now; NO_LEASE where the lease has run out."""
        return self.writer if self._left(now) > 0 else NO_LEASE

    def refusal(self, who: str, command: Command, now: Now) -> str:
        """Why this command must wait for another session, as a clause; "" if it need not."""
        holder = self.current(now)
        if command.verb in LEASE_FREE_VERBS or holder == NO_LEASE or _is(holder, who, command.session):
            return ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(holder.since))
        return f"{name(holder)} has been at the controls since {since} UTC; to act, take over from them"

    def on_command(self, who: str, command: Command, now: Now) -> list[Effect]:
        """A command that was not refused is followed: it takes the run, or is a sign of its holder's life."""
        if not command.session or (
            command.verb in LEASE_FREE_VERBS and not _is(self.current(now), who, command.session)
        ):
            return []
        return [*self._hold(who, command.session, now, None)]

    def on_request(self, peer: bytes, who: str, request: wire.LeaseRequest, now: Now) -> list[Effect]:
        """A client asks for the run itself."""
        holder, asker = self.current(now), (peer, request.id)
        mine = _is(holder, who, request.session)
        match request.action:
            case "take":
                writes = self._hold(who, request.session, now, asker)
            case "renew":
                writes = self._hold(who, request.session, now, asker) if mine else []
            case "release":
                writes = [_write(NO_LEASE, _entry("released", holder, now), asker)] if mine else []
        if writes:
            return [*writes]
        return [ToClient(peer, wire.pack(wire.LeaseReply(request.id, holder, mine)))]

    def on_tick(self, now: Now) -> list[Effect]:
        """Say so when a lease has run out."""
        if self.writer == NO_LEASE or self._left(now) > 0 or now.mono - self._end_written < END_RETRY:
            return []
        self._end_written = now.mono
        return [_write(NO_LEASE, _entry("expired", self.writer, now))]

    def _hold(self, who: str, session: str, now: Now, asker: tuple[bytes, int] | None) -> list[Write]:
        """Take the run or prolong the lease on it; nothing where that was done a moment ago."""
        holder = self.current(now)
        until = now.wall + LEASE_SECONDS
        if _is(holder, who, session):
            if LEASE_SECONDS - self._left(now) < RENEW_STEP:
                return []
            return [_write(Lease(who, session, holder.since, until), None, asker)]
        mine = Lease(who, session, now.wall, until)
        if holder == NO_LEASE:
            return [_write(mine, _entry("taken", mine, now), asker)]
        text = f"{name(mine)} took over from {name(holder)}"
        entry = _entry("taken", mine, now, former=holder)
        event = Event(now.wall, "warn", "writer.taken", text)
        return [_write(mine, entry, asker), Write(encode(event), event)]

    def _left(self, now: Now) -> float:
        """Seconds that the lease still has."""
        if self.writer == NO_LEASE:
            return 0.0
        if self._ends is None:
            self._ends = now.mono + min(LEASE_SECONDS, self.writer.until - now.wall)
        return self._ends - now.mono


def reply(asker: tuple[bytes, int], written: Write, writer: Lease) -> ToClient:
    """The answer to a request that led to this frame."""
    peer, number = asker
    former = str(written.audit.data.get("former", "")) if written.audit is not None else ""
    return ToClient(peer, wire.pack(wire.LeaseReply(number, writer, writer != NO_LEASE, former)))


def session_problem(session: str) -> str:
    """Why this is no name for a session, as a clause; "" if it is one, or none at all."""
    if len(session) > MAX_SESSION or sanitize(session) != session:
        return f"a session's name is at most {MAX_SESSION} printable characters"
    return ""


def _is(holder: Lease, who: str, session: str) -> bool:
    return holder != NO_LEASE and (holder.issuer, holder.session) == (who, session)


def _write(writer: Lease, audit: Entry | None, asker: tuple[bytes, int] | None = None) -> Write:
    return Write(encode(writer), writer, asker=asker, audit=audit)


def _entry(what: str, writer: Lease, now: Now, former: Lease = NO_LEASE) -> Entry:
    data: dict[str, str | int | float] = {"session": writer.session, "since": writer.since}
    if former != NO_LEASE:
        data["former"] = name(former)
    return Entry(f"writer.{what}", now.wall, writer.issuer, data=data)
