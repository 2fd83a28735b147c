"""The operator lease: which session of which operator may act on the run, as a pure state machine.

The first command that acts takes the lease for its session, if it is free. The holder keeps it for LEASE_SECONDS
after its last command or renewal. Meanwhile commands of other sessions are refused with a message that names the
holder; another session can take the lease over, at once, and the takeover is published. `mark` changes nothing in a
run and needs no lease.

Only what is in the journal counts, as everywhere in the hub, and so the lease survives a restart of the hub with the
time that it had left: no other session gets it by accident. Its end is measured on the steady clock; a jump of the wall
clock neither ends nor prolongs it. The lease of a revoked key ends with the revocation. A command without a session
name (a client of an older version) takes no lease and is accepted while the lease is free.

A session name is chosen by the client. It distinguishes consoles that share a key; it does not protect against misuse.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from driftline import wire
from driftline.audit import Entry
from driftline.frames import Command, Event, Frame, Lease, encode
from driftline.hub.effects import Effect, Now, ToClient, Write
from driftline.keys import Grant
from driftline.text import sanitize
from driftline.wire import LEASE_FREE_VERBS, LEASE_SECONDS, MAX_SESSION

RENEW_STEP: Final = 15.0
"""A renewal is journaled only where it prolongs the lease by this much; so the lease may end this much early."""
END_RETRY: Final = 10.0
"""Seconds between attempts to journal that a lease has run out; it is free from the first attempt on."""

NO_LEASE: Final = Lease()


def name(lease: Lease) -> str:
    """The holder as text: `operator ana (ana@box:812)`."""
    return f"{lease.issuer} ({lease.session})"


class LeaseState:
    """The lease of one run. Its methods return what to write; the state changes once that is written."""

    def __init__(self) -> None:
        self.lease = NO_LEASE
        self._ends: float | None = None
        self._end_written = float("-inf")
        self._granted = NO_LEASE, 0.0
        """The newest lease that was to be written here, and its end on the steady clock."""
        self._key: tuple[str, str, str] = ("", "", "")
        """Identity, session and public key of the newest session that asked for the lease and got it."""

    def apply(self, frame: Frame) -> None:
        """A frame is in the journal, from now or before this hub's time."""
        if isinstance(frame, Lease):
            granted, end = self._granted
            # One of before this hub's time has its end by the wall clock; it is looked at once.
            self.lease, self._ends = frame, end if frame == granted else None

    def current(self, now: Now) -> Lease:
        """The lease now; NO_LEASE where it is free or has expired."""
        return self.lease if self._left(now) > 0 else NO_LEASE

    def refusal(self, identity: str, command: Command, now: Now) -> str:
        """The reason why another session's lease blocks this command, as a clause; "" if none does."""
        held = self.current(now)
        if command.verb in LEASE_FREE_VERBS or held == NO_LEASE or _is(held, identity, command.session):
            return ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(held.since))
        return f"{name(held)} has held the lease since {since} UTC; to act, take over from them"

    def on_command(self, identity: str, command: Command, now: Now, public: str = "") -> list[Effect]:
        """A command of the key `public` ("": unknown) was accepted: it takes the lease, or renews it."""
        if not command.session or (
            command.verb in LEASE_FREE_VERBS and not _is(self.current(now), identity, command.session)
        ):
            return []
        self._key = identity, command.session, public
        return [*self._hold(identity, command.session, now, None)]

    def on_request(
        self, peer: bytes, identity: str, request: wire.LeaseRequest, now: Now, public: str = ""
    ) -> list[Effect]:
        """A client with the key `public` ("": unknown) takes, renews or releases the lease."""
        held, asker = self.current(now), (peer, request.id)
        mine = _is(held, identity, request.session)
        if request.action == "take" or mine:
            self._key = identity, request.session, public
        match request.action:
            case "take":
                writes = self._hold(identity, request.session, now, asker)
            case "renew":
                writes = self._hold(identity, request.session, now, asker) if mine else []
            case "release":
                writes = [_write(NO_LEASE, _entry("released", held, now), asker)] if mine else []
        if writes:
            return [*writes]
        return [ToClient(peer, wire.pack(wire.LeaseReply(request.id, held, mine)))]

    def on_tick(self, now: Now) -> list[Effect]:
        """Publish the end of a lease that has expired."""
        if self.lease == NO_LEASE or self._left(now) > 0 or now.mono - self._end_written < END_RETRY:
            return []
        self._end_written = now.mono
        return [_write(NO_LEASE, _entry("expired", self.lease, now))]

    def on_grants(self, grants: Mapping[str, Grant], now: Now) -> list[Effect]:
        """End the lease if its holder may not act any more; `grants` are all grants in force, by public key.

        After a restart of the hub the holder's key is not known: then any key of that identity keeps the lease.
        """
        held = self.current(now)
        if held == NO_LEASE:
            return []
        identity, session, public = self._key
        known = public if _is(held, identity, session) else ""
        keys = [grants.get(known)] if known else grants.values()
        if any(grant is not None and grant.may_command and grant.identity == held.issuer for grant in keys):
            return []
        # Free from now on, also where this cannot be written; then `on_tick` tries again.
        self._ends = self._end_written = now.mono
        event = Event(now.wall, "warn", "writer.revoked", f"{name(held)} lost the lease: the key was revoked")
        return [_write(NO_LEASE, _entry("revoked", held, now)), Write(encode(event), event)]

    def _hold(self, identity: str, session: str, now: Now, asker: tuple[bytes, int] | None) -> list[Write]:
        """Take the lease or prolong it; nothing where that was done a moment ago."""
        held = self.current(now)
        until = now.wall + LEASE_SECONDS
        if _is(held, identity, session):
            if LEASE_SECONDS - self._left(now) < RENEW_STEP:
                return []
            longer = Lease(identity, session, held.since, until)
            self._granted = longer, now.mono + LEASE_SECONDS
            return [_write(longer, None, asker)]
        mine = Lease(identity, session, now.wall, until)
        self._granted = mine, now.mono + LEASE_SECONDS
        if held == NO_LEASE:
            return [_write(mine, _entry("taken", mine, now), asker)]
        text = f"{name(mine)} took over from {name(held)}"
        entry = _entry("taken", mine, now, former=held)
        event = Event(now.wall, "warn", "writer.taken", text)
        return [_write(mine, entry, asker), Write(encode(event), event)]

    def _left(self, now: Now) -> float:
        """Seconds that the lease still has."""
        if self.lease == NO_LEASE:
            return 0.0
        if self._ends is None:
            self._ends = now.mono + min(LEASE_SECONDS, self.lease.until - now.wall)
        return self._ends - now.mono


def reply(asker: tuple[bytes, int], written: Write, lease: Lease) -> ToClient:
    """The answer to a request that led to this frame."""
    peer, number = asker
    former = str(written.audit.data.get("former", "")) if written.audit is not None else ""
    return ToClient(peer, wire.pack(wire.LeaseReply(number, lease, lease != NO_LEASE, former)))


def session_problem(session: str) -> str:
    """Why this is not a session name, as a clause; "" if it is one, or empty."""
    if len(session) > MAX_SESSION or sanitize(session) != session:
        return f"a session's name is at most {MAX_SESSION} printable characters"
    return ""


def _is(held: Lease, identity: str, session: str) -> bool:
    return held != NO_LEASE and (held.issuer, held.session) == (identity, session)


def _write(lease: Lease, audit: Entry | None, asker: tuple[bytes, int] | None = None) -> Write:
    return Write(encode(lease), lease, asker=asker, audit=audit)


def _entry(what: str, lease: Lease, now: Now, former: Lease = NO_LEASE) -> Entry:
    data: dict[str, str | int | float] = {"session": lease.session, "since": lease.since}
    if former != NO_LEASE:
        data["former"] = name(former)
    return Entry(f"writer.{what}", now.wall, lease.issuer, data=data)
