"""Queries of a token store for a screen: the worst tokens, their distribution, the outlier sequences. Pure.

Every answer is about the tokens that match a filter, and costs a few passes over columns; nothing is done per token in
Python but for those that are listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from console.store.filter_grammar import COMPARE, Condition, Filter
from console.store.tokens.frames import pieces_of
from console.store.tokens.ring import BINS, Bools, Ints, TokenStore

LISTED: Final = 1000
"""Worst tokens that are ranked; a narrower filter shows others."""
OUTLIERS: Final = 200
_SAMPLE: Final = 4096
"""Values of a column that are sampled to estimate its largest ones."""
BUCKETS: Final = 256
"""Positions are put together so that there are no more than these."""

By = Literal["mean", "max", "sum"]
"""Sequences are ranked by mean |d|, max |d|, or by |sum of d|."""

_COLUMN: Final = {
    "version": "version", "position": "position", "id": "id", "d": "diff", "|d|": "size", "rollout": "rollout",
    "trainer": "trainer",
}  # fmt: skip


@dataclass(frozen=True)
class Positions:
    """Mean |d| in nats by position: bucket i is of the positions from `width` * i on. NaN where there is no token."""

    width: int
    mean: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    """The tokens that match. `worst` are rows by |d|, largest first, at most as many as were asked for.

    `histogram` counts signed differences by bin, `mean` is the mean |d| of those that are numbers, `broken` counts
    the others, `stale` counts tokens sampled by older weights than the trainer's; `outliers` are numbers of sequences
    with a matching token.
    """

    kept: int
    matched: int
    worst: Ints
    histogram: Ints
    positions: Positions
    mean: float
    broken: int
    stale: int
    outliers: Ints


def survey(store: TokenStore, wanted: Filter = (), by: By = "mean", listed: int = LISTED) -> Survey:
    """Survey all kept tokens that match `wanted`."""
    mask = match(store, wanted) if wanted else None
    rows = None if mask is None else np.flatnonzero(mask)
    size = _taken(store.tokens["size"], rows)
    worst = largest(size, listed)
    if rows is not None:
        worst = rows[worst]
    finite = np.isfinite(size)
    good = int(np.count_nonzero(finite))
    total = float(size.sum(dtype=np.float64) if good == len(size) else size[finite].sum(dtype=np.float64))
    return Survey(
        kept=len(store),
        matched=len(size),
        worst=worst + store.tokens.first,
        histogram=np.bincount(_taken(store.tokens["bin"], rows), minlength=BINS),
        positions=_positions(_taken(store.tokens["position"], rows), size, None if good == len(size) else finite),
        mean=total / good if good else float("nan"),
        broken=len(size) - good,
        stale=int(np.count_nonzero(_taken(lag(store), rows) > 0)),
        outliers=_outliers(store, rows, by),
    )


def largest(size: npt.NDArray[Any], count: int) -> Ints:
    """Places of the `count` largest values, largest first; among equals the newest is first. None may be NaN."""
    chosen: Ints = _candidates(size, count)
    if len(chosen) > count:
        chosen = chosen[np.argpartition(size[chosen], len(chosen) - count)[len(chosen) - count :]]
    order: Ints = np.lexsort((chosen, size[chosen]))[::-1]
    return chosen[order]


def _candidates(size: npt.NDArray[Any], count: int) -> Ints:
    """Indices of the `count` largest values and not many others: those above a bound estimated from a sample."""
    n = len(size)
    if n > 16 * max(count, _SAMPLE):
        sample = size[:: n // _SAMPLE]
        rank = 2 * count * len(sample) // n + 8
        places: Ints = np.flatnonzero(size >= np.partition(sample, len(sample) - rank)[len(sample) - rank])
        if len(places) >= count:
            return places
    return np.arange(n)


def lag(store: TokenStore) -> Ints:
    """Versions that the trainer was ahead of each token."""
    ahead: Ints = _of_sequences(store, "version") - store.tokens["version"]
    return ahead


def match(store: TokenStore, wanted: Filter) -> Bools:
    """Mask of the kept tokens that meet every condition."""
    mask = np.ones(len(store), np.bool_)
    for condition in wanted:
        mask &= _meets(store, condition)
    return mask


def _meets(store: TokenStore, condition: Condition) -> Bools:
    field, compare, value = condition.field, COMPARE[condition.op], condition.value
    if field == "engine":
        codes = [code for code, name in enumerate(store.engines) if compare(name, value)]
        return _spread(store, np.isin(store.sequences["engine"], codes))
    if field == "text":
        inside = _texts(store, str(value))
        return inside if condition.op == "=" else ~inside
    if field == "prompt":
        inside = _spread(store, _prompts(store, str(value)))
        return inside if condition.op == "=" else ~inside
    if field == "lag":
        return np.asarray(compare(lag(store), value))
    if field in ("step", "reward"):
        return _spread(store, np.asarray(compare(store.sequences[field], value)))
    return np.asarray(compare(store.tokens[_COLUMN[field]], value))


def _texts(store: TokenStore, text: str) -> Bools:
    """Which tokens' pieces contain a text; found once per frame for the text that was asked for last."""
    parts = [np.zeros(0, np.bool_)]
    raw = text.encode("utf-8", "surrogatepass") if text.isascii() else b""
    for block in store.blocks:
        if block.found is None or block.found[0] != text:
            if raw not in bytes(block.pieces):
                inside = np.zeros(block.rows, np.bool_)
            else:
                texts = pieces_of(block.pieces, block.n)  # once a frame: not worth a place among those kept decoded
                found = np.array([text in piece for piece in texts], np.bool_)
                if not texts:
                    inside = np.zeros(block.rows, np.bool_)
                else:
                    inside = found[: block.rows] if block.order is None else found[block.order]
            block.found = (text, inside)
        parts.append(block.found[1])
    return np.concatenate(parts)


