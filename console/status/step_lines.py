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
_OVER: Final = frozenset({"finished", "failed"})
_LINE: Final = 80
_NAME: Final = 40
"""Characters of a name that has no column."""


class Lines:
    """Turns the frames of one run into lines; repeats the column heads every HEADER_EVERY steps."""

    def __init__(self, *, synthetic: bool = False) -> None:
        self._rows = 0
        self._step_of_row = -2
        """Newest step that had a row; below all steps and the one before them."""
        self._step_listed = -1
        self._waiting: tuple[int, str] | None = None
        """A step, and the line that it gets if no row of it comes."""
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
        if self._waiting is not None and self._waiting[0] != frame.step:
            yield from self._waited()
        if not any(name in values for _, name in COLUMNS):
            yield from self._without_columns(time, frame, values)
            return
        self._step_of_row, self._waiting = frame.step, None
        if self._rows % HEADER_EVERY == 0:
            yield from self._label()
            yield f"{'time':8} {'step':>5} {'ver':>4} " + " ".join(f"{head:>{WIDTH}}" for head, _ in COLUMNS)
        self._rows += 1
        cells = (f"{_cell(name, values.get(name)):>{max(WIDTH, len(head))}}" for head, name in COLUMNS)
        yield f"{clock(time)} {frame.step:>5} {frame.version:>4} {' '.join(cells)}"

    def _without_columns(self, time: float, frame: Metrics, values: dict[str, float]) -> Iterator[str]:
        """A line for a step that has numbers under other names alone: with those names, as many as fit.

        Numbers of a step may come as several frames. Where the step before had a row, this one may get it yet: the line
        waits for the next step.
        """
        if not values or self._waiting is not None or frame.step in (self._step_of_row, self._step_listed):
            return
        line = self._happened(time, f"step {frame.step}", "")
        shown: list[str] = []
        for name, value in values.items():
            one = f"{sanitize(name)[:_NAME]} {short(value)}"
            left = len(values) - len(shown) - 1
            more = f" and {left} more" if left else ""
            if shown and len(f"{line}{', '.join([*shown, one])}{more}") > _LINE:
                break
            shown.append(one)
        left = len(values) - len(shown)
        line += ", ".join(shown) + (f" and {left} more" if left else "")
        if frame.step == self._step_of_row + 1:
            self._waiting = frame.step, line
        else:
            yield from self._listed(frame.step, line)

    def _waited(self) -> Iterator[str]:
        """The line of a step that did not get a row."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            yield from self._listed(*waiting)

    def _listed(self, step: int, line: str) -> Iterator[str]:
        if self._rows == 0 and self._step_listed == -1:
            yield from self._label()
        self._step_listed = step
        yield line

    def _label(self) -> Iterator[str]:
        if self._synthetic:
            yield "SYNTHETIC: no engine, no trainer, no model behind these numbers"

    def _run(self, time: float, frame: RunState) -> Iterator[str]:
        if frame.status in _OVER:
            yield from self._waited()
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
