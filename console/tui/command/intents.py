"""What a line of the command line asks for, as one small struct each; `console.tui.control.perform` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verb = Literal["sync", "pause", "resume", "stop"]
Steps = tuple[int | None, int | None]


@dataclass(frozen=True)
class SetFix:
    """Switch a fix; without a value to the other one, without a fix after a choice."""

    fix: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class Order:
    """Act on the run on show."""

    verb: Verb


@dataclass(frozen=True)
class Export:
    """Write a table of the run on show; `steps` are the first and the last one, None for no bound."""

    format: str = "parquet"
    table: str = "metrics"
    steps: Steps = (None, None)


@dataclass(frozen=True)
class Goto:
    """Bring a step into view."""

    step: int


@dataclass(frozen=True)
class JudgeFrom:
    """Judge parity from a step on: "switch" is the step after the last switch of a fix, None the whole run."""

    step: int | Literal["switch"] | None


@dataclass(frozen=True)
class ShowScreen:
    """Show a screen of the table of screens."""

    screen: str


@dataclass(frozen=True)
class SwitchRun:
    """Show another of the runs that are watched."""

    run: str


@dataclass(frozen=True)
class Overlay:
    """Draw another watched run over the charts; "" none."""

    run: str


@dataclass(frozen=True)
class UseTheme:
    """Change the look."""

    theme: str


@dataclass(frozen=True)
class UseMarker:
    """Change what charts are drawn with."""

    marker: str


@dataclass(frozen=True)
class Mark:
    """Write a note into the run's journal, at the present step."""

    text: str


@dataclass(frozen=True)
class UseReference:
    """Draw a recorded run behind the charts; "" none."""

    run: str


@dataclass(frozen=True)
class Open:
    """Open what a key opens."""

    what: Literal["alarms", "help", "runs", "quit"]


Action = (
    SetFix
    | Order
    | Mark
    | Export
    | Goto
    | ShowScreen
    | SwitchRun
    | Overlay
    | UseReference
    | JudgeFrom
    | UseTheme
    | UseMarker
    | Open
)
