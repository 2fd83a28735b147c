"""The life cycle of commands inside the hub, as a pure state machine.

A command is checked, stamped with its issuer, journaled, forced to disk, and only then answered and delivered to its
owner, the producer named "trainer", or to the engines that have joined by themselves (`driftline.hub.engines`).
Until the owner has sent a terminal ack it is delivered again whenever the owner
greets; the owner handles each id once. A command that was not accepted before its deadline expires. The wire carries
deadlines as wall times; how far away one is gets noted on arrival, and the monotonic clock judges it from then on.
Commands that act come from one session at a time (`driftline.hub.lease`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from driftline import wire
from driftline.audit import INTENT, RESULT, Entry
from driftline.catalog import corrections, shadow
from driftline.catalog.fixes import UnknownFixError, check
from driftline.frames import TERMINAL, Ack, AckState, Command, Frame, FrameError, Lease, encode
from driftline.hub import engines
from driftline.hub.effects import HUB, Effect, Now, Sync, ToClient, ToProducer, Write
from driftline.hub.engines import JoinedEngines
from driftline.hub.lease import LeaseState, reply, session_problem
from driftline.hub.limits import Limits, RateLimiter, limit_text
from driftline.hub.refusals import Refusals
from driftline.hub.tracked_command import LONGEST_DEADLINE, SavedCommand, TrackedCommand
from driftline.keys import Grant

OWNER: Final = "trainer"
_MAX_ID, _MAX_ARGS, _MAX_ARG = 64, 16, 1024

Connected = Callable[[str], bytes | None]
"""The connection of a producer by its name, None where it is not there."""


class CommandTable:
    """All commands of a run."""

    owner = OWNER

    def __init__(self, refusals: Refusals, limits: Limits, joined: JoinedEngines, full: float = 1.0) -> None:
        self._refusals, self._limits, self._joined = refusals, limits, joined
        self._rate = RateLimiter(limits.commands, full)
        self._lease = LeaseState()
        self._tracked: dict[str, TrackedCommand] = {}
        self._open: dict[str, TrackedCommand] = {}
        self._unsynced: list[tuple[int, TrackedCommand]] = []

    def restore(self, frame: Frame) -> None:
        """Take over a command or an ack from the journal."""
        match frame:
            case Command():
                tracked = self._tracked[frame.id] = self._open[frame.id] = TrackedCommand(frame)
                tracked.durable = True
            case Ack():
                self._add_ack(frame)
            case Lease():
                self._lease.apply(frame)

    def save(self) -> list[SavedCommand]:
        """The state that `restore` would rebuild. A command is saved as durable: its segment is synced by then."""
        return [
            SavedCommand(
                encode(tracked.command),
                tracked.state,
                tuple(map(encode, tracked.acks)),
                {engine: encode(ack) if ack is not None else b"" for engine, ack in tracked.engines.items()},
            )
            for tracked in self._tracked.values()
        ]

    def load(self, commands: list[TrackedCommand]) -> None:
        """Start from what was saved."""
        self._tracked = {tracked.command.id: tracked for tracked in commands}
        self._open = {number: tracked for number, tracked in self._tracked.items() if not tracked.ended}

    def _add_ack(self, ack: Ack) -> None:
        tracked = self._tracked.get(ack.id)
        if tracked is not None:
            tracked.add_ack(ack, self._limits.acks_kept)
            if tracked.ended:
                self._open.pop(ack.id, None)

    def handed_to(self, engine: str, command: str) -> bool:
        """Whether this command went to that joined engine, which then answers it."""
        tracked = self._tracked.get(command)
        return tracked is not None and engine in tracked.engines

    def check_ack(self, producer: str, ack: Ack) -> Ack:
        """The ack as it is to be journaled. Raises FrameError unless this producer may answer this command."""
        tracked = self._tracked.get(ack.id)
        if tracked is not None and producer in tracked.engines:
            return engines.relayed(producer, ack)
        if producer != OWNER:
            raise FrameError(f"only {OWNER} answers commands")
        if tracked is None:
            raise FrameError(f"ack of an unknown command '{ack.id[:_MAX_ID]}'")
        if tracked.engines:
            raise FrameError(f"command '{ack.id[:_MAX_ID]}' is for the joined engines to answer")
        return ack

    def acks(self, request: int, command: str, after: int) -> wire.AcksReply:
        """Answer to an AcksRequest."""
        tracked = self._tracked.get(command)
        if tracked is None:
            return wire.AcksReply(request, False, ())
        return wire.AcksReply(request, True, tuple(tracked.acks[max(after, 0) :]))

    def on_request(
        self, asker: tuple[bytes, int], grant: Grant, command: Command, generations: dict[str, int], now: Now
    ) -> list[Effect]:
        """A client asks for a command."""
        tracked = self._tracked.get(command.id)
        if not grant.may_command:
            return self._refuse(asker, grant, "role", f"this key may not send commands: role {grant.role}", now)
        if tracked is not None:
            if tracked.durable:
                return [_reply(asker, tracked)]
            tracked.askers.append(asker)
            return []
        if not self._rate.allow(grant.public, now.mono):
            reason = f"too many commands from one key: {limit_text(self._limits.commands)}; try again later"
            return self._refuse(asker, grant, "rate", reason, now)
        if len(self._tracked) >= self._limits.commands_kept and not self._forget(now):
            reason = f"{len(self._tracked)} commands are not over or may still be repeated; try again later"
            return self._refuse(asker, grant, "rate", reason, now)
        reason = _command_problem(command, generations, now) or self._joined.refusal(command)
        if reason:
            return self._refuse(asker, grant, "unfit", reason, now)
        reason = self._lease.refusal(grant.identity, command, now)
        if reason:
            return self._refuse(asker, grant, wire.HELD, reason, now)
        stamped = msgspec.structs.replace(command, issuer=grant.identity)
        taken = self._lease.on_command(grant.identity, command, now, grant.public)
        write = Write(encode(stamped), stamped, asker=asker, audit=intent_entry(stamped, now), arrived=now)
        return [*taken, write]

    def on_lease_request(
        self, asker: tuple[bytes, int], grant: Grant, request: wire.LeaseRequest, now: Now
    ) -> list[Effect]:
        """A client asks for the lease, not for a command."""
        if not grant.may_command:
            return self._refuse(asker, grant, "role", f"this key may not hold the lease: role {grant.role}", now)
        if problem := session_problem(request.session) or ("" if request.session else "a session needs a name"):
            return self._refuse(asker, grant, "unfit", problem, now)
        if request.action == "take" and not self._rate.allow(grant.public, now.mono):
            reason = f"too many commands from one key: {limit_text(self._limits.commands)}; try again later"
            return self._refuse(asker, grant, "rate", reason, now)
        return self._lease.on_request(asker[0], grant.identity, request, now, grant.public)

    def on_grants(self, grants: Mapping[str, Grant], now: Now) -> list[Effect]:
        """The grants in force, by public key."""
        return self._lease.on_grants(grants, now)

    def _forget(self, now: Now) -> bool:
        """Forget the older half of what is over and past its deadline, so that repeating it has no effect; False if
        there is nothing to forget."""
        past = [
            number
            for number, tracked in self._tracked.items()
            # Also by the wall clock, by which a repetition of it would be refused.
            if tracked.ended and tracked.late(now) and now.wall > tracked.command.deadline
        ]
        for number in past[: (len(past) + 1) // 2]:
            del self._tracked[number]
        return bool(past)

    def _refuse(self, asker: tuple[bytes, int], grant: Grant, kind: str, reason: str, now: Now) -> list[Effect]:
        return [*self._refusals.count(kind, grant.identity, reason, now), _refusal(asker, reason, kind)]

    def unrecorded(self, open_intents: set[str], now: Now) -> list[Entry]:
        """Results that a hub before this one did not come to record, of intents that it did."""
        found = []
        for number in sorted(open_intents):
            tracked = self._tracked.get(number)
            if tracked is None:
                text = "failed: the hub ended before the command was journaled"
                found.append(Entry(RESULT, now.wall, HUB, number, text))
            elif tracked.ended:
                found.append(Entry(RESULT, now.wall, HUB, number, f"{tracked.state}: as journaled"))
        return found

    def on_written(self, write: Write, seq: int) -> list[Effect]:
        """A frame is in the journal."""
        match write.frame:
            case Command() as command:
                tracked = self._tracked[command.id] = self._open[command.id] = TrackedCommand(command)
                tracked.askers = [write.asker] if write.asker else []
                if write.arrived is not None:
                    tracked.arrived(write.arrived)
                self._unsynced.append((seq, tracked))
                return [Sync(seq)]
            case Ack() as ack:
                self._add_ack(ack)
                tracked_by_engines = self._open.get(ack.id)
                if tracked_by_engines is not None and engines.answered(ack):
                    return self._finish(tracked_by_engines, Now(ack.time, 0.0))
            case Lease() as lease:
                self._lease.apply(lease)
                return [reply(write.asker, write, lease)] if write.asker is not None else []
        return []

    def on_synced(self, seq: int, connected: Connected, now: Now) -> list[Effect]:
        """Commands up to `seq` are safe on disk: deliver them and answer the clients that sent them."""
        ready = [tracked for written, tracked in self._unsynced if written <= seq]
        self._unsynced = [(written, tracked) for written, tracked in self._unsynced if written > seq]
        effects: list[Effect] = []
        for tracked in ready:
            tracked.durable = True
            effects += self._hand_over(tracked, connected, now)
            # The ack just asked for counts once written; the answer need not wait for it.
            state: AckState = "sent" if tracked.handed else "queued"
            effects += [ToClient(peer, wire.pack(wire.CommandReply(number, state))) for peer, number in tracked.askers]
            tracked.askers = []
        return effects

    def on_hello(self, producer: str, peer: bytes, now: Now) -> list[Effect]:
        """A producer has greeted: the owner, or a joined engine, gets whatever is not over and for it."""
        effects: list[Effect] = []
        if producer != OWNER and producer not in self._joined.names:
            return effects
        for tracked in list(self._open.values()):
            if tracked.durable and not tracked.late(now) and (producer == OWNER) != self._for_engines(tracked):
                effects += self._hand_over(tracked, lambda name: peer if name == producer else None, now)
        return effects

    def on_left(self, engine: str, why: str, now: Now) -> list[Effect]:
        """A joined engine has gone: what it has not answered has failed there."""
        effects: list[Effect] = []
        for tracked in self._open.values():
            if engine in tracked.engines and tracked.engines[engine] is None:
                ack = engines.relayed(engine, Ack(tracked.command.id, "failed", now.wall, why))
                effects.append(Write(encode(ack), ack))
        return effects

    def on_tick(self, now: Now) -> list[Effect]:
        """Expire commands that were not accepted in time."""
        effects: list[Effect] = []
        while len(self._tracked) > self._limits.commands_kept and self._forget(now):
            pass  # a journal may hold more than a hub keeps
        for tracked in list(self._open.values()):
            if tracked.engines and tracked.durable:
                effects += self._finish(tracked, now, late=tracked.late(now))
            elif tracked.late(now) and tracked.waiting:
                handed = tracked.handed or tracked.state == "sent"  # by this hub, or one before it
                text = (
                    "handed over, not accepted before the deadline" if handed else f"{self._awaited(tracked)} connected"
                )
                effects.append(_ack(tracked, "expired", text, now))
        return effects + self._lease.on_tick(now)

    def _for_engines(self, tracked: TrackedCommand) -> bool:
        return bool(tracked.engines) or (not tracked.handed and self._joined.take(tracked.command.verb))

    def _awaited(self, tracked: TrackedCommand) -> str:
        return "no joined engine was" if self._for_engines(tracked) else f"the {OWNER} was not"

    def _finish(self, tracked: TrackedCommand, now: Now, *, late: bool = False) -> list[Effect]:
        """The result of a command to engines, once all have answered or the time for it is over."""
        if tracked.ended or not tracked.engines or (not late and None in tracked.engines.values()):
            return []
        state, detail, data = engines.result(tracked.engines)
        ack = Ack(tracked.command.id, state, now.wall, detail, data)
        effects: list[Effect] = [Write(encode(ack), ack, audit=result_entry(ack, HUB, now))]
        met = any(ack is not None and ack.data.get("state") == "applied" for ack in tracked.engines.values())
        if not met and (fix := self._joined.withdrawn(tracked.command, detail, now.wall)) is not None:
            effects.append(Write(encode(fix), fix))
        return effects

    def _hand_to_engines(self, tracked: TrackedCommand, connected: Connected, now: Now) -> list[Effect]:
        names = list(tracked.engines) or self._joined.names
        peers = {name: peer for name in names if (peer := connected(name)) and tracked.engines.get(name) is None}
        if not peers:
            return [] if tracked.engines else [_ack(tracked, "queued", "no joined engine is connected", now)]
        command = msgspec.structs.replace(tracked.command, deadline=now.wall + tracked.left(now))
        effects: list[Effect] = [ToProducer(peer, wire.pack(command)) for peer in peers.values()]
        if not tracked.engines:
            tracked.engines = dict.fromkeys(peers)
            detail, data = engines.handed(peers)
            ack = Ack(tracked.command.id, "sent", now.wall, detail, data)
            effects.append(Write(encode(ack), ack))
        tracked.handed = True
        return effects

    def _hand_over(self, tracked: TrackedCommand, connected: Connected, now: Now) -> list[Effect]:
        if self._for_engines(tracked):
            return self._hand_to_engines(tracked, connected, now)
        owner = connected(self.owner)
        if owner is None:
            return [_ack(tracked, "queued", f"{OWNER} is not connected", now)]
        # The owner reads the deadline by the wall clock of now, which may have jumped since the command came.
        command = msgspec.structs.replace(tracked.command, deadline=now.wall + tracked.left(now))
        effects: list[Effect] = [ToProducer(owner, wire.pack(command))]
        if not tracked.handed and tracked.state == "queued":
            effects.append(_ack(tracked, "sent", "", now))
        tracked.handed = True
        return effects


def _ack(tracked: TrackedCommand, state: AckState, detail: str, now: Now) -> Write:
    ack = Ack(tracked.command.id, state, now.wall, detail)
    return Write(encode(ack), ack, audit=result_entry(ack, HUB, now))


def result_entry(ack: Ack, who: str, now: Now) -> Entry | None:
    """The audit entry of an ack; None unless it ends its command."""
    if ack.state not in TERMINAL:
        return None
    return Entry(RESULT, now.wall, who, ack.id, f"{ack.state}: {ack.detail}" if ack.detail else ack.state)


def intent_entry(command: Command, now: Now) -> Entry:
    """The audit entry of a command that is about to be journaled."""
    data: dict[str, str | int | float] = {f"args.{key}": value for key, value in command.args.items()}
    data |= {"generation": command.generation, "deadline": command.deadline, "session": command.session}
    return Entry(INTENT, now.wall, command.issuer, command.id, command.verb, data)


def _reply(asker: tuple[bytes, int], tracked: TrackedCommand) -> ToClient:
    return ToClient(asker[0], wire.pack(wire.CommandReply(asker[1], tracked.state)))


def _refusal(asker: tuple[bytes, int], reason: str, kind: str) -> ToClient:
    return ToClient(asker[0], wire.pack(wire.Refusal(asker[1], reason, kind)))


def _command_problem(command: Command, generations: dict[str, int], now: Now) -> str:
    """The reason to refuse this command, as a clause; "" if it can."""
    if not 0 < len(command.id) <= _MAX_ID or not command.id.isascii() or not command.id.isalnum():
        return f"a command id is 1 to {_MAX_ID} ASCII letters and digits"
    if len(command.args) > _MAX_ARGS or any(len(k) + len(v) > _MAX_ARG for k, v in command.args.items()):
        return f"a command takes at most {_MAX_ARGS} arguments of {_MAX_ARG} characters"
    if not math.isfinite(command.deadline) or command.deadline > now.wall + LONGEST_DEADLINE:
        return f"a deadline is at most {LONGEST_DEADLINE / 3600:.0f} hours away"
    if command.deadline <= now.wall:
        return "its deadline has passed"
    if reason := session_problem(command.session):
        return reason
    if command.verb == "fix.set":
        return _fix_problem(command, generations)
    if command.verb == "correction.set":
        return _correction_problem(command)
    if command.verb == "shadow.set":
        return _shadow_problem(command)
    if command.verb == "diagnose" and command.args.keys() not in (set(), {"tokens"}, {"cancel"}):
        return "diagnose takes no argument but tokens, or cancel alone"
    return ""


def _shadow_problem(command: Command) -> str:
    if set(command.args) != {"share"}:
        return "shadow.set takes the argument share"
    try:
        shadow.share(command.args["share"])
    except shadow.BadShareError as error:
        return str(error)
    return ""


def _correction_problem(command: Command) -> str:
    if set(command.args) - {"despite"} != {"value"}:
        return "correction.set takes the argument value, and despite where a verdict is overruled"
    try:
        corrections.check(command.args["value"])
    except corrections.UnknownCorrectionError as error:
        return str(error)
    return ""


def _fix_problem(command: Command, generations: dict[str, int]) -> str:
    if set(command.args) - {"engine"} != {"fix", "value"}:
        return "fix.set takes the arguments fix and value, and engine where one alone is meant"
    fix = command.args["fix"]
    try:
        check(fix, command.args["value"])
    except UnknownFixError as error:
        return str(error)
    newest = generations.get(fix)
    if command.generation >= 0 and newest is not None and command.generation != newest:
        return f"{fix} has changed since: generation {newest}, the command was made for {command.generation}"
    return ""
