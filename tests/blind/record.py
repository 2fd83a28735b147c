"""`python -m tests.blind.record FOLDER [--seeds N ...] [--cases NAME ...]`: recorded runs with known causes.

Each is a run directory `FOLDER/CASE-SEED`; `FOLDER/truth.json` says of each what is wrong and since which step.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.blind.cases import BY_NAME, PAIRS, Case, pair
from tests.blind.stage import Stage


def main(arguments: list[str] | None = None) -> int:
    """Record; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.blind.record")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stage-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--warm", type=int, default=60)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1000.0)
    parser.add_argument("--cases", nargs="*", default=[*BY_NAME, *("+".join(names) for names in PAIRS)])
    given = parser.parse_args(arguments)
    cases = [_case(name) for name in given.cases]
    given.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    truth_file = given.folder / "truth.json"
    with tempfile.TemporaryDirectory(prefix="blind-") as root:
        stage = Stage(Path(root), given.stage_seed, warm=given.warm, temperature=given.temperature, steps=given.steps)
        try:
            for seed in given.seeds:
                for case in cases:
                    if time.monotonic() - began > given.seconds:
                        print("out of time", flush=True)
                        return 1
                    path = given.folder / f"{case.name}-{seed}"
                    if path.exists():
                        shutil.rmtree(path)
                    done = stage.record(case, seed, path)
                    truth = json.loads(truth_file.read_text()) if truth_file.is_file() else {}
                    truth[path.name] = {
                        "causes": list(case.causes), "unknown": case.unknown, "onset_step": done.onset,
                        "tokens": done.tokens, "temperature": given.temperature, "warm": given.warm,
                    }  # fmt: skip
                    truth_file.write_text(json.dumps(truth, indent=1))
                    print(f"{path.name}: {done.tokens} tokens, {done.seconds:.1f} s", flush=True)
        finally:
            stage.close()
    return 0


def _case(name: str) -> Case:
    first, plus, second = name.partition("+")
    return pair(first, second) if plus else BY_NAME[name]


if __name__ == "__main__":
    sys.exit(main())
