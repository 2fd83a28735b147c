"""One command inside the hub: how far it has come, and how that outlives a restart. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from driftline.frames import TERMINAL, Ack, AckState, Command, FrameError, decode
from driftline.hub import engines
from driftline.hub.effects import Now

LONGEST_DEADLINE: Final = 24 * 3600.0


class TrackedCommand:
    """One command and how far it has come."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.acks: list[Ack] = []
        self.state: AckState = "queued"
        self.durable = False
        self.handed = False
        self.askers: list[tuple[bytes, int]] = []
        self.engines: dict[str, Ack | None] = {}
        """The joined engines that it was handed to, with the final answer of each; empty for a trainer's command."""
        self._ends: float | None = None

    def arrived(self, now: Now) -> None:
        """Note the time that the deadline leaves: from here on the monotonic clock alone judges it.

        For a command of an earlier hub this is the first time that this one looks at it.
        """
        if self._ends is None:
            self._ends = now.mono + min(LONGEST_DEADLINE, self.command.deadline - now.wall)

    def left(self, now: Now) -> float:
        """Seconds until the deadline; below 0 once it has passed."""
        self.arrived(now)
        assert self._ends is not None, "set above"
        return self._ends - now.mono

    def late(self, now: Now) -> bool:
        """Whether the deadline has passed."""
        return self.left(now) < 0

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def waiting(self) -> bool:
        """Durable, and not accepted yet."""
        return self.durable and self.state in ("queued", "sent")

    def add_ack(self, ack: Ack, most: int) -> None:
        """Add one ack; after a terminal one nothing changes any more. Acks beyond `most` are in the journal alone."""
        for engine in engines.targets(ack):
            self.engines.setdefault(engine, None)
        if (engine := engines.answered(ack)) in self.engines:
            self.engines[engine] = ack
        if len(self.acks) < most or (ack.state in TERMINAL and not self.ended):
            self.acks.append(ack)
        if not self.ended:
            self.state = ack.state


class SavedCommand(msgspec.Struct, array_like=True, frozen=True):
    """A command and its acks in a checkpoint: frames as they are packed in the journal."""

    command: bytes
    state: AckState
    acks: tuple[bytes, ...]
    engines: dict[str, bytes] = {}

    def restore(self) -> TrackedCommand:
        """The tracked command again, as the journal would give it. Raises FrameError."""
        command, acks = decode(self.command), [decode(ack) for ack in self.acks]
        if not isinstance(command, Command):
            raise FrameError("not a command")
        tracked = TrackedCommand(command)
        tracked.acks = [ack for ack in acks if isinstance(ack, Ack)]
        tracked.state, tracked.durable = self.state, True
        for engine, body in self.engines.items():
            answer = decode(body) if body else None
            tracked.engines[engine] = answer if isinstance(answer, Ack) else None
        return tracked
