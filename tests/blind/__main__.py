"""`python -m tests.blind [--seed N] [--rounds N] [--minutes M] [--cases NAME ...]`: the blind test (`make blind`).

Real vLLM on two engines, the real trainer. Cases are drawn from the seed, which is printed; each is put into a run
that starts anew, and its recording is handed to the diagnosis, which never sees which it was. Exit code 0 where every
rate is met, 1 where one is missed or something failed, 2 for an argument that cannot be.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from tests.blind import judge
from tests.blind.cases import BY_NAME, PAIRS, SINGLE, UNKNOWN, Case, pair
from tests.blind.stage import Stage

ENGINE_S: Final = 10.0
"""An active round is bounded to so much of an engine's time."""
WARM: Final = (30, 60, 120)
"""Batches of supervised training before the run: a flat, a usual and a sharp policy. One is drawn."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the test; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.blind", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000, help="of everything that is drawn")
    parser.add_argument("--rounds", type=int, default=1, help="how often each single cause is put in")
    parser.add_argument("--pairs", type=int, default=6, help="how many pairs of causes are put in a round")
    parser.add_argument("--minutes", type=float, default=15.0, help="no case begins after so long")
    parser.add_argument("--cases", nargs="*", help="these alone; two at once as ONE+OTHER")
    parser.add_argument("--keep", type=Path, help="a folder for the recorded runs of wrong answers")
    given = parser.parse_args(arguments)
    print(f"blind test, seed {given.seed}: python -m tests.blind --seed {given.seed}", flush=True)
    rng = np.random.default_rng(given.seed)
    try:
        drawn = _drawn(rng, given.rounds, given.pairs) if given.cases is None else [_named(one) for one in given.cases]
    except KeyError as error:
        print(f"no case {error}; there are: {', '.join(BY_NAME)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="blind-") as root:
        return _run(drawn, rng, Path(root), given.minutes * 60, given.keep)


def _drawn(rng: np.random.Generator, rounds: int, pairs: int) -> list[Case]:
    """Every single case, unknown ones too, and some pairs, in an order of its own."""
    cases: list[Case] = []
    for _ in range(rounds):
        chosen = rng.choice(len(PAIRS), size=min(pairs, len(PAIRS)), replace=False)
        cases += [*SINGLE, *UNKNOWN, *(pair(*PAIRS[one]) for one in chosen)]
    return [cases[at] for at in rng.permutation(len(cases))]


def _named(text: str) -> Case:
    first, plus, second = text.partition("+")
    return pair(first, second) if plus else BY_NAME[first]


def _run(drawn: Sequence[Case], rng: np.random.Generator, root: Path, limit: float, keep: Path | None) -> int:
    began = time.monotonic()
    warm, first = int(rng.choice(WARM)), int(rng.integers(1_000_000))
    said: list[str] = []
    stage = Stage(root, first, warm=warm, said=said.append)
    print(f"two engines up after {time.monotonic() - began:.0f} s; warm start of {warm} batches", flush=True)
    passive: list[tuple[Case, Sequence[str]]] = []
    both: list[tuple[Case, Sequence[str]]] = []
    slowest = 0.0
    try:
        for number, case in enumerate(drawn, 1):
            if time.monotonic() - began > limit:
                print(f"out of time: {len(drawn) - number + 1} of {len(drawn)} cases were not run", flush=True)
                break
            done = stage.record(case, int(rng.integers(1_000_000)), root / f"case-{number}")
            found = judge.judge(done.run, done.onset)
            slowest = max(slowest, found.engine_s)
            passive.append((case, judge.answer(found.passive)))
            both.append((case, judge.answer(found.both)))
            print(
                f"{number:3} {case.name:<38} passive: {' + '.join(passive[-1][1])}; with a round: "
                f"{' + '.join(both[-1][1])} ({done.seconds:.1f} s)",
                flush=True,
            )
            if keep is not None and not judge.right(*both[-1]):
                shutil.copytree(done.run.path, keep / f"{case.name}-{number}", dirs_exist_ok=True)
    finally:
        stage.close()
    print("\nby passive instruments, within 2,000 tokens of the onset:\n" + judge.table(passive))
    print("\nwith an active round:\n" + judge.table(both) + "\n")
    met = all([judge.rates("passive", passive), judge.rates("with an active round", both)])
    print(f"slowest active round: {slowest:.2f} s of an engine's time, at most {ENGINE_S:g}")
    return 0 if met and slowest <= ENGINE_S else 1


if __name__ == "__main__":
    sys.exit(main())
