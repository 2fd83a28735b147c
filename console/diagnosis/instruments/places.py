"""Where: engines, exact zeros, positions, seams. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np

from console.diagnosis.columns import CERTAIN, Columns, Floats, Mask
from console.diagnosis.instruments.view import FEW, UNSURE, View, mean, number, reading, separation
from console.diagnosis.model import Reading

SEAM: Final = 6
"""Fewest tokens behind a change of weights that say something."""
SURE: Final = 5.0
CLEAR: Final = 3.0
ONE_SIDED: Final = 0.8
"""Mean sign of d from which on it is a truncation's and not that of noise: nine tokens of ten are on one side."""
"""Standard errors between the sequences of two groups: SURE decides by itself, CLEAR where the means differ plainly."""
OTHERS: Final = 5
"""Fewest tokens of a class by which its share of zeros counts."""
EDGES: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 2**31 - 1)
"""Classes of positions: 0, 1, 2 to 3, 4 to 7, ..."""


def engine_means(columns: Columns) -> dict[str, tuple[float, int]]:
    """Mean of min(|d|, 5) and number of tokens of each engine that has FEW tokens."""
    found = {}
    for code, name in enumerate(columns.engines):
        mine = columns.engine == code
        if (count := int(mine.sum())) >= FEW:
            found[name] = (float(np.minimum(columns.size[mine], 5.0).mean()), count)
    return found


def odd_engines(view: View) -> tuple[tuple[str, ...], float]:
    """Engines whose mean |d| stands clearly above the lowest one's, and by which factor; the widest gap decides.

    Over all tokens, else over those of the newer half of the versions: a cause that began late is plainer there.
    """
    names, factor = _apart(view.columns, view.floor)
    if names or not len(view.columns):
        return names, factor
    newer = view.columns.version >= np.median(view.columns.version)
    later, more = _apart(view.columns.take(newer), view.floor)
    return (later, more) if later else (names, factor)


def _apart(columns: Columns, floor: float) -> tuple[tuple[str, ...], float]:
    means = engine_means(columns)
    if len(means) < 2:
        return (), float("nan")
    ordered = sorted(means.items(), key=lambda one: one[1][0])
    values = np.array([one[1][0] for one in ordered]) + floor / 20
    ratios = values[1:] / values[:-1]
    at = int(np.argmax(ratios))
    factor = float(ratios[at])
    names = tuple(sorted(one[0] for one in ordered[at + 1 :]))
    sure = separation(columns, np.isin(columns.engine, [columns.engines.index(name) for name in names]))
    # Of few sequences the factor alone decides.
    clear = (factor > 3 and not sure < CLEAR) or (factor > 1.3 and sure > SURE)
    if not clear or values[-1] <= floor / 3:
        return (), factor
    return names, factor


def engine(view: View) -> Reading:
    """Whether some engines stand apart."""
    known = int((np.bincount(view.columns.engine[view.columns.engine >= 0]) >= FEW).sum()) if len(view.columns) else 0
    if known < 2:
        return reading("engine", "single", float("nan"), "all tokens are of one engine, or engines are not recorded")
    odd, factor = odd_engines(view)
    if not odd:
        return reading(
            "engine", "alike", factor, f"no engine's mean |d| is {number(factor)} times the next one's or more"
        )
    names = ", ".join(odd)
    text = f"mean |d| of {names} is {number(factor)} times that of the others"
    return reading("engine", "one", factor, text, unit="times", where=names)


_CLASSES: Final = np.log(np.array([1e-9, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.96, 0.99, 0.999, 0.9999, 1.0]))
"""Classes of the trainer's logprob by which last tokens are compared with others: a truncation to one token makes 0.0
of likely tokens, wherever they stand."""


