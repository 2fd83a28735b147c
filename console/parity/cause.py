"""Likely causes of a failed metric: mismatch, staleness or drift, kept apart, and the fixes that explain it.

Heuristics, in this order (signatures: the threads surveyed for `driftline/catalog/metrics.py`):

1. the mismatch is out of its band around the step where the metric left its own: the backend. Fixes that the reference
   has and the run has not are named; without such a difference, the sign of the mismatch is read: an offset on one side
   is raw against processed logprobs, noise on both sides precision or stale blocks;
2. the mismatch was out, and is back in its band: its earlier effect on the weights, the aftermath;
3. the staleness is out of its band: weights too old, the price of asynchrony;
4. the mismatch was not recorded, or not over enough steps: the cause is unknown, and that is said;
5. none of these: drift, the learning itself; settings that differ are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from msgspec.structs import asdict, replace

from console.formatting import short
from console.parity.judge import Comparison, Judged, compare
from console.parity.rules import Rule, load
from console.parity.runs import Run
from driftline.catalog.fixes import BY_ID

Kind = Literal["mismatch", "aftermath", "staleness", "drift", "unknown"]

MISMATCH: Final = "mismatch/abs_diff_mean"
SIGNED: Final = "mismatch/kl_k1"
STALENESS: Final = "staleness/abs_diff_mean"
LAG: Final = "async/version_lag_mean"
READ: Final = frozenset({MISMATCH, SIGNED, STALENESS, LAG})
"""Metrics that are read besides those with a rule."""

_STALE: Final = Rule(scale="log", floor=0.01, spread=0.5, side="high")
_ONE_SIDED: Final = 0.3
"""Share of the mean |difference| that is one signed offset; noise of 10^3 tokens has about 0.03."""
_NOT_SETTINGS: Final = frozenset({"run.name", "run.seed", "run.steps", "fixes"})


@dataclass(frozen=True)
class Cause:
    """`fixes`: those that the reference has and the run has not. `text` is a clause for people."""

    kind: Kind
    text: str
    fixes: tuple[str, ...] = ()


def causes(comparison: Comparison) -> dict[str, Cause]:
    """The likely cause of every metric that failed."""
    failed = [judged for judged in comparison.metrics if judged.verdict == "fail"]
    if not failed:
        return {}
    # The whole run counts here, also where only the steps after a switch are judged.
    backends = {name: rule for name, rule in load().metrics.items() if rule.backend}
    mismatch = _helper(comparison, backends)
    staleness = _helper(comparison, {STALENESS: _STALE})
    return {judged.metric: _cause(judged, comparison, mismatch, staleness) for judged in failed}


def _helper(comparison: Comparison, wanted: dict[str, Rule]) -> Sequence[Judged]:
    """Metrics that every run has, judged over the whole run; those with too few steps are left out."""
    runs = (comparison.run, *comparison.references)
    metrics = {
        name: replace(comparison.rules.metrics.get(name, rule), effect=None)
        for name, rule in wanted.items()
        if all(name in one.series for one in runs)
    }
    rules = replace(comparison.rules, metrics=metrics)
    judged = compare(comparison.references, comparison.run, rules, until=comparison.until).metrics
    return [one for one in judged if one.band is not None]


def _cause(judged: Judged, comparison: Comparison, mismatch: Sequence[Judged], staleness: Sequence[Judged]) -> Cause:
    rules, run = comparison.rules, comparison.run
    # After a switch: the cause at the end. Else: the cause when the metric left its band.
    at = judged.first if comparison.start is None or judged.curve is None else int(judged.curve.steps[-1])
    own = comparison.rules.metrics.get(judged.metric)
    if (own is not None and own.backend) or any(_out(one, at, 2 * rules.window) for one in mismatch):
        return _backend(run, comparison.references, at, rules.window)
    earlier = [
        one.last
        for metric in mismatch
        for one in metric.excursions
        if one.last is not None and at is not None and one.last < at
    ]
    if earlier:
        text = f"aftermath: mismatch until step {max(earlier)}, and the weights still carry what it did to them"
        return Cause("aftermath", text)
    if any(_out(one, at, 2 * rules.window) for one in staleness):
        lags = f"{_mean([run], LAG)} versions, reference {_mean(comparison.references, LAG)}"
        return Cause("staleness", f"staleness: tokens come from older weights than the reference's (lag {lags})")
    settings = _settings(run, comparison.references[0])
    known = _recorded(mismatch, at, rules.window), _recorded(staleness, at, rules.window)
    if not known[0]:
        aged = "staleness is the reference's" if known[1] else "staleness not recorded"
        return Cause("unknown", f"not known: mismatch not recorded, {aged}; {settings}")
    aged = "mismatch and staleness are" if known[1] else "staleness not recorded, mismatch is"
    return Cause("drift", f"drift: {aged} the reference's; {settings}")


def _recorded(metrics: Sequence[Judged], at: int | None, window: int) -> bool:
    """Whether one of the metrics was compared around the step `at`, without a hole."""
    judged = [one for one in metrics if one.verdict != "not enough data"]
    if at is None:
        return bool(judged)
    return any(
        one.since is not None and one.until is not None and one.since - window <= at <= one.until + window
        for one in judged
    )


def _out(judged: Judged, at: int | None, reach: int) -> bool:
    """Whether an excursion of the metric touches the steps around `at`."""
    if at is None:
        return False
    return any(one.first - reach <= at and (one.last is None or at <= one.last) for one in judged.excursions)


def _backend(run: Run, references: Sequence[Run], at: int | None, window: int) -> Cause:
    at = at if at is not None else 0
    # A window's mean is outside now: the fixes may have been switched on within the window.
    for step, word in ((at, "off here"), (at - window, "off here until recently")):
        missing = _missing(run, references, step)
        if missing:
            return Cause("mismatch", f"mismatch: {', '.join(missing)} {word}, on in the reference", missing)
    if run.fixes and any(reference.fixes for reference in references):
        known = "with the reference's fixes"
    else:
        known = "fixes not recorded"
    return Cause("mismatch", f"mismatch, {known}: {_signature(run)}")


def _missing(run: Run, references: Iterable[Run], at: int) -> tuple[str, ...]:
    mine = run.fixes_at(at)
    theirs = [reference.fixes_at(at) for reference in references if reference.fixes]

    def repaired(fix: str, value: str) -> bool:
        return fix in BY_ID and value in BY_ID[fix].repairs

    return tuple(
        fix
        for fix, value in mine.items()
        if value and not repaired(fix, value) and theirs and all(repaired(fix, state.get(fix, "")) for state in theirs)
    )


def _signature(run: Run) -> str:
    if SIGNED not in run.series or MISMATCH not in run.series:
        return "the sign of the difference is not recorded"
    signed, size = (float(np.nanmean(run.series[name].values)) for name in (SIGNED, MISMATCH))
    if size and abs(signed) / size > _ONE_SIDED:
        return "an offset on one side, as of raw against processed logprobs"
    return "noise on both sides, as of precision, kernels or stale cache blocks"


def _mean(runs: Iterable[Run], name: str) -> str:
    values = [float(np.nanmean(run.series[name].values)) for run in runs if name in run.series]
    return short(sum(values) / len(values)) if values else "not recorded"


def _settings(run: Run, reference: Run) -> str:
    if run.config is None or reference.config is None:
        return "what else differs is not recorded"
    mine, theirs = _flat(asdict(run.config)), _flat(asdict(reference.config))
    different = [
        f"{key} {theirs[key]} in the reference, {mine[key]} here"
        for key in mine
        if mine[key] != theirs[key] and key not in _NOT_SETTINGS
    ]
    return f"settings differ: {'; '.join(different[:3])}" if different else "the settings are the same"


def _flat(sections: dict[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, section in sections.items():
        if name in _NOT_SETTINGS:
            continue
        # Every section but `fixes` is a struct of plain values.
        fields = section.__struct_fields__ if hasattr(section, "__struct_fields__") else ()
        found |= {f"{name}.{key}": getattr(section, key) for key in fields}
    return found
