"""Encoded frames of a run in blocks: a segment of the journal piece by piece, checked as `driftline.journal.records`
does.

A million records of half a kilobyte take seconds when each is checked on its own. Here their offsets are found first,
consecutive records of one length by one comparison, then heads and checksums of a whole block are checked together
(`console.recorded.crc`); at anything unexpected the record-by-record reader, which can go on after damage, takes over
the segment. No Polars: a console that opens a run reads it this way too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt

from console.recorded import crc
from driftline.frames import DECODE_ERRORS, Stamped
from driftline.journal.records import HEADER, MAGIC, MAX_RECORD, PREFIX, Damage, scan, segments
from driftline.rundir import RunDir

BLOCK: Final = 4 * 1024 * 1024
"""Bytes that are read together; the arrays made of them still fit the processor's cache."""

Rows = npt.NDArray[np.uint8]
Seqs = npt.NDArray[np.uint64]

_MAGIC: Final = int.from_bytes(MAGIC, "little")
_HEAD_BYTES: Final = PREFIX - 4
_MANY: Final = 16
"""Smallest number of consecutive records of one length that are checked by one CRC; fewer are faster singly."""

encoder: Final = msgspec.msgpack.Encoder()
decoder: Final[msgspec.msgpack.Decoder[Stamped]] = msgspec.msgpack.Decoder(Stamped)

