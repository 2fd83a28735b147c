"""How often the sentinels alarm on healthy noise, and how soon they find a fault: the tables of docs/sentinels.md.

Real rules over a real model; only the numbers of the runs are made up, in the sizes of this project's recorded runs
(`tests.unit.sentinel_runs`). Noise models are crossed: correlation from step to step, tails, and a standard deviation
that grows threefold over the run (of the logarithm for metrics that are positive by nature).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Final

import numpy as np
import numpy.typing as npt

from console.recorded.metric_columns import Stretch
from console.sentinels import Alarm, Rules, Sentinels, load
from console.status.link_health import Link
from console.store.model import RunModel

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Curves = dict[str, Floats]

SEEDS: Final = tuple(range(20))
HEALTHY_STEPS: Final = 5_000
ONSET: Final = 300
"""Step at which a fault begins."""
AFTER: Final = 400
"""Steps that a fault lasts, and is looked for."""
_HERE: Final = Link(True, 0.1)
_START: Final = 1_780_000_000.0


@dataclass(frozen=True)
class Noise:
    """AR(1) with correlation `rho` and Student's t shocks of `tails` degrees of freedom, growing to `growth` times."""

    rho: float
    tails: float = 5.0
    growth: float = 1.0

    @property
    def name(self) -> str:
        """As the table calls it."""
        tails = "" if self.tails == 5 else f", t({self.tails:g})"
        return f"ρ {self.rho:.1f}{tails}{f', ×{self.growth:g}' if self.growth != 1 else ''}".replace("0.", ".")


MODELS: Final = tuple(
    Noise(rho, tails, growth) for growth in (1.0, 3.0) for tails in (5.0, 3.0) for rho in (0.0, 0.3, 0.6, 0.9)
)


def noise(noise_of: Noise, seed: int, steps: int, columns: int) -> Floats:
    """Noise of unit variance at its start, shape (steps, columns)."""
    random = np.random.default_rng((seed, int(100 * noise_of.rho), int(noise_of.tails), int(noise_of.growth)))
    spread = np.sqrt((noise_of.tails - 2) / noise_of.tails * (1 - noise_of.rho**2))
    shocks = random.standard_t(noise_of.tails, (steps, columns)) * spread
    for i in range(1, steps):
        shocks[i] += noise_of.rho * shocks[i - 1]
    return np.asarray(shocks * np.linspace(1.0, noise_of.growth, steps)[:, np.newaxis])


def healthy(noise_of: Noise, seed: int, steps: int) -> Curves:
    """The metrics of a run that is well, each of shape (steps,)."""
    clip, kl, entropy, reward, same, mismatch, tail, sign = noise(noise_of, seed, steps, 8).T
    size = 0.004 * np.exp(0.4 * mismatch)
    k3 = 0.8 * size**2
    return {
        "policy/clip_fraction": np.minimum(0.08 * np.exp(0.31 * clip), 1.0),
        "policy/kl_new_old": 0.006 * np.exp(0.65 * kl),
        "policy/entropy": 0.5 * np.exp(0.12 * entropy),
        "reward/mean": 0.5 + 0.03 * reward,
        "reward/zero_std_fraction": 1 / (1 + 1.5 * np.exp(-0.42 * same)),
        "mismatch/abs_diff_mean": size,
        "mismatch/abs_diff_p99": 8.0 * size,
        "mismatch/abs_diff_max": 0.8 * np.exp(0.3 * tail),
        "mismatch/kl_k3": k3,
        "mismatch/kl_k1": k3 + 0.0003 * sign,
        "mismatch/mult_prob_error": 1.0 + size + k3,
        "mismatch/ratio_mean": 1.0 + 0.0005 * sign,
        "mismatch/ess": 1.0 - 2.0 * k3,
    }


