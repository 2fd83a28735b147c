"""What is not as a hub leaves it in a journal's folder: segments missing in the middle, and files of odd names.

The oldest segments may be missing: retention deletes them. One in the middle was taken away.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from driftline import bounded_file
from driftline.journal.index import build_index, read_extent
from driftline.journal.records import SUFFIX, Damage, first_seq, segments
from driftline.rundir import NOTE_BYTES, RunDir

_NAMES_SHOWN: Final = 3


class Hole(msgspec.Struct, frozen=True):
    """Segments `first` to `last` are missing, and with them the frames `start` to `end` (inclusive)."""

    first: int
    last: int
    start: int
    end: int


class _Span(msgspec.Struct, frozen=True):
    """The frames of a segment that only Parquet has, of its note; 0: not known."""

    first: int = 0
    last: int = 0


def holes(run: RunDir) -> list[Hole]:
    """The frames that are missing between two segments, each in the journal or in Parquet. Raises OSError."""
    found = []
    listed: dict[int, Path | None] = dict.fromkeys(_compacted(run))
    listed |= {int(path.stem): path for path in segments(run.journal)}
    for (before, older), (after, newer) in pairwise(sorted(listed.items())):
        if after - before == 1:
            continue
        start = _end(older) if older is not None else _span(run, before).last + 1
        end = (first_seq(newer) if newer is not None else _span(run, after).first) - 1
        if start <= end:  # else the copy of a segment that was taken away has another number
            found.append(Hole(before + 1, after - 1, start, end))
    return found


def lacks(run: RunDir) -> list[str]:
    """What is missing in a journal and what does not belong there, in clauses; for all that is read from it."""
    try:
        found = [f"the journal has a hole: {hole_text(hole)}" for hole in holes(run)]
    except OSError as error:
        return [f"the journal cannot be read: {error.filename or run.journal}: {error.strerror or error}"]
    odd = odd_text(odd_names(run.journal))
    return [*found, f"the journal has files that are {odd}"] if odd else found


def odd_names(folder: Path) -> list[str]:
    """Names of files that end as a segment does and are none, sorted."""
    try:
        known = {path.name for path in segments(folder)}
        return sorted(path.name for path in folder.iterdir() if path.suffix == SUFFIX and path.name not in known)
    except OSError:
        return []


def hole_text(hole: Hole) -> str:
    """One hole in words."""
    which = (
        f"segment {hole.first:06d} is"
        if hole.first == hole.last
        else f"segments {hole.first:06d} to {hole.last:06d} are"
    )
    return f"{which} missing (frames {hole.start} to {hole.end})"


def odd_text(names: list[str]) -> str:
    """Odd names in words; "" for none."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"not segments by their names: {', '.join(names[:_NAMES_SHOWN])}{more}" if names else ""


def _compacted(run: RunDir) -> list[int]:
    return [int(note.stem) for note in run.parquet.glob("*.json") if note.stem.isdecimal()]


def _span(run: RunDir, number: int) -> _Span:
    try:
        return msgspec.json.decode(bounded_file.read(run.compacted(number), NOTE_BYTES), type=_Span)
    except (OSError, msgspec.MsgspecError):
        return _Span()


def _end(path: Path) -> int:
    """The number after the last of a segment."""
    extent = read_extent(path)
    if extent is not None:
        return extent.end
    index, _ = build_index(path, max(0, first_seq(path) - 1), Damage())
    return index.first + len(index)
