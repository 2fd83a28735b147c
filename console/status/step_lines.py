"""Steps and events of a run as aligned lines of text: printed by `tail` and a headless `run`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from console.formatting import clock, short
from driftline.catalog.metrics import health, resolve
from driftline.frames import Ack, Command, EngineState, Event, Frame, Metrics, RunState, Stamped
from driftline.text import sanitize

COLUMNS: Final = (
    ("reward", "reward/mean"),
    ("clip", "policy/clip_fraction"),
    ("KL", "policy/kl_new_old"),
    ("entropy", "policy/entropy"),
    ("mism", "mismatch/abs_diff_mean"),
    ("lag", "async/version_lag_mean"),
    ("sync s", "sync/total_s"),
    ("tok/s", "engine/tokens_per_s"),
)
ROUTINE: Final = frozenset({"sync.done"})
"""Events that come with every step and have a column."""
HEADER_EVERY: Final = 20
WIDTH: Final = 6
"""Cells of a number at least; with eight columns a line fits into 80."""


class Lines:
    """Turns the frames of one run into lines; repeats the column heads every HEADER_EVERY steps."""

    def __init__(self, *, synthetic: bool = False) -> None:
        self._rows = 0
        self._synthetic = synthetic
        self._status = ""
        self._detail = ""
        self._phases: dict[str, str] = {}
        self._verbs: dict[str, str] = {}

    def format(self, stamped: Stamped, frame: Frame) -> Iterator[str]:
        """Lines for one frame; none for a frame without news."""
        match frame:
            case Metrics():
                yield from self._step(stamped.time, frame)
            case Event() if frame.kind not in ROUTINE or frame.level != "info":
                yield self._happened(stamped.time, frame.kind, frame.text, frame.level)
            case RunState():
                yield from self._run(stamped.time, frame)
            case EngineState():
                yield from self._engine(stamped.time, frame)
            case Command():
                what = " ".join((frame.verb, *frame.args.values()))
                self._verbs[frame.id] = what
                yield self._happened(stamped.time, "command", f"{what} by {frame.issuer or 'unknown'}")
            case Ack() if frame.state not in ("queued", "sent"):
                what = self._verbs.get(frame.id, frame.id)
                level = "error" if frame.state in ("failed", "refused", "expired") else "info"
                detail = f": {frame.detail}" if frame.detail else ""
                yield self._happened(stamped.time, "command", f"{what} {frame.state}{detail}", level)
            case _:
                pass

    def _step(self, time: float, frame: Metrics) -> Iterator[str]:
        values = {resolve(name): value for name, value in frame.values.items()}
        if not any(name in values for _, name in COLUMNS):
            return
        if self._rows % HEADER_EVERY == 0:
            if self._synthetic:
                yield "SYNTHETIC: no engine, no trainer, no model behind these numbers"
            yield f"{'time':8} {'step':>5} {'ver':>4} " + " ".join(f"{head:>{WIDTH}}" for head, _ in COLUMNS)
        self._rows += 1
        cells = (f"{_cell(name, values.get(name)):>{max(WIDTH, len(head))}}" for head, name in COLUMNS)
        yield f"{clock(time)} {frame.step:>5} {frame.version:>4} {' '.join(cells)}"

    def _run(self, time: float, frame: RunState) -> Iterator[str]:
        if frame.synthetic and not self._synthetic:
            self._synthetic = True
            yield self._happened(time, "run", "SYNTHETIC feed: no engine, no trainer, no model behind it", "warn")
        detail = frame.detail if frame.status in ("starting", "failed") else ""
        if (frame.status, detail) == (self._status, self._detail):
            return
        self._status, self._detail = frame.status, detail
        level = "error" if frame.status == "failed" else "info"
        yield self._happened(time, "run", f"{frame.status}{': ' if detail else ''}{detail}", level)

    def _engine(self, time: float, frame: EngineState) -> Iterator[str]:
        before = self._phases.get(frame.engine)
        self._phases[frame.engine] = frame.phase
        # A sync happens on every step; only coming up and going down is printed.
        if frame.phase == "dead" or (frame.phase == "running" and before in (None, "starting", "restarting", "dead")):
            if before == frame.phase:
                return
            detail = f": {frame.detail}" if frame.detail else ""
            level = "error" if frame.phase == "dead" else "info"
            yield self._happened(time, frame.engine, f"{frame.phase}{detail}", level)

    @staticmethod
    def _happened(time: float, kind: str, text: str, level: str = "info") -> str:
        sign = {"warn": "!", "error": "!!"}.get(level, "")
        return f"{clock(time)} {sign:>2} {sanitize(kind)}: {sanitize(text)}"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{short(value)}{'!' if health(name, value) == 'alarm' else ''}"
