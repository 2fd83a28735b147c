"""Everything that happened in a run, as lines in the order of the journal: events, the life of every command, changes
of fixes, of engines, of the run itself and of its lease. Bounded and pure.

States are reported again and again; only a change is an entry. The first report of a state is the start of the run,
not a change.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar

import msgspec

from driftline.frames import (
    Ack,
    Command,
    EngineState,
    Event,
    FixState,
    Frame,
    Lease,
    Level,
    Metrics,
    RunState,
    Span,
    Stamped,
    Tokens,
)
from driftline.text import plural

T = TypeVar("T")

KEPT: Final = 10_000
_BAD: Final = frozenset({"failed", "refused", "expired"})
NAMES_KEPT: Final = 1024
"""Engines, fixes and commands whose newest state is remembered; a forgotten one's next report is like a first one."""
_NO_DATA: Final[dict[str, str | float | int | bool]] = {}
"""Of all entries without any: a dict for each would be a fifth of the log."""
_UP: Final = (None, "starting", "restarting", "dead")
EVENT_DELAY_SECONDS: Final = 2.0
"""Seconds, on the hub's clock, within which a sync's event must come; without one its spans are an entry."""


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened. `number` counts them from 1, `time` is the hub's clock, `seq` the journal's number.

    `ref` leads to more: "command:ID" or "sync:ID", "" to nothing. `routine` entries are those that come by themselves
    with every step.
    """

    number: int
    seq: int
    time: float
    producer: str
    level: Level
    kind: str
    text: str
    step: int = -1
    data: dict[str, str | float | int | bool] = {}
    ref: str = ""
    routine: bool = False


class RunLog:
    """The newest entries, oldest first."""

    def __init__(self, kept: int = KEPT) -> None:
        self.entries: deque[Entry] = deque(maxlen=kept)
        self.count = 0
        """Of the whole run; the newest entry's number."""
        self._fixes: dict[str, FixState] = {}
        self._phases: dict[str, str] = {}
        self._verbs: dict[str, str] = {}
        self._status = ""
        self._writer = Lease()
        self._pending: tuple[Stamped, Span, int] | None = None
        self._reported_syncs: deque[str] = deque(maxlen=64)

    @property
    def first(self) -> int:
        """Number of the oldest entry that is kept; one more than the newest while there is none."""
        return self.count - len(self.entries) + 1

    def apply(self, stamped: Stamped, frame: Frame, step: int) -> None:
        """Apply a frame; `step` is the run's newest step."""
        if isinstance(frame, Metrics | Tokens):
            return
        self._settle(stamped, frame)
        match frame:
            case Event():
                self._event(stamped, frame)
            case Command():
                self._command(stamped, frame, step)
            case Ack():
                self._ack(stamped, frame, step)
            case FixState():
                self._fix(stamped, frame, step)
            case EngineState():
                self._engine(stamped, frame, step)
            case RunState():
                self._run(stamped, frame)
            case Lease():
                self._lease(stamped, frame, step)
            case Span(phase="total") if self._pending is None and frame.sync not in self._reported_syncs:
                self._pending = stamped, frame, 1
            case _:
                pass

    def _add(
        self, stamped: Stamped, level: Level, kind: str, text: str, step: int = -1, ref: str = "",
        data: dict[str, str | float | int | bool] | None = None, *, routine: bool = False,
    ) -> None:  # fmt: skip
        self.count += 1
        entry = Entry(
            self.count, stamped.seq, stamped.time, stamped.producer, level, kind, text, step, data or _NO_DATA, ref,
            routine,
        )  # fmt: skip
        self.entries.append(entry)

    def _event(self, stamped: Stamped, event: Event) -> None:
        sync = event.data.get("sync")
        ref = f"sync:{sync}" if isinstance(sync, str) and event.kind.startswith("sync.") else ""
        if ref:
            self._reported_syncs.append(str(sync))
        routine = event.kind == "sync.done" and event.level == "info" and event.data.get("by") == "trainer"
        self._add(stamped, event.level, event.kind, event.text, event.step, ref, event.data, routine=routine)

    def _settle(self, stamped: Stamped, frame: Frame) -> None:
        """Make an entry of a sync from its spans if its producer has sent no event for it."""
        if self._pending is None:
            return
        first, span, engines = self._pending
        if isinstance(frame, Event) and frame.data.get("sync") == span.sync:
            self._pending = None
            return
        if isinstance(frame, Span) and frame.sync == span.sync:
            if frame.phase == "total" and frame.engine != span.engine:
                worst = frame if not frame.ok or (span.ok and frame.seconds > span.seconds) else span
                self._pending = first, worst, engines + 1
            return
        if stamped.time - first.time < EVENT_DELAY_SECONDS and not isinstance(frame, Span):
            return
        self._pending = None
        self._reported_syncs.append(span.sync)
        text = f"v{span.version_after} on {plural(engines, 'engine')} in {span.seconds:.3f} s"
        if not span.ok:
            text = f"{span.engine} stays at v{span.version_after}: {span.detail or 'not loaded'}"
        kind, level = ("sync.done", "info") if span.ok else ("sync.failed", "error")
        self._add(first, level, kind, text, span.step, f"sync:{span.sync}", routine=span.ok)  # type: ignore[arg-type]  # one of two Levels

    def _command(self, stamped: Stamped, command: Command, step: int) -> None:
        what = " ".join((command.verb, *command.args.values()))
        _keep(self._verbs, command.id, what)
        data: dict[str, str | float | int | bool] = {"id": command.id, "verb": command.verb, **command.args}
        if command.session:
            data["session"] = command.session
        if command.deadline:
            data["deadline"] = command.deadline
        text = f"{what}, by {command.issuer or 'unknown'}"
        self._add(stamped, "info", "command", text, step, f"command:{command.id}", data)

    def _ack(self, stamped: Stamped, ack: Ack, step: int) -> None:
        what = self._verbs.get(ack.id, ack.id)
        level: Level = "error" if ack.state == "failed" else "warn" if ack.state in _BAD else "info"
        text = f"{what}: {ack.state}{f', {ack.detail}' if ack.detail else ''}"
        self._add(stamped, level, f"command.{ack.state}", text, step, f"command:{ack.id}", {"id": ack.id, **ack.data})

    def _fix(self, stamped: Stamped, state: FixState, step: int) -> None:
        before = self._fixes.get(state.fix)
        _keep(self._fixes, state.fix, state)
        if before is None:
            return
        data: dict[str, str | float | int | bool] = {"fix": state.fix, "generation": state.generation, "by": state.by}
        if state.requested != before.requested:
            text = f"{state.fix}: {before.requested} to {state.requested} wanted, by {state.by}"
            self._add(stamped, "info", "fix.wanted", text, step, data=data | {"value": state.requested})
        old = {one.engine: one.effective for one in before.engines}
        for one in state.engines:
            if one.effective == old.get(one.engine, one.effective):
                continue
            now = one.effective or "nothing reported"
            since = f" since v{one.since_version}" if one.since_version >= 0 else ""
            text = f"{state.fix}: {one.engine} {now}{since}{f', {one.detail}' if one.detail else ''}"
            more = data | {"engine": one.engine, "effective": one.effective}
            self._add(stamped, "info", "fix.reported", text, one.since_step if one.since_step >= 0 else step, data=more)

    def _engine(self, stamped: Stamped, state: EngineState, step: int) -> None:
        before = self._phases.get(state.engine)
        _keep(self._phases, state.engine, state.phase)
        # A sync happens on every step and is not an entry; coming up and going down are.
        up = state.phase == "running" and before in _UP
        if before == state.phase or not (up or state.phase in ("dead", "restarting", "starting")):
            return
        level: Level = "error" if state.phase == "dead" else "warn" if state.phase == "restarting" else "info"
        text = f"{state.engine} {state.phase}{f': {state.detail}' if state.detail else ''}"
        data: dict[str, str | float | int | bool] = {"engine": state.engine, "version": state.version, "pid": state.pid}
        self._add(stamped, level, f"engine.{state.phase}", text, step, data=data)

    def _run(self, stamped: Stamped, state: RunState) -> None:
        if state.status == self._status:
            return
        self._status = state.status
        by = f" by {state.paused_by}" if state.status == "paused" and state.paused_by else ""
        detail = f": {state.detail}" if state.detail and state.status in ("starting", "failed") else ""
        level: Level = "error" if state.status == "failed" else "info"
        self._add(stamped, level, f"run.is-{state.status}", f"the run is {state.status}{by}{detail}", state.step)

    def _lease(self, stamped: Stamped, writer: Lease, step: int) -> None:
        before, self._writer = self._writer, writer
        if (writer.issuer, writer.session, writer.since) == (before.issuer, before.session, before.since):
            return  # the lease was only renewed
        if writer.issuer:
            text = f"the lease is {writer.issuer}'s{f' ({writer.session})' if writer.session else ''}"
        elif before.issuer:
            text = f"the lease is free, {before.issuer} had it"
        else:
            return
        data: dict[str, str | float | int | bool] = {"session": writer.session, "since": writer.since}
        self._add(stamped, "info", "writer.held" if writer.issuer else "writer.free", text, step, data=data)


def _keep(table: dict[str, T], name: str, value: T) -> None:
    """Remember a newest value; the one that was unseen for longest goes where there are too many."""
    table.pop(name, None)
    table[name] = value
    if len(table) > NAMES_KEPT:
        del table[next(iter(table))]
