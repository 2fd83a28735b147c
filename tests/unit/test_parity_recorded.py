"""The verdict on runs of the real vLLM: their curves as recorded, in `data/parity-runs.csv` (its head says how)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from console.parity.judge import compare
from console.parity.rules import load
from console.parity.runs import Run
from tests.unit.parity_curves import as_run

RECORDED = Path(__file__).parent / "data" / "parity-runs.csv"
RULES = load()


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    lines = [line for line in RECORDED.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    table: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(lines):
        table.setdefault(row["run"], []).append(row)
    return {
        name: as_run(
            name,
            {metric: np.array([float(row[metric]) for row in rows]) for metric in rows[0] if metric in RULES.metrics},
        )
        for name, rows in table.items()
    }


@pytest.mark.parametrize(("reference", "run"), [("reference-a", "reference-b"), ("reference-b", "reference-a")])
def test_the_reference_again_passes(runs: dict[str, Run], reference: str, run: str) -> None:
    assert compare([runs[reference]], runs[run], RULES).verdict == "pass"


@pytest.mark.parametrize("references", [("reference-a",), ("reference-a", "reference-b")])
def test_the_defaults_fail_by_their_mismatch_from_the_start(runs: dict[str, Run], references: tuple[str, ...]) -> None:
    found = compare([runs[name] for name in references], runs["defaults"], RULES)
    by_name = {judged.metric: judged for judged in found.metrics}
    assert found.verdict == "fail"
    assert by_name["mismatch/abs_diff_mean"].first == 1
    for name in ("reward/mean", "policy/entropy"):
        assert by_name[name].verdict == "fail"
        assert by_name[name].back is None


@pytest.mark.parametrize("references", [("reference-a",), ("reference-a", "reference-b")])
def test_the_repaired_run_comes_home(runs: dict[str, Run], references: tuple[str, ...]) -> None:
    whole = [runs[name] for name in references]
    assert compare(whole, runs["repaired"], RULES).verdict == "fail"
    found = compare(whole, runs["repaired"], RULES, start=21)
    assert found.verdict == "pass", [(judged.metric, judged.reason) for judged in found.metrics]
