"""A run's tokens as they come, in constant memory and a few nanoseconds a token: totals of all of them by version
and engine, and the newest in detail.

Totals are sums and merge by addition. In detail at most DETAIL tokens of a frame are kept, whole sequences at even
distances, and KEPT altogether; instruments run on these when a diagnosis is asked for, not before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from console.diagnosis.columns import Columns, Frame, Longs, join, of_frame
from console.diagnosis.facts import NOTHING, Facts
from console.diagnosis.infer import diagnose
from console.diagnosis.model import NO_LIKELIHOODS, Attribution, Diagnosis, Likelihoods, Reading

KEPT: Final = 12_288
"""Tokens in detail. A diagnosis of them takes some hundredths of a second."""
DETAIL: Final = 2_048
"""Most tokens of one frame that are kept in detail."""
VERSIONS: Final = 512
"""Versions that have totals of their own; older ones are merged two by two."""
BATCH: Final = 32_768
"""Tokens that are summed at once: small frames cost no more than large ones."""
RANGE: Final = 4_096
"""Widest range of versions in a batch that is counted by place."""
ENGINES: Final = 256
"""Engines that are distinguished; the tokens of further ones have none."""


class _Kept(NamedTuple):
    """A frame's arrays, thinned: bytes as they came where all are kept."""

    step: int
    version: int
    whole: int
    """Tokens that the frame had."""
    n: int
    ids: bytes
    seq: bytes
    position: bytes
    token_version: bytes
    rollout: bytes
    trainer: bytes
    engines: tuple[str, ...]
    prompts: tuple[str, ...]


