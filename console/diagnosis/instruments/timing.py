"""Since when, and with what it moves: updates, the lag of a token's weights. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from console.diagnosis.columns import Columns, Mask
from console.diagnosis.instruments.view import FEW, View, number, reading, relative_size, separation, unsure
from console.diagnosis.model import Reading

TOKENS: Final = 24
"""Fewest tokens of a version that its mean counts with."""
EACH: Final = 6
"""Fewest tokens of a version, behind and not, by which it says whether |d| follows lag."""
SUDDEN: Final = 8.0
"""Factor between the means of two versions in a row that is no learning."""
CLEAR: Final = 3.0
"""Factor between two means that is a change."""
SURE: Final = 4.0
"""Standard errors between the sequences of two groups, from which on they differ."""


class Jump(NamedTuple):
    """Where the mean |d| of versions rises for good: the first version that is high, the means before and from
    there."""

    version: int
    before: float
    after: float


def by_version(columns: Columns) -> list[tuple[int, float, float]]:
    """(version, tokens, sum of min(|d|, 5)) in the order of versions; by step where no version is known."""
    if not len(columns):
        return []
    keys = columns.version if (columns.version >= 0).any() else columns.step
    low = int(keys.min())
    places = keys - low
    counts = np.bincount(places)
    sums = np.bincount(places, weights=np.minimum(columns.size, 5.0))
    return [(low + int(i), float(counts[i]), float(sums[i])) for i in np.flatnonzero(counts)]


def pooled(table: Sequence[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    """Versions in order, neighbours put together until they have TOKENS tokens, under the number of the first."""
    made: list[tuple[int, float, float]] = []
    for version, tokens, total in sorted(table):
        if made and made[-1][1] < TOKENS:
            made[-1] = (made[-1][0], made[-1][1] + tokens, made[-1][2] + total)
        else:
            made.append((version, tokens, total))
    if len(made) > 1 and made[-1][1] < TOKENS:
        _, tokens, total = made.pop()
        made[-1] = (made[-1][0], made[-1][1] + tokens, made[-1][2] + total)
    return made


def jump(table: Sequence[tuple[int, float, float]], floor: float) -> Jump | None:
    """The split of versions at which the means of log |d| differ most, where the later is CLEAR times the earlier.

    Least squares over the logarithms, weighted by tokens; None where there is no such rise above the floor.
    """
    rows = pooled(table)
    if len(rows) < 2:
        return None
    counts = np.minimum(np.array([row[1] for row in rows]), 400)
    logs = np.log(np.array([row[2] / row[1] for row in rows]) + floor / 50)
    total, weight = np.cumsum(counts * logs), np.cumsum(counts)
    before = total[:-1] / weight[:-1]
    after = (total[-1] - total[:-1]) / (weight[-1] - weight[:-1])
    gain = (after - before) ** 2 * weight[:-1] * (weight[-1] - weight[:-1]) / weight[-1]
    rising = (after - before) > np.log(CLEAR)
    if not rising.any():
        return None
    at = int(np.argmax(np.where(rising, gain, -1.0)))
    low, high = (float(np.exp(one[at])) for one in (before, after))
    return Jump(rows[at + 1][0], low, high) if high > floor / 3 else None


def since(columns: Columns, history: Sequence[tuple[int, float, float]], floor: float) -> Jump | None:
    """Where |d| of these tokens rises for good, after the versions of `history`. A policy that is nearly certain has
    few tokens that make a version's mean: where both sides are among the tokens, most sequences must say it; and what
    was certain does not count, where no totals of earlier versions have it."""
    open_ = unsure(columns)
    known = columns.take(open_) if not history and int(open_.sum()) >= FEW else columns
    found = jump([*history, *by_version(known)], floor)
    if found is None:
        return None
    later = (columns.version if (columns.version >= 0).any() else columns.step) >= found.version
    return None if separation(columns, later) < SURE else found


def fall(table: Sequence[tuple[int, float, float]], floor: float) -> Jump | None:
    """Where the mean |d| falls for good, from one version to the next: a cause has gone. None where it has not."""
    rows = pooled(table)
    upside_down = [(-version, tokens, total) for version, tokens, total in reversed(rows)]
    found = jump(upside_down, floor)
    if found is None:
        return None
    at = next(i for i, row in enumerate(rows) if row[0] == -found.version)
    if at + 1 >= len(rows):
        return None
    last, first = (rows[i][2] / rows[i][1] for i in (at, at + 1))
    # A policy that grows certain lets |d| fall too, from version to version: not by so much.
    return Jump(rows[at + 1][0], found.after, found.before) if last > SUDDEN * first else None


def onset(view: View) -> Reading:
    """Step 0 (already under the first weights), at an update, or not seen because the record begins later."""
    table = pooled([*view.history, *by_version(view.whole)])
    if not table or not view.mean > view.floor:
        return reading("onset", "nothing", view.mean, "at no version is |d| above the floor", unit="nats")
    found = since(view.whole, view.history, view.floor)
    if found is not None:
        text = f"mean |d| was {number(found.before)} nats and is {number(found.after)} since version {found.version}"
        return reading("onset", "update", float(found.version), text, unit="version", where=f"version {found.version}")
    first = table[0][0]
    if first > 0:
        return reading(
            "onset", "not seen", float(first), f"the record begins at version {first}, with it", unit="version"
        )
    # Of the first version alone: what is pooled with it may be later.
    _, count, total = min([*view.history, *by_version(view.whole)])
    value = total / max(count, 1)
    if not value > view.floor:
        text = f"mean |d| is {number(value)} nats under version {first}; too few sequences differ to say since when"
        return reading("onset", "not seen", value, text, unit="nats")
    text = f"mean |d| is {number(value)} nats already under version {first}, before any update"
    return reading("onset", "step 0", value, text, unit="nats")


def growth(view: View) -> Reading:
    """The last versions' |d| against the first ones', from the onset on, each against the uncertainty of its tokens: a
    policy that grows certain lets every |d| fall."""
    columns = view.columns
    table = pooled(by_version(columns))
    found = since(columns, view.history, view.floor)
    names = [row[0] for row in table if found is None or row[0] >= found.version]
    if len(names) < 4 or not view.mean > view.floor:
        return reading("growth", "short", float("nan"), "too few versions since its onset to say whether it grows")
    key = columns.version if (columns.version >= 0).any() else columns.step
    third = max(len(names) // 3, 1)
    early = relative_size(columns.take((key >= names[0]) & (key < names[third])))
    ratio = relative_size(columns.take(key >= names[-third])) / max(early, 1e-9)
    outcome = "grows" if ratio > 1.8 else "falls" if ratio < 1 / 1.8 else "flat"
    text = f"|d| for each uncertainty is {number(ratio)} times as large under the newest versions as under the first"
    return reading("growth", outcome, ratio, text, unit="times")


def _of_shared_versions(columns: Columns) -> tuple[Mask, Mask]:
    """Tokens whose weights were behind, and those whose were not, of versions that have both."""
    behind = columns.lag > 0
    both = np.intersect1d(columns.version[behind], columns.version[~behind])
    shared = np.isin(columns.version, both[both >= 0])
    return behind & shared, ~behind & shared


def lag(view: View) -> Reading:
    """Mean |d| of tokens whose weights were behind, against tokens of the same versions while these were the newest.

    Within versions: else everything that begins with an update would follow a lag that begins with it too. Of sequences
    of one version, since one in flight at an update is less behind after it.
    """
    columns = view.columns.take((view.columns.seam == 0) & unsure(view.columns))
    behind, fresh = _of_shared_versions(columns)
    if min(int(behind.sum()), int(fresh.sum())) < TOKENS:
        columns = view.columns.take(view.columns.seam == 0)
        behind, fresh = _of_shared_versions(columns)
    if min(int(behind.sum()), int(fresh.sum())) < TOKENS:
        return reading("lag", "no lag", float("nan"), "no version has tokens both while it was the newest and later")
    # Of fresh tokens as many of each version as there are of those behind: versions differ by themselves.
    versions, at = np.unique(columns.version, return_inverse=True)
    many, few = (np.bincount(at[one], minlength=versions.size) for one in (behind, fresh))
    olds, news = (
        np.bincount(at[one], weights=np.minimum(columns.size[one], 5), minlength=versions.size) / np.maximum(count, 1)
        for one, count in ((behind, many), (fresh, few))
    )
    old, new = (float((many * one).sum() / many.sum()) for one in (olds, news))
    # What began in the trainer at one step makes tokens differ that waited for it, of that version alone.
    plain, limit = (many >= EACH) & (few >= EACH), view.floor / 3
    most = not plain.any() or float((olds > 4 * news + limit)[plain].mean()) >= 0.5
    far = old > 4 * new + limit and most
    # A few tokens of an uncertain policy make either mean: most sequences must say it.
    both_of = columns.take(behind | fresh)
    follows = far and not separation(both_of, both_of.lag > 0, by_version=True) < SURE
    text = f"of the same versions, mean |d| is {number(old)} nats where they were behind, {number(new)} where not"
    return reading("lag", "with lag" if follows else "no", old / max(new, 1e-9), text, unit="times")


def staleness(view: View) -> Reading:
    """Trainer's old against its newest weights, as the trainer reports it; high where tokens are 1.5 versions
    behind."""
    far, behind = view.facts.staleness, view.facts.lag
    if not np.isfinite(far):
        return reading("staleness", "not recorded", float("nan"), "staleness/abs_diff_mean is not recorded")
    high = far > 0.01 and (not np.isfinite(behind) or behind >= 1.4)
    text = f"old weights differ from the newest by {number(far)} nats on average"
    if np.isfinite(behind):
        text += f", {number(behind)} versions behind"
    return reading("staleness", "high" if high else "low", far, text, unit="nats")


def updates(view: View) -> Reading:
    """Mean |d| against the trainer's staleness for each version of lag: what one update changes on the same tokens. Of
    the first versions with it, where its onset was seen.

    A missed sync is one update there, a layer or a head that was not loaded a part of one, weights under wrong names
    far more; later all but the last have grown.
    """
    far, behind = view.facts.staleness, view.facts.lag
    if not (np.isfinite(far) and np.isfinite(behind) and far > 0 and behind > 0.1) or not np.isfinite(view.mean):
        return reading("updates", "not recorded", float("nan"), "what an update changes is not recorded")
    each = far / max(behind, 0.5)
    first = pooled(by_version(view.columns))[:1] if since(view.whole, view.history, view.floor) else []
    ratio = (first[0][2] / first[0][1] if first else view.mean) / each
    outcome = "slight" if ratio < 0.2 else "part" if ratio < 0.6 else "like one" if ratio < 2 else "beyond"
    text = f"mean |d| is {number(ratio)} times what one update changes ({number(each)} nats)"
    text += f" under the first version with it, {first[0][0]}" if first else ""
    return reading("updates", outcome, ratio, text, unit="updates")
