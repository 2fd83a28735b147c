"""Where a run's tables come from: its directory (journal and compacted Parquet), or its hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import polars as pl

from console.export import compacted
from console.export.build import batches
from console.export.projection import EVERYTHING, Want
from console.export.schema import STORED
from console.recorded import frames
from console.recorded.blocks import Block, decoder, encode, run_segments, segment
from driftline.client import Client
from driftline.config import digest
from driftline.frames import DECODE_ERRORS, FrameError, RunState, Stamped
from driftline.journal.records import Damage
from driftline.rundir import RunDir, RunError

_LOOK: Final = 4096
"""Frames to look through for a first RunState: a trainer sends one when it starts."""


class SourceError(RuntimeError):
    """Tables of a run that cannot be read; the message is a sentence."""


class Source(Protocol):
    """A run whose tables can be read any number of times. `damage` counts what the last reading had to skip."""

    id: str

    @property
    def damage(self) -> Damage:
        """What the last reading had to skip."""

    def parts(self, stored: str, want: Want = EVERYTHING) -> Iterator[pl.DataFrame]:
        """A stored table in parts of bounded size, in the order of the frames' numbers; `want` is a hint."""

    def config_digest(self) -> str:
        """Digest of the configuration as run, "" where nobody knows it."""

    def synthetic(self) -> bool:
        """Whether the run calls itself synthetic."""


class Directory:
    """A run directory: live, ended or a copy. A segment that the journal no longer has is read from its Parquet."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.id = run.id
        self.damage = Damage()

    def parts(self, stored: str, want: Want = EVERYTHING) -> Iterator[pl.DataFrame]:
        self.damage = Damage()
        journal = []
        for number, path in run_segments(self.run):
            if path is not None:
                journal.append(path)
            else:
                yield from self._compacted(number, stored, want)
        yield from batches(stored, self._blocks(journal), want=want)

    def _compacted(self, number: int, stored: str, want: Want) -> Iterator[pl.DataFrame]:
        try:
            yield from compacted.parts(self.run, number, stored, want)
        except frames.unreadable() as error:
            raise SourceError(frames.damaged(self.run, number)) from error

    def config_digest(self) -> str:
        try:
            return digest(self.run.config.read_text(encoding="utf-8"))
        except OSError:
            return _first_state(self._look()).config_digest  # a run of somebody's own trainer, or an imported one

    def synthetic(self) -> bool:
        try:
            if self.run.connection().synthetic:
                return True
        except RunError:
            pass  # never had a hub, or the copy left the file out: the run's own word counts
        return _first_state(self._look()).synthetic

    def _blocks(self, paths: list[Path]) -> Iterator[Block]:
        for path in paths:
            if path.exists():
                yield from segment(path, self.damage)
                continue
            # Since it was listed: a hub deletes what is compacted.
            gone = frames.compacted(self.run, int(path.stem))
            while some := list(islice(gone, _LOOK)):
                yield Block.from_bodies(map(encode, some))

    def _look(self) -> Iterator[Stamped]:
        def blocks() -> Iterator[Block]:
            for number, path in run_segments(self.run):
                yield from compacted.frames(self.run, number) if path is None else segment(path, Damage())

        yield from _decoded(blocks())


class Hub:
    """A live run as its hub tells it: every frame up to the head at the time of the first question."""

    def __init__(self, client: Client, run_id: str) -> None:
        self.id = run_id
        self.damage = Damage()
        self._client = client
        self._snapshot = client.snapshot()

    def parts(self, stored: str, want: Want = EVERYTHING) -> Iterator[pl.DataFrame]:
        yield from batches(stored, self._pages(tokens="t" in STORED[stored].tags), want=want)

    def config_digest(self) -> str:
        return _first_state(self._snapshot.states).config_digest

    def synthetic(self) -> bool:
        return _first_state(self._snapshot.states).synthetic

    def _pages(self, *, tokens: bool) -> Iterator[Block]:
        start = 1
        while start <= self._snapshot.head:
            page = self._client.page(start, tokens=tokens)
            yield Block.from_bodies(encode(one) for one in page.frames if one.seq <= self._snapshot.head)
            if page.next <= start:
                return
            start = page.next


def _decoded(blocks: Iterable[Block]) -> Iterator[Stamped]:
    looked = 0
    for block in blocks:
        for one in block.having(b"r"):
            try:
                yield decoder.decode(one)
            except DECODE_ERRORS:
                continue  # of a newer hub
        looked += len(block)
        if looked > _LOOK:
            return


def _first_state(stamped: Iterable[Stamped]) -> RunState:
    """The first RunState, or one that knows nothing."""
    for one in stamped:
        try:
            frame = one.frame()
        except FrameError:
            continue
        if isinstance(frame, RunState):
            return frame
    return RunState("", "starting", 0, 0, 0, 0.0)
