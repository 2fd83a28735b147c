"""The checkpoints of a journal: the hub's state as of the end of its newest closed segments."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from driftline.journal.disk import sync_path
from driftline.journal.index import CHECKPOINT, load_checkpoint, save_checkpoint
from driftline.journal.records import SUFFIX
from driftline.journal.replayed import ReplayedState

CHECKPOINTS_KEPT: Final = 2

log = logging.getLogger("driftline.hub")


class Checkpoints:
    """Those in one folder. `newest` is the number of the segment that the newest stands for, 0 for none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.newest = 0

    def load(self, paths: Sequence[Path], state: ReplayedState) -> tuple[int, int]:
        """Give the newest checkpoint that can be believed to `state`; return the number of its segment and its head,
        or zeros. `paths` are the segments.

        The segment itself may be gone: where retention took everything that was closed, its checkpoint stands for it.
        """
        oldest = int(paths[0].stem) if paths else 0
        left = [path.with_suffix(SUFFIX) for path in self._folder.glob(f"*{CHECKPOINT}") if path.stem.isdecimal()]
        outlived = [path for path in left if int(path.stem) < oldest]
        for path in [*reversed(paths), *sorted(outlived, reverse=True)]:
            found = load_checkpoint(path)
            if found is None:
                continue
            try:
                state.load(found[1])
            except ValueError as error:
                log.info("%s: not used: %s", path.with_suffix(CHECKPOINT), error)
                continue
            return int(path.stem), found[0]
        return 0, 0

    def save(self, path: Path, number: int, head: int, saved: bytes) -> None:
        """Leave a checkpoint beside a segment. It can be made again: a failure is not an error."""
        try:
            save_checkpoint(path, head, saved)
        except OSError as error:
            log.warning("%s: %s", path.with_suffix(CHECKPOINT), error.strerror or error)
            return
        self.newest = number
        try:
            outdated = sorted(self._folder.glob(f"*{CHECKPOINT}"))[:-CHECKPOINTS_KEPT]
            if outdated:  # one of them may be all that is left of deleted segments
                sync_path(path.with_suffix(CHECKPOINT))
            for old in outdated:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: older ones stay: %s", path.with_suffix(CHECKPOINT), error.strerror or error)
