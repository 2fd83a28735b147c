"""The phases of a weight sync as bars on one time axis, each with a letter and a pattern as well as a colour. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from console.store.sync import EngineSync, Sync
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.table import Column, choose, head, row
from console.tui.paint.theme import Ink
from console.tui.paint.units import duration, size, speed, versions


class Look(NamedTuple):
    """The drawing of a phase: a letter where there is room for one, then a pattern."""

    letter: str
    fill: str
    plain: str
    ink: Ink
    word: str


LOOKS: Final[dict[str, Look]] = {
    "pause": Look("P", "░", ".", Ink.WARN, "pause"),
    "load": Look("L", "█", "#", Ink.LINE, "load"),
    "verify": Look("V", "▓", "%", Ink.SECOND, "verify"),
    "reset": Look("C", "▒", ":", Ink.ACCENT, "cache reset"),
    "resume": Look("R", "▪", "=", Ink.OK, "resume"),
}

_BAR: Final = 20
_COLUMNS: Final = (
    Column("sign", "", 1),
    Column("engine", "engine", 10),
    Column("bar", "", _BAR, grows=True),
    Column("total", "total", 8, right=True),
    Column("more", "slower", 8, 2, right=True),
    Column("gbps", "load at", 9, 3, right=True),
    Column("held", "held", 5, 4, right=True),
    Column("straddling", "straddle", 8, 5, right=True),
    Column("reset", "cache", 7, 6),
    Column("versions", "versions", 10, 7),
    Column("digest", "weights", 9, 8),
    Column("bytes", "bytes", 8, 9, right=True),
)


def columns(sync: Sync, width: int) -> list[Column]:
    """The columns of the engines of a sync on `width` cells; the bar gets what is left, and half of it at least."""
    name = min(max((len(engine.engine) for engine in sync), default=10), 20)
    shaped = [Column(c.id, c.title, name) if c.id == "engine" else c for c in _COLUMNS]
    bar = max(_BAR, width * 2 // 5)
    return choose([Column("bar", "", bar, grows=True) if c.id == "bar" else c for c in shaped], width)


def axis(sync: Sync, chosen: Sequence[Column]) -> list[Text]:
    """The titles of the columns, and in that of the bars the common time axis."""
    titles = head(chosen)
    for place, column in enumerate(chosen):
        if column.id == "bar":
            titles[place] = (f"{ruler(sync.seconds, column.width)} ", Ink.DIM)
    return titles


def ruler(seconds: float, width: int) -> str:
    """0 on the left, all of it on the right, and what is between as far as there is room."""
    parts = 4 if width >= 60 else 2 if width >= 28 else 1
    line = [" "] * width
    for part in range(parts + 1):
        text = duration(seconds * part / parts) if part else "0"
        at = round((width - 1) * part / parts)
        # The last one ends where the axis ends; the others stand where they belong.
        start = width - len(text) if part == parts else at
        line[start : start + len(text)] = text
    return "".join(line)[:width]


def engine_row(sync: Sync, engine: EngineSync, chosen: Sequence[Column], glyphs: Glyphs) -> list[Text]:
    """One engine: its bar on the axis of the sync, and its figures."""
    summary = sync.summary()
    late = f"+{duration(summary.slower)}" if summary.slower > 0 and summary.slowest == engine.engine else ""
    digests = summary.digests
    common = max(digests, key=lambda one: digests[one]) if digests else ""
    odd = bool(engine.digest) and engine.digest != common
    cells: dict[str, Text] = {
        "sign": ("", Ink.OK) if engine.ok else ("!", Ink.ALARM),
        "engine": (engine.engine, Ink.TEXT if engine.ok else Ink.ALARM),
        "total": (duration(engine.seconds), Ink.BRIGHT) if engine.ok else ("FAILED", Ink.ALARM),
        "more": (late, Ink.WARN),
        "gbps": (speed(engine.gb_per_s), Ink.TEXT),
        "held": (str(engine.in_flight), Ink.TEXT),
        "straddling": (f"{engine.straddling:,}", Ink.TEXT),
        "reset": (engine.reset or "–", Ink.WARN if engine.reset == "refused" else Ink.TEXT),
        "versions": (f"{versions((engine.version_before,) * 2)}{glyphs.arrow}{engine.version_after}", Ink.TEXT),
        "digest": (
            f"{'! ' if odd else ''}{engine.digest[:8]}" if engine.digest else "–",
            Ink.ALARM if odd else Ink.DIM,
        ),
        "bytes": (size(engine.bytes), Ink.TEXT),
    }
    line: list[Text] = []
    for column, (text, ink) in zip(chosen, row(chosen, cells), strict=True):
        if column.id == "bar":
            line += [*bar(sync, engine, column.width, glyphs), (" ", Ink.TEXT)]
        else:
            line.append((text, ink))
    return line


def bar(sync: Sync, engine: EngineSync, width: int, glyphs: Glyphs) -> list[Text]:
    """The phases of one engine, each cell for that which had most of its time; nothing was reported of a blank one."""
    begin, span = sync.summary().start, max(sync.summary().seconds, 1e-9)
    share: list[tuple[float, str]] = [(0.0, "")] * width
    for phase in LOOKS:
        timed = engine.phases.get(phase)
        if timed is None or timed.seconds <= 0:
            continue
        start = (timed.start - begin) / span * width
        stop = start + timed.seconds / span * width
        for cell in range(max(int(start), 0), min(int(stop) + 1, width)):
            covered = min(stop, cell + 1) - max(start, cell)
            if covered > share[cell][0]:
                share[cell] = covered, phase
    parts: list[Text] = []
    cell = 0
    while cell < width:
        phase = share[cell][1]
        stop = cell
        while stop < width and share[stop][1] == phase:
            stop += 1
        if phase:
            look = LOOKS[phase]
            fill = look.plain if glyphs.name == "ascii" else look.fill
            parts.append((look.letter + fill * (stop - cell - 1), look.ink))
        else:
            parts.append((" " * (stop - cell), Ink.TEXT))
        cell = stop
    return parts


def legend(glyphs: Glyphs) -> list[list[Text]]:
    """The meaning of letters and patterns."""
    return [
        [(f"{look.letter}{look.plain if glyphs.name == 'ascii' else look.fill}", look.ink), (f" {look.word}", Ink.DIM)]
        for look in LOOKS.values()
    ]