class Run:
    """A model with its sentinels, given the curves of a run whose steps are 1, 2, ... part by part."""

    def __init__(self, curves: Mapping[str, Floats], rules: Rules, absent: Mapping[str, Bools] | None = None) -> None:
        """`absent` says on which steps a metric is not reported; shapes (steps,) all."""
        self._model, self._sentinels = RunModel(), Sentinels(rules)
        absent = absent or {}
        groups = [(None, [name for name in curves if name not in absent]), *((name, [name]) for name in absent)]
        self._groups = [({one: curves[one] for one in names}, absent.get(name or "")) for name, names in groups]
        self.steps = len(next(iter(curves.values())))
        self._reported = 0

    def go(self, step: int) -> list[Alarm]:
        """Report the steps up to this one; returns what is raised."""
        begin, end, self._reported = self._reported, step, step
        stretches = []
        for curves, absent in self._groups:
            index = np.arange(begin, end)
            index = index if absent is None else index[~absent[begin:end]]
            if len(index):
                values = {name: column[index] for name, column in curves.items()}
                stretches.append(Stretch(index + 1, index + 1, np.asarray(_START + index, np.float64), values, {}))
        self._model.apply_metrics(stretches)
        changed = self._sentinels.update(self._model, 0.0, _HERE)
        return [alarm for alarm in changed if alarm.state == "raised"]


def alarms(curves: Mapping[str, Floats], rules: Rules) -> list[Alarm]:
    """All that is raised over a run."""
    run = Run(curves, rules)
    return run.go(run.steps)


def false_alarms(
    rules: Rules, models: Sequence[Noise] = MODELS, seeds: Iterable[int] = SEEDS, steps: int = HEALTHY_STEPS
) -> dict[Noise, Counter[str]]:
    """Alarms raised on healthy runs, by rule."""
    return {
        model: Counter(alarm.rule for seed in seeds for alarm in alarms(healthy(model, seed, steps), rules))
        for model in models
    }


# -- faults


@dataclass(frozen=True)
class Fault:
    """A fault that `change` plants in curves, given the steps since its onset (0 there), and the rules to find it."""

    name: str
    rules: tuple[str, ...]
    change: Callable[[Curves, Floats], None]
    absent: Callable[[Floats], Bools] | None = None
    """At which of these steps the mismatch is not reported."""


def _scale(metric: str, factor: Callable[[Floats], Floats]) -> Callable[[Curves, Floats], None]:
    def change(curves: Curves, since: Floats) -> None:
        curves[metric][-len(since) :] *= factor(since)

    return change


def _put(metric: str, value: float, until: float = np.inf) -> Callable[[Curves, Floats], None]:
    def change(curves: Curves, since: Floats) -> None:
        curves[metric][-len(since) :][since < until] = value

    return change


def _nothing(curves: Curves, since: Floats) -> None:
    """All values stay."""


def _decay(tau: float, floor: float = 0.0) -> Callable[[Floats], Floats]:
    return lambda since: floor + (1 - floor) * np.exp(-since / tau)


def _ramp(to: float, steps: float) -> Callable[[Floats], Floats]:
    return lambda since: to ** np.minimum(since / steps, 1.0)


