"""The model of a run: a pure reducer over the frames of its journal.

`RunModel.apply` takes frames in the order of their sequence numbers and does nothing else: no clock, no disk, no
socket. The same frames always give the same model, so live view, replay and tests share it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from console.recorded.metric_columns import Stretch
from console.status.link_health import DROPS_SECONDS, Crowd, Drop
from console.store.engines import ENGINES_KEPT, EngineHistory
from console.store.log import RunLog
from console.store.rounds import Rounds
from console.store.series.series import SeriesStore
from console.store.syncs import SyncIndex
from driftline.catalog.metrics import resolve
from driftline.frames import (
    TERMINAL,
    Ack,
    AckState,
    Command,
    Effect,
    EngineState,
    Event,
    FixState,
    Frame,
    FrameError,
    Lease,
    Metrics,
    RunState,
    Span,
    Stamped,
)
from driftline.keys import HUB

EVENTS_KEPT: Final = 5_000
COMMANDS_KEPT: Final = 1_000
MARKS_KEPT: Final = 2_000
FIXES_KEPT: Final = 256
PRODUCERS_KEPT: Final = 1_024
DROPPED: Final = "probe.dropped"
"""Kind of the hub's event for frames that a producer had to drop."""
TOO_MANY: Final = "names.too_many"
"""Kind of the hub's event for a producer that makes too many names."""


class Logged(msgspec.Struct, frozen=True):
    """An event as the hub stamped it: `time` is the hub's clock, `event.time` the producer's."""

    seq: int
    time: float
    producer: str
    event: Event


class Mark(msgspec.Struct, frozen=True):
    """A step at which the run was changed; `kind` is "fix", "correction", "sync" or "mark".

    `value` is that of a fix since then, as every engine has reported it. A chart also shows the alarms that were
    raised on its metric as marks: `kind` is their level, `text` their rule.
    """

    step: int
    kind: str
    text: str
    value: str = ""


class CommandLife(msgspec.Struct, frozen=True):
    """A command and everything that was acknowledged about it, oldest first."""

    command: Command
    acks: tuple[Ack, ...] = ()

    @property
    def state(self) -> AckState:
        """The latest state, "queued" before the first acknowledgement."""
        return self.acks[-1].state if self.acks else "queued"

    @property
    def done(self) -> bool:
        """True once the state cannot change any more."""
        return self.state in TERMINAL


