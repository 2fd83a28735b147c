"""The life of commands inside the hub, as a pure state machine.

A command is checked, stamped with its issuer, journaled, forced to disk, and only then answered and handed to its
owner, the producer named "trainer". Until the owner has given a terminal ack it is handed over again whenever the
owner greets; the owner takes each id once. A command that nobody accepted before its deadline expires. Commands that
act come from one session at a time (`driftline.hub.lease`).
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from driftline import wire
from driftline.audit import INTENT, RESULT, Entry
from driftline.catalog import corrections
from driftline.catalog.fixes import UnknownFixError, check
from driftline.frames import TERMINAL, Ack, AckState, Command, Frame, FrameError, Writer, decode, encode
from driftline.hub.effects import HUB, Effect, Now, Sync, ToClient, ToProducer, Write
from driftline.hub.lease import Lease, reply, unfit
from driftline.hub.limits import Buckets, Limits, limit_text
from driftline.hub.refusals import Refusals
from driftline.keys import Grant

OWNER: Final = "trainer"
LONGEST_DEADLINE: Final = 24 * 3600.0
_MAX_ID, _MAX_ARGS, _MAX_ARG = 64, 16, 1024


class Life:
    """One command and how far it has come."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.acks: list[Ack] = []
        self.state: AckState = "queued"
        self.durable = False
        self.handed = False
        self.askers: list[tuple[bytes, int]] = []

    @property
    def over(self) -> bool:
        return self.state in TERMINAL

    @property
    def waiting(self) -> bool:
        """Durable, and nobody has accepted it."""
        return self.durable and self.state in ("queued", "sent")

    def take(self, ack: Ack, most: int) -> None:
        """Count one ack; after a terminal one nothing changes any more. More than `most` are in the journal alone."""
        if len(self.acks) < most or (ack.state in TERMINAL and not self.over):
            self.acks.append(ack)
        if not self.over:
            self.state = ack.state


class SavedLife(msgspec.Struct, array_like=True, frozen=True):
    """A life in a checkpoint: frames as they are packed in the journal."""

    command: bytes
    state: AckState
    acks: tuple[bytes, ...]

    def life(self) -> Life:
        """The life again, as the journal would give it. Raises FrameError."""
        command, acks = decode(self.command), [decode(ack) for ack in self.acks]
        if not isinstance(command, Command):
            raise FrameError("not a command")
        life = Life(command)
        life.acks = [ack for ack in acks if isinstance(ack, Ack)]
        life.state, life.durable = self.state, True
        return life


