"""What is not as a hub leaves it in a journal's folder: segments missing in the middle, and files of odd names.

The oldest segments may be missing: retention deletes them. One in the middle was taken away.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from driftline.journal.index import build_index, read_extent
from driftline.journal.records import SUFFIX, Damage, first_seq, segments

_NAMES_SHOWN: Final = 3


class Hole(msgspec.Struct, frozen=True):
    """Segments `first` to `last` are missing, and with them the frames `start` to `end` (inclusive)."""

    first: int
    last: int
    start: int
    end: int


def holes(folder: Path, elsewhere: Callable[[int], bool]) -> list[Hole]:
    """The frames that are missing between two segments.

    `elsewhere` says of a segment's number that its frames are kept in another place. Raises OSError.
    """
    found = []
    for before, after in pairwise(segments(folder)):
        first, last = int(before.stem) + 1, int(after.stem) - 1
        if first > last or all(elsewhere(number) for number in range(first, min(last, first + 10_000) + 1)):
            continue
        start, end = _end(before), first_seq(after) - 1
        if start <= end:  # else the copy of a segment that was taken away has another number
            found.append(Hole(first, last, start, end))
    return found


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


def _end(path: Path) -> int:
    """The number after the last of a segment."""
    extent = read_extent(path)
    if extent is not None:
        return extent.end
    index, _ = build_index(path, max(0, first_seq(path) - 1), Damage())
    return index.first + len(index)
