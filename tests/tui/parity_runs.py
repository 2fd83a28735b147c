"""Runs for the parity screen: references as directories with journals, and a run that is fed to the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from driftline.frames import FixState, Frame, Metrics
from driftline.rundir import RunDir
from tests.tui.synthetic import FakeSource, default_fixes, engines, fix_state, run_state
from tests.unit import runs
from tests.unit.parity_curves import healthy

STEPS = 90
REPAIRED = ("processed-logprobs", "prefix-cache-off", "fp32-lm-head")


def curves(seed: int, *, broken_from: int = STEPS + 1) -> list[Metrics]:
    """A healthy run by step, whose backend is wrong from a step on."""
    values = healthy(seed)
    values["mismatch/abs_diff_mean"][broken_from:] += 0.4
    values["policy/clip_fraction"][broken_from:] += 0.3
    values["policy/kl_new_old"][broken_from:] *= 8
    return [
        Metrics(i + 1, i // 2, 1_763_900_000.0 + i, {name: float(series[i]) for name, series in values.items()})
        for i in range(STEPS)
    ]


def fixes(value: str) -> Iterator[FixState]:
    for fix in default_fixes():
        yield fix_state(fix.fix, value, (value, value)) if fix.fix in REPAIRED else fix


def reference(root: Path, seed: int) -> RunDir:
    """A finished healthy run with its fixes on."""
    run = RunDir(root / f"healthy-{seed:04d}")
    run.journal.mkdir(parents=True)
    runs.journal(run, [*fixes("on"), *curves(seed)])
    return run


def fed(source: FakeSource, seed: int = 9, *, broken_from: int = STEPS + 1, until: int = STEPS) -> FakeSource:
    """The run that is looked at: at vLLM's defaults where its backend is wrong."""
    value = "on" if broken_from > STEPS else "off"
    frames: list[Frame] = [*fixes(value), *curves(seed, broken_from=broken_from)[:until], run_state(until), *engines()]
    source.feed(frames)
    return source


def repaired(switched: int = 50) -> FakeSource:
    """A run with vLLM's defaults whose fixes are switched on at a step, and which comes home then."""
    source = FakeSource()
    on = [fix_state(fix, "on", ("on", "on"), version=20, step=switched) for fix in REPAIRED]
    source.feed([*fixes("off"), *curves(9, broken_from=1)[:switched], *on])
    source.feed([*curves(9)[switched:], run_state(STEPS), *engines()])
    return source