class Watch:
    """Fed with Tokens frames in order; `diagnosis` may be asked for at any time."""

    def __init__(self) -> None:
        self._totals: dict[int, list[float]] = {}
        self._pending: list[tuple[int, int, bytes, bytes, bytes]] = []
        self._waiting = 0
        self._newest: deque[_Kept] = deque()
        self._detailed = 0
        self._engines: dict[str, int] = {}
        self.tokens = 0
        """Tokens of the run so far."""
        self.revision = 0
        """Grows with every frame."""

    def feed(self, frame: Frame) -> None:
        """Take in one frame. Its logprobs are summed with those of the next ones, once there are enough."""
        self.revision += 1
        if frame.n <= 0:
            return
        self.tokens += frame.n
        for name in frame.engines:
            if name not in self._engines and len(self._engines) < ENGINES:
                self._engines[name] = len(self._engines)
        self._pending.append((frame.step, frame.n, frame.token_version, frame.rollout, frame.trainer))
        self._waiting += frame.n
        self._keep(_thinned(frame))
        if self._waiting >= BATCH:
            self._sum()

    def _keep(self, kept: _Kept) -> None:
        self._newest.append(kept)
        self._detailed += kept.n
        while self._detailed - self._newest[0].n >= KEPT:
            self._detailed -= self._newest.popleft().n

    def _sum(self) -> None:
        """Add what waits to the totals."""
        if not self._pending:
            return
        steps, counts, versions, rollouts, trainers = zip(*self._pending, strict=True)
        self._pending, self._waiting = [], 0
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out below
            size = np.frombuffer(b"".join(rollouts), dtype="<f4") - np.frombuffer(b"".join(trainers), dtype="<f4")
        np.abs(size, out=size)
        np.minimum(size, np.float32(5.0), out=size)
        key = np.frombuffer(b"".join(versions), dtype="<i4")
        if int(key.min()) < 0:
            key = np.where(key < 0, np.repeat(np.array(steps, dtype=np.int32), counts), key)
        if not np.isfinite(size.sum()):
            finite = np.isfinite(size)
            size, key = size[finite], key[finite]
        if not size.size:
            return
        low = int(key.min())
        if int(key.max()) - low < RANGE:
            names = np.arange(low, int(key.max()) + 1)
            places = key - low
        else:
            names, places = np.unique(key, return_inverse=True)
        tokens, sums = np.bincount(places, minlength=names.size), np.bincount(places, weights=size)
        for one in np.flatnonzero(tokens).tolist():
            self._add(int(names[one]), float(tokens[one]), float(sums[one]))

    def _add(self, version: int, count: float, total: float) -> None:
        if not count:
            return
        row = self._totals.setdefault(version, [0.0, 0.0])
        row[0] += count
        row[1] += total
        if len(self._totals) > VERSIONS:
            self._merge()

    def _merge(self) -> None:
        """Totals of the older half, two versions as one, under the earlier one's number. The first stays by itself."""
        versions = sorted(self._totals)
        older = versions[1 : len(versions) // 2]
        for a, b in zip(older[::2], older[1::2], strict=False):
            gone = self._totals.pop(b)
            self._totals[a] = [self._totals[a][0] + gone[0], self._totals[a][1] + gone[1]]

    @property
    def columns(self) -> Columns:
        """The newest tokens in detail."""
        parts, first = [], 0
        for kept in self._newest:
            parts.append(of_frame(kept, self._engines, first))
            first += parts[-1].begins.size
        return join(parts, tuple(self._engines))

    @property
    def seen(self) -> float:
        """Share of the tokens since the oldest one in detail that are in detail."""
        whole = sum(kept.whole for kept in self._newest)
        return self._detailed / whole if whole else 1.0

    def merge(self, other: Watch) -> None:
        """Take in what another one has seen of later tokens: totals add up, and the newest tokens are the other's."""
        other._sum()
        for version, (count, total) in sorted(other._totals.items()):
            self._add(version, count, total)
        for name in other._engines:
            if len(self._engines) < ENGINES:
                self._engines.setdefault(name, len(self._engines))
        self.tokens += other.tokens
        self.revision += other.revision
        for kept in other._newest:
            self._keep(kept)

    def history(self, before: int) -> tuple[tuple[int, float, float], ...]:
        """(version, tokens, sum of |d|) of versions before one, oldest first."""
        self._sum()
        return tuple((v, row[0], row[1]) for v, row in sorted(self._totals.items()) if v < before)

    def diagnosis(
        self,
        facts: Facts = NOTHING,
        *,
        extra: Sequence[Reading] = (),
        more: Likelihoods = NO_LIKELIHOODS,
        attribution: Attribution | None = None,
    ) -> Diagnosis:
        """What is wrong by the tokens so far; see `console.diagnosis.infer.diagnose`."""
        columns = self.columns
        known = columns.version[columns.version >= 0] if (columns.version >= 0).any() else columns.step
        history = self.history(int(known.min())) if known.size else ()
        return diagnose(columns, facts, history, extra=extra, more=more, attribution=attribution, seen=self.seen)


def _thinned(frame: Frame) -> _Kept:
    """A frame with at most DETAIL tokens: some of its sequences, whole; of one that is longer than that, its first
    tokens and its last one."""
    arrays = (frame.ids, frame.seq, frame.position, frame.token_version, frame.rollout, frame.trainer)
    if frame.n > DETAIL:
        seq = np.frombuffer(frame.seq, dtype="<i4")
        order = None if (seq[1:] >= seq[:-1]).all() else np.argsort(seq, kind="stable")
        seq = seq if order is None else seq[order]
        begins = np.flatnonzero(np.concatenate([[True], seq[1:] != seq[:-1]]))
        lengths = np.diff(np.append(begins, frame.n))
        every = max(-(-frame.n // DETAIL), 1)
        chosen = np.arange(0, begins.size, every)
        chosen = chosen[np.cumsum(np.minimum(lengths[chosen], DETAIL)) <= 2 * DETAIL]
        places = np.concatenate([_of_sequence(int(begins[one]), int(lengths[one])) for one in chosen])
        places = places if order is None else order[places]
        arrays = tuple(np.frombuffer(one, dtype="<i4")[places].tobytes() for one in arrays)
    n = len(arrays[0]) // 4
    return _Kept(frame.step, frame.version, frame.n, n, *arrays, frame.engines, frame.prompts)


def _of_sequence(begin: int, length: int) -> Longs:
    if length <= DETAIL:
        return np.arange(begin, begin + length)
    return np.append(np.arange(begin, begin + DETAIL - 1), begin + length - 1)
