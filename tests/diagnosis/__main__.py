"""Calibration of the diagnosis and its confusion table, over simulated runs (tests/diagnosis/corpus.py makes them).

python -m tests.diagnosis.corpus OUT 60            # runs: an hour of one core, in parts (--first)
python -m tests.diagnosis calibrate OUT            # seeds below --held: writes console/diagnosis/likelihoods.json
python -m tests.diagnosis table OUT [--wrong]      # the other seeds: which cause is taken for which
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from console.diagnosis.infer import diagnose
from console.diagnosis.likelihoods import Calibrated, calibrated
from console.diagnosis.model import Diagnosis
from console.diagnosis.report import lines
from tests.diagnosis.corpus import FOREIGN, Recorded
from tests.diagnosis.judged import count, facts, label, label_folder, of_folder, watched

FEWEST = 16
"""Tokens that a fault must act on."""
FILE = Path(__file__).parents[2] / "console" / "diagnosis" / "likelihoods.json"


def runs(folder: Path, first: int, until: int) -> Iterator[tuple[int, Recorded]]:
    """Seeds and recorded runs of seeds from `first` to before `until`; those with one fault before those with two."""
    for path in sorted(folder.glob("*.runs"), key=lambda one: ("+" in one.name, one.name)):
        if first <= (seed := int(path.stem.rpartition("-")[2])) < until:
            yield seed, msgspec.msgpack.decode(path.read_bytes(), type=Recorded)


def answer(found: Diagnosis) -> str:
    """The answer as one word: causes in alphabetical order, none, or unknown."""
    if found.verdict == "unknown":
        return "+".join([*sorted(found.named), "unknown"])
    return "+".join(sorted(found.named)) or "none"


def judge(run: Recorded, stated: Calibrated) -> Diagnosis:
    return diagnose(watched(run).columns, facts(run), stated=stated)


def visible(run: Recorded) -> bool:
    """Whether each fault moves the logprobs of the tokens that it acts on beyond the floor of their type: by less than
    that nothing is wrong with them, and "none" is the right answer."""
    columns, floor = watched(run).columns, facts(run).floor[0]
    for name, at, engine, _ in run.faults:
        mine = columns.version >= at
        if engine >= 0:
            mine &= columns.engine == columns.engines.index(f"engine-{engine}")
        mine &= {"placeholder-zero": columns.last, "in-flight-kv": columns.seam > 0, "lag": columns.lag > 0}.get(
            name, mine
        )
        if int(mine.sum()) < FEWEST or not float(columns.size[mine].mean()) > floor:
            return False
    return True


class Seen:
    """Which faults show. Of two at once each by itself, in the run of the same seed that has it alone: what the other
    one does hides how small it is. Single ones are to be asked for first."""

    def __init__(self) -> None:
        self._single: dict[tuple[str, int], bool] = {}
        self.left_out = 0

    def shows(self, run: Recorded, seed: int) -> bool:
        found = visible(run)
        self._single[run.name, seed] = found
        found = found and all(self._single.get((name, seed), True) for name in run.name.split("+"))
        self.left_out += not found
        return found


def table(found: list[tuple[str, str]]) -> Iterator[str]:
    """Lines of the confusion table: the true cause, how many, share right, and what else was said."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for true, said in found:
        rows[true][said] += 1
    for true, counter in sorted(rows.items()):
        right = counter["unknown"] if true in FOREIGN else counter["+".join(sorted(true.split("+")))]
        others = ", ".join(f"{said} {n}" for said, n in counter.most_common() if said != true)
        yield f"{true:22s} {counter.total():4d} {right / counter.total():6.0%}  {others}"


def main() -> int:
    """Run one of the two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("calibrate", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held", type=int, default=1000, help="seeds from here on are for the table")
    parser.add_argument("--until", type=int, default=10**6)
    parser.add_argument("--recorded", type=Path, help="a folder of tests/blind: runs of the real engine")
    parser.add_argument("--seeds", default="1,2", help="of --recorded, those that calibrate")
    parser.add_argument("--temper", type=float, default=0.6)
    parser.add_argument("--wrong", action="store_true")
    args = parser.parse_args()
    if args.what == "calibrate":
        single = (run for _, run in runs(args.folder, 0, args.held) if "+" not in run.name and run.name not in FOREIGN)
        parts = [one for run in single for one in label(run)]
        seeds = [int(one) for one in args.seeds.split(",")]
        parts += label_folder(args.recorded, seeds) if args.recorded else []
        made = count(parts, args.temper)
        FILE.write_text(msgspec.json.format(msgspec.json.encode(made), indent=1).decode() + "\n", encoding="utf-8")
        print(made.runs)
        return 0
    found, seen = [], Seen()
    if args.recorded:
        for name, watch, known, causes in of_folder(args.recorded):
            if name.rpartition("-")[2] not in args.seeds.split(","):
                one = watch.diagnosis(known)
                found.append(("+".join(sorted(causes)) or "none", answer(one)))
                if args.wrong and found[-1][0] != found[-1][1]:
                    print(name, *lines(one)[:9], sep="\n  ")
        print("\n".join(table(found)))
        return 0
    for seed, run in runs(args.folder, args.held, args.until):
        if not seen.shows(run, seed):
            continue
        one = judge(run, calibrated())
        found.append((run.name, answer(one)))
        if args.wrong and found[-1][0] != found[-1][1]:
            print(run.faults, facts(run), one.sentence, f"{one.certainty:.2f}", sep="\n  ")
            for ranked in one.ranked[:3]:
                print(
                    "    ",
                    ranked.name,
                    f"{ranked.probability:.3f}",
                    [(e.instrument, round(e.llr, 1)) for e in ranked.supporting[:4]],
                )
    print("\n".join(table(found)))
    print(f"left out: {seen.left_out} runs in which a fault moves no logprob of its tokens beyond the floor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
