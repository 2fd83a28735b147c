"""What can be wrong between a run and its consoles, in one word and one line. Pure.

Every console shows the same words: the screen as a banner, `tail` as lines, `status` as a word. Only the worst
problem is shown, because it may make the others meaningless.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from driftline.frames import Level, RunState
from driftline.journal.lost import LOST

STALE_AFTER: Final = 2.5
"""Seconds without a beacon after which what is on screen may no longer be so. With the beat that is missing (0.2 s)
and the next drawing (0.25 s) a console shows it within 3 s of a hub's last beacon."""

LOST_AFTER: Final = 15.0
"""Seconds of silence after which the next beacon is not to be expected soon."""

BEHIND_FRAMES: Final = 1000
"""Frames still to come above which the figures on screen count as old."""

DROPS_SECONDS: Final = 60.0
"""Seconds, on the hub's clock, for which frames dropped by a producer are shown in the banner."""

HOLE: Final = "JOURNAL HOLE"
"""The word for segments that a journal lacks."""

LinkState = Literal["connecting", "live", "stale", "lost"]

# Of the system and of driftline.disk, however they are wrapped.
_FULL: Final = ("No space left", "File too large", "quota exceeded", "took only a part")
_UNKNOWN_KEY: Final = "does not know this key"


class Link(msgspec.Struct, frozen=True):
    """State of the connection from the run to a console.

    `heard` is False until the first beacon or frame, `age` the seconds since the last one, `behind` the frames that the
    hub has and the console has not; `trouble` is a sentence about what is wrong with the link, `degraded` the hub's
    own complaint about its journal, `way` a clause about a tunnel that is down; `gone` is True once it is known that
    the hub's process has ended; `missing` is a clause about segments that the run's journal lacks; `replay` is the
    state of a replay in a word, "" for a live run. `care` is a clause on what the supervisor does for a hub that is
    away, and `unsupervised` is True for a run that has lost its supervisor.
    """

    heard: bool
    age: float
    behind: int = 0
    trouble: str = ""
    degraded: str = ""
    way: str = ""
    gone: bool = False
    replay: str = ""
    care: str = ""
    unsupervised: bool = False
    missing: str = ""

    @property
    def state(self) -> LinkState:
        if self.age <= STALE_AFTER:
            return "live" if self.heard else "connecting"
        return "stale" if self.age <= LOST_AFTER and not self.gone else "lost"


class Drop(msgspec.Struct, frozen=True):
    """Frames that a producer had to drop before sending them: since `first` (hub's clock), and since its start."""

    producer: str
    frames: int
    total: int
    first: float
    time: float


class Crowd(msgspec.Struct, frozen=True):
    """A producer that has made more names of something than are kept in memory; `gone` were dropped by this console."""

    producer: str
    what: str
    kept: int
    gone: int = 0

    def __str__(self) -> str:
        lost = f"{self.gone:,} old ones are not shown" if self.gone else "not every one is shown"
        return f"{self.producer} makes more than {self.kept:,} names of {self.what}: {lost}; the journal has them all"


class Banner(msgspec.Struct, frozen=True):
    """`word` names the problem, `text` its meaning and what is being done, `more` further details if there is room."""

    word: str
    text: str
    level: Level
    more: str = ""


def over(run: RunState | None) -> bool:
    """True once the run has reported its end: what it and its engines report no more is not missing."""
    return run is not None and run.status in ("finished", "failed")


def by_files(run: RunState | None) -> bool:
    """True for a run of which only files are known: it has no version of its weights, and no engine will report."""
    return run is not None and run.version < 0 and run.status != "starting"


def ended(run: RunState | None, link: Link) -> bool:
    """True when the silence of the hub is the end of the run, which takes its hub with it."""
    return link.state in ("stale", "lost") and over(run)


def banner(run: RunState | None, link: Link, drops: list[Drop], now: float | None, crowded: str = "") -> Banner | None:
    """The worst problem, None if there is none. `now` is the hub's clock as of the newest frame; `crowded` a sentence
    about a producer of too many names."""
    if run is not None and ended(run, link):
        why = f": {run.detail}" if run.detail else ""
        bad = run.status == "failed"
        text = f"the run has {'failed' if bad else 'finished'}{why}; this is its last state"
        return Banner("ENDED", text, "error" if bad else "info")
    if link.way:
        return Banner("TUNNEL LOST", f"{link.way}; the run goes on", "error")
    if _UNKNOWN_KEY in link.trouble:
        return Banner("KEY REFUSED", link.trouble, "error")
    if link.state == "lost":
        who = "its process has ended" if link.gone else f"silent for {link.age:.0f} s"
        if link.care:
            return Banner("HUB LOST", f"{link.care}; the run goes on; old figures, no acting", "error", link.trouble)
        if link.unsupervised:
            return Banner("HUB LOST", f"{who}, and nothing starts it again: no supervisor", "error", link.trouble)
        return Banner("HUB LOST", f"{who}: old figures, no acting; reconnecting by itself", "error", link.trouble)
    if link.state == "stale":
        text = f"silent for {link.age:.0f} s: figures may be old, no acting until it speaks"
        return Banner("HUB STALE", text, "error", link.trouble)
    if link.degraded:
        return _degraded(link.degraded)
    if link.behind > BEHIND_FRAMES:
        text = f"{link.behind:,} frames to come; figures are old until they are here"
        return Banner("BEHIND", text, "warn", link.trouble)
    recent = [drop for drop in drops if now is not None and now - drop.time <= DROPS_SECONDS]
    if recent:
        worst = max(recent, key=lambda drop: drop.frames)
        others = f" and {len(recent) - 1} more" if len(recent) > 1 else ""
        text = f"{worst.producer}{others} dropped {worst.frames:,} frames lately; figures have gaps"
        return Banner("DROPS", text, "warn", f"{worst.total:,} since its start")
    if link.unsupervised:
        text = "its supervisor was killed: the run goes on, but nothing starts a hub again that dies"
        return Banner("NO SUPERVISOR", text, "warn", "driftline stop ends the run in order")
    if link.trouble:
        return Banner("LINK", link.trouble, "warn")
    if link.missing:
        return Banner(HOLE, f"all figures have it: {link.missing}", "warn")
    return Banner("TOO MANY NAMES", crowded, "warn") if crowded else None


def _degraded(reason: str) -> Banner:
    if reason.startswith(LOST):
        why = reason.removeprefix(LOST).removeprefix(": ")
        return Banner("JOURNAL LOST", f"nothing is recorded, producers hold frames: {why}", "error")
    if any(words in reason for words in _FULL):
        text = "nothing is recorded, producers hold frames: make room at the hub"
        return Banner("DISK FULL", text, "error", reason)
    return Banner("JOURNAL DEGRADED", f"nothing is recorded, producers hold frames: {reason}", "error")