def _decimal(rollout: Floats) -> float:
    """The last decimal of logprobs that were written with three or fewer, else 0.0: those of tokens that are more
    certain than it are 0.0 by rounding."""
    values = rollout[rollout != 0.0]
    if values.size < FEW:
        return 0.0
    for step in (0.1, 0.01, 0.001):
        off = np.abs(values - step * np.round(values / step))
        if (off < 2e-3 * step + 1e-6 * np.abs(values)).mean() > 0.95:
            return step
    return 0.0


def _placeholders(columns: Columns) -> tuple[int, int, float]:
    """Last tokens that are not certain, exact zeros at them, and how many of these there would be if a last token had
    them as often as another one of the same class of probability; where no other is of the class, as often as in the
    next class of more certain ones."""
    known = columns.trainer < -max(CERTAIN, _decimal(columns.rollout))
    zero = columns.rollout == 0.0
    classes = np.clip(np.searchsorted(_CLASSES, columns.trainer), 1, _CLASSES.size - 1)
    usual = expected = 0.0
    for one in range(_CLASSES.size - 1, 0, -1):
        mine = known & (classes == one)
        others = mine & ~columns.last
        if (count := int(others.sum())) >= OTHERS:
            usual = float((zero & others).sum()) / count
        expected += usual * int((mine & columns.last).sum())
    return int((known & columns.last).sum()), int((zero & known & columns.last).sum()), expected


def zeros(view: View) -> Reading:
    """Exact 0.0 of the engine: at last tokens alone, only where one token had nearly all of the mass, or anywhere."""
    columns = view.columns
    zero = columns.zero
    share = mean(zero.astype(np.float64))
    at_last = mean(zero[columns.last].astype(np.float64))
    elsewhere = mean(zero[~columns.last].astype(np.float64))
    if not share > 0 or int(zero.sum()) < 3:
        return reading("zeros", "none", share, "no exact 0.0 of the engine where the trainer's token was not certain")
    known, seen, expected = _placeholders(columns)
    if seen >= 3 and seen > 0.1 * known and seen > 2 * expected + 3 * np.sqrt(expected):
        text = (
            f"the engine's logprob is exactly 0.0 at {at_last:.0%} of the last tokens, at {elsewhere:.1%} of the others"
        )
        return reading("zeros", "last", at_last, text, unit="share")
    likely = columns.trainer[zero] > -0.7
    text = f"the engine's logprob is exactly 0.0 at {share:.1%} of the tokens"
    if likely.mean() > 0.9:
        return reading("zeros", "certain", share, f"{text}, nearly all likely ones", unit="share")
    return reading("zeros", "anywhere", share, text, unit="share")


def position_means(columns: Columns) -> tuple[list[str], list[float], list[int]]:
    """Labels, mean of min(|d|, 5) and tokens of each class of positions that occurs."""
    if not len(columns):
        return [], [], []
    codes = np.searchsorted(np.array(EDGES), columns.position, side="right") - 1
    codes = np.clip(codes, 0, len(EDGES) - 2)
    counts = np.bincount(codes)
    sums = np.bincount(codes, weights=np.minimum(columns.size, 5.0))
    names, means, tokens = [], [], []
    for code in np.flatnonzero(counts):
        low, high = EDGES[code], EDGES[code + 1] - 1
        names.append(str(low) if low == high else f"{low}-{high}" if code < len(EDGES) - 2 else f"{low}+")
        means.append(float(sums[code] / counts[code]))
        tokens.append(int(counts[code]))
    return names, means, tokens


def _uncertainties(columns: Columns) -> list[float]:
    """Mean of 1 - p, the trainer's probability of another token, of the classes of `position_means`."""
    codes = np.clip(np.searchsorted(np.array(EDGES), columns.position, side="right") - 1, 0, len(EDGES) - 2)
    counts = np.bincount(codes)
    sums = np.bincount(codes, weights=-np.expm1(np.minimum(columns.trainer, 0)))
    return [float(sums[code] / counts[code]) for code in np.flatnonzero(counts)]


