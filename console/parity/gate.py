"""Correctness before corrections: may an objective-side correction be switched on, or is the backend at fault? Pure.

A correction reweighs what a wrong backend has sampled and hides the fault from clip rate and KL, which then divide by
the trainer's own logprobs. So while the backend fails, switching a correction on needs two confirmations.

The verdict needs no reference run: with the same weights two backends should agree, and how far they may differ is
published. Judged are the newest `window` steps: trimmed means, as in `console.parity.band`, of

- `mismatch/abs_diff_mean` against the `limit` of the parity rules (0.03, the catalogue's warning), and
- `mismatch/kl_k3` against the catalogue's alarm (1e-2), which a few very wrong tokens reach while a mean stays small.

Only steps since the newest change of a fix count: before it the backend was another one. Too few of them, or none for
a while, is not enough data, and needs confirmation as well: a backend that was not measured has not passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from console.formatting import short
from console.parity.band import window_means
from console.parity.rules import Rules, load
from console.store.model import RunModel
from driftline.catalog.corrections import OFF
from driftline.catalog.metrics import BY_NAME, resolve
from driftline.frames import FixState, Frame, Metrics

MISMATCH: Final = "mismatch/abs_diff_mean"
KL: Final = "mismatch/kl_k3"
JUDGED: Final = (MISMATCH, KL)

Points = Sequence[tuple[int, float]]
"""(step, value), steps ascending."""


@dataclass(frozen=True)
class Verdict:
    """`passes`: None where there is not enough data. `why` is a clause with the measured value and its steps.

    `asks`: whether switching a correction on needs two confirmations.
    """

    passes: bool | None
    why: str

    @property
    def asks(self) -> bool:
        return self.passes is not True

    @property
    def word(self) -> str:
        """The verdict in the words of the parity screen."""
        return {True: "pass", False: "fail", None: "not enough data"}[self.passes]


def needs_consent(correction: str, verdict: Verdict) -> bool:
    """Whether switching to `correction` needs two confirmations; switching off never does."""
    return correction != OFF and verdict.asks


def backend_verdict(model: RunModel, rules: Rules | None = None) -> Verdict:
    """The verdict on the backend of a run that a console follows."""
    rules = rules or load()
    newest = {}
    for name in JUDGED:
        points = model.metrics.points(name)
        steps, values = points.steps[-rules.window :], points.values[-rules.window :]
        newest[name] = list(zip(steps.tolist(), values.tolist(), strict=True))
    return judge(newest, since=changed_at(model.fixes.values()), step=model.step, rules=rules)


def verdict_of_frames(frames: Iterable[Frame], rules: Rules | None = None) -> Verdict:
    """The same from frames, oldest first: the newest states of a run and the numbers of its last steps."""
    points: dict[str, dict[int, float]] = {name: {} for name in JUDGED}
    fixes: dict[str, FixState] = {}
    step = -1
    for frame in frames:
        if isinstance(frame, FixState):
            fixes[frame.fix] = frame
        elif isinstance(frame, Metrics):
            step = max(step, frame.step)
            for name, value in frame.values.items():
                if (known := resolve(name)) in points:
                    points[known][frame.step] = value
    ordered = {name: sorted(found.items()) for name, found in points.items()}
    return judge(ordered, since=changed_at(fixes.values()), step=step, rules=rules)


def changed_at(fixes: Iterable[FixState]) -> int:
    """The step at which an engine last reported another value of a fix; -1 where none has reported any."""
    return max((engine.since_step for fix in fixes for engine in fix.engines), default=-1)


def judge(points: Mapping[str, Points], *, since: int, step: int, rules: Rules | None = None) -> Verdict:
    """The verdict over `points` of the JUDGED metrics, of which only steps after `since` count; `step` is the run's.

    A few tokens that were sampled before a change of a fix arrive after it: the trimmed mean leaves such steps out.
    """
    rules = rules or load()
    window, judged = rules.window, {}
    for name in JUDGED:
        newest = [(at, value) for at, value in points.get(name, ()) if at > since][-window:]
        if newest:
            judged[name] = newest
    if MISMATCH not in judged:
        after = f" since a fix changed at step {since}" if since > 0 else ""
        return Verdict(None, f"no {MISMATCH} has been reported{after}")
    steps = [at for at, _ in judged[MISMATCH]]
    if step - steps[-1] > window:
        return Verdict(None, f"no {MISMATCH} has been reported since step {steps[-1]}, the run is at step {step}")
    if len(steps) < window:
        after = f" since a fix changed at step {since}" if since > 0 else ""
        return Verdict(None, f"{len(steps)} of {window} steps{after}")
    found = {name: _mean(newest, window) for name, newest in judged.items() if len(newest) == window}
    span = f"steps {steps[0]} to {steps[-1]}"
    limits = {MISMATCH: rules.metrics[MISMATCH].limit if MISMATCH in rules.metrics else None, KL: BY_NAME[KL].alarm}
    for name, mean in found.items():
        limit = limits[name] if limits[name] is not None else BY_NAME[name].warn
        if limit is not None and not mean <= limit:
            shown = short(mean) if short(mean) != short(limit) else f"{mean:.4g}".removeprefix("0")
            return Verdict(False, f"{name} is {shown} over {span}, limit {short(limit)}")
    return Verdict(True, f"{MISMATCH} is {short(found[MISMATCH])} over {span}")


def _mean(newest: Points, window: int) -> float:
    """The trimmed mean of a window; NaN, which is within no limit, if half of it is not finite."""
    return float(window_means(np.array([value for _, value in newest]), window)[0])