class Desk:
    """All commands of a run."""

    owner = OWNER

    def __init__(self, refusals: Refusals, limits: Limits, full: float = 1.0) -> None:
        self._refusals, self._limits = refusals, limits
        self._rate = Buckets(limits.commands, full)
        self._lease = Lease()
        self._lives: dict[str, Life] = {}
        self._open: dict[str, Life] = {}
        self._unsynced: list[tuple[int, Life]] = []

    def restore(self, frame: Frame) -> None:
        """Take over a command or an ack from the journal."""
        match frame:
            case Command():
                life = self._lives[frame.id] = self._open[frame.id] = Life(frame)
                life.durable = True
            case Ack():
                self._take(frame)
            case Writer():
                self._lease.take_in(frame)

    def save(self) -> list[SavedLife]:
        """What `restore` would add up to. A life is saved as journaled: that is when its segment is synced."""
        return [
            SavedLife(encode(life.command), life.state, tuple(map(encode, life.acks))) for life in self._lives.values()
        ]

    def load(self, lives: list[Life]) -> None:
        """Start from what was saved."""
        self._lives = {life.command.id: life for life in lives}
        self._open = {number: life for number, life in self._lives.items() if not life.over}

    def _take(self, ack: Ack) -> None:
        life = self._lives.get(ack.id)
        if life is not None:
            life.take(ack, self._limits.acks_kept)
            if life.over:
                self._open.pop(ack.id, None)

    def check_ack(self, producer: str, ack: Ack) -> None:
        """Raise FrameError unless this producer may answer this command."""
        if producer != OWNER:
            raise FrameError(f"only {OWNER} answers commands")
        if ack.id not in self._lives:
            raise FrameError(f"ack of an unknown command '{ack.id[:_MAX_ID]}'")

    def acks(self, request: int, command: str, after: int) -> wire.AcksReply:
        """Answer to an AcksRequest."""
        life = self._lives.get(command)
        if life is None:
            return wire.AcksReply(request, False, ())
        return wire.AcksReply(request, True, tuple(life.acks[max(after, 0) :]))

    def on_request(
        self, asker: tuple[bytes, int], grant: Grant, command: Command, generations: dict[str, int], now: Now
    ) -> list[Effect]:
        """A client asks for a command."""
        life = self._lives.get(command.id)
        if not grant.may_command:
            return self._refuse(asker, grant, "role", f"this key may not send commands: role {grant.role}", now)
        if life is not None:
            if life.durable:
                return [_reply(asker, life)]
            life.askers.append(asker)
            return []
        if not self._rate.take(grant.public, now.mono):
            reason = f"too many commands from one key: {limit_text(self._limits.commands)}; try again later"
            return self._refuse(asker, grant, "rate", reason, now)
        if len(self._lives) >= self._limits.commands_kept and not self._forget(now):
            reason = f"{len(self._lives)} commands are not over or may still be repeated; try again later"
            return self._refuse(asker, grant, "rate", reason, now)
        reason = _unfit(command, generations, now)
        if reason:
            return self._refuse(asker, grant, "unfit", reason, now)
        reason = self._lease.refusal(grant.who, command, now)
        if reason:
            return self._refuse(asker, grant, wire.HELD, reason, now)
        stamped = msgspec.structs.replace(command, issuer=grant.who)
        taken = self._lease.on_command(grant.who, command, now)
        return [*taken, Write(encode(stamped), stamped, asker=asker, audit=_intent(stamped, now))]

    def on_writer_request(
        self, asker: tuple[bytes, int], grant: Grant, request: wire.WriterRequest, now: Now
    ) -> list[Effect]:
        """A client asks for the run itself, not for a command."""
        if not grant.may_command:
            return self._refuse(asker, grant, "role", f"this key may not hold the run: role {grant.role}", now)
        if not request.session or unfit(request.session):
            return self._refuse(asker, grant, "unfit", unfit(request.session) or "a session needs a name", now)
        if request.action == "take" and not self._rate.take(grant.public, now.mono):
            reason = f"too many commands from one key: {limit_text(self._limits.commands)}; try again later"
            return self._refuse(asker, grant, "rate", reason, now)
        return self._lease.on_request(asker[0], grant.who, request, now)

    def _forget(self, now: Now) -> bool:
        """Forget the older half of what is over and past its deadline, so that repeating it has no effect; False if
        there is nothing to forget."""
        past = [number for number, life in self._lives.items() if life.over and now.wall > life.command.deadline]
        for number in past[: (len(past) + 1) // 2]:
            del self._lives[number]
        return bool(past)

    def _refuse(self, asker: tuple[bytes, int], grant: Grant, kind: str, reason: str, now: Now) -> list[Effect]:
        return [*self._refusals.note(kind, grant.who, reason, now), _refusal(asker, reason, kind)]

    def unrecorded(self, open_intents: set[str], now: Now) -> list[Entry]:
        """Results that a hub before this one did not come to record, of intents that it did."""
        found = []
        for number in sorted(open_intents):
            life = self._lives.get(number)
            if life is None:
                text = "failed: the hub ended before the command was journaled"
                found.append(Entry(RESULT, now.wall, HUB, number, text))
            elif life.over:
                found.append(Entry(RESULT, now.wall, HUB, number, f"{life.state}: as journaled"))
        return found

    def on_written(self, write: Write, seq: int) -> list[Effect]:
        """A frame is in the journal."""
        match write.frame:
            case Command() as command:
                life = self._lives[command.id] = self._open[command.id] = Life(command)
                life.askers = [write.asker] if write.asker else []
                self._unsynced.append((seq, life))
                return [Sync(seq)]
            case Ack() as ack:
                self._take(ack)
            case Writer() as writer:
                self._lease.take_in(writer)
                return [reply(write.asker, write, writer)] if write.asker is not None else []
        return []

    def on_synced(self, seq: int, owner: bytes | None, now: Now) -> list[Effect]:
        """Commands up to `seq` are safe on disk: hand them over and answer who asked."""
        ready = [life for written, life in self._unsynced if written <= seq]
        self._unsynced = [(written, life) for written, life in self._unsynced if written > seq]
        effects: list[Effect] = []
        for life in ready:
            life.durable = True
            effects += self._hand_over(life, owner, now)
            # The ack just asked for counts once written; the answer need not wait for it.
            state: AckState = "sent" if life.handed else "queued"
            effects += [ToClient(peer, wire.pack(wire.CommandReply(number, state))) for peer, number in life.askers]
            life.askers = []
        return effects

    def on_hello(self, producer: str, peer: bytes, now: Now) -> list[Effect]:
        """A producer has greeted: if it is the owner, it gets whatever is not over."""
        if producer != OWNER:
            return []
        effects: list[Effect] = []
        for life in list(self._open.values()):
            if life.durable and now.wall <= life.command.deadline:
                effects += self._hand_over(life, peer, now)
        return effects

    def on_tick(self, now: Now) -> list[Effect]:
        """Expire what nobody accepted in time."""
        effects: list[Effect] = []
        while len(self._lives) > self._limits.commands_kept and self._forget(now):
            pass  # a journal may hold more than a hub keeps
        for life in self._open.values():
            if life.waiting and now.wall > life.command.deadline:
                handed = life.handed or life.state == "sent"  # by this hub, or one before it
                text = "handed over, not accepted before the deadline" if handed else "nobody was there to take it"
                effects.append(_ack(life, "expired", text, now))
        return effects + self._lease.on_tick(now)

    def _hand_over(self, life: Life, owner: bytes | None, now: Now) -> list[Effect]:
        if owner is None:
            return [_ack(life, "queued", f"{OWNER} is not connected", now)]
        effects: list[Effect] = [ToProducer(owner, wire.pack(life.command))]
        if not life.handed and life.state == "queued":
            effects.append(_ack(life, "sent", "", now))
        life.handed = True
        return effects


def _ack(life: Life, state: AckState, detail: str, now: Now) -> Write:
    ack = Ack(life.command.id, state, now.wall, detail)
    return Write(encode(ack), ack, audit=result(ack, HUB, now))


def result(ack: Ack, who: str, now: Now) -> Entry | None:
    """What the audit log has to say of an ack: nothing, unless it ends its command."""
    if ack.state not in TERMINAL:
        return None
    return Entry(RESULT, now.wall, who, ack.id, f"{ack.state}: {ack.detail}" if ack.detail else ack.state)


def _intent(command: Command, now: Now) -> Entry:
    data: dict[str, str | int | float] = {f"args.{key}": value for key, value in command.args.items()}
    data |= {"generation": command.generation, "deadline": command.deadline, "session": command.session}
    return Entry(INTENT, now.wall, command.issuer, command.id, command.verb, data)


def _reply(asker: tuple[bytes, int], life: Life) -> ToClient:
    return ToClient(asker[0], wire.pack(wire.CommandReply(asker[1], life.state)))


def _refusal(asker: tuple[bytes, int], reason: str, kind: str) -> ToClient:
    return ToClient(asker[0], wire.pack(wire.Refusal(asker[1], reason, kind)))


def _unfit(command: Command, generations: dict[str, int], now: Now) -> str:
    """Why this command cannot be followed, as a clause; "" if it can."""
    if not 0 < len(command.id) <= _MAX_ID or not command.id.isascii() or not command.id.isalnum():
        return f"a command id is 1 to {_MAX_ID} ASCII letters and digits"
    if len(command.args) > _MAX_ARGS or any(len(k) + len(v) > _MAX_ARG for k, v in command.args.items()):
        return f"a command takes at most {_MAX_ARGS} arguments of {_MAX_ARG} characters"
    if not math.isfinite(command.deadline) or command.deadline > now.wall + LONGEST_DEADLINE:
        return f"a deadline is at most {LONGEST_DEADLINE / 3600:.0f} hours away"
    if command.deadline <= now.wall:
        return "its deadline has passed"
    if reason := unfit(command.session):
        return reason
    if command.verb == "fix.set":
        return _unfit_fix(command, generations)
    if command.verb == "correction.set":
        return _unfit_correction(command)
    return ""


def _unfit_correction(command: Command) -> str:
    if set(command.args) - {"despite"} != {"value"}:
        return "correction.set takes the argument value, and despite where a verdict is overruled"
    try:
        corrections.check(command.args["value"])
    except corrections.UnknownCorrectionError as error:
        return str(error)
    return ""


def _unfit_fix(command: Command, generations: dict[str, int]) -> str:
    if set(command.args) != {"fix", "value"}:
        return "fix.set takes the arguments fix and value"
    fix = command.args["fix"]
    try:
        check(fix, command.args["value"])
    except UnknownFixError as error:
        return str(error)
    newest = generations.get(fix)
    if command.generation >= 0 and newest is not None and command.generation != newest:
        return f"{fix} has changed since: generation {newest}, the command was made for {command.generation}"
    return ""