def below(columns: Columns, noise: float) -> int:
    """The position below which alone |d| is above the noise, 0 where there is none: what `min_tokens` masks.

    Certain tokens do not count: at a place where there is nothing to choose, no cause shows.
    """
    open_ = columns.trainer < -UNSURE
    spot, size = columns.position[open_], np.minimum(columns.size[open_], 5.0)
    if spot.size < FEW or int(spot.max()) < 2:
        return 0
    top = min(int(spot.max()), 4096)
    counts = np.bincount(np.minimum(spot, top), minlength=top + 1)
    sums = np.bincount(np.minimum(spot, top), weights=size, minlength=top + 1)
    total, tokens = np.cumsum(sums), np.cumsum(counts)
    after = (total[-1] - total[:-1]) / np.maximum(tokens[-1] - tokens[:-1], 1)
    before = total[:-1] / np.maximum(tokens[:-1], 1)
    fits = (tokens[-1] - tokens[:-1] >= FEW // 2) & (tokens[:-1] >= FEW) & (before > 20 * after) & (before > noise)
    places = np.flatnonzero(fits)
    if not places.size:
        return 0
    limit = int(places[0]) + 1
    # Where the policy is certain a truncation hardly shows, but it shows: d is of one sign there, and noise of both.
    side = float(np.sign(columns.d[open_][spot >= limit]).mean())
    return limit if abs(side) < ONE_SIDED else 0


def position(view: View) -> Reading:
    """The first token alone, decaying, growing, or only below a position; against the uncertainty of the tokens."""
    columns = view.columns.take(~(view.columns.last & view.columns.zero))
    names, means, tokens = position_means(columns)
    open_ = _uncertainties(columns)
    kept = [
        (name, value / share)
        for name, value, count, share in zip(names, means, tokens, open_, strict=True)
        if count >= FEW and share * count > 1
    ]
    if len(kept) < 2 or not view.mean > view.floor / 10:
        return reading("position", "flat", float("nan"), "too few positions, or nothing to place")
    if (limit := below(columns, view.floor / 10)) > 1:
        text = f"|d| is above the noise only at positions below {limit}"
        return reading("position", "below", float(limit), text, unit="position", where=f"positions below {limit}")
    values = [value for _, value in kept]
    rest = sum(values[1:]) / (len(values) - 1)
    if values[0] > 4 * rest:
        text = f"|d| for each uncertainty is {number(values[0] / max(rest, 1e-9))} times as large at position 0"
        return reading("position", "first", values[0] / max(rest, 1e-9), text, unit="times")
    half = max(len(values) // 2, 1)
    ratio = (sum(values[:half]) / half) / max(sum(values[-half:]) / half, 1e-9)
    text = f"|d| for each uncertainty at positions {kept[0][0]} to {kept[half - 1][0]} is {number(ratio)} times"
    text += " that at the last ones"
    return reading("position", "early" if ratio > 2 else "late" if ratio < 0.5 else "flat", ratio, text, unit="times")


def seam_places(columns: Columns) -> Mask:
    """Tokens behind a change of weights within their sequence."""
    return columns.seam > 0


def seam(view: View) -> Reading:
    """Mean |d| behind a change of weights within a sequence, against all other tokens."""
    behind = seam_places(view.columns)
    if min(int(behind.sum()), int((~behind).sum())) < SEAM:
        return reading("seam", "none", float("nan"), "no sequence was in flight at an update, or all were")
    after = mean(np.minimum(view.columns.size[behind], 5))
    other = mean(np.minimum(view.columns.size[~behind], 5))
    ratio = after / max(other, 1e-9)
    text = f"mean |d| is {number(after)} nats behind a change of weights within a sequence, {number(other)} elsewhere"
    # Of few tokens the contrast must be plainer.
    plain = after > view.floor / 3 and ratio > (4 if int(behind.sum()) >= FEW // 2 else 30)
    only = plain and not separation(view.columns, behind) < CLEAR
    return reading("seam", "after only" if only else "no", ratio, text, unit="times")
