"""Sources of a run's tables: its directory (journal and compacted Parquet), or its hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import polars as pl

from console.export import compacted, numbers
from console.export.build import batches
from console.export.numbers import Names, Numbers
from console.export.projection import EVERYTHING, Projection
from console.export.schema import STORED
from console.recorded import frames
from console.recorded.blocks import Block, decoder, encode, run_segments, segment
from driftline import toml_file
from driftline.client import Client
from driftline.config import ConfigError, digest
from driftline.frames import DECODE_ERRORS, FrameError, RunState, Stamped
from driftline.journal.holes import lacks
from driftline.journal.records import Damage
from driftline.rundir import RunDir, RunError

_SEARCHED_FRAMES: Final = 4096
"""Frames to search for a first RunState: a trainer sends one when it starts."""


class SourceError(RuntimeError):
    """Tables of a run that cannot be read; the message is a sentence."""


class Source(Protocol):
    """A run whose tables can be read any number of times. `damage` counts what the last reading had to skip."""

    id: str

    @property
    def damage(self) -> Damage:
        """Damage that the last reading had to skip."""

    def parts(self, stored: str, projection: Projection = EVERYTHING) -> Iterator[pl.DataFrame]:
        """A stored table in parts of bounded size, in the order of the frames' numbers; `projection` is a hint."""

    def numbers(self, names: Names, producers: dict[str, int]) -> Iterator[Numbers]:
        """The stored table `reports` as arrays, in parts; codes of names and of producers are added to those given."""

    def missing(self) -> list[str]:
        """What its journal lacks, in clauses; nothing where that is not known."""

    def config_digest(self) -> str:
        """Digest of the configuration as run, "" if it is unknown."""

    def synthetic(self) -> bool:
        """Whether the run is labelled as synthetic."""


class Directory:
    """A run directory: live, ended or a copy. A segment that the journal no longer has is read from its Parquet."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.id = run.id
        self.damage = Damage()

    def parts(self, stored: str, projection: Projection = EVERYTHING) -> Iterator[pl.DataFrame]:
        self.damage = Damage()
        journal = []
        for number, path in run_segments(self.run):
            if path is not None:
                journal.append(path)
            else:
                yield from self._compacted(number, stored, projection)
        yield from batches(stored, self._blocks(journal), projection=projection)

    def numbers(self, names: Names, producers: dict[str, int]) -> Iterator[Numbers]:
        self.damage = Damage()
        journal = []
        for number, path in run_segments(self.run):
            if path is not None:
                journal.append(path)
                continue
            with self._readable(number):
                found = compacted.numbers(self.run, number, names, producers)
            yield found
        yield from numbers.batches(self._blocks(journal), names, producers)

    @contextlib.contextmanager
    def _readable(self, number: int) -> Iterator[None]:
        """Raises SourceError for what is raised when a compacted segment is damaged."""
        try:
            yield
        except frames.unreadable() as error:
            raise SourceError(frames.damaged(self.run, number)) from error

    def _compacted(self, number: int, stored: str, projection: Projection) -> Iterator[pl.DataFrame]:
        with self._readable(number):
            yield from compacted.parts(self.run, number, stored, projection)

    def missing(self) -> list[str]:
        return lacks(self.run)

    def config_digest(self) -> str:
        try:
            return digest(toml_file.read(self.run.config, ConfigError))
        except ConfigError:
            return _first_state(
                self._search_frames()
            ).config_digest  # a run of a user's own trainer, or an imported one

    def synthetic(self) -> bool:
        try:
            if self.run.connection().synthetic:
                return True
        except RunError:
            pass  # never had a hub, or the copy left the file out: the run's own state counts
        return _first_state(self._search_frames()).synthetic

    def _blocks(self, paths: list[Path]) -> Iterator[Block]:
        for path in paths:
            if path.exists():
                yield from segment(path, self.damage)
                continue
            # Deleted since it was listed: a hub deletes compacted segments.
            gone = frames.compacted(self.run, int(path.stem))
            while some := list(islice(gone, _SEARCHED_FRAMES)):
                yield Block.from_bodies(map(encode, some))

    def _search_frames(self) -> Iterator[Stamped]:
        def blocks() -> Iterator[Block]:
            for number, path in run_segments(self.run):
                yield from compacted.frames(self.run, number) if path is None else segment(path, Damage())

        yield from _decoded(blocks())


class Hub:
    """A live run as its hub has it: every frame up to the head at the time of construction."""

    def __init__(self, client: Client, run_id: str) -> None:
        self.id = run_id
        self.damage = Damage()
        self._client = client
        self._snapshot = client.snapshot()

    def parts(self, stored: str, projection: Projection = EVERYTHING) -> Iterator[pl.DataFrame]:
        yield from batches(stored, self._pages(tokens="t" in STORED[stored].tags), projection=projection)

    def numbers(self, names: Names, producers: dict[str, int]) -> Iterator[Numbers]:
        yield from numbers.batches(self._pages(tokens=False), names, producers)

    def missing(self) -> list[str]:
        return list(self._snapshot.missing)

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
        if looked > _SEARCHED_FRAMES:
            return


def _first_state(stamped: Iterable[Stamped]) -> RunState:
    """The first RunState, or an empty one."""
    for one in stamped:
        try:
            frame = one.frame()
        except FrameError:
            continue
        if isinstance(frame, RunState):
            return frame
    return RunState("", "starting", 0, 0, 0, 0.0)