LOW: Final = ("entropy-collapse", "entropy-decay", "entropy-spent")
REWARD: Final = ("reward-collapse", "reward-drop")
HIGH: Final = ("entropy-rise", "entropy-climb")
KL: Final = ("kl-spike", "kl-limit")
JUMPS: Final = ("mismatch-jump", "mismatch-climb", "mismatch-k3-jump", "mismatch-k1-jump", "mismatch-error-jump")
LIMITS: Final = ("mismatch-limit", "mismatch-error", "mismatch-k3", "mismatch-k1", "mismatch-ratio")
ABSENT: Final = ("metric-missing",)
FAULTS: Final = (
    Fault("reward falls to 0 at once", REWARD, _put("reward/mean", 0.0)),
    Fault(
        "reward falls to 0 over 50 steps",
        REWARD,
        _scale("reward/mean", lambda s: np.maximum(1 - s / 50, 0)),
    ),
    Fault("reward NaN", ABSENT, _put("reward/mean", np.nan)),
    Fault("entropy × 4 at once", HIGH, _scale("policy/entropy", lambda s: 4.0 + 0 * s)),
    Fault("entropy × 4 over 50 steps", HIGH, _scale("policy/entropy", _ramp(4.0, 50))),
    Fault("entropy × 4 over 200 steps", HIGH, _scale("policy/entropy", _ramp(4.0, 200))),
    Fault("entropy to 2 %, time constant 5", LOW, _scale("policy/entropy", _decay(5, 0.02))),
    Fault("entropy to 2 %, time constant 50", LOW, _scale("policy/entropy", _decay(50, 0.02))),
    Fault("entropy decays, time constant 200", LOW, _scale("policy/entropy", _decay(200))),
    Fault("clip fraction × 6", ("clip-jump",), _scale("policy/clip_fraction", lambda s: 6.0 + 0 * s)),
    Fault("KL 1.5 for three steps", KL, _put("policy/kl_new_old", 1.5, until=3)),
    Fault("KL × 50 for good", KL, _scale("policy/kl_new_old", lambda s: 50.0 + 0 * s)),
    # With this noise single steps of it are above the limit.
    Fault(
        "mismatch × 7, below its limit",
        (*JUMPS, *LIMITS),
        _scale("mismatch/abs_diff_mean", lambda s: 7.0 + 0 * s),
    ),
    Fault("mismatch × 7 over 100 steps", (*JUMPS, *LIMITS), _scale("mismatch/abs_diff_mean", _ramp(7.0, 100))),
    Fault("mismatch × 30, above its limit", LIMITS, _scale("mismatch/abs_diff_mean", lambda s: 30.0 + 0 * s)),
    Fault("importance ratio 3e-7", LIMITS, _put("mismatch/ratio_mean", 3e-7)),
    Fault("mismatch NaN", (*ABSENT, *LIMITS), _put("mismatch/abs_diff_mean", np.nan)),
    Fault("mismatch ends", ABSENT, _nothing, lambda s: s >= 0),
    Fault("mismatch at every second step", ABSENT, _nothing, lambda s: s % 2 == 0),
)


def planted(fault: Fault, noise_of: Noise, seed: int, rules: Rules) -> Run:
    """A healthy run with a fault from step ONSET + 1 on."""
    curves = healthy(noise_of, seed, ONSET + AFTER)
    since = np.arange(AFTER, dtype=np.float64)
    fault.change(curves, since)
    if fault.absent is None:
        return Run(curves, rules)
    absent = np.concatenate([np.zeros(ONSET, bool), fault.absent(since)])
    return Run(curves, rules, {"mismatch/abs_diff_mean": absent})


def delay(fault: Fault, noise_of: Noise, seed: int, rules: Rules) -> tuple[int, str] | None:
    """Steps with the fault that were reported when a rule for it was raised, and that rule; None if none was."""
    run = planted(fault, noise_of, seed, rules)
    run.go(ONSET)
    for since in range(1, AFTER + 1):
        for alarm in run.go(ONSET + since):
            if alarm.rule in fault.rules:
                return since, alarm.rule
    return None


def phase_change(noise_of: Noise, seed: int, steps: float = 30.0) -> Curves:
    """Healthy: reward from .3 to .9 within so many steps, while entropy falls to a fifth."""
    curves = healthy(noise_of, seed, ONSET + AFTER)
    part = 1 / (1 + np.exp(-(np.arange(ONSET + AFTER) - ONSET - steps / 2) / (steps / 8)))
    curves["reward/mean"] += 0.6 * part - 0.2
    curves["policy/entropy"] *= 0.2**part
    return curves


# -- tables


def _false_alarm_table(rules: Rules) -> Iterator[str]:
    found = false_alarms(rules)
    ten_thousands = len(SEEDS) * HEALTHY_STEPS / 10_000
    names = [name for name, _ in rules if any(count[name] for count in found.values())]
    yield "| noise | all rules | of these |"
    yield "|---|---|---|"
    for noise_of, count in found.items():
        parts = [f"{name} {count[name] / ten_thousands:.1f}" for name in sorted(names, key=lambda one: -count[one])]
        shown = [part for part in parts if not part.endswith(" 0.0")]
        yield f"| {noise_of.name} | {count.total() / ten_thousands:.1f} | {', '.join(shown) or '-'} |"


def _delay_table(rules: Rules) -> Iterator[str]:
    yield "| fault | ρ .3: found | delay, median (most) | ρ .9: found | delay, median (most) | by |"
    yield "|---|---|---|---|---|---|"
    for fault in FAULTS:
        cells, by = [fault.name], Counter[str]()
        for noise_of in (Noise(0.3), Noise(0.9)):
            found = [one for seed in SEEDS if (one := delay(fault, noise_of, seed, rules)) is not None]
            after = [since for since, _ in found]
            by.update(rule for _, rule in found)
            cells += [f"{len(found)} of {len(SEEDS)}", f"{median(after):.0f} ({max(after)})" if after else "-"]
        yield f"| {' | '.join(cells)} | {', '.join(name for name, _ in by.most_common(3))} |"


