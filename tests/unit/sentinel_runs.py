"""Made-up runs for the sentinels: noise in the sizes of recorded runs of this project, trouble planted by the tests.

The recorded reference runs (tests/unit/data/parity-runs.csv) have step-to-step noise of 0.31 (log clip fraction), 0.65
(log KL), 0.12 (log entropy) around their trend, correlated by 0.05 to 0.25 from step to step, and no value beyond 3.8
standard deviations. Here: correlation 0.3, and Student's t with 5 degrees of freedom, whose tails are far heavier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from console.sentinels import Alarm, Sentinels
from console.status.link_health import Link
from console.store.model import RunModel
from driftline.frames import EngineState, Frame, Metrics, RunState, Stamped, encode
from tests.tui.synthetic import START

Floats = npt.NDArray[np.float64]
HERE = Link(True, 0.1)


def noise(random: np.random.Generator, n: int, rho: float = 0.3, tails: float = 5.0) -> Floats:
    """A stationary AR(1) of unit variance with Student's t shocks."""
    shocks = random.standard_t(tails, n) * np.sqrt((tails - 2) / tails * (1 - rho**2))
    out, now = np.empty(n), 0.0
    for i in range(n):
        now = rho * now + shocks[i]
        out[i] = now
    return out


def healthy(seed: int, steps: int, rho: float = 0.3) -> dict[str, Floats]:
    random = np.random.default_rng(seed)
    return {
        "policy/clip_fraction": 0.08 * np.exp(0.31 * noise(random, steps, rho)),
        "policy/kl_new_old": 0.006 * np.exp(0.65 * noise(random, steps, rho)),
        "policy/entropy": 0.5 * np.exp(0.12 * noise(random, steps, rho)),
        "reward/mean": 0.5 + 0.03 * noise(random, steps, rho),
        "reward/zero_std_fraction": np.clip(0.4 + 0.1 * noise(random, steps, rho), 0, 1),
        "mismatch/abs_diff_mean": 0.004 * np.exp(0.4 * noise(random, steps, rho)),
    }


class Watched:
    """A model with its sentinels, fed by the test."""

    def __init__(self, sentinels: Sentinels) -> None:
        self.model, self.sentinels = RunModel(), sentinels
        self.changes: list[Alarm] = []
        self.now = 0.0
        self._seq = 0

    def feed(self, *frames: Frame, time: float | None = None) -> None:
        for frame in frames:
            self._seq += 1
            at = START + self.now if time is None else time
            self.model.apply(Stamped(self._seq, at, "trainer", msgspec.Raw(encode(frame))))

    def steps(self, curves: Mapping[str, Iterable[float]], first: int = 1, batch: int = 1) -> None:
        """Tell steps, one a second, and look after every `batch` of them."""
        rows = list(zip(*curves.values(), strict=True))
        for i, row in enumerate(rows):
            self.now += 1.0
            step = first + i
            values = dict(zip(curves, map(float, row), strict=True))
            self.feed(Metrics(step, step // 2, START + self.now, values))
            if (i + 1) % batch == 0 or i == len(rows) - 1:
                self.look()

    def look(self, link: Link = HERE, after: float = 0.0) -> list[Alarm]:
        self.now += after
        changes = self.sentinels.update(self.model, self.now, link)
        self.changes += changes
        return changes

    def words(self) -> list[str]:
        """What happened: rule, state and step of every change."""
        return [
            f"{alarm.rule} {alarm.state} {alarm.cleared_step if alarm.cleared_time else alarm.step}"
            for alarm in self.changes
        ]


def engine(name: str = "engine-0", version: int = 5, **changes: object) -> EngineState:
    state = EngineState(name, "running", version, START, 4, 0, 0.1, 0.0, 900.0)
    return msgspec.structs.replace(state, **changes)


def run_state(status: str = "running", step: int = 1) -> RunState:
    return RunState("demo-7f3a", status, step, 900, 1, START)  # type: ignore[arg-type]  # a word of RunStatus
