"""What the experiment runs, and what it makes of the runs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from console.parity.experiment import judge, plan, to_toml
from console.parity.rules import load as rules
from console.parity.stages import late, table
from driftline.catalog.fixes import OFF, ON
from driftline.config import Config, load, parse
from tests.unit.parity_curves import Floats, as_run, healthy

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_runs_of_the_experiment() -> None:
    reference = load(CONFIGS / "reference.toml")
    runs = plan(reference, steps=120, switch_at=20, seeds=3)
    assert [(one.name, one.config.run.seed, one.switch_at) for one in runs] == [
        ("reference", 0, None), ("reference", 1, None), ("reference", 2, None),
        ("defaults", 3, None), ("repaired", 3, 20),
    ]  # fmt: skip
    # One model for all, or the band is as wide as models differ.
    assert {one.config.model.seed for one in runs} == {reference.run.seed}
    assert {one.config.run.steps for one in runs} == {120}
    assert all(set(one.config.fixes.values()) == {ON} for one in runs[:3])
    assert all(set(one.config.fixes.values()) == {OFF} for one in runs[3:])
    # Nothing else differs from the reference.
    assert {one.config.trainer for one in runs} == {reference.trainer}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_a_configuration_survives_being_written(path: Path) -> None:
    config = load(path)
    assert parse(to_toml(config), "written") == config


def test_of_a_migration_all_but_the_reference_run_on_the_candidate() -> None:
    reference = parse("[engine]\nenvironment = 'old'\n[fixes]\nprocessed-logprobs = 'on'\n", "x")
    runs = plan(reference, steps=120, switch_at=20, seeds=3, candidate="new")
    assert [(run.name, run.config.engine.environment) for run in runs] == [
        *[("reference", "old")] * 3, ("defaults", "new"), ("repaired", "new"), ("fixed", "new"),
    ]  # fmt: skip
    assert [run.config.fixes["processed-logprobs"] for run in runs] == ["on", "on", "on", "off", "off", "on"]
    assert [run.switch_at for run in runs] == [None, None, None, None, 20, None]


def test_a_migration_is_taken_apart_layer_by_layer() -> None:
    runs = plan(load(CONFIGS / "migration.toml"), steps=120, switch_at=20, seeds=3, candidate="new")
    of_layers = [run for run in runs if run.stage]
    assert [(run.stage, [fix for fix, value in run.config.fixes.items() if value == ON]) for run in of_layers] == [
        ("+ processed logprobs", ["processed-logprobs"]),
        ("+ prefix cache off", ["processed-logprobs", "prefix-cache-off"]),
        ("+ in-flight keep", ["processed-logprobs", "inflight-keep", "prefix-cache-off"]),
    ]  # fmt: skip
    assert {run.config.engine.environment for run in of_layers} == {"new"}
    (fixed,) = (run for run in runs if run.name == "fixed")
    assert set(fixed.config.fixes.values()) == {ON}


def test_the_table_of_the_layers() -> None:
    references = [as_run(f"r{seed}", healthy(seed, steps=120)) for seed in range(3)]
    defaults = as_run("defaults", away(healthy(8, steps=120), slice(None)))
    fixed = as_run("fixed", healthy(10, steps=120))
    first = as_run("first", away(healthy(9, steps=120), slice(0, 40)))
    shown = judge(references, defaults, fixed, rules(), 20, fixed, [("+ processed logprobs", first)])
    lines = table(references, shown.ladder)
    reference, off, layer, on = (line.split("  ") for line in lines[1:5])
    assert [row[0] for row in (reference, off, layer, on)] == [
        "the reference", "the defaults", "+ processed logprobs", "all fixes on",
    ]  # fmt: skip
    # Means of the second half: the first layer's run was away in the first only.
    assert late(first, "reward/mean") == pytest.approx(late(fixed, "reward/mean"), abs=0.1)
    assert late(defaults, "reward/mean") < late(first, "reward/mean") - 0.2
    assert math.isnan(late(first, "of/none"))
    assert all("not recorded" in row for row in lines[1:5])  # no mean ratio in these curves
    assert [line.split("  ")[0] for line in lines[-3:]] == ["the defaults", "+ processed logprobs", "all fixes on"]
    assert "FAIL" in lines[-3]
    assert "PASS" in lines[-1]


def test_the_candidate_with_its_fixes_on_is_judged_as_well() -> None:
    references = [as_run(f"r{seed}", healthy(seed, steps=120)) for seed in range(3)]
    defaults = as_run("defaults", away(healthy(8, steps=120), slice(None)))
    repaired = as_run("repaired", away(healthy(9, steps=120), slice(0, 50)))
    shown = judge(references, defaults, repaired, rules(), 20, as_run("fixed", healthy(10, steps=120)))
    assert shown.missing == []
    assert [name for name, _, _ in shown.rows][-1] == "fixed from the start"
    shown = judge(references, defaults, repaired, rules(), 20, defaults)
    assert [clause.partition(":")[0] for clause in shown.missing] == ["fixed from the start"]


def test_awkward_values_survive_too() -> None:
    text = '[engine]\nargs = {"max logprobs" = 3, "x" = "a\\"b\\\\", "on" = true, "y" = 1e-7}\n[trainer]\nlr = 1e-12\n'
    config = parse(text, "x")
    assert parse(to_toml(config), "written") == config
    assert parse(to_toml(Config()), "written") == Config()


def away(curves: dict[str, Floats], steps: slice) -> dict[str, Floats]:
    curves["mismatch/abs_diff_mean"][steps] += 0.2
    curves["reward/mean"][steps] -= 0.3
    return curves


def test_what_has_to_come_out() -> None:
    references = [as_run(f"r{seed}", healthy(seed, steps=120)) for seed in range(3)]
    defaults = as_run("defaults", away(healthy(8, steps=120), slice(None)))
    repaired = as_run("repaired", away(healthy(9, steps=120), slice(0, 50)))
    shown = judge(references, defaults, repaired, rules(), 20)
    assert shown.missing == []
    assert shown.defaults.verdict == "fail"
    assert shown.repaired.home is not None
    assert 51 <= shown.repaired.home <= 62


def test_what_did_not_come_out_is_said() -> None:
    references = [as_run(f"r{seed}", healthy(seed, steps=120)) for seed in range(3)]
    odd = healthy(2, steps=120)
    odd["policy/entropy"] = np.full(120, 4.0)
    never = as_run("repaired", away(healthy(9, steps=120), slice(None)))
    shown = judge([*references[:2], as_run("odd", odd)], as_run("defaults", healthy(8, steps=120)), never, rules(), 20)
    assert [clause.partition(":")[0] for clause in shown.missing] == [
        "a reference run against the other seeds", "the defaults", "the repaired run",
    ]  # fmt: skip
