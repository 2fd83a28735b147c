"""`python -m tests.blind.mixtures [--seed N]`: an attribution against what repairing each layer then really changes.

Faults of several layers act together while a real run trains. Then the weights are frozen (a learning rate of 0, so
that nothing else changes), active rounds attribute the mismatch of eight steps, and the faults are taken away one after
the other, in the order of the layers. What the mean |d| of the run's own frames then falls by, over 1,600 tokens on
each side, is held against the share that the rounds had given. Exit code 0 where every share is within 10 % of what was
changed, or what was changed within its interval, and the sum is within 5 % of the whole.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from driftline import config as configuration
from driftline.frames import Ack, Tokens, floats
from driftline.journal.records import read
from driftline.rundir import RunDir
from tests.blind.cases import Case, merged, on_all, on_one
from tests.blind.faults import EngineFault
from tests.blind.faulty_trainer import Acts
from tests.blind.recorded import JournalProbe
from tests.blind.stage import Stage
from trainer.setup import Setup

BEGIN: Final = 3
"""The sync that brings the faults which come later."""
FROZEN: Final = 10
"""The step from whose sync on nothing is learnt any more."""
STEPS: Final = 8
"""Steps on each side of a change: some 270 tokens each."""
SETTLED: Final = 2
"""Steps after a change that are left out: tokens that were asked for before it."""
TOKENS: Final = "400"
SHARE, SUM = 0.10, 0.05

Faults = Mapping[str, EngineFault]


@dataclass(frozen=True)
class Layered:
    """Faults by layer, in the order in which they are taken away; `late` come with the sync BEGIN."""

    name: str
    layers: tuple[str, ...]
    faults: Mapping[str, Faults]
    late: frozenset[str] = field(default_factory=frozenset)

    def without(self, gone: Sequence[str], *, early: bool = False) -> dict[str, EngineFault]:
        """The faults that are left; `early`: before the late ones."""
        found: dict[str, EngineFault] = {}
        for layer in self.layers:
            if layer not in gone and not (early and layer in self.late):
                found = merged(found, self.faults[layer])
        return found


FAULTS: Final[dict[str, Faults]] = {
    "semantics": on_all(EngineFault(mode="raw_logprobs")),
    "inference path": on_all(EngineFault(stale_cache=True)),
    "weight update": on_one(EngineFault(keep=("",))),
    "numerics": on_all(EngineFault(head="bfloat16")),
}
LATE: Final = frozenset({"inference path", "weight update"})


def _mixture(*layers: str) -> Layered:
    return Layered(" + ".join(layers), layers, {layer: FAULTS[layer] for layer in layers}, LATE)


MIXTURES: Final = (
    _mixture("semantics", "inference path", "numerics"),
    _mixture("semantics", "inference path"),
    _mixture("semantics", "numerics"),
    _mixture("inference path", "numerics"),
    _mixture("semantics", "inference path", "weight update"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them all; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.blind.mixtures", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    given = parser.parse_args(arguments)
    print(f"mixtures, seed {given.seed}", flush=True)
    said: list[str] = []
    good = True
    with tempfile.TemporaryDirectory(prefix="blind-") as root:
        stage = Stage(Path(root), given.seed, said=said.append)
        try:
            for number, one in enumerate(MIXTURES):
                good &= _measured(stage, one, given.seed + number, Path(root) / f"mixture-{number}")
        finally:
            stage.close()
    return 0 if good else 1


def _measured(stage: Stage, mixture: Layered, seed: int, folder: Path) -> bool:
    """Run one mixture and print its lines; whether its shares are what switching changed."""
    run = RunDir(folder)
    probe = JournalProbe(run)
    run.config.write_text(stage.text(seed, 2e-3, 0, 1))
    config = configuration.parse(run.config.read_text(), str(run.config))
    changes = {layer: FROZEN + SETTLED + STEPS * (at + 1) for at, layer in enumerate(mixture.layers)}
    steps = max(changes.values()) + STEPS
    case = Case(mixture.name, (), mixture.without((), early=True))

    def acts(setup: Setup) -> Acts:
        def freeze() -> None:
            for group in setup.updater.optimizer.param_groups:
                group["lr"] = 0.0

        found: dict[int, Callable[[], None]] = {BEGIN: lambda: stage.inject(mixture.without(())), FROZEN: freeze}
        for at, (layer, step) in enumerate(changes.items()):
            gone = mixture.layers[: at + 1]
            found[step] = lambda gone=gone: stage.inject(mixture.without(gone))  # type: ignore[misc]
            del layer
        return found

    try:
        first = FROZEN + SETTLED
        stage.train(case, config, run, probe, steps, acts, dict.fromkeys(range(first + 1, first + STEPS + 1), TOKENS))
    finally:
        probe.close()
        stage.reset()
    return _compared(run, mixture, changes)


def _compared(run: RunDir, mixture: Layered, changes: Mapping[str, int]) -> bool:
    sizes: dict[int, np.ndarray] = {}
    rounds: list[Mapping[str, str | float | int | bool]] = []
    for stamped in read(run.journal):
        frame = stamped.frame()
        if isinstance(frame, Tokens):
            size = np.abs(floats(frame.rollout).astype(np.float64) - floats(frame.trainer))
            sizes[frame.step] = np.concatenate([sizes.get(frame.step, np.zeros(0)), size])
        if isinstance(frame, Ack) and frame.state == "applied":
            rounds.append(frame.data)

    def level(first: int) -> float:
        """Mean |d| over the steps of one stretch."""
        return float(np.concatenate([sizes[step] for step in range(first + SETTLED + 1, first + STEPS + 1)]).mean())

    def given(name: str) -> float:
        """A figure's mean over the tokens of all rounds."""
        weights = [float(one["tokens"]) for one in rounds]
        return float(np.average([float(one[name]) for one in rounds], weights=weights))

    levels = [level(FROZEN + SETTLED), *(level(step) for step in changes.values())]
    whole = levels[0]
    good = True
    print(f"{mixture.name}: mean |d| {whole:.4f}, by {len(rounds)} rounds {given('total'):.4f}")
    for at, layer in enumerate(mixture.layers):
        changed = levels[at] - levels[at + 1]
        share, low, high = (given(f"share.{layer}{end}") for end in ("", ".low", ".high"))
        near = abs(share - changed) <= SHARE * max(abs(changed), SUM * whole)
        inside = low <= changed <= high
        good &= near or inside
        how = "within 10 %" if near else "inside its interval" if inside else "OFF"
        print(f"  {layer:<15} share {share:.4f} ({low:.4f} to {high:.4f}), switching changed {changed:.4f}: {how}")
    total = sum(given(f"share.{layer}") for layer in mixture.layers)
    rest = abs(total - (whole - levels[-1]))
    print(
        f"  {'all':<15} share {total:.4f}, switching changed {whole - levels[-1]:.4f}, left {levels[-1]:.1e}",
        flush=True,
    )
    return good and rest <= SUM * whole


if __name__ == "__main__":
    sys.exit(main())
