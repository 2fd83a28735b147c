"""What a journal's writer does first: read what is there, from checkpoint and indexes where they can be believed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from driftline.journal.checkpoints import Checkpoints
from driftline.journal.disk import move_aside, sync_path
from driftline.journal.index import Index, build_index, read_extent
from driftline.journal.records import Damage, first_seq
from driftline.journal.replayed import ReplayedState
from driftline.journal.segment import Segment


class Opened(NamedTuple):
    """The closed segments in order, the newest number, and how many bytes had to be read."""

    closed: list[Segment]
    head: int
    scanned: int


def open_existing(paths: Sequence[Path], checkpoints: Checkpoints, state: ReplayedState, damage: Damage) -> Opened:
    """Give `state` the newest checkpoint and the records since, of the segments at `paths`; move a torn end aside.

    `damage` counts what was skipped. Raises OSError.
    """
    closed: list[Segment] = []
    numbers = [int(path.stem) for path in paths]
    known, head = checkpoints.load(paths, state)
    scanned = 0
    for path, number in zip(paths, numbers, strict=True):
        after = closed[-1].end - 1 if closed else max(first_seq(path) - 1, 0)
        extent = read_extent(path) if number <= known else None
        if extent is not None and extent.first > after:
            first, end, size = extent
        else:
            index = _rebuild(path, after, state if number > known else None, damage)
            first, end, size = index.first, index.first + len(index), path.stat().st_size
            scanned += size
        closed.append(Segment(path, first, end, size, path.stat().st_mtime))
        head = max(head, end - 1)
    if paths:
        sync_path(paths[-1])  # a hub that was killed may not have come to it
        if numbers[-1] > known:
            checkpoints.save(paths[-1], numbers[-1], head, state.save())
    checkpoints.newest = max(checkpoints.newest, known)
    return Opened(closed, head, scanned)


def _rebuild(path: Path, after: int, state: ReplayedState | None, damage: Damage) -> Index:
    """Read a segment that has no index to be believed, cut a torn end off, and leave an index beside it."""
    index, end = build_index(path, after, damage, state.restore if state is not None else None)
    if damage.torn:
        move_aside(path, end)
    with contextlib.suppress(OSError):  # the disk may be full; the next hub will read the segment again
        index.save(path)
    return index
