"""Tokens frames into the tables `tokens` (a row a token) and `sequences` (a row a sequence). Arrays all the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from console.snapshot.records import decoder
from console.snapshot.series import DTYPES, schema, times
from console.tables import STORED
from driftline.frames import DECODE_ERRORS, FrameError, Tokens, floats, ints

Ints = npt.NDArray[np.int32]


def frames(encoded: Sequence[bytes]) -> list[tuple[int, Tokens]]:
    """Numbers and Tokens frames of encoded records; what this version cannot read is left out."""
    found = []
    for one in encoded:
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

    def take(self, encoded: Sequence[bytes]) -> None:
        """Take over encoded Tokens frames."""
        for seq, frame in frames(encoded):
            self._frames.append((seq, frame))
            self.rows += frame.n

    def frame(self) -> pl.DataFrame:
        """What was taken since the last time. `engine` and `piece` are null where the producer gave none."""
        taken, self._frames, self.rows = self._frames, [], 0
        if not taken:
            return pl.DataFrame(schema=schema(STORED["tokens"].columns))
        counts = [frame.n for _, frame in taken]
        sequence = np.concatenate([ints(frame.seq) for _, frame in taken])
        columns = {
            **_common(taken, counts),
            "sequence": pl.Series("sequence", sequence),
            "position": _joined("position", [ints(frame.position) for _, frame in taken]),
            "id": _joined("id", [ints(frame.ids) for _, frame in taken]),
            "token_version": _joined("token_version", [ints(frame.token_version) for _, frame in taken]),
            "rollout": _joined("rollout", [floats(frame.rollout) for _, frame in taken]),
            "trainer": _joined("trainer", [floats(frame.trainer) for _, frame in taken]),
            "engine": _engines(taken, sequence),
            "piece": _pieces(taken, counts),
        }
        return pl.DataFrame(columns)


class SequenceRows:
    """Collects Tokens frames and gives one row for each sequence.

    `rollout_sum` and `trainer_sum` are the sequence's logprobs, `abs_diff_*` those of |trainer - rollout| over its
    tokens, `version_*` the oldest and newest weights that sampled one of them; null where it has no tokens.
    """

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self.rows = 0

    def take(self, encoded: Sequence[bytes]) -> None:
        """Take over encoded Tokens frames."""
        for seq, frame in frames(encoded):
            part = _sequences(seq, frame)
            self._parts.append(part)
            self.rows += part.height

    def frame(self) -> pl.DataFrame:
        """What was taken since the last time."""
        parts, self._parts, self.rows = self._parts, [], 0
        return pl.concat(parts) if parts else pl.DataFrame(schema=schema(STORED["sequences"].columns))


def _common(taken: list[tuple[int, Tokens]], counts: list[int]) -> dict[str, pl.Series]:
    def repeated(values: list[int]) -> npt.NDArray[np.int64]:
        return np.repeat(np.array(values, dtype=np.int64), counts)

    when = np.repeat(np.array([frame.time for _, frame in taken], dtype=np.float64), counts)
    return {
        "seq": pl.Series("seq", repeated([seq for seq, _ in taken])),
        "step": pl.Series("step", repeated([frame.step for _, frame in taken])),
        "version": pl.Series("version", repeated([frame.version for _, frame in taken])),
        "time": times("time", when),
    }


def _joined(name: str, arrays: list[npt.NDArray[np.int32]] | list[npt.NDArray[np.float32]]) -> pl.Series:
    return pl.Series(name, np.concatenate(arrays))


def _engines(taken: list[tuple[int, Tokens]], sequence: Ints) -> pl.Series:
    """The engine of each token's sequence, by way of one list of all the frames' engines."""
    names: list[str] = []
    places = np.empty(len(sequence), dtype=np.int64)
    at = 0
    for _, frame in taken:
        own = sequence[at : at + frame.n]
        known = (own >= 0) & (own < len(frame.engines))
        places[at : at + frame.n] = np.where(known, own.astype(np.int64) + len(names), -1)
        names += frame.engines
        at += frame.n
    return _gathered("engine", names, places)


def _gathered(name: str, values: list[str], places: npt.NDArray[np.int64]) -> pl.Series:
    if not values:
        return pl.Series(name, [None], dtype=pl.String()).new_from_index(0, len(places))
    at = pl.Series(places)
    found = pl.Series(name, values, dtype=pl.String()).gather(at.clip(0))
    return found if not (at < 0).any() else pl.select(pl.when(at >= 0).then(found)).to_series().alias(name)


def _pieces(taken: list[tuple[int, Tokens]], counts: list[int]) -> pl.Series:
    if not any(frame.pieces for _, frame in taken):
        return pl.Series("piece", [None], dtype=pl.String()).new_from_index(0, sum(counts))
    found: list[str | None] = []
    for (_, frame), count in zip(taken, counts, strict=True):
        pieces = frame.pieces[:count]
        found += [*pieces, *[None] * (count - len(pieces))]
    return pl.Series("piece", found, dtype=pl.String())


def _sequences(seq: int, frame: Tokens) -> pl.DataFrame:
    own = ints(frame.seq)
    valid = own >= 0
    count = max(len(frame.engines), len(frame.prompts), len(frame.rewards), int(own.max(initial=-1)) + 1)
    if count > max(frame.n, len(frame.engines), len(frame.prompts), len(frame.rewards)):
        # A producer's own way of counting: only those that have tokens.
        numbers = np.unique(own[valid])
    else:
        numbers = np.arange(count)
    place = np.searchsorted(numbers, own[valid])
    rollout, trainer = floats(frame.rollout)[valid].astype(float), floats(frame.trainer)[valid].astype(float)
    versions = ints(frame.token_version)[valid]
    tokens = np.bincount(place, minlength=len(numbers))
    difference = np.abs(trainer - rollout)
    largest = np.full(len(numbers), -np.inf)
    np.maximum.at(largest, place, difference)
    oldest = np.full(len(numbers), np.iinfo(np.int32).max, dtype=np.int32)
    newest = np.full(len(numbers), np.iinfo(np.int32).min, dtype=np.int32)
    np.minimum.at(oldest, place, versions)
    np.maximum.at(newest, place, versions)

    def summed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(place, weights=values, minlength=len(numbers)), dtype=np.float64)

    def of(values: tuple[object, ...]) -> list[object]:
        return [values[number] if number < len(values) else None for number in numbers.tolist()]

    base = _common([(seq, frame)], [len(numbers)])
    told = pl.DataFrame(
        {
            **base,
            "sequence": pl.Series("sequence", numbers.astype(np.int32)),
            "engine": pl.Series("engine", of(frame.engines), dtype=pl.String()),
            "prompt": pl.Series("prompt", of(frame.prompts), dtype=pl.String()),
            "text": pl.Series("text", _texts(frame, place, valid, len(numbers)), dtype=pl.String()),
            "reward": pl.Series("reward", of(frame.rewards), dtype=pl.Float64()),
            "tokens": pl.Series("tokens", tokens.astype(np.int64)),
            "version_min": pl.Series("version_min", oldest),
            "version_max": pl.Series("version_max", newest),
            "rollout_sum": pl.Series("rollout_sum", summed(rollout)),
            "trainer_sum": pl.Series("trainer_sum", summed(trainer)),
            "abs_diff_mean": pl.Series("abs_diff_mean", summed(difference) / np.maximum(tokens, 1)),
            "abs_diff_max": pl.Series("abs_diff_max", largest),
        },
        schema={name: DTYPES[column.kind] for name, column in STORED["sequences"].columns.items()},
    )
    if (tokens == 0).any():
        measured = ("version_min", "version_max", "rollout_sum", "trainer_sum", "abs_diff_mean", "abs_diff_max")
        told = told.with_columns(pl.when(pl.col("tokens") > 0).then(pl.col(name)).alias(name) for name in measured)
    return told


def _texts(frame: Tokens, place: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_], count: int) -> list[str | None]:
    if not frame.pieces:
        return [None] * count
    texts: list[list[str]] = [[] for _ in range(count)]
    pieces = np.array(frame.pieces[: frame.n], dtype=object)[valid[: len(frame.pieces)]]
    for at, piece in zip(place.tolist(), pieces, strict=False):
        texts[at].append(piece)
    return ["".join(text) for text in texts]
