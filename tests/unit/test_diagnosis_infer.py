"""The inference over columns with known causes: what is named, how sure, what is ruled out, and what is asked for."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import numpy as np
import pytest

from console.diagnosis import causes, parts, weigh
from console.diagnosis.columns import Columns, empty
from console.diagnosis.facts import Facts
from console.diagnosis.infer import diagnose
from console.diagnosis.instruments.catalogue import BY_NAME as INSTRUMENTS
from console.diagnosis.instruments.catalogue import PASSIVE
from console.diagnosis.likelihoods import calibrated
from console.diagnosis.model import NONE, UNKNOWN, Diagnosis, Reading
from console.diagnosis.report import document, lines
from tests.unit import diagnosis_columns as made
from tests.unit.diagnosis_columns import Bigrams, columns, plain

FACTS = Facts(temperature=0.7, dtype="float32", staleness=0.01, lag=0.5)
HEALTHY = columns(Bigrams(plain, plain).frames(6))


def changed(found: Columns, **arrays: np.ndarray) -> Columns:
    return dataclasses.replace(found, **arrays)  # type: ignore[arg-type]


def test_the_catalogue_is_whole() -> None:
    assert {one.number for one in causes.CAUSES} == set(range(1, 42))
    assert len(causes.BY_NAME) == len(causes.CAUSES)
    modelled = {one.name for one in causes.MODELLED}
    for one in causes.CAUSES:
        assert all(prediction.instrument in INSTRUMENTS for prediction in one.predicts), one.name
        assert all(other in causes.BY_NAME or other == NONE for other in one.alike), one.name
        assert one.passive == (one.name in modelled)
        assert one.passive or one.unseen
        assert one.refuted_by
        assert one.action.text
        assert one.source or one.name == "lag"


def test_likelihoods_are_of_the_modelled_causes_and_sum_to_one() -> None:
    stated = calibrated()
    assert set(stated.table) == {one.name for one in causes.MODELLED} | {NONE}
    for cause, table in stated.table.items():
        assert set(table) == {one.name for one in PASSIVE}, cause
        for name, chances in table.items():
            assert set(chances) == set(INSTRUMENTS[name].outcomes)
            assert sum(chances.values()) == pytest.approx(1, abs=0.01), (cause, name)
            assert min(chances.values()) > 0
        assert stated.runs[cause] >= 8, cause


def found(of: Columns, facts: Facts = FACTS) -> Diagnosis:
    return diagnose(of, facts)


def test_a_healthy_run_is_normal_and_says_why() -> None:
    one = found(HEALTHY)
    assert (one.verdict, one.named, one.actions) == ("normal", (), ())
    assert one.certainty > 0.9
    assert "nothing wrong beyond the numeric floor" in one.sentence
    assert one.normal is not None
    assert one.normal.is_normal
    assert one.normal.source


@pytest.mark.parametrize(
    ("name", "bigrams"),
    [
        ("raw-logprobs", Bigrams(plain, plain, said=made.raw)),
        ("top-p", Bigrams(made.top_p(0.9), plain)),
        ("trainer-temperature", Bigrams(plain, lambda z, seen, at: made.log_softmax(z / 0.8))),
        ("repetition-penalty", Bigrams(made.penalty(1.2), plain, vocab=12)),
        ("dropout", Bigrams(plain, made.noisy(0.2), vocab=10)),
    ],
)
def test_causes_on_a_model_that_the_calibration_has_not_seen(name: str, bigrams: Bigrams) -> None:
    one = found(columns(bigrams.frames(8, samples=6)))
    assert one.named == (name,), lines(one)
    assert one.ranked[0].name == name
    assert one.ranked[0].supporting[0].llr > 0
    assert one.actions == (causes.BY_NAME[name].action,)
    assert {item.name for item in one.ruled_out} >= {"placeholder-zero", "in-flight-kv"}


def test_placeholders_beside_another_cause_are_both_named() -> None:
    of = columns(Bigrams(plain, plain, said=made.raw).frames(8, samples=6))
    one = found(changed(of, rollout=np.where(of.last, 0.0, of.rollout)))
    assert set(one.named) == {"raw-logprobs", "placeholder-zero"}, lines(one)
    assert " and " in one.sentence


def test_nothing_is_beneath_a_cause_that_began_in_the_middle() -> None:
    """It is subtracted where it acts, not where it did not yet."""
    frames = [
        (Bigrams(plain, plain) if step < 4 else Bigrams(plain, plain, said=made.raw)).frame(step, samples=6)
        for step in range(10)
    ]
    one = found(columns(frames))
    assert (one.verdict, one.named) == ("cause", ("raw-logprobs",)), lines(one)


def test_shares_sum_to_the_whole_and_name_the_layer() -> None:
    one = found(columns(Bigrams(plain, plain, said=made.raw).frames(8))).attribution
    assert one is not None
    assert sum(share.nats for share in one.shares) == one.total
    assert one.fraction("semantics") > 0.95
    for share in one.shares:
        assert share.low <= share.nats <= share.high


def test_a_fix_that_is_read_back_as_on_speaks_against_its_cause() -> None:
    of = columns(Bigrams(plain, plain, said=made.raw).frames(8))
    on = found(of, msgspec.structs.replace(FACTS, fixes={"processed-logprobs": "on"}))
    off = found(of, msgspec.structs.replace(FACTS, fixes={"processed-logprobs": "off"}))
    chances = [next((item.probability for item in one.ranked if item.name == "raw-logprobs"), 0.0) for one in (on, off)]
    assert chances[0] < chances[1]


def test_a_cause_that_has_gone_is_not_named_any_more() -> None:
    frames = [
        (Bigrams(plain, plain, said=made.raw) if step < 5 else Bigrams(plain, plain)).frame(step) for step in range(10)
    ]
    one = found(columns(frames))
    assert one.verdict == "normal", lines(one)
    assert "before version 5 it was ." in one.sentence
    back = found(columns(frames[:5]))
    assert back.named == ("raw-logprobs",), lines(back)


def test_newest_tokens_without_lag_are_no_cause_that_has_gone() -> None:
    """A trainer that scores old tokens with its newest weights: |d| follows lag, and the newest versions have none."""
    frames = [
        Bigrams(plain, plain).frame(step, version=step - lag, seed=lag) for step in range(4, 14) for lag in range(4)
    ]
    of = columns(frames)
    step = np.repeat([step for step in range(4, 14) for _ in range(4)], [frame.n for frame in frames])
    lag = (step - of.version).astype(np.int32)
    noise = np.random.default_rng(0).normal(0, 0.05, len(of)) * lag
    one = found(changed(of, lag=lag, trainer=of.trainer + noise))
    assert one.named == ("lag",), lines(one)


def test_a_few_tokens_are_not_enough() -> None:
    for of in (empty(), HEALTHY.take(np.arange(len(HEALTHY)) < 150)):
        one = found(of)
        assert (one.verdict, one.certainty, one.ranked) == ("not enough data", 0.0, ())
        assert "200 are the fewest" in one.sentence


def test_what_is_missing_is_said() -> None:
    bare = changed(
        HEALTHY, version=HEALTHY.version * 0 - 1, engine=HEALTHY.engine * 0 - 1, prompt=HEALTHY.prompt * 0 - 1
    )
    text = " ".join(found(bare).missing)
    assert "weights that sampled each token" in text
    assert "which engine" in text
    assert "prompts" in text


def test_parts_are_disjoint_and_cover_everything() -> None:
    of = columns(Bigrams(plain, plain, said=made.raw).frames(6))
    noise = np.random.default_rng(0).normal(0, 2, len(of)) * (of.engine == 1)
    mixed = changed(of, rollout=np.where(of.last, 0.0, of.rollout + noise))
    made_of = parts.split(mixed, FACTS)
    assert [one.name for one in made_of] == ["last", "engine", "rest"]
    assert sum(one.mask.astype(int) for one in made_of).tolist() == [1] * len(of)  # type: ignore[union-attr]
    assert made_of[1].where == "engine-1"


def test_readings_of_an_active_instrument_are_weighed_with_their_likelihoods() -> None:
    of = columns(Bigrams(plain, made.noisy(0.3)).frames(6, samples=1, prompts=24))
    before = found(of)
    extra = (Reading("self-check", "repeats", 0.0, "the trainer gives the same logprobs twice"),)
    more = {
        name: {"self-check": {"repeats": 0.001 if name == "dropout" else 0.9, "differs": 0.1}}
        for name in calibrated().table
    }
    after = diagnose(of, FACTS, extra=extra, more=more)
    chance = [next((item.probability for item in one.ranked if item.name == "dropout"), 0.0) for one in (before, after)]
    assert chance[1] < chance[0]


def test_probabilities_sum_to_one_with_pairs_and_the_unknown() -> None:
    readings = parts.split(HEALTHY, FACTS)[-1].readings
    odds = weigh.posterior(readings, calibrated())
    assert sum(odds.values()) == pytest.approx(1)
    n = len(causes.MODELLED) - 3  # those whose contrast was not found
    assert len(odds) == n + n * (n - 1) // 2 + 2
    assert (UNKNOWN,) in odds


def test_no_cause_that_fits_is_said_to_be_unknown() -> None:
    """Engine logprobs rounded to a tenth: no cause of the catalogue does that."""
    of = changed(HEALTHY, rollout=np.round(HEALTHY.rollout, 1))
    one = found(of)
    assert one.verdict == "unknown", lines(one)
    assert "not one that I know" in one.sentence


def test_lines_and_json_hold_the_whole_answer() -> None:
    one = found(columns(Bigrams(plain, plain, said=made.raw).frames(8)))
    text = "\n".join(lines(one))
    for part in ("% sure", "for (+", "do: switch processed logprobs on", "normal: up to", "ruled out: ", "by layer"):
        assert part in text
    plainly = document(one)
    assert plainly["named"] == ("raw-logprobs",)
    assert plainly["ranked"][0]["cause"]["layer"] == "semantics"
    assert math.isfinite(plainly["attribution"]["total"])
