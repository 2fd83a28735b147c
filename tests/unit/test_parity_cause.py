"""Mismatch, staleness and drift are kept apart, and the fixes behind them named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from msgspec.structs import replace as replaced

from console.parity.cause import Cause, causes
from console.parity.judge import compare
from console.parity.rules import load
from console.parity.runs import FixChange, Run, Series
from driftline.catalog.fixes import OFF, ON
from driftline.config import Config
from tests.unit.parity_curves import Floats, as_run, healthy

RULES = load()
REWARD, MISMATCH = "reward/mean", "mismatch/abs_diff_mean"
STALENESS, SIGNED = "staleness/abs_diff_mean", "mismatch/kl_k1"
ALL_ON = (FixChange(0, "processed-logprobs", ON), FixChange(0, "prefix-cache-off", "removed"))


def references(config: Config | None = None) -> list[Run]:
    found = []
    for seed in range(3):
        curves = healthy(seed) | {STALENESS: np.full(90, 0.05), "async/version_lag_mean": np.full(90, 1.0)}
        found.append(replace(as_run(f"r{seed}", curves), fixes=ALL_ON, config=config))
    return found


def curves() -> dict[str, Floats]:
    return healthy(7) | {STALENESS: np.full(90, 0.05), "async/version_lag_mean": np.full(90, 1.0)}


def why(run: Run, *, start: int | None = None, config: Config | None = None) -> dict[str, Cause]:
    return causes(compare(references(config), run, RULES, start=start))


def test_a_run_at_parity_has_no_cause() -> None:
    assert why(as_run("run", curves())) == {}


def test_mismatch_names_the_fixes_that_the_reference_has() -> None:
    broken = curves()
    broken[MISMATCH] = broken[MISMATCH] + 0.15
    broken[REWARD] = broken[REWARD] - np.linspace(0, 0.6, 90)
    fixes = (FixChange(0, "processed-logprobs", OFF), FixChange(0, "prefix-cache-off", ON))
    found = why(replace(as_run("run", broken), fixes=fixes))
    assert set(found) == {REWARD, MISMATCH}
    assert {cause.kind for cause in found.values()} == {"mismatch"}
    assert found[REWARD].fixes == ("processed-logprobs",)
    assert "processed-logprobs off here, on in the reference" in found[REWARD].text


def test_mismatch_with_the_same_fixes_reads_the_sign() -> None:
    broken = curves()
    broken[MISMATCH] = broken[MISMATCH] + 0.15
    noise = replace(as_run("run", broken | {SIGNED: np.zeros(90)}), fixes=ALL_ON)
    assert "noise on both sides" in why(noise)[MISMATCH].text
    offset = replace(as_run("run", broken | {SIGNED: np.full(90, 0.1)}), fixes=ALL_ON)
    assert "raw against processed" in why(offset)[MISMATCH].text
    assert "fixes not recorded" in why(as_run("run", broken))[MISMATCH].text


def test_fixes_switched_on_within_the_window_are_still_named() -> None:
    broken = curves()
    broken[MISMATCH][:30] += 0.15
    broken[REWARD][22:] -= 0.5
    fixes = (FixChange(0, "processed-logprobs", OFF), FixChange(20, "processed-logprobs", ON))
    cause = why(replace(as_run("run", broken), fixes=fixes))[REWARD]
    assert cause.fixes == ("processed-logprobs",)
    assert "off here until recently" in cause.text


def test_what_a_mismatch_did_before_it_was_repaired() -> None:
    repaired = curves()
    repaired[MISMATCH][:40] += 0.15
    repaired[REWARD] = repaired[REWARD] - 0.5
    cause = why(as_run("run", repaired), start=41)[REWARD]
    assert cause.kind == "aftermath"
    assert "aftermath: mismatch until step 4" in cause.text


def test_staleness() -> None:
    stale = curves()
    stale[STALENESS] = np.full(90, 1.0)
    stale["async/version_lag_mean"] = np.full(90, 6.0)
    stale[REWARD] = stale[REWARD] - 0.4
    cause = why(as_run("run", stale))[REWARD]
    assert cause.kind == "staleness"
    assert "lag 6 versions, reference 1" in cause.text


def test_drift_names_the_settings_that_differ() -> None:
    config = Config()
    slow = curves()
    slow[REWARD] = np.full(90, 0.4)
    other = replaced(config, trainer=replaced(config.trainer, lr=1e-5), run=replaced(config.run, seed=9, name="x"))
    cause = why(replace(as_run("run", slow), config=other), config=config)[REWARD]
    assert cause.kind == "drift"
    assert "settings differ: trainer.lr 0.001 in the reference, 1e-05 here" in cause.text
    same = why(replace(as_run("run", slow), config=config), config=config)[REWARD]
    assert same.text.endswith("the settings are the same")
    assert why(as_run("run", slow))[REWARD].text.endswith("not recorded")


def test_a_run_without_mismatch_or_staleness_is_judged_all_the_same() -> None:
    series = {REWARD: Series(np.arange(1, 91), np.zeros(90))}
    found = causes(compare(references(), Run("run", series), RULES.only([REWARD])))
    assert found[REWARD].kind == "unknown"
    assert (
        found[REWARD].text
        == "not known: mismatch not recorded, staleness not recorded; what else differs is not recorded"
    )


def test_a_mismatch_that_was_not_recorded_is_never_called_the_references() -> None:
    """Whether it is absent in the run or in the reference, ends before the metric leaves its band, or has a hole."""
    slow = curves()
    slow[REWARD] = slow[REWARD] - np.where(np.arange(90) >= 60, 0.5, 0.0)
    whole = as_run("run", slow)
    without = replace(whole, series={name: one for name, one in whole.series.items() if name != MISMATCH})
    mismatch = whole.series[MISMATCH]
    ended = replace(whole, series=whole.series | {MISMATCH: Series(mismatch.steps[:40], mismatch.values[:40])})
    keep = (mismatch.steps < 50) | (mismatch.steps > 75)
    holed = replace(whole, series=whole.series | {MISMATCH: Series(mismatch.steps[keep], mismatch.values[keep])})
    assert why(whole)[REWARD].text.startswith("drift: mismatch and staleness are the reference's")
    for run in (without, ended, holed):
        cause = why(run)[REWARD]
        assert cause.kind == "unknown"
        assert cause.text.startswith("not known: mismatch not recorded, staleness is the reference's")
    bare = [replace(one, series={k: v for k, v in one.series.items() if k != MISMATCH}) for one in references()]
    assert causes(compare(bare, whole, RULES))[REWARD].kind == "unknown"


def test_staleness_that_was_not_recorded_is_said_too() -> None:
    slow = healthy(7)
    slow[REWARD] = slow[REWARD] - 0.5
    cause = why(as_run("run", slow))[REWARD]
    assert cause.kind == "drift"
    assert cause.text.startswith("drift: staleness not recorded, mismatch is the reference's")


def test_another_name_of_the_mismatch_is_a_cause_too() -> None:
    runs = [replace(one, series=one.series | {"mismatch/kl_k3": Series(np.arange(1, 91), np.full(90, 4e-4))})
            for one in references()]  # fmt: skip
    broken = curves() | {"mismatch/kl_k3": np.full(90, 5.0)}
    broken[REWARD] = broken[REWARD] - 0.5
    series = {name: one for name, one in as_run("run", broken).series.items() if name != MISMATCH}
    found = causes(compare(runs, Run("run", series), RULES))
    assert found[REWARD].kind == "mismatch"
    assert found["mismatch/kl_k3"].kind == "mismatch"