class RunModel:
    """State of one run as of sequence number `head`."""

    def __init__(self) -> None:
        self.run: RunState | None = None
        self.engines: dict[str, EngineState] = {}
        self.fixes: dict[str, FixState] = {}
        self.writer: Lease | None = None
        """The session that has the lease, None if it is free; it may have expired since."""
        self.metrics = SeriesStore()
        self.labels: dict[str, str] = {}
        self.events: deque[Logged] = deque(maxlen=EVENTS_KEPT)
        self.commands: dict[str, CommandLife] = {}
        self.marks: list[Mark] = []
        self.syncs = SyncIndex()
        self.history = EngineHistory()
        self.log = RunLog()
        self.rounds = Rounds()
        self.head = 0
        self.first_time: float | None = None
        self.last_time: float | None = None
        self.effects: dict[str, Effect] = {}
        """By fix: the measured effect of its newest change."""
        self.drops: dict[str, Drop] = {}
        """By producer: frames that it had to drop before sending them."""
        self.crowds: dict[str, Crowd] = {}
        """By what there are too many names of: who makes them, as the hub or the frames here say."""
        self.damaged = 0
        """Frames that could not be decoded."""
        self.step = -1
        """The newest step that anything was reported for."""
        self.corrections: list[tuple[int, str]] = []
        """Corrections of the objective as (step, id), each in force from that step; the first is the run's start."""
        self.fix_changes: list[tuple[int, str, str]] = []
        """Reported values of the fixes over the run: (step, fix, value), "mixed" where engines differ."""
        self._agreed: dict[str, str] = {}
        self._reported: dict[str, str] = {}

    def apply(self, stamped: Stamped) -> None:
        """Apply one frame. A sequence number at or below `head` was applied before and is ignored."""
        if stamped.seq <= self.head:
            return
        self.head = stamped.seq
        if self.first_time is None:
            self.first_time = stamped.time
        self.last_time = stamped.time
        try:
            frame = stamped.frame()
        except FrameError:
            # A newer producer may send what this console does not know; the rest of the run must stay visible.
            self.damaged += 1
            return
        self._reduce(stamped, frame)

    def rewind(self, seq: int) -> None:
        """Expect `seq` + 1 next: a crash of the hub's machine took back what came after it.

        The state from those frames stays until newer ones replace it; the trainer reports its steps again.
        """
        self.head = min(self.head, seq)

    def _reduce(self, stamped: Stamped, frame: Frame) -> None:
        self.log.apply(stamped, frame, self.step)
        match frame:
            case Metrics():
                self._metrics(frame, stamped.producer)
            case EngineState():
                self.engines[frame.engine] = frame
                if gone := self.history.record(frame, stamped.time):
                    self.engines.pop(gone, None)
                    self._crowd(stamped.producer, "engines", ENGINES_KEPT, 1)
            case RunState():
                self._correction(frame)
                self.run = frame
                self.step = max(self.step, frame.step)
            case FixState():
                self._fix(frame)
            case Event():
                self.events.append(Logged(stamped.seq, stamped.time, stamped.producer, frame))
                if frame.kind == DROPPED:
                    self._dropped(stamped.time, frame)
                elif frame.kind == TOO_MANY and stamped.producer == HUB:
                    self._crowd_reported(frame)
                self.rounds.event(frame, self.step)
            case Effect():
                for fix, _, _ in frame.changes:
                    self.effects.pop(fix, None)  # the newest stand last
                    self.effects[fix] = frame
                while len(self.effects) > FIXES_KEPT:
                    del self.effects[next(iter(self.effects))]
            case Span():
                self.syncs.record(frame)
            case Lease():
                self.writer = frame if frame.issuer else None
            case Command():
                self._command(frame)
            case Ack():
                self._ack(frame)
            case _:
                pass  # Tokens are kept by the token store of the screens that ask for them.

    def _metrics(self, frame: Metrics, producer: str) -> None:
        gone = self.metrics.gone
        self.metrics.record(frame.step, frame.time, frame.values)
        self._label({resolve(name): label for name, label in frame.labels.items()})
        self._crowd(producer, "metrics", self.metrics.kept, self.metrics.gone - gone)
        self.step = max(self.step, frame.step)

    def apply_metrics(self, stretches: Sequence[Stretch]) -> None:
        """Apply many Metrics frames at once, as `apply` would one by one; `head` and times are left to the caller."""
        gone = self.metrics.gone
        self.metrics.extend(stretches)
        for stretch in sorted(stretches, key=lambda one: int(one.places[-1])):
            self._label(stretch.labels)
            self.step = max(self.step, int(stretch.steps.max()))
        self._crowd("", "metrics", self.metrics.kept, self.metrics.gone - gone)

    def _label(self, labels: Mapping[str, str]) -> None:
        self.labels |= labels
        if len(self.labels) > 2 * self.metrics.kept:
            kept = [name for name in self.labels if name in self.metrics][-self.metrics.kept :]
            self.labels = {name: self.labels[name] for name in kept}

    @property
    def crowded(self) -> str:
        """Who makes too many names, as a sentence; "" if no producer does."""
        return next((str(crowd) for crowd in self.crowds.values()), "")

    def _crowd(self, producer: str, what: str, kept: int, gone: int) -> None:
        """`gone` names of something were dropped from memory for those of a producer, "" where it is not known."""
        if not gone:
            return
        before = self.crowds.get(what, Crowd("a producer", what, kept))
        self.crowds[what] = replace(before, producer=producer or before.producer, gone=before.gone + gone)

    def _crowd_reported(self, event: Event) -> None:
        producer, what, kept = (event.data.get(key) for key in ("producer", "what", "kept"))
        if isinstance(producer, str) and isinstance(what, str) and isinstance(kept, int):
            before = self.crowds.get(what, Crowd(producer, what, kept))
            self.crowds[what] = replace(before, producer=producer)

    def _fix(self, frame: FixState) -> None:
        self.fixes[frame.fix] = frame
        if len(self.fixes) > FIXES_KEPT:
            gone = min(self.fixes, key=lambda fix: self.fixes[fix].time)
            for table in (self.fixes, self._reported, self._agreed):
                table.pop(gone, None)
        value = frame.effective
        reported = [engine.since_step for engine in frame.engines if engine.since_step >= 0]
        step = max(reported, default=max(self.step, 0))
        if self._reported.get(frame.fix) != value:
            self._reported[frame.fix] = value
            self.fix_changes.append((step, frame.fix, value))
            del self.fix_changes[:-MARKS_KEPT]
        if value in ("", "mixed"):
            return
        # A value counts as a change once every engine has reported it; the first report is the start of the run.
        before = self._agreed.get(frame.fix)
        self._agreed[frame.fix] = value
        if before is None or before == value:
            return
        self._mark(Mark(step, "fix", f"{frame.fix} {value}", value))
        self.rounds.changed(f"{frame.fix} {value}")

    def _correction(self, frame: RunState) -> None:
        """Mark a change of the objective's correction; the first one reported is the start of the run."""
        if not frame.correction or (self.corrections and self.corrections[-1][1] == frame.correction):
            return
        step = max(frame.correction_since if frame.correction_since >= 0 else frame.step, 0)
        if self.corrections:
            self._mark(Mark(step, "correction", f"correction {frame.correction}"))
        self.corrections.append((step, frame.correction))
        del self.corrections[:-MARKS_KEPT]

    def _dropped(self, time: float, event: Event) -> None:
        producer = str(event.data.get("producer", "a producer"))
        lost, total = event.data.get("dropped", 0), event.data.get("total", 0)
        lost, total = (int(lost) if isinstance(lost, int) else 0), (int(total) if isinstance(total, int) else 0)
        before = self.drops.get(producer)
        if before is None or time - before.time > DROPS_SECONDS:
            self.drops[producer] = Drop(producer, lost, total, time, time)
        else:
            self.drops[producer] = Drop(producer, before.frames + lost, total, before.first, time)

        if len(self.drops) > PRODUCERS_KEPT:
            del self.drops[min(self.drops, key=lambda name: self.drops[name].time)]

    def _command(self, frame: Command) -> None:
        known = self.commands.get(frame.id)
        self.commands[frame.id] = CommandLife(frame, known.acks if known is not None else ())
        while len(self.commands) > COMMANDS_KEPT:
            del self.commands[next(iter(self.commands))]
        if frame.verb == "diagnose":
            self.rounds.command(frame)
        if frame.verb == "mark":
            self._mark(Mark(max(self.step, 0), "mark", frame.args.get("text", "")))

    def _ack(self, frame: Ack) -> None:
        life = self.commands.get(frame.id)
        if life is None or life.done:
            return
        self.commands[frame.id] = CommandLife(life.command, (*life.acks, frame))
        if life.command.verb == "diagnose":
            self.rounds.ack(frame, self.step)
        if frame.state == "applied" and life.command.verb == "sync":
            self._mark(Mark(max(self.step, 0), "sync", "sync"))
            self.rounds.changed("a weight sync")

    def _mark(self, mark: Mark) -> None:
        self.marks.append(mark)
        del self.marks[:-MARKS_KEPT]
