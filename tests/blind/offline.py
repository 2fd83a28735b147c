"""`python -m tests.blind.offline FOLDER`: the diagnosis on recordings of `tests.blind.record`, without an engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from driftline.rundir import RunDir
from tests.blind import judge
from tests.blind.cases import Case


def main(arguments: Sequence[str]) -> int:
    """Judge every recording of a folder; returns the exit code."""
    folder = Path(arguments[0])
    only = arguments[1:]
    truth = json.loads((folder / "truth.json").read_text())
    passive: list[tuple[Case, Sequence[str]]] = []
    both: list[tuple[Case, Sequence[str]]] = []
    for name, known in sorted(truth.items()):
        if only and not any(name.endswith(one) for one in only):
            continue
        case = Case(name.rsplit("-", 1)[0], tuple(known["causes"]), unknown=known["unknown"])
        found = judge.judge(RunDir(folder / name), known["onset_step"])
        passive.append((case, judge.answer(found.passive)))
        both.append((case, judge.answer(found.both)))
        marks = ["ok" if judge.right(case, names) else "WRONG" for names in (passive[-1][1], both[-1][1])]
        print(f"{name:<38} {marks[0]:<5} {' + '.join(passive[-1][1]):<40} {marks[1]:<5} {' + '.join(both[-1][1])}")
    print("\nby passive instruments:\n" + judge.table(passive))
    print("\nwith an active round:\n" + judge.table(both) + "\n")
    return 0 if all([judge.rates("passive", passive), judge.rates("with an active round", both)]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
