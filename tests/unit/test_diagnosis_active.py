"""From the figures of an active round to readings, likelihoods and an attribution."""

from __future__ import annotations

import math
from typing import Any

import pytest

from console.diagnosis import active
from console.diagnosis.causes import BY_NAME
from console.diagnosis.model import LAYERS, NONE, UNKNOWN, Reading

HEALTHY: dict[str, str | float | int | bool] = {
    "recorded": 1e-6, "again": 1e-6, "usual": 1e-6, "sampled": 0.0, "lowest": 0.0, "plain": 1e-6, "uncached": 1e-6,
    "cache": 0.0, "held": 1e-6, "other_head": 0.004, "self": 0.0, "raw": 0.0, "differing": 0, "compared": 27,
    "tensors": "", "kind": "equal", "seconds": 0.6, "requests": 300, "stale": 0.0,
}  # fmt: skip
USUAL = {
    "mode": "processed", "rescored": "nothing", "sampling": "same", "cache": "alike", "weights": "equal",
    "engine again": "repeats", "head": "fits", "remainder": "floor", "trainer again": "repeats",
    "trainer temperature": "same", "old weights": "none",
}  # fmt: skip


def figures(one: dict[str, Any] | None = None, other: dict[str, Any] | None = None, **run: Any) -> active.Figures:
    """Of two engines; `one` and `other` is what differs from a healthy engine in each."""
    both = {"engine-0": HEALTHY | (one or {}), "engine-1": HEALTHY | (other or {})}
    trainer: dict[str, Any] = {
        "trainer.self": 0.0, "trainer.dropout": 0.0, "trainer.temperature": 0.7, "temperature": 0.7, "seconds": 1.0,
        "total": 0.3, "tokens": 192, "note": "",
    }  # fmt: skip
    for at, layer in enumerate(LAYERS):
        trainer |= {f"share.{layer}": 0.3 * (at == 0), f"share.{layer}.low": 0.0, f"share.{layer}.high": 0.4}
    return {f"{name}.{key}": value for name, mine in both.items() for key, value in mine.items()} | trainer | run


def outcomes(found: tuple[Reading, ...]) -> dict[str, str]:
    return {one.instrument + (f"@{one.where}" if one.where else ""): one.outcome for one in found}


def test_a_healthy_round_reads_as_one() -> None:
    assert outcomes(active.readings(figures())) == USUAL


@pytest.mark.parametrize(
    ("wrong", "changed"),
    [
        ({"raw": 1.0, "recorded": 0.1, "usual": 0.1}, {"mode": "raw", "rescored": "shows"}),
        ({"sampled": 0.1, "recorded": 0.1, "usual": 0.1}, {"sampling": "engine higher", "rescored": "shows"}),
        ({"sampled": 0.1, "lowest": -0.4, "recorded": 0.1, "usual": 0.1}, {"sampling": "both", "rescored": "shows"}),
        ({"cache": 0.1, "recorded": 0.1, "usual": 0.1}, {"cache": "differs", "rescored": "shows"}),
        ({"recorded": 2.0, "usual": 1e-6}, {"rescored": "gone"}),
        ({"self": 0.01}, {"engine again": "differs"}),
        ({"held": 0.004, "other_head": 1e-6}, {"head": "other fits"}),
        ({"held": 0.004, "other_head": 0.006}, {"remainder": "above"}),
        ({"kind": "part", "tensors": "model.layers.1 (9 tensors) of version 3, not 9"}, {"weights": "part"}),
        ({"kind": "not a word of it"}, {"weights": "other"}),
    ],
)
def test_each_fault_changes_its_instruments_alone(wrong: dict[str, Any], changed: dict[str, str]) -> None:
    assert outcomes(active.readings(figures(wrong, wrong))) == USUAL | changed


def test_what_the_trainer_does_is_read_once() -> None:
    found = outcomes(active.readings(figures(**{"trainer.self": 0.2, "trainer.dropout": 0.1})))
    assert found == USUAL | {"trainer again": "dropout"}
    found = outcomes(active.readings(figures(**{"trainer.temperature": 0.8})))
    assert found == USUAL | {"trainer temperature": "other"}
    found = outcomes(active.readings(figures(**{"share.staleness": 0.1, "share.staleness.low": 0.05})))
    assert found == USUAL | {"old weights": "some"}
    # Dropout makes two forward passes differ: noise around nothing is no lag.
    assert outcomes(active.readings(figures(**{"share.staleness": 0.1, "share.staleness.low": -0.02}))) == USUAL


def test_one_engine_that_differs_is_read_by_itself_whichever_it_is() -> None:
    wrong = {"kind": "older", "differing": 27, "tensors": "all 27 tensors of version 41", "recorded": 0.3, "usual": 0.3}
    for name, given in (("engine-1", (None, wrong)), ("engine-0", (wrong, None))):
        found = active.readings(figures(*given))
        assert outcomes(found) == USUAL | {f"weights@{name}": "older", f"rescored@{name}": "shows"}
        (named,) = (one for one in found if one.where == name and one.instrument == "weights")
        assert named.text == f"{name} holds all 27 tensors of version 41"
        # An engine that is no part by itself speaks for the rest, in the place of the others.
        assert outcomes(active.placed(found, [""])) == USUAL | {"weights": "older", "rescored": "shows"}
        assert active.placed(found, ["", name]) == found


def test_likelihoods_are_of_every_instrument_and_sum_to_one() -> None:
    names = [NONE, UNKNOWN, "raw-logprobs", "missed-sync", "dropout", "head-bf16", "sleep-loses-buffers"]
    table = active.likelihoods(names)
    assert set(table) == {NONE, "raw-logprobs", "missed-sync", "dropout", "head-bf16"}
    for one in table.values():
        assert set(one) == set(active.BY_NAME)
        for name, chances in one.items():
            assert set(chances) == set(active.BY_NAME[name].outcomes)
            assert sum(chances.values()) == pytest.approx(1.0)
    assert table["raw-logprobs"]["mode"]["raw"] > 20 * table[NONE]["mode"]["raw"]


def test_every_cause_with_a_direct_look_is_in_the_catalogue() -> None:
    assert set(active._LEADS_TO) - {NONE} <= set(BY_NAME)
    for expected in active._LEADS_TO.values():
        for name, wanted in expected.items():
            assert set(wanted) <= set(active.BY_NAME[name].outcomes)


def test_the_attribution_is_the_rounds() -> None:
    found = active.attribution(figures())
    assert found is not None
    assert (found.total, found.method, found.tokens, found.note) == (0.3, "active", 192, "")
    assert found.fraction("semantics") == 1.0
    assert tuple(share.layer for share in found.shares) == LAYERS
    assert active.attribution({}) is None


def test_a_figure_that_is_missing_or_no_number_breaks_nothing() -> None:
    found = outcomes(active.readings({"engine-0.usual": math.nan, "engine-0.kind": "equal"}))
    assert found["mode"] == "processed"
    assert active.readings({})
    assert active.cost({}) == "nan s in all; "