def _phase_table(rules: Rules) -> Iterator[str]:
    yield "| reward .3 to .9, entropy to a fifth, within | ρ .3 | ρ .9 |"
    yield "|---|---|---|"
    for steps in (10.0, 30.0, 100.0):
        cells = []
        for noise_of in (Noise(0.3), Noise(0.9)):
            runs = [alarms(phase_change(noise_of, seed, steps), rules) for seed in SEEDS]
            count = sum(any(one.rule in LOW for one in found) for found in runs)
            cells.append(f"{count} of {len(SEEDS)}")
        yield f"| {steps:.0f} steps | {' | '.join(cells)} |"


ALONE: Final[dict[str, Callable[[Floats], Floats]]] = {
    "mismatch/abs_diff_mean": lambda size: 7 * size,
    "mismatch/kl_k3": lambda k3: 49 * k3,
    "mismatch/kl_k1": lambda k1: k1 + 0.012,
    "mismatch/mult_prob_error": lambda error: 1 + 7 * (error - 1),
}
"""Names of a mismatch that may be the only one of a run, and what seven times the difference makes of each.

The signed KL rises by .012."""


def _alone_table(rules: Rules) -> Iterator[str]:
    models = (Noise(0.3), Noise(0.9), Noise(0.9, growth=3.0))
    yield f"| only metric | {' | '.join(f'false, {one.name}' for one in models)} | × 7 found, ρ .3 | most steps |"
    yield "|---|---|---|---|---|---|"
    seeds = SEEDS[:10]
    for name, change in ALONE.items():
        cells = []
        for model in models:
            runs = [alarms({name: healthy(model, seed, HEALTHY_STEPS)[name]}, rules) for seed in seeds]
            cells.append(f"{sum(map(len, runs)) / (len(seeds) * HEALTHY_STEPS / 10_000):.1f}")
        after = []
        for seed in SEEDS:
            values = healthy(models[0], seed, ONSET + AFTER)[name]
            values[ONSET:] = change(values[ONSET:])
            run = Run({name: values}, rules)
            run.go(ONSET)
            after += [since for since in range(1, 101) if run.go(ONSET + since)][:1]
        yield f"| `{name}` | {' | '.join(cells)} | {len(after)} of {len(SEEDS)} | {max(after, default=0)} |"


def tables() -> Iterable[str]:
    """The tables of docs/sentinels.md, line by line."""
    rules = load()
    yield f"Sentinels: seeds {SEEDS[0]} to {SEEDS[-1]}, {HEALTHY_STEPS} healthy steps, faults from step {ONSET + 1}"
    yield ""
    yield "False alarms in 10,000 healthy steps:"
    yield ""
    yield from _false_alarm_table(rules)
    yield ""
    yield "Faults: runs in which they are found, and after how many of their steps:"
    yield ""
    yield from _delay_table(rules)
    yield ""
    yield "A run that reports one name of the mismatch only:"
    yield ""
    yield from _alone_table(rules)
    yield ""
    yield "Healthy phase changes: runs with an alarm of low entropy:"
    yield ""
    yield from _phase_table(rules)
    yield ""
    yield _cost(rules)


def _cost(rules: Rules) -> str:
    curves = {name: np.tile(values, 20) for name, values in healthy(Noise(0.3), 0, 5_000).items()}
    began, run = perf_counter(), Run(curves, rules)
    run.go(run.steps)
    whole = perf_counter() - began
    run = Run(curves, rules)
    run.go(run.steps - 500)
    began = perf_counter()
    for step in range(run.steps - 500, run.steps):
        run.go(step + 1)
    one = perf_counter() - began
    return (
        f"Cost on this machine: {whole / run.steps * 1e6:.0f} µs a step for all rules where {run.steps} steps come in "
        f"at once, {one / 500 * 1e3:.1f} ms for a step that comes alone"
    )