_FLOAT: Final = 0xCB
_FLOAT_BYTES: Final = 8
_SIZES: Final = np.array(
    [0 if b < 0x80 else {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.get(b, 0) for b in range(256)], np.int64
)
_TAGGED: Final = 0xA1


class Run(NamedTuple):
    """Records of one length in a row: the first body begins at `at`, the next ones every `stride` bytes."""

    at: int
    n: int
    length: int
    stride: int


class Block:
    """Encoded records in a row, in the order of their numbers: bodies of `runs` in one buffer. Iterates over bodies.

    `seqs` are their sequence numbers, uint64 of shape (n,), once the heads of the records were read.
    """

    def __init__(self, buffer: bytes, runs: list[Run], seqs: Seqs | None = None) -> None:
        self.buffer = buffer
        self.runs = runs
        self.seqs: Seqs = np.empty(0, np.uint64) if seqs is None else seqs

    @classmethod
    def from_bodies(cls, bodies: Iterable[bytes], seqs: Iterable[int] = ()) -> Block:
        """A block of bodies that come from elsewhere."""
        given = list(bodies)
        runs, at = [], 0
        for body in given:
            runs.append(Run(at, 1, len(body), len(body)))
            at += len(body)
        return cls(b"".join(given), _merged(runs), np.fromiter(seqs, np.uint64))

    def __len__(self) -> int:
        return sum(run.n for run in self.runs)

    def __iter__(self) -> Iterator[bytes]:
        for at, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield self.buffer[at:end]

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Offset of each body's first byte, shape (n,)."""
        at, count, _, stride = self._columns
        behind = np.arange(len(self)) - np.repeat(np.cumsum(count) - count, count)
        return np.asarray(np.repeat(at, count) + behind * np.repeat(stride, count))

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Offset behind each body's last byte, shape (n,)."""
        _, count, length, _ = self._columns
        return np.asarray(self.starts + np.repeat(length, count))

    @cached_property
    def tags(self) -> npt.NDArray[np.uint8]:
        """The one-letter tag (as a byte) of each body's frame, 0 for what has none; shape (n,).

        Read at the offset where this project's hub writes it; a body of another form (another hub may write an integer
        where ours writes a float) is decoded.
        """
        data = np.frombuffer(self.buffer, np.uint8)
        last = max(len(data) - 1, 0)

        def byte(at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            # A body may be shorter than one that has a tag.
            return np.asarray(data[np.minimum(at, last)], np.int64)

        at = self.starts + 1
        seq = byte(at)
        usual = (byte(at - 1) & 0xF0 == 0x90) & ((seq < 0x80) | ((seq >= 0xCC) & (seq <= 0xCF)))
        at += 1 + _SIZES[seq]
        usual &= byte(at) == _FLOAT
        at += 1 + _FLOAT_BYTES
        marker = byte(at)
        small = (marker >= 0xA0) & (marker < 0xC0)
        if small.all():
            at += marker - (0xA0 - 1)
        else:
            usual &= small | (marker == 0xD9) | (marker == 0xDA)
            long = np.where(marker == 0xD9, 2 + byte(at + 1), 3 + byte(at + 1) * 256 + byte(at + 2))
            at += np.where(small, marker - (0xA0 - 1), long)
        array = byte(at)
        usual &= (array & 0xF0 == 0x90) | (array == 0xDC)
        at += np.where(array == 0xDC, 3, 1)
        usual &= (byte(at) == _TAGGED) & (at + 1 < self.ends)
        tags = np.where(usual, byte(at + 1), 0).astype(np.uint8)
        odd = np.flatnonzero(~usual)
        for place, body in zip(odd.tolist(), self.bodies(odd), strict=True):
            tags[place] = _tag(body)
        return tags

    def having(self, tags: Iterable[int]) -> list[bytes]:
        """The bodies of the frames of some tags."""
        return self.bodies(np.flatnonzero(np.isin(self.tags, np.fromiter(tags, np.uint8))))

    def bodies(self, which: npt.NDArray[np.int64]) -> list[bytes]:
        """Some of the bodies, by their places in the block."""
        places = zip(self.starts[which].tolist(), self.ends[which].tolist(), strict=True)
        return [self.buffer[at:end] for at, end in places]

    def first(self, count: int) -> Block:
        """The first `count` records."""
        runs, left = [], count
        for run in self.runs:
            if left > 0:
                runs.append(run if run.n <= left else run._replace(n=left))
            left -= run.n
        return Block(self.buffer, runs, self.seqs[:count])

    def rows(self, run: Run) -> Rows:
        """The bodies of one run, uint8 of shape (count, length), not copied."""
        return np.ndarray((run.n, run.length), np.uint8, self.buffer, run.at, (run.stride, 1))

    @cached_property
    def _columns(self) -> tuple[npt.NDArray[np.int64], ...]:
        table = np.array(self.runs, dtype=np.int64).reshape(-1, 4)
        return tuple(table.T)


def _tag(body: bytes) -> int:
    """The tag of one body's frame as a byte, by decoding it; 0 where it has none."""
    try:
        frame = msgspec.msgpack.decode(decoder.decode(body).body)
    except DECODE_ERRORS:
        return 0
    tag = frame[0] if isinstance(frame, list) and frame else None
    return ord(tag) if isinstance(tag, str) and len(tag) == 1 and tag.isascii() else 0


def encode(stamped: Stamped) -> bytes:
    """A stamped frame encoded as in a block."""
    return encoder.encode(stamped)


def run_segments(run: RunDir) -> list[tuple[int, Path | None]]:
    """Numbers of a run's segments, with their files where the journal still has them; it only ever deletes the oldest.

    A segment without a file is in the compacted Parquet.
    """
    found: dict[int, Path | None] = {}
    if run.parquet.is_dir():
        found = {int(note.stem): None for note in run.parquet.glob("*.json") if note.stem.isdecimal()}
    found |= {int(path.stem): path for path in segments(run.journal)}
    return sorted(found.items())


def segment(path: Path, damage: Damage) -> Iterator[Block]:
    """The encoded records of a segment in blocks; `damage` counts what was skipped. Empty if the file is gone."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return
    with file:
        at, last, want = HEADER, 0, BLOCK
        while buffer := os.pread(file.fileno(), want, at):
            runs, end, clean = _walk(buffer)
            if not runs and clean and len(buffer) == want and want < PREFIX + MAX_RECORD:
                want = PREFIX + MAX_RECORD  # one record that is larger than a block
                continue
            want = BLOCK
            block = Block(buffer, runs)
            sound = _checked(block, last)
            clean = clean and sound == len(block)
            if sound:
                last = int(block.seqs[sound - 1])
                yield block if sound == len(block) else block.first(sound)
            at += end
            if not clean or not runs:
                break
        else:
            return  # read to its end
        with path.open("rb") as again:
            yield from _one_by_one(again, last, damage)


def _walk(buffer: bytes) -> tuple[list[Run], int, bool]:
    """Records by the length in each head, where the last of them ends, and False for an impossible length."""
    runs: list[Run] = []
    at, size, before, alike = 0, len(buffer), -1, 0
    from_bytes = int.from_bytes
    while at + PREFIX <= size:
        length = from_bytes(buffer[at + 4 : at + 8], "little")
        if length > MAX_RECORD:
            return _merged(runs), at, False
        stride = PREFIX + length
        if at + stride > size:
            break
        alike = alike + 1 if length == before else 0
        count = _alike(buffer, at, stride) if alike == 2 else 1  # counting them pays only from the third on
        runs.append(Run(at + PREFIX, count, length, stride))
        at, before = at + count * stride, length
    return _merged(runs), at, True


def _alike(buffer: bytes, at: int, stride: int) -> int:
    """Number of consecutive records from here on with the same magic and length."""
    words = np.ndarray(((len(buffer) - at) // stride,), "<u8", buffer, at, (stride,))
    same = words == words[0]
    return len(words) if same.all() else int(same.argmin())


def _merged(runs: list[Run]) -> list[Run]:
    """Runs that follow on each other with the same length as one."""
    found: list[Run] = []
    for run in runs:
        if found and found[-1].length == run.length and found[-1].at + found[-1].n * run.stride == run.at:
            found[-1] = found[-1]._replace(n=found[-1].n + run.n)
        else:
            found.append(run)
    return found


def _checked(block: Block, last: int) -> int:
    """Set the block's numbers from the heads; returns how many records, from the first on, are intact and numbered in
    ascending order above `last`.
    """
    seqs, stored = np.empty(len(block), np.uint64), np.empty(len(block), np.uint32)
    single = np.ones(len(block), np.bool_)
    done = 0
    for run in block.runs:
        if run.n >= _MANY:
            part = slice(done, done + run.n)
            seqs[part] = np.ndarray((run.n,), "<u8", block.buffer, run.at - PREFIX + 8, (run.stride,))
            stored[part] = np.ndarray((run.n,), "<u4", block.buffer, run.at - 4, (run.stride,))
            single[part] = not _whole(block.buffer, run, seqs[part], stored[part])
        done += run.n
    wrong = np.zeros(len(block), np.bool_)
    which = np.flatnonzero(single)
    if len(which):
        seqs[which], wrong[which] = _each(block, which)
    wrong[:1] |= seqs[:1] <= last
    wrong[1:] |= seqs[1:] <= seqs[:-1]
    block.seqs = seqs
    return int(wrong.argmax()) if wrong.any() else len(wrong)


def _whole(buffer: bytes, run: Run, seqs: Seqs, stored: npt.NDArray[np.uint32]) -> bool:
    """Whether all the records of a run are intact."""
    start = run.at - PREFIX
    end = start + run.n * run.stride
    expected = crc.records_checksum(seqs, stored, run.length)
    if start == 0 and 2 * end > len(buffer):
        # Without a slice of the buffer, which would copy it.
        whole: int = google_crc32c.value(buffer)
        return whole == int(google_crc32c.extend(expected, buffer[end:]))
    part: int = google_crc32c.value(buffer[start:end])
    return part == expected


def _each(block: Block, which: npt.NDArray[np.int64]) -> tuple[Seqs, npt.NDArray[np.bool_]]:
    """Numbers of some records, each checked on its own, and which of them are damaged."""
    starts, ends = block.starts[which], block.ends[which]
    heads = np.frombuffer(block.buffer, np.uint8)[starts[:, None] - PREFIX + np.arange(PREFIX)]
    words = heads.view("<u4")
    bodies = [block.buffer[at:end] for at, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    found = np.fromiter(
        map(google_crc32c.extend, crc.row_checksums(heads[:, :_HEAD_BYTES]), bodies), np.uint32, len(which)
    )
    wrong = (words[:, 0] != _MAGIC) | (found != words[:, 4])
    return np.ascontiguousarray(heads[:, 8:16]).view("<u8")[:, 0], wrong


def _one_by_one(file: BinaryIO, last: int, damage: Damage) -> Iterator[Block]:
    """The records after number `last`, read one by one."""
    seqs: list[int] = []
    bodies: list[bytes] = []
    size = 0
    for _, seq, body in scan(file, damage):
        if seq <= last:
            continue
        seqs.append(seq)
        bodies.append(body)
        size += len(body)
        if size >= BLOCK:
            yield Block.from_bodies(bodies, seqs)
            seqs, bodies, size = [], [], 0
    if bodies:
        yield Block.from_bodies(bodies, seqs)
