"""Tokens frames into the tables `tokens` (a row a token) and `sequences` (a row a sequence). Only with arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from console.export.polars_columns import schema, series, times
from console.export.projection import EVERYTHING, Projection
from console.export.schema import STORED
from console.recorded.blocks import Block, decoder
from console.recorded.compaction.read_wide import nulls
from driftline.frames import DECODE_ERRORS, Count, FrameError, Stamped, Step, Time, Tokens, Version, floats, ints


class _Head(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="t"):
    """The beginning of a Tokens frame, which is decoded without copying the rest."""

    step: Step
    version: Version
    time: Time
    n: Count


_heads: Final[msgspec.msgpack.Decoder[_Head]] = msgspec.msgpack.Decoder(_Head)


def frames(block: Block, projection: Projection = EVERYTHING) -> list[tuple[int, Tokens]]:
    """Numbers and Tokens frames of a block; without those that cannot be read or are not wanted."""
    found = []
    for stamped in _wanted(block, projection):
        try:
            frame = stamped.frame()
        except FrameError:
            continue  # of a newer producer
        if isinstance(frame, Tokens):
            found.append((stamped.seq, frame))
    return found


def _wanted(block: Block, projection: Projection) -> list[Stamped]:
    found = []
    for one in block.having(b"t"):
        try:
            found.append(decoder.decode(one))
        except DECODE_ERRORS:
            continue  # of a newer hub
    if projection.where is None or not found:
        return found
    heads = []
    for stamped in found:
        try:
            heads.append(_heads.decode(stamped.body))
        except DECODE_ERRORS:
            heads.append(_Head(0, 0, 0.0, 0))  # left out when the frame is decoded
    keys = [
        series("seq", "int", [stamped.seq for stamped in found]),
        series("step", "int", [head.step for head in heads]),
        series("version", "int", [head.version for head in heads]),
        series("time", "time", [head.time for head in heads]),
    ]
    wanted = projection.rows(pl.DataFrame(keys))
    return found if wanted is None else [one for one, yes in zip(found, wanted.tolist(), strict=True) if yes]


class TokenRows:
    """Collects Tokens frames and gives one row for each token, in the order in which they were sent."""

    def __init__(self, projection: Projection = EVERYTHING) -> None:
        self._projection = projection
        self._frames: list[tuple[int, Tokens]] = []
        self.rows = 0

    def add(self, block: Block) -> None:
        """Add the Tokens frames of a block."""
        for seq, frame in frames(block, self._projection):
            self._frames.append((seq, frame))
            self.rows += frame.n

    def is_full(self, rows: int) -> bool:
        """Whether there are so many rows."""
        return self.rows >= rows

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows added since the last call, as one part."""
        yield self._frame()

    def _frame(self) -> pl.DataFrame:
        """The rows added since the last call. `engine` and `piece` are null where the producer gave none."""
        taken, self._frames, self.rows = self._frames, [], 0
        if not taken:
            return pl.DataFrame(schema=schema(STORED["tokens"].columns))
        made = _COLUMNS.items()
        return pl.DataFrame([make(taken) for name, make in made if name == "seq" or self._projection.has(name)])


class SequenceRows(TokenRows):
    """Collects Tokens frames and gives one row for each sequence that has tokens in one."""

    def _frame(self) -> pl.DataFrame:
        """The rows added since the last call."""
        taken, self._frames, self.rows = self._frames, [], 0
        if not taken:
            return pl.DataFrame(schema=schema(STORED["sequences"].columns))
        columns = [make(taken) for make in _COLUMNS.values()]
        columns += [
            _of_sequence("prompt", taken, [frame.prompts for _, frame in taken], pl.String()),
            _of_sequence("reward", taken, [frame.rewards for _, frame in taken], pl.Float64()),
        ]
        return sequences(pl.DataFrame(columns))


def sequences(tokens: pl.DataFrame) -> pl.DataFrame:
    """Sequences of whole Tokens frames, given as the columns of `tokens` with `prompt` and `reward` besides.

    `rollout_sum` and `trainer_sum` are a sequence's logprobs, `abs_diff_*` those of |trainer - rollout| over its
    tokens, `version_*` the oldest and newest weights that sampled one of them.
    """
    # Sums in the order of the tokens and in double precision, wherever the columns come from: equal to the last bit.
    keys = tokens["seq"].to_numpy() * 2**32 + tokens["sequence"].to_numpy().astype(np.int64)
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    count = len(first)
    versions = tokens["token_version"].to_numpy()
    size = np.bincount(place, minlength=count)
    largest = np.full(count, -np.inf)
    with np.errstate(invalid="ignore"):  # a logprob may be any float; NaN stays NaN
        rollout, trainer = (tokens[name].to_numpy().astype(np.float64) for name in ("rollout", "trainer"))
        difference = np.abs(trainer - rollout)
        np.maximum.at(largest, place, difference)
    oldest, newest = versions[first].copy(), versions[first].copy()
    np.minimum.at(oldest, place, versions)
    np.maximum.at(newest, place, versions)

    def summed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(place, weights=values, minlength=count), dtype=np.float64)

    columns = tokens[first].with_columns(
        pl.Series("tokens", size.astype(np.int64)),
        pl.Series("version_min", oldest),
        pl.Series("version_max", newest),
        pl.Series("rollout_sum", summed(rollout)),
        pl.Series("trainer_sum", summed(trainer)),
        pl.Series("abs_diff_mean", summed(difference) / size),
        pl.Series("abs_diff_max", largest),
        _texts(tokens["piece"], place),
    )
    return columns.select(list(STORED["sequences"].columns))


