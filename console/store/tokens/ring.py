"""The newest token logprob pairs of a run, as many as fit a stated bound, ready to be ranked and shown.

    store = TokenStore()
    store.add(stamped.seq, decode_lean(stamped.body))      # a frame at a time; no Python per token
    store.token(row), store.sequence(number)               # what is on screen

Tokens lie sorted by sequence and position, so that a sequence is one slice. The difference is d = trainer - rollout,
as in `driftline.catalog.metrics`: both logprobs under the weights that sampled the token, whatever version the trainer
had come to meanwhile. A token of an older version is *stale* (`Token.lag` > 0); its d is still caused by the
backend.

Pure: no clock, no socket, no screen.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from console.store.tokens.frames import NO_PIECES, LeanTokens, pieces_of
from console.store.tokens.window import Window
from driftline.frames import floats, ints

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

TOKENS_KEPT: Final = 2**19
SEQUENCES_KEPT: Final = 2**16
TEXT_KEPT: Final = 32 * 1024 * 1024
"""Bytes of prompts and encoded pieces."""
ENGINES_KEPT: Final = 1024
MEMORY_BOUND: Final = 96 * 1024 * 1024
"""Bytes that a store takes at most, whatever producers send; checked by tests/unit/test_store_tokens.py."""

OCTAVES: Final = (-14, 5)
"""|d| is counted by half octaves from 2^-14 (6e-5 nats) to 2^5 (32 nats); smaller values count as equal."""
SIDE: Final = 2 * (OCTAVES[1] - OCTAVES[0])
BINS: Final = 2 * SIDE + 1
"""Bins of the signed difference: SIDE below zero, the middle one around it, SIDE above."""
_LOWEST: Final = (127 + OCTAVES[0]) << 1
_BLOCK_BYTES: Final = 512
_DECODED: Final = 1024 * 1024
"""Bytes of encoded pieces whose text is kept decoded: of some fifty frames."""
_NAME: Final = 64
OTHER: Final = "other"
"""Name of all engines beyond the first ENGINES_KEPT."""

_TOKEN_COLUMNS: Final = {
    "id": np.int32, "position": np.int32, "version": np.int32, "rollout": np.float32, "trainer": np.float32,
    "diff": np.float32, "size": np.float32, "bin": np.uint8, "sequence": np.int64,
}  # fmt: skip
_SEQUENCE_COLUMNS: Final = {
    "block": np.int64, "local": np.int32, "step": np.int64, "version": np.int64, "engine": np.int32,
    "first": np.int64, "count": np.int32, "low": np.int32, "high": np.int32, "mean": np.float64, "max": np.float32,
    "ratio": np.float64, "reward": np.float64,
}  # fmt: skip


@dataclass(slots=True, eq=False)
class Block:
    """Data of a frame beside its rows: `order` is each row's index in the frame, None if they are in its order."""

    number: int
    seq: int
    n: int
    first: int
    rows: int
    sequences: int
    prompts: tuple[str, ...]
    pieces: msgspec.Raw
    order: Ints | None
    text_bytes: int
    found: tuple[str, Bools] | None = field(default=None, repr=False)
    """Mask of its rows that contain a text, for the last text searched."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """One response. `version` is the trainer's at `step`; `low` to `high` are the versions that sampled it.

    `mean` and `max` are of |d| over its tokens in nats; `ratio` is the sum of d, the log of the sequence's importance
    ratio trainer/rollout; `reward` is NaN if none was reported. Tokens `first` to `first + count` are its own.
    """

    number: int
    step: int
    version: int
    engine: str
    prompt: str
    first: int
    count: int
    low: int
    high: int
    mean: float
    max: float
    ratio: float
    reward: float


@dataclass(frozen=True, slots=True)
class Token:
    """One token: `version` sampled it, `diff` = trainer - rollout in nats. `piece` is None where none was sent."""

    row: int
    id: int
    position: int
    version: int
    rollout: float
    trainer: float
    diff: float
    piece: str | None
    sequence: Sequence

    @property
    def lag(self) -> int:
        """Versions between the weights that sampled it and those that the trainer had come to."""
        return self.sequence.version - self.version


def bins(diff: Floats, size: Floats) -> npt.NDArray[np.uint8]:
    """The bin of each difference, from 0 to BINS - 1; `size` is |diff|, infinite where diff is not a number."""
    # Exponent and first bit of the mantissa are the half octave: no logarithm of a million numbers.
    half = np.minimum(np.maximum((size.view(np.int32) >> 22) - (_LOWEST - 1), 0), SIDE)
    return np.where(diff < 0, SIDE - half, SIDE + half).astype(np.uint8)


def bin_of(value: float) -> int:
    """The bin of one difference."""
    diff = np.array([value], np.float32)
    return int(bins(diff, np.abs(diff))[0])


class TokenStore:
    """Tokens of the newest frames. Not thread-safe: shared between threads it needs the caller's lock."""

    def __init__(self, tokens: int = TOKENS_KEPT, sequences: int = SEQUENCES_KEPT, text_bytes: int = TEXT_KEPT) -> None:
        self.tokens = Window(_TOKEN_COLUMNS, tokens)
        self.sequences = Window(_SEQUENCE_COLUMNS, sequences)
        self.blocks: deque[Block] = deque()
        self.head = 0
        """Number of the newest frame applied."""
        self.revision = 0
        """Changes with every change."""
        self.taken = 0
        """Tokens that ever came."""
        self.cut = 0
        """Tokens of frames larger than the whole store that had to be left out."""
        self.damaged = 0
        """Frames that could not be read, as their reader has counted them."""
        self._next_block = 0
        self._text_kept = text_bytes
        self._text = 0
        self._engines: dict[str, int] = {}
        self._decoded: OrderedDict[int, tuple[str, ...]] = OrderedDict()
        self._decoded_bytes = 0

    # -- adding

    def apply(self, seq: int, frame: LeanTokens | None) -> None:
        """Apply frame number `seq`, None for one that could not be read; a number at or below `head` rewinds first."""
        if seq <= self.head:
            self.rewind(seq - 1)
        if frame is None:
            self.damaged += 1
            self.head = seq
            self.revision += 1
        else:
            self.add(seq, frame)

    def add(self, seq: int, frame: LeanTokens) -> None:
        """Add frame number `seq`; the oldest are dropped to make room."""
        self.head = max(self.head, seq)
        own, position = ints(frame.seq), ints(frame.position)
        order = _order(own, position)
        rows = min(frame.n, self.tokens.capacity)
        self.taken += frame.n
        if rows == 0:
            return
        sort: Ints | slice = slice(0, rows) if order is None else order[:rows]
        own = own[sort]
        starts = np.concatenate(([0], np.flatnonzero(own[1:] != own[:-1]) + 1))
        if len(starts) > self.sequences.capacity:
            rows = int(starts[self.sequences.capacity])
            sort = slice(0, rows) if order is None else order[:rows]
            own, starts = own[:rows], starts[: self.sequences.capacity]
        self.cut += frame.n - rows
        prompts, pieces = frame.prompts, frame.pieces
        text = len(memoryview(pieces)) + sum(map(sys.getsizeof, prompts)) + _BLOCK_BYTES
        text += 0 if order is None else order[:rows].nbytes
        if text > self._text_kept:
            # Keep the numbers without a text that would evict everything else.
            prompts, pieces, text = (), NO_PIECES, _BLOCK_BYTES + 8 * rows
        self._evict(rows, len(starts), text)
        block = Block(
            self._next_block, seq, frame.n, self.tokens.end, rows, len(starts), prompts, pieces,
            None if order is None else order[:rows].copy(), text,
        )  # fmt: skip
        self._next_block += 1
        self._append(frame, block, sort, own, starts)
        self.blocks.append(block)
        self._text += text
        self.revision += 1

    def _append(
        self, frame: LeanTokens, block: Block, sort: Ints | slice, own: npt.NDArray[np.int32], starts: Ints
    ) -> None:
        rollout, trainer = floats(frame.rollout)[sort], floats(frame.trainer)[sort]
        version = ints(frame.token_version)[sort]
        with np.errstate(invalid="ignore", over="ignore"):
            diff = trainer - rollout
        size = np.abs(diff)
        # A difference that is not a number ranks as the worst, so that it comes first in every order.
        size[np.isnan(size)] = np.inf
        counts = np.append(starts[1:], block.rows) - starts
        local = own[starts].astype(np.int64)
        self.tokens.append(
            block.rows,
            {
                "id": ints(frame.ids)[sort], "position": ints(frame.position)[sort], "version": version,
                "rollout": rollout, "trainer": trainer, "diff": diff, "size": size, "bin": bins(diff, size),
                "sequence": np.repeat(np.arange(len(starts)) + self.sequences.end, counts),
            },
        )  # fmt: skip
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.add.reduceat(diff, starts, dtype=np.float64)
            mean = np.add.reduceat(size, starts, dtype=np.float64) / counts
        self.sequences.append(
            len(starts),
            {
                "block": block.number, "local": own[starts], "step": frame.step, "version": frame.version,
                "engine": _pick(np.array([self._code(name) for name in frame.engines], np.int32), local, -1),
                "first": block.first + starts, "count": counts,
                "low": np.minimum.reduceat(version, starts), "high": np.maximum.reduceat(version, starts),
                "mean": mean, "max": np.maximum.reduceat(size, starts), "ratio": total,
                "reward": _pick(np.array(frame.rewards, np.float64), local, np.nan),
            },
        )  # fmt: skip

    def rewind(self, seq: int) -> None:
        """Forget the frames after number `seq`: they come again, or were lost by the hub."""
        while self.blocks and self.blocks[-1].seq > seq:
            block = self.blocks[-1]
            self._forget_text(block)
            self.blocks.pop()
            self._next_block = block.number
            self.tokens.drop_newest(block.rows)
            self.sequences.drop_newest(block.sequences)
        self.head = min(self.head, seq)
        self.revision += 1

    def frozen_copy(self) -> TokenStore:
        """A copy of the store as it is now, to be read while the original goes on."""
        twin = TokenStore(self.tokens.capacity, self.sequences.capacity, self._text_kept)
        twin.tokens, twin.sequences = self.tokens.copy(), self.sequences.copy()
        twin.blocks = deque(self.blocks)
        twin.head, twin.revision, twin.taken = self.head, self.revision, self.taken
        twin.cut, twin.damaged = self.cut, self.damaged
        twin._text, twin._engines = self._text, dict(self._engines)
        twin._next_block = self._next_block
        return twin

    def _evict(self, tokens: int, sequences: int, text: int) -> None:
        while self.blocks and (
            len(self.tokens) + tokens > self.tokens.capacity
            or len(self.sequences) + sequences > self.sequences.capacity
            or self._text + text > self._text_kept
        ):
            block = self.blocks[0]
            self._forget_text(block)
            self.blocks.popleft()
            self.tokens.drop_oldest(block.rows)
            self.sequences.drop_oldest(block.sequences)

    def _forget_text(self, block: Block) -> None:
        self._text -= block.text_bytes
        self._undecode(block.number)

    def _undecode(self, number: int) -> None:
        if self._decoded.pop(number, None) is not None:
            self._decoded_bytes -= len(memoryview(self.block(number).pieces))

    def _code(self, engine: str) -> int:
        engine = engine[:_NAME]
        code = self._engines.get(engine)
        if code is None:
            engine = engine if len(self._engines) < ENGINES_KEPT - 1 else OTHER
            code = self._engines.setdefault(engine, len(self._engines))
        return code

    # -- reading

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns and of the text."""
        return self.tokens.nbytes + self.sequences.nbytes + self._text

    @property
    def engines(self) -> list[str]:
        """Names of the engines, by the code in the column."""
        return list(self._engines)

    def holds(self, row: int) -> bool:
        """Whether a token is still kept."""
        return self.tokens.first <= row < self.tokens.end

    def sequence(self, number: int) -> Sequence | None:
        """A response, None when it is not kept any more."""
        at = number - self.sequences.first
        if not 0 <= at < len(self.sequences):
            return None
        column = {name: self.sequences[name][at].item() for name in _SEQUENCE_COLUMNS}
        prompts, local = self.block(column["block"]).prompts, column.pop("local")
        names = self.engines
        engine = names[column["engine"]] if 0 <= column["engine"] < len(names) else ""
        del column["block"], column["engine"]
        prompt = prompts[local] if 0 <= local < len(prompts) else ""
        return Sequence(number=number, engine=engine, prompt=prompt, **column)

    def token(self, row: int) -> Token | None:
        """A token, None when it is not kept any more."""
        if not self.holds(row):
            return None
        at = row - self.tokens.first
        sequence = self.sequence(int(self.tokens["sequence"][at]))
        assert sequence is not None, "a token without its sequence"
        names = ("id", "position", "version", "rollout", "trainer", "diff")
        values = {name: self.tokens[name][at].item() for name in names}
        pieces = self.pieces(sequence.number, row, row + 1)
        return Token(row=row, piece=pieces[0] if pieces else None, sequence=sequence, **values)

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.generic]:
        """A column of the tokens `start` to `stop`, which must be kept."""
        first = self.tokens.first
        column: npt.NDArray[np.generic] = self.tokens[name][start - first : stop - first]
        return column

    def pieces(self, number: int, start: int, stop: int) -> list[str]:
        """The text of tokens `start` to `stop` of a sequence; empty where the producer sent none."""
        block = self.block(int(self.sequences["block"][number - self.sequences.first]))
        texts = self.texts(block)
        if not texts:
            return []
        begin, end = start - block.first, stop - block.first
        if block.order is None:
            return list(texts[begin:end])
        return [texts[at] for at in block.order[begin:end].tolist()]

    def block(self, number: int) -> Block:
        """Data of a frame beside its rows. Raises IndexError for one that was dropped."""
        return self.blocks[number - self.blocks[0].number]

    def texts(self, block: Block) -> tuple[str, ...]:
        """The text of every token of a frame, in the frame's order; () where there is none. The last few are kept."""
        texts = self._decoded.get(block.number)
        if texts is None:
            texts = pieces_of(block.pieces, block.n)
            self._decoded[block.number] = texts
            self._decoded_bytes += len(memoryview(block.pieces))
            while self._decoded_bytes > _DECODED and len(self._decoded) > 1:
                self._undecode(next(iter(self._decoded)))
        else:
            self._decoded.move_to_end(block.number)
        return texts


def _order(own: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> Ints | None:
    """Order that sorts tokens by sequence and position; None if they are sorted."""
    same, further = own[1:] == own[:-1], position[1:] >= position[:-1]
    if bool(((own[1:] > own[:-1]) | (same & further)).all()):
        return None
    order: Ints = np.lexsort((position, own))
    return order


def _pick(values: npt.NDArray[np.generic], at: Ints, missing: float) -> npt.NDArray[np.generic]:
    """`values[at]`, and `missing` where there is none."""
    if len(at) and at[0] >= 0 and at[-1] < len(values):
        return values[at]  # they ascend
    known = (at >= 0) & (at < len(values))
    picked = np.full(len(at), missing, values.dtype)
    picked[known] = values[at[known]]
    return picked