def _prompts(store: TokenStore, text: str) -> Bools:
    """Which sequences' prompts contain a text."""
    inside = np.zeros(len(store.sequences), np.bool_)
    local, at = store.sequences["local"], 0
    for block in store.blocks:
        stop = at + block.sequences
        found = np.fromiter((text in prompt for prompt in block.prompts), np.bool_, len(block.prompts))
        own = local[at:stop]
        known = (own >= 0) & (own < len(found))
        inside[at:stop][known] = found[own[known]]
        at = stop
    return inside


def _of_sequences(store: TokenStore, name: str) -> npt.NDArray[Any]:
    """A column of the sequences, for each of their tokens."""
    return np.repeat(store.sequences[name], store.sequences["count"])


def _spread(store: TokenStore, mask: Bools) -> Bools:
    """A mask of sequences, repeated for each of their tokens."""
    return np.repeat(mask, store.sequences["count"])


def _taken(column: npt.NDArray[Any], rows: Ints | None) -> npt.NDArray[Any]:
    return column if rows is None else column[rows]


def _positions(position: npt.NDArray[Any], size: npt.NDArray[Any], finite: Bools | None) -> Positions:
    if finite is not None:
        position, size = position[finite], size[finite]
    known = position >= 0
    if not known.all():
        position, size = position[known], size[known]
    if not len(position):
        return Positions(1, np.zeros(0))
    width = int(position.max()) // BUCKETS + 1
    bucket = (position // width if width > 1 else position).astype(np.intp)  # once, not in each count
    count = np.bincount(bucket)
    with np.errstate(invalid="ignore"):
        return Positions(width, np.bincount(bucket, weights=size) / count)


def _outliers(store: TokenStore, rows: Ints | None, by: By) -> Ints:
    """Numbers of the outlier sequences, worst first."""
    value = {"mean": "mean", "max": "max", "sum": "ratio"}[by]
    size = np.abs(store.sequences[value])
    size = np.where(np.isnan(size), np.inf, size)
    first = store.sequences.first
    if rows is None:
        return largest(size, OUTLIERS) + first
    hit = np.zeros(len(size), np.bool_)
    hit[store.tokens["sequence"][rows] - first] = True
    numbers = np.flatnonzero(hit)
    return numbers[largest(size[numbers], OUTLIERS)] + first