_Taken = list[tuple[int, Tokens]]


def _of_frame(name: str, field: Callable[[int, Tokens], int]) -> Callable[[_Taken], pl.Series]:
    """A whole number of each frame, for each of its tokens."""

    def made(taken: _Taken) -> pl.Series:
        values = np.array([field(seq, frame) for seq, frame in taken], dtype=np.int64)
        return pl.Series(name, np.repeat(values, [frame.n for _, frame in taken]))

    return made


def _of_token(
    name: str, field: Callable[[Tokens], npt.NDArray[np.int32] | npt.NDArray[np.float32]]
) -> Callable[[_Taken], pl.Series]:
    """A number of each token."""
    return lambda taken: pl.Series(name, np.concatenate([field(frame) for _, frame in taken]))


def _time(taken: _Taken) -> pl.Series:
    # Made a time once a frame, not once a token.
    when = times("time", np.array([frame.time for _, frame in taken], dtype=np.float64))
    which = np.repeat(np.arange(len(taken), dtype=np.uint32), [frame.n for _, frame in taken])
    return when.gather(pl.Series(which))


def _engines(taken: _Taken) -> pl.Series:
    return _of_sequence("engine", taken, [frame.engines for _, frame in taken], pl.String())


def _of_sequence(
    name: str, taken: list[tuple[int, Tokens]], given: Sequence[tuple[object, ...]], dtype: pl.DataType
) -> pl.Series:
    """The value given for each token's sequence, null where none was; gathered from one list of all given values."""
    values: list[object] = []
    places = np.empty(sum(frame.n for _, frame in taken), dtype=np.int64)
    at = 0
    for (_, frame), some in zip(taken, given, strict=True):
        own = ints(frame.seq)
        known = (own >= 0) & (own < len(some))
        places[at : at + frame.n] = np.where(known, own.astype(np.int64) + len(values), -1)
        values += some
        at += frame.n
    if not values:
        return nulls(name, dtype, len(places))
    found = pl.Series(name, values, dtype=dtype).gather(pl.Series(np.maximum(places, 0).astype(np.uint32)))
    missing = places < 0
    return pl.select(pl.when(pl.Series(~missing)).then(found)).to_series().alias(name) if missing.any() else found


def _pieces(taken: list[tuple[int, Tokens]]) -> pl.Series:
    if not any(frame.pieces for _, frame in taken):
        return nulls("piece", pl.String(), sum(frame.n for _, frame in taken))
    found: list[str | None] = []
    for _, frame in taken:
        # Fewer or more of them than tokens: then they cannot be assigned.
        found += frame.pieces if len(frame.pieces) == frame.n else [None] * frame.n
    return pl.Series("piece", found, dtype=pl.String())


_COLUMNS: Final[dict[str, Callable[[_Taken], pl.Series]]] = {
    "seq": _of_frame("seq", lambda seq, _: seq),
    "step": _of_frame("step", lambda _, frame: frame.step),
    "version": _of_frame("version", lambda _, frame: frame.version),
    "time": _time,
    "sequence": _of_token("sequence", lambda frame: ints(frame.seq)),
    "position": _of_token("position", lambda frame: ints(frame.position)),
    "id": _of_token("id", lambda frame: ints(frame.ids)),
    "token_version": _of_token("token_version", lambda frame: ints(frame.token_version)),
    "rollout": _of_token("rollout", lambda frame: floats(frame.rollout)),
    "trainer": _of_token("trainer", lambda frame: floats(frame.trainer)),
    "engine": _engines,
    "piece": _pieces,
}
"""The function that makes each column of the table `tokens`."""


def _texts(pieces: pl.Series, place: npt.NDArray[np.intp]) -> pl.Series:
    joined = (
        pl.DataFrame([pl.Series("at", place), pieces])
        .group_by("at", maintain_order=True)
        .agg(pl.when(pl.col("piece").is_not_null().any()).then(pl.col("piece").str.join("")).alias("text"))
        .sort("at")
    )
    return joined["text"]
