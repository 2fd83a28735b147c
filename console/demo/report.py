"""The demonstration's report, from the frames of its run: before and after the fixes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final

from console.formatting import short
from driftline.catalog.fixes import ON
from driftline.catalog.metrics import resolve
from driftline.frames import FixState, Frame, Metrics, RunState

WINDOW: Final = 10
"""Steps to average over."""
REWARD_GAIN: Final = 0.2
"""Required rise of the mean reward over the steps before the switch."""
MISMATCH_FALL: Final = 10.0
"""Required ratio of the mismatch before the switch to that at the end."""

REWARD: Final = "reward/mean"
MISMATCH: Final = "mismatch/abs_diff_mean"
SHOWN: Final = (
    ("reward", REWARD),
    ("entropy", "policy/entropy"),
    ("clip fraction", "policy/clip_fraction"),
    ("mismatch mean|Δlogp|", MISMATCH),
)


@dataclass
class DemoReport:
    """Collects the steps of a run; `switched` is the last step that was seen when the first fix was switched on."""

    steps: dict[int, dict[str, float]] = field(default_factory=dict)
    fixes: dict[str, FixState] = field(default_factory=dict)
    state: RunState | None = None
    switched: int | None = None

    @property
    def step(self) -> int:
        """The newest step with numbers, -1 before the first."""
        return max(self.steps, default=-1)

    def add_frame(self, frame: Frame) -> None:
        """Add one frame; frames must come in the order of the journal."""
        match frame:
            case Metrics():
                values = {resolve(name): value for name, value in frame.values.items()}
                self.steps.setdefault(frame.step, {}).update(values)
            case RunState():
                self.state = frame
            case FixState():
                before = self.fixes.get(frame.fix)
                self.fixes[frame.fix] = frame
                turned_on = before is not None and before.requested != ON and frame.requested == ON
                if self.switched is None and turned_on and self.step >= 0:
                    self.switched = self.step
            case _:
                pass

    def first(self, name: str) -> float | None:
        """Mean over the first ten steps."""
        return self._mean(name, sorted(self.steps)[:WINDOW])

    def before(self, name: str) -> float | None:
        """Mean over the ten steps before the switch."""
        if self.switched is None:
            return None
        return self._mean(name, [step for step in sorted(self.steps) if step <= self.switched][-WINDOW:])

    def last(self, name: str) -> float | None:
        """Mean over the last ten steps."""
        return self._mean(name, sorted(self.steps)[-WINDOW:])

    def _mean(self, name: str, steps: Sequence[int]) -> float | None:
        values = [self.steps[step][name] for step in steps if name in self.steps[step]]
        return fmean(values) if values else None


def table(report: DemoReport) -> list[str]:
    """The numbers before and after, as aligned lines."""
    heads = ("first ten", "before the switch", "last ten")
    lines = [f"{'':22}" + "".join(f"{head:>19}" for head in heads)]
    for title, name in SHOWN:
        cells = (report.first(name), report.before(name), report.last(name))
        lines.append(f"{title:22}" + "".join(f"{short(cell):>19}" for cell in cells))
    return lines


@dataclass(frozen=True)
class Verdict:
    """Result of the check after the fixes: `gain` of the mean reward, `fall` of the mismatch as a ratio."""

    gain: float
    fall: float

    @property
    def passed(self) -> bool:
        """True if both reach their limits; False with a NaN."""
        return self.gain >= REWARD_GAIN and self.fall >= MISMATCH_FALL

    def __str__(self) -> str:
        return (
            f"reward {self.gain:+.2f} (needs {REWARD_GAIN:+.2f}), "
            f"mismatch {self.fall:.0f} times smaller (needs {MISMATCH_FALL:.0f})"
        )


def verdict(report: DemoReport) -> Verdict | None:
    """Compare the last ten steps with the ten before the switch; None where one of them is missing."""
    figures = (report.before(REWARD), report.last(REWARD), report.before(MISMATCH), report.last(MISMATCH))
    if report.switched is None or report.step - report.switched < WINDOW or None in figures:
        return None
    reward_before, reward_after, mismatch_before, mismatch_after = (float(figure or 0.0) for figure in figures)
    fall = mismatch_before / mismatch_after if mismatch_after else float("inf")
    return Verdict(reward_after - reward_before, fall)
