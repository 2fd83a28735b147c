"""From the log of a run to the rows of the events screen, and everything about one of them. Pure.

Routine weight syncs that follow one another are one row, so that a sync after every step does not hide what an
operator looks for; the rows grow with the log and are not made anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from console.formatting import clock
from console.store.log import Entry, RunLog
from console.store.model import RunModel
from console.store.sync import TIMES
from console.tui.paint.cells import Text
from console.tui.paint.table import flow
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut, duration
from console.tui.screens.events.filter import EventFilter
from driftline.frames import Level

LEVEL_INK: Final[dict[Level, Ink]] = {"info": Ink.TEXT, "warn": Ink.WARN, "error": Ink.ALARM}
SIGN: Final[dict[Level, str]] = {"info": "", "warn": "!", "error": "!!"}
_FOLD_SHOWN: Final = 200


@dataclass
class EventRow:
    """An entry, or several routine ones that follow one another: `last` is the newest of `entries`."""

    entries: list[Entry] = field(default_factory=list)

    @property
    def first(self) -> Entry:
        return self.entries[0]

    @property
    def last(self) -> Entry:
        return self.entries[-1]


class Rows:
    """The rows of the log that pass a filter. `take` brings in what is new; change of filter or folding starts anew."""

    def __init__(self, wanted: EventFilter, *, folded: bool) -> None:
        self.wanted, self.folded = wanted, folded
        self.rows: list[EventRow] = []
        self.matches = 0
        """Entries in the rows."""
        self._log: RunLog | None = None
        self._seen = 0

    def read_log(self, log: RunLog) -> bool:
        """Bring the rows up to the log; True where they have changed."""
        if log is not self._log or log.count < self._seen:
            self._log, self._seen, self.rows, self.matches = log, 0, [], 0
        if log.count == self._seen:
            return False
        new = min(log.count - self._seen, len(log.entries))
        for entry in islice(log.entries, len(log.entries) - new, None):
            if not self.wanted(entry):
                continue
            self.matches += 1
            last = self.rows[-1] if self.rows else None
            if self.folded and entry.routine and last is not None and last.last.routine:
                last.entries.append(entry)
            else:
                self.rows.append(EventRow([entry]))
        self._seen = log.count
        self._forget(log.first)
        return True

    def _forget(self, first: int) -> None:
        """Let go of what the log has let go of."""
        gone = 0
        for row in self.rows:
            if row.last.number >= first:
                break
            gone += 1
        for row in self.rows[:gone]:
            self.matches -= len(row.entries)
        del self.rows[:gone]
        if self.rows and self.rows[0].first.number < first:
            row = self.rows[0]
            kept = [entry for entry in row.entries if entry.number >= first]
            self.matches -= len(row.entries) - len(kept)
            row.entries = kept

    def entries(self) -> list[Entry]:
        """Every entry that passes, folded or not, oldest first."""
        return [entry for row in self.rows for entry in row.entries]


def line(row: EventRow, width: int, now: float | None) -> list[Text]:
    """A row: time, how bad, step, producer, kind, text."""
    entry = row.last
    ink = LEVEL_INK[entry.level]
    parts: list[Text] = [(f"{clock(entry.time, now)[-8:]} ", Ink.DIM), (f"{SIGN[entry.level]:<2} ", ink)]
    if width >= 60:
        parts.append((f"{f'step {entry.step}' if entry.step >= 0 else '':<10} ", Ink.DIM))
    if width >= 100:
        parts.append((f"{entry.producer:<12.12} ", Ink.DIM))
    if len(row.entries) > 1:
        parts.append((f"{len(row.entries):,} weight syncs, the newest ", Ink.DIM))
        ink = Ink.DIM
    else:
        parts.append((f"{entry.kind} ", Ink.DIM if ink is Ink.TEXT else ink))
    room = max(width - sum(len(text) for text, _ in parts), 0)
    return [*parts, (cut(entry.text, room), ink)]


def as_text(entry: Entry) -> str:
    """An entry as a line, for copying."""
    step = f" step {entry.step}" if entry.step >= 0 else ""
    return f"{clock(entry.time)} {entry.level}{step} {entry.producer} {entry.kind} {entry.text}"


def detail(model: RunModel, row: EventRow, width: int) -> list[list[Text]]:
    """The whole of an entry: its text, its data, and what it belongs to."""
    entry = row.last
    ink = LEVEL_INK[entry.level]
    head: list[list[Text]] = [
        [(clock(entry.time, model.last_time), Ink.BRIGHT)],
        [(entry.level, ink)],
        [(entry.kind, Ink.BRIGHT)],
        [("by ", Ink.DIM), (entry.producer or "unknown", Ink.TEXT)],
        [("frame ", Ink.DIM), (f"{entry.seq:,}", Ink.TEXT)],
    ]
    if entry.step >= 0:
        head.insert(2, [("step ", Ink.DIM), (str(entry.step), Ink.TEXT)])
    lines = [*flow(head, width), *flow([[(entry.text, ink)]], width)]
    if entry.data:
        lines += flow([[(f"{name} ", Ink.DIM), (_value(value), Ink.TEXT)] for name, value in entry.data.items()], width)
    word, _, name = entry.ref.partition(":")
    if word == "command":
        lines += _life(model, name)
    elif word == "sync" and len(row.entries) == 1:
        lines += _sync(model, name)
    if len(row.entries) > 1:
        lines.append([(f" {len(row.entries):,} routine weight syncs, newest first (u shows each):", Ink.DIM)])
        lines += [[(f"   {as_text(one)}", Ink.TEXT)] for one in islice(reversed(row.entries), _FOLD_SHOWN)]
    return lines


def _value(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else value


def _life(model: RunModel, name: str) -> list[list[Text]]:
    life = model.commands.get(name)
    if life is None:
        return [[(" the command is not known here", Ink.DIM)]]
    command = life.command
    what = " ".join((command.verb, *command.args.values()))
    lines: list[list[Text]] = [
        [(" life of ", Ink.DIM), (what, Ink.BRIGHT), (f", by {command.issuer or 'unknown'}", Ink.TEXT)]
    ]
    begin = life.acks[0].time if life.acks else 0.0
    for ack in life.acks:
        bad = ack.state in ("failed", "refused", "expired")
        ink = Ink.ALARM if bad else Ink.OK if ack.state == "applied" else Ink.TEXT
        after = f"+{duration(ack.time - begin)}" if ack is not life.acks[0] else ""
        line: list[Text] = [(f"   {clock(ack.time)} {ack.state:<9}", ink), (f"{after:<9} ", Ink.DIM)]
        lines.append([*line, (ack.detail, Ink.TEXT)])
    if not life.acks:
        lines.append([("   queued: not answered yet", Ink.WARN)])
    return lines


def _sync(model: RunModel, name: str) -> list[list[Text]]:
    sync = model.syncs.find(name)
    if sync is None:
        return []
    lines: list[list[Text]] = [[(" engine        " + "".join(f"{phase:>9}" for phase in TIMES), Ink.DIM)]]
    for engine in sync.worst_first():
        times = "".join(f"{duration(engine.phase_seconds(phase)):>9}" for phase in TIMES)
        ink = Ink.TEXT if engine.ok else Ink.ALARM
        lines.append([(f" {'' if engine.ok else '! '}{engine.engine:<14.14}"[:15], ink), (times, ink)])
    return lines


def empty(model: RunModel, wanted: EventFilter) -> str:
    """The sentence in place of rows where there are none."""
    if model.log.count and wanted.tests:
        return f"none of {len(model.log.entries):,} passes the filter; / changes it, esc takes it away"
    return "nothing has happened yet"
