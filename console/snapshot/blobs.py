"""Tokens frames into the tables `tokens` (a row a token) and `sequences` (a row a sequence). Arrays all the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from console.snapshot.records import Block, decoder
from console.snapshot.series import schema, times
from console.tables import STORED
from driftline.frames import DECODE_ERRORS, FrameError, Tokens, floats, ints


def frames(block: Block) -> list[tuple[int, Tokens]]:
    """Numbers and Tokens frames of a block; what this version cannot read is left out."""
    found = []
    for one in block.having(b"t"):
        try:
            stamped = decoder.decode(one)
            frame = stamped.frame()
        except (FrameError, *DECODE_ERRORS):
            continue  # of a newer producer
        if isinstance(frame, Tokens):
            found.append((stamped.seq, frame))
    return found


class TokenRows:
    """Collects Tokens frames and gives one row for each token, in the order in which they were sent."""

    def __init__(self) -> None:
        self._frames: list[tuple[int, Tokens]] = []
        self.rows = 0

    def take(self, block: Block) -> None:
        """Take over the Tokens frames of a block."""
        for seq, frame in frames(block):
            self._frames.append((seq, frame))
            self.rows += frame.n

    def frame(self) -> pl.DataFrame:
        """What was taken since the last time. `engine` and `piece` are null where the producer gave none."""
        taken, self._frames, self.rows = self._frames, [], 0
        if not taken:
            return pl.DataFrame(schema=schema(STORED["tokens"].columns))
        return pl.DataFrame(_flat(taken) | {"engine": _engines(taken), "piece": _pieces(taken)})


class SequenceRows(TokenRows):
    """Collects Tokens frames and gives one row for each sequence that has tokens in one."""

    def frame(self) -> pl.DataFrame:
        """What was taken since the last time."""
        taken, self._frames, self.rows = self._frames, [], 0
        if not taken:
            return pl.DataFrame(schema=schema(STORED["sequences"].columns))
        columns = _flat(taken) | {"engine": _engines(taken), "piece": _pieces(taken)}
        columns["prompt"] = _of_sequence("prompt", taken, [frame.prompts for _, frame in taken], pl.String())
        columns["reward"] = _of_sequence("reward", taken, [frame.rewards for _, frame in taken], pl.Float64())
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
    rollout, trainer = (tokens[name].to_numpy().astype(np.float64) for name in ("rollout", "trainer"))
    versions = tokens["token_version"].to_numpy()
    size = np.bincount(place, minlength=count)
    difference = np.abs(trainer - rollout)
    largest = np.full(count, -np.inf)
    np.maximum.at(largest, place, difference)
    oldest, newest = versions[first].copy(), versions[first].copy()
    np.minimum.at(oldest, place, versions)
    np.maximum.at(newest, place, versions)

    def summed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(place, weights=values, minlength=count), dtype=np.float64)

    told = tokens[first].with_columns(
        pl.Series("tokens", size.astype(np.int64)),
        pl.Series("version_min", oldest),
        pl.Series("version_max", newest),
        pl.Series("rollout_sum", summed(rollout)),
        pl.Series("trainer_sum", summed(trainer)),
        pl.Series("abs_diff_mean", summed(difference) / size),
        pl.Series("abs_diff_max", largest),
        _texts(tokens["piece"], place),
    )
    return told.select(list(STORED["sequences"].columns))


def _flat(taken: list[tuple[int, Tokens]]) -> dict[str, pl.Series]:
    counts = [frame.n for _, frame in taken]

    def repeated(values: list[int]) -> npt.NDArray[np.int64]:
        return np.repeat(np.array(values, dtype=np.int64), counts)

    when = np.repeat(np.array([frame.time for _, frame in taken], dtype=np.float64), counts)
    return {
        "seq": pl.Series("seq", repeated([seq for seq, _ in taken])),
        "step": pl.Series("step", repeated([frame.step for _, frame in taken])),
        "version": pl.Series("version", repeated([frame.version for _, frame in taken])),
        "time": times("time", when),
        "sequence": _joined("sequence", [ints(frame.seq) for _, frame in taken]),
        "position": _joined("position", [ints(frame.position) for _, frame in taken]),
        "id": _joined("id", [ints(frame.ids) for _, frame in taken]),
        "token_version": _joined("token_version", [ints(frame.token_version) for _, frame in taken]),
        "rollout": _joined("rollout", [floats(frame.rollout) for _, frame in taken]),
        "trainer": _joined("trainer", [floats(frame.trainer) for _, frame in taken]),
    }


def _joined(name: str, arrays: list[npt.NDArray[np.int32]] | list[npt.NDArray[np.float32]]) -> pl.Series:
    return pl.Series(name, np.concatenate(arrays))


def _engines(taken: list[tuple[int, Tokens]]) -> pl.Series:
    return _of_sequence("engine", taken, [frame.engines for _, frame in taken], pl.String())


def _of_sequence(
    name: str, taken: list[tuple[int, Tokens]], given: Sequence[tuple[object, ...]], dtype: pl.DataType
) -> pl.Series:
    """What was given for each token's sequence, null where nothing was, by way of one list of all that was given."""
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
        return pl.Series(name, [None], dtype=dtype).new_from_index(0, len(places))
    found = pl.Series(name, values, dtype=dtype).gather(pl.Series(np.maximum(places, 0).astype(np.uint32)))
    missing = places < 0
    return pl.select(pl.when(pl.Series(~missing)).then(found)).to_series().alias(name) if missing.any() else found


def _pieces(taken: list[tuple[int, Tokens]]) -> pl.Series:
    if not any(frame.pieces for _, frame in taken):
        return pl.Series("piece", [None], dtype=pl.String()).new_from_index(0, sum(frame.n for _, frame in taken))
    found: list[str | None] = []
    for _, frame in taken:
        # Fewer or more of them than tokens: then nobody knows which is whose.
        found += frame.pieces if len(frame.pieces) == frame.n else [None] * frame.n
    return pl.Series("piece", found, dtype=pl.String())


def _texts(pieces: pl.Series, place: npt.NDArray[np.intp]) -> pl.Series:
    joined = (
        pl.DataFrame([pl.Series("at", place), pieces])
        .group_by("at", maintain_order=True)
        .agg(pl.when(pl.col("piece").is_not_null().any()).then(pl.col("piece").str.join("")).alias("text"))
        .sort("at")
    )
    return joined["text"]
