"""From the figures of an active round to readings, likelihoods and an attribution."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from console.cli.main import main
from console.diagnosis import active, looks
from console.diagnosis.causes import BY_NAME
from console.diagnosis.facts import Facts
from console.diagnosis.looks import combined
from console.diagnosis.model import LAYERS, UNKNOWN, Diagnosis, Normal, Ranked, Reading
from console.errors import NO_RUN
from driftline.frames import RunState
from driftline.rundir import create
from tests.unit.runs import NOW, journal

HEALTHY: dict[str, str | float | int | bool] = {
    "recorded": 1e-6, "again": 1e-6, "usual": 1e-6, "sampled": 0.0, "lowest": 0.0, "plain": 1e-6, "uncached": 1e-6,
    "cache": 0.0, "held": 1e-6, "other_head": 0.004, "self": 0.0, "raw": 0.0,
    "seam": math.nan, "differing": 0, "compared": 27,
    "tensors": "", "kind": "equal", "seconds": 0.6, "requests": 300, "stale": 0.0,
}  # fmt: skip
USUAL = {
    "mode": "processed", "rescored": "nothing", "sampling": "same", "cache": "alike", "weights": "equal",
    "engine again": "repeats", "head": "fits", "remainder": "floor", "trainer again": "repeats",
    "trainer temperature": "same", "old weights": "none", "seam": "no",
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


def test_two_heads_in_bfloat16_differ_by_what_lies_between_two_of_its_values() -> None:
    rounded: dict[str, Any] = dict.fromkeys(("recorded", "usual", "plain", "uncached", "cache", "held", "self"), 5e-4)
    heads: dict[str, Any] = {"trainer.float32_head": False}
    assert outcomes(active.readings(figures(rounded, rounded, **heads))) == USUAL
    # Of other weights it is more than rounding can be, and with float32 heads it is no rounding.
    beyond = {"held": 2e-3, "other_head": 0.005}
    assert outcomes(active.readings(figures(beyond, beyond, **heads)))["remainder"] == "above"
    heads["trainer.float32_head"] = True
    assert outcomes(active.readings(figures(rounded, rounded, **heads)))["remainder"] == "above"


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
        (read,) = (one for one in found if one.where == name and one.instrument == "weights")
        assert read.text == f"{name} holds all 27 tensors of version 41"


def passive(*names: str, **more: Any) -> Diagnosis:
    """A passive diagnosis that names these."""
    ranked = tuple(Ranked(name, BY_NAME[name], 0.9 / max(1, len(names))) for name in names)
    normal = Normal(1e-4, 0.3, "", "")
    verdict = "cause" if names else "normal"
    return Diagnosis(verdict, "", 0.9, named=names, ranked=ranked, normal=normal, tokens=4000, **more)


FACTS = Facts(dtype="float32")


def named(first: Diagnosis, given: active.Figures) -> tuple[str, ...]:
    found = combined(first, FACTS, given)
    assert (found.verdict == "cause") == bool(found.named)
    return found.named or (found.verdict,)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ({"raw": 1.0, "sampled": 0.3}, "raw-logprobs"),
        ({"cache": 0.3}, "stale-prefix-cache"),
        ({"held": 0.004, "other_head": 1e-6}, "head-bf16"),
        ({"kind": "part"}, "layer-not-loaded"),
        ({"seam": 0.01, "recorded": 1e-6, "usual": 1e-6}, "in-flight-kv"),
        ({"kind": "head"}, "head-not-sent"),
        ({"kind": "swapped"}, "layers-swapped"),
        ({"kind": "older"}, "missed-sync"),
        ({"sampled": 0.2, "sampling": "top_p=0.9"}, "top-p"),
        ({"sampled": 0.2, "sampling": "top_k=8"}, "top-k"),
        ({"sampled": 0.2, "sampling": "min_tokens=19"}, "min-tokens"),
        ({"sampled": 0.2, "lowest": -1.0, "sampling": "repetition_penalty=1.2"}, "repetition-penalty"),
        ({"sampled": 0.2, "lowest": -1.0}, "repetition-penalty"),
    ],
)
def test_what_a_look_finds_is_named_whatever_passive_instruments_say(wrong: dict[str, Any], cause: str) -> None:
    shown = {"recorded": 0.3, "usual": 0.3} | wrong
    total = {"total": 0.004} if cause == "head-bf16" else {"total": 0.3, "share.weight update": 0.3}
    for first in (passive(), passive("dropout"), passive("layer-not-loaded")):
        assert named(first, figures(shown, shown, **total)) == (cause,)


def test_looks_at_the_trainer() -> None:
    shown = {"recorded": 0.3, "usual": 0.3}
    dropped = figures(shown, shown, **{"trainer.self": 0.2, "trainer.dropout": 0.1})
    assert named(passive(), dropped) == ("dropout",)
    hot = figures(shown, shown, **{"trainer.temperature": 0.8, "trainer.uneven": 0.3})
    assert named(passive(), hot) == ("trainer-temperature",)
    late = figures(**{"share.staleness": 0.3, "share.staleness.low": 0.2})
    assert named(passive("repetition-penalty"), late) == ("lag",)


def test_a_truncation_without_a_name_is_the_one_that_passive_instruments_hold_likeliest() -> None:
    given = figures({"sampled": 0.3, "recorded": 0.3, "usual": 0.3}, {"sampled": 0.3, "recorded": 0.3, "usual": 0.3})
    assert named(passive("top-k"), given) == ("top-k",)
    assert named(passive("min-tokens"), given) == ("min-tokens",)


def test_what_no_look_explains_is_not_known_and_no_passive_name_takes_its_place() -> None:
    shown = {"recorded": 0.3, "usual": 0.3, "held": 0.3, "other_head": 0.3}
    found = combined(passive("layer-not-loaded"), FACTS, figures(shown, shown))
    assert (found.verdict, found.named) == ("unknown", ())
    assert "not one that I know" in found.sentence
    gone = {"recorded": 0.3, "usual": 1e-6}
    assert named(passive("head-bf16"), figures(gone, gone)) == ("unknown",)
    assert named(passive("in-flight-kv"), figures(gone, gone)) == ("in-flight-kv",)
    shifted = passive("shifted-ids", readings=(Reading("shift", "shifted", 0.9, ""),))
    assert named(shifted, figures(gone, gone)) == ("shifted-ids",)


def test_what_no_look_can_see_is_left_to_passive_instruments() -> None:
    assert named(passive("placeholder-zero"), figures()) == ("placeholder-zero",)
    assert named(passive("in-flight-kv"), figures()) == ("in-flight-kv",)
    straddled = {"recorded": math.nan, "usual": math.nan}
    assert named(passive("in-flight-kv"), figures(straddled, straddled)) == ("in-flight-kv",)
    shown = {"recorded": 0.3, "usual": 0.3, "raw": 1.0, "sampled": 0.3}
    assert named(passive("placeholder-zero"), figures(shown, shown)) == ("raw-logprobs", "placeholder-zero")


def test_a_healthy_round_ends_a_passive_doubt_and_an_effect_too_small_is_not_named() -> None:
    assert named(passive("head-bf16"), figures()) == ("normal",)
    shown = {"recorded": 0.3, "usual": 0.3, "raw": 1.0, "sampled": 0.3, "cache": 0.0021}
    assert named(passive(), figures(shown, shown)) == ("raw-logprobs",)
    shown |= {"cache": 0.02}
    assert named(passive(), figures(shown, shown)) == ("raw-logprobs", "stale-prefix-cache")


def test_the_evidence_of_a_look_comes_first_and_says_where() -> None:
    wrong = {"kind": "older", "differing": 27, "tensors": "all 27 tensors of version 41", "recorded": 0.3, "usual": 0.3}
    found = combined(passive(), FACTS, figures(None, wrong, **{"share.weight update": 0.3}))
    first = found.ranked[0]
    assert (first.name, first.where) == ("missed-sync", "engine-1")
    assert first.supporting[0].text == "engine-1 holds all 27 tensors of version 41"
    assert found.sentence.startswith("engine-1 ")
    assert sum(one.probability for one in found.ranked) == pytest.approx(1.0, abs=0.05)
    assert found.attribution is not None
    assert found.attribution.method == "active"
    assert found.actions[0].kind == "sync"


def test_every_cause_that_a_look_names_is_in_the_catalogue() -> None:
    named_by_looks = {*looks._WEIGHTS.values(), *looks._PARAMETERS.values(), *looks._TRUNCATIONS, *looks.BESIDE}
    assert named_by_looks - {UNKNOWN} <= set(BY_NAME)


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


def test_a_run_that_has_ended_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = create(tmp_path, "ended")
    journal(run, [RunState("r", "finished", 8, 8, 8, NOW)])
    assert main(["diagnose", str(run.path), "--active"]) == NO_RUN
    assert "is not live: its trainer and engines cannot be asked" in capsys.readouterr().err
