"""A log that is still written: what it has that was not given before, as frames.

The log is read anew whenever it has grown, so that a followed run has the numbers, steps and names that `driftline
import` would find in it, by the one reader of each kind. What that costs is for the caller to spread over time.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from console.importing.folders import list_files
from console.importing.import_run import read, targets
from console.importing.rows import LogImportError, Row, SeveralRunsError, UnknownKindError
from console.importing.write import row_metrics
from driftline.catalog.naming import Target
from driftline.frames import Metrics

Signature = tuple[tuple[str, int, int], ...]


class GrowingLog:
    """The log at `path`, which need not be there yet. `step` and `only` as `console.importing.import_run.read` takes
    them.

    `waiting` is the sentence that says why nothing can be read yet, "" once it could. `kind` and `title` are the log's,
    `notes` sentences about how it was read, `left_out` lines about what was not, as of the last time.
    """

    def __init__(self, path: Path, step: str | None = None, only: str | None = None) -> None:
        self._path, self._step, self._only = path, step, only
        self._seen: Signature = ()
        self._given: dict[tuple[int, int], bytes] = {}
        self.waiting = f"{path}: not there yet"
        self.kind = self.title = ""
        self.notes: tuple[str, ...] = ()
        self.left_out: tuple[str, ...] = ()
        self.targets: dict[str, Target] = {}

    def poll(self) -> Iterator[tuple[int, Metrics]]:
        """Rows that are new, and rows that have changed, in the order of the log: (life, frame).

        `life` counts how often the log went back to an earlier step. Raises SeveralRunsError, and UnknownKindError for
        a file that is no log of a known kind; a log that cannot be read otherwise is waited for.
        """
        now = self._signature()
        if now == self._seen or not now:
            return
        try:
            log = read(self._path, self._step, self._only)
        except (SeveralRunsError, UnknownKindError):
            raise
        except LogImportError as error:
            self.waiting = str(error)
            return
        finally:
            self._seen = now
        self.waiting = ""
        self.kind, self.title = log.kind, log.title
        self.notes, self.left_out = tuple(log.notes), tuple(log.left.lines())
        self.targets = targets(log)
        moment, life, before = time.time(), 0, -1
        for row in log.rows:
            life += row.step < before
            before = row.step
            digest = self._digest(row)
            if self._given.get((life, row.step)) != digest:
                self._given[life, row.step] = digest
                for frame in row_metrics(row, row.time or moment, self.targets):
                    yield life, frame

    def _digest(self, row: Row) -> bytes:
        """Eight bytes that change with any number of a row, and with the name that a number is given under."""
        digest = hashlib.blake2b(digest_size=8)
        for name, value in row.values.items():
            target = self.targets[name]
            digest.update(f"{target.name}\0{target.label}\0{value!r}\0".encode())
        return digest.digest()

    def _signature(self) -> Signature:
        """Name, size and time of change of every file; empty while there is none."""
        unreadable: list[OSError] = []
        paths = list_files(self._path, unreadable) if self._path.is_dir() else [self._path]
        found = []
        for path in paths:
            try:
                status = os.stat(path)
            except OSError:  # gone since it was listed: the next time says so
                continue
            found.append((str(path), status.st_size, status.st_mtime_ns))
        return tuple(found)
