"""Each passive instrument on columns in which the answer is known: logits of a bigram model, changed as a cause
does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from console.diagnosis import instruments
from console.diagnosis.columns import Columns, empty
from console.diagnosis.facts import Facts
from console.diagnosis.instruments import contexts, magnitude, places, shape, timing
from console.diagnosis.instruments.catalogue import BY_NAME, PASSIVE, STATE
from console.diagnosis.instruments.view import View, reading, relative_size
from console.diagnosis.model import Reading
from tests.unit import diagnosis_columns as made
from tests.unit.diagnosis_columns import Bigrams, Logits, columns, plain

FACTS = Facts(temperature=0.7, dtype="float32")
HEALTHY = columns(Bigrams(plain, plain).frames(4))


def view(found: Columns, facts: Facts = FACTS) -> View:
    return View(found, found, facts)


def changed(found: Columns, **arrays: np.ndarray) -> Columns:
    """Columns with other arrays; what is computed of them is computed anew."""
    return dataclasses.replace(found, **arrays)  # type: ignore[arg-type]


def test_every_instrument_of_the_catalogue_reads_and_names_itself() -> None:
    found = instruments.read(view(HEALTHY))
    assert [one.instrument for one in found] == [
        reader for reader in (one.instrument for one in found) if reader in BY_NAME
    ]
    assert {one.instrument for one in found} == set(BY_NAME)
    assert len(instruments.READERS) == len(PASSIVE) + len(STATE)
    with pytest.raises(ValueError, match=r"size: 'huge' is no outcome; there are floor, above, far, beyond"):
        reading("size", "huge", 1.0, "")


def outcome(found: Reading) -> str:
    return found.outcome


def test_size_against_the_floor_of_the_stack() -> None:
    assert outcome(magnitude.size(view(HEALTHY))) == "floor"
    for factor, wanted in ((5, "above"), (50, "far"), (5000, "beyond")):
        moved = changed(HEALTHY, rollout=HEALTHY.trainer + factor * FACTS.floor[0])
        assert outcome(magnitude.size(view(moved))) == wanted
    wide = changed(HEALTHY, rollout=HEALTHY.trainer + 0.02)
    assert outcome(magnitude.size(view(wide, Facts(dtype="bfloat16")))) == "floor"


def test_raw_logprobs_are_the_trainers_times_the_temperature_and_drawn_from_the_trainers() -> None:
    found = columns(Bigrams(plain, plain, said=made.raw).frames(6))
    within = contexts.context(view(found))
    assert within.outcome == "run's temperature"
    assert within.value == pytest.approx(0.7, abs=1e-3)
    assert outcome(shape.sampler(view(found))) == "trainer's"
    other = contexts.context(view(found, Facts(temperature=0.9, dtype="float32")))
    assert other.outcome == "another temperature"


def test_another_temperature_in_the_trainer_is_drawn_from_the_engines() -> None:
    found = columns(Bigrams(plain, lambda z, seen, at: made.log_softmax(z / 0.8)).frames(6))
    within = contexts.context(view(found))
    assert within.outcome == "another temperature"
    assert within.value == pytest.approx(0.8 / 0.7, abs=1e-3)
    assert outcome(shape.sampler(view(found))) == "engine's"


def test_top_p_is_bounded_one_sided_and_depends_on_the_position_only() -> None:
    found = columns(Bigrams(made.top_p(0.9), plain).frames(6))
    assert outcome(magnitude.sign(view(found))) == "engine higher"
    bound = magnitude.bound(view(found))
    assert bound.outcome in ("sharp", "bounded")
    assert bound.value <= -np.log(0.9) + 1e-6
    assert outcome(contexts.context(view(found))) == "position only"
    assert outcome(shape.sampler(view(found))) == "neither's"


def test_min_tokens_only_below_its_position() -> None:
    found = columns(Bigrams(made.min_tokens(4), plain, scale=1.0).frames(8))
    where = places.position(view(found))
    assert where.outcome == "below"
    assert where.value == 4
    assert outcome(magnitude.sign(view(found))) == "engine higher"


def test_a_penalty_lowers_ids_that_occurred_before() -> None:
    found = columns(Bigrams(made.penalty(1.3), plain, vocab=10).frames(6))
    assert outcome(contexts.repeats(view(found))) == "lowered"
    assert outcome(contexts.repeats(view(columns(Bigrams(made.top_p(0.9), plain, vocab=10).frames(6))))) == "no"


@pytest.mark.parametrize("of_prompt", [(), (1, 2, 3), tuple(range(12))])
@pytest.mark.parametrize("size", [1.1, 1.5])
def test_a_penalty_leaves_ids_alike_that_it_does_not_touch(of_prompt: tuple[int, ...], size: float) -> None:
    """Also where ids of a prompt, which is not known, have it as well."""
    lowered = made.penalty(size)
    sampled = Bigrams(lambda z, seen, at: lowered(z, [*seen, *of_prompt], at), plain)
    found = contexts.context(view(columns(sampled.frames(6, samples=16))))
    assert found.outcome == "some ids"
    assert 0 < found.value < 1


@pytest.mark.parametrize(
    "engine",
    [made.top_p(0.9), made.min_tokens(4), made.noisy(0.02), made.raw, lambda z, seen, at: plain(z * 1.1, seen, at)],
)
def test_nothing_else_treats_some_ids_alike(engine: Callable[[Logits, list[int], int], Logits]) -> None:
    found = contexts.context(view(columns(Bigrams(engine, plain).frames(6, samples=16))))
    assert found.outcome not in ("some ids", "few")


def test_a_trainer_with_noise_of_its_own_does_not_repeat_itself() -> None:
    found = columns(Bigrams(plain, made.noisy(0.1), vocab=8).frames(8, samples=8, prompts=4))
    assert outcome(shape.repeatable(view(found))) == "trainer differs"
    assert outcome(shape.sampler(view(found))) in ("engine's", "either's")
    engine = columns(Bigrams(plain, plain, said=made.noisy(0.1), vocab=8).frames(8, samples=8, prompts=4))
    assert outcome(shape.repeatable(view(engine))) == "engine differs"
    both = columns(Bigrams(made.top_p(0.9), plain, vocab=8).frames(8, samples=8, prompts=4))
    assert outcome(shape.repeatable(view(both))) == "both do"


@pytest.mark.parametrize("by", [1, -1])
def test_a_shift_by_one_either_way(by: int) -> None:
    found = columns(Bigrams(plain, plain).frames(6, length=12))
    moved = found.trainer.copy()
    same = found.seq == np.roll(found.seq, -by)
    moved[same] = np.roll(found.trainer, -by)[same]
    assert outcome(shape.shift(view(changed(found, trainer=moved)))) == "shifted"
    later = np.where(found.position >= 6, moved, found.trainer)
    assert outcome(shape.shift(view(changed(found, trainer=later)))) == "shifted"
    assert outcome(shape.shift(view(changed(found, trainer=found.trainer + 0.1)))) == "in place"


def test_zeros_at_last_tokens_alone_and_where_one_token_has_the_mass() -> None:
    last = np.where(HEALTHY.last, 0.0, HEALTHY.rollout)
    assert outcome(places.zeros(view(changed(HEALTHY, rollout=last)))) == "last"
    assert outcome(places.zeros(view(HEALTHY))) == "none"
    likely = columns(Bigrams(made.top_p(0.8), plain, scale=3.0).frames(6))
    assert outcome(places.zeros(view(likely))) == "certain"
    every = np.where(np.arange(len(HEALTHY)) % 3 == 0, 0.0, HEALTHY.rollout)
    assert outcome(places.zeros(view(changed(HEALTHY, rollout=every)))) == "anywhere"


def test_zeros_of_a_truncation_do_not_hide_placeholders_and_are_none() -> None:
    """Last tokens are compared with others that the trainer holds as likely."""
    for share in (0.8, 0.95):
        found = columns(Bigrams(made.top_p(share), plain, scale=3.0).frames(8))
        assert outcome(places.zeros(view(found))) == "certain"
        both = changed(found, rollout=np.where(found.last, 0.0, found.rollout))
        assert outcome(places.zeros(view(both))) == "last"


def test_placeholders_of_a_policy_that_is_nearly_certain_of_its_end() -> None:
    trainer = np.where(HEALTHY.last, -1e-4 * (1 + HEALTHY.seq % 5), HEALTHY.trainer)
    found = changed(HEALTHY, trainer=trainer, rollout=np.where(HEALTHY.last, 0.0, HEALTHY.rollout))
    assert outcome(places.zeros(view(found))) == "last"
    certain = np.where(HEALTHY.last, -1e-7, HEALTHY.trainer)
    assert outcome(places.zeros(view(changed(found, trainer=certain)))) == "none"


def test_one_engine_with_few_far_tokens_is_not_apart() -> None:
    """Its mean is three times the other's, but most of its sequences are not higher."""
    size = np.random.default_rng(0).exponential(1e-3, len(HEALTHY))
    far = size + np.where((HEALTHY.engine == 1) & (HEALTHY.seq % 16 == 1) & (HEALTHY.position == 1), 1.0, 0.0)
    assert outcome(places.engine(view(changed(HEALTHY, rollout=HEALTHY.trainer + far)))) == "alike"


def test_one_engine_apart_is_named() -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, len(HEALTHY))
    found = places.engine(view(changed(HEALTHY, rollout=HEALTHY.rollout + noise * (HEALTHY.engine == 1))))
    assert (found.outcome, found.where) == ("one", "engine-1")
    assert outcome(places.engine(view(changed(HEALTHY, rollout=HEALTHY.rollout + noise)))) == "alike"
    alone = HEALTHY.take(HEALTHY.engine == 0)
    assert outcome(places.engine(view(alone))) == "single"


def test_onset_at_the_first_version_an_update_or_not_seen() -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, len(HEALTHY))
    every = changed(HEALTHY, rollout=HEALTHY.rollout + noise)
    assert outcome(timing.onset(view(every))) == "step 0"
    later = changed(HEALTHY, rollout=HEALTHY.rollout + noise * (HEALTHY.version >= 2))
    found = timing.onset(view(later))
    assert (found.outcome, found.value) == ("update", 2)
    assert outcome(timing.onset(view(every.take(every.version >= 1)))) == "not seen"
    assert outcome(timing.onset(view(HEALTHY))) == "nothing"
    known = View(
        every.take(every.version >= 2), every.take(every.version >= 2), FACTS, ((0, 100.0, 1e-4), (1, 100.0, 1e-4))
    )
    assert timing.onset(known).outcome == "update"


def test_a_jump_of_a_few_tokens_is_no_onset() -> None:
    """Of a nearly certain policy one large |d| makes a version's mean."""
    size = np.random.default_rng(0).exponential(1e-3, len(HEALTHY))
    few = size + np.where((HEALTHY.version >= 2) & (HEALTHY.seq % 8 == 0) & (HEALTHY.position == 1), 0.4, 0.0)
    assert timing.jump(timing.by_version(changed(HEALTHY, rollout=HEALTHY.trainer + few)), 1e-4) is not None
    assert outcome(timing.onset(view(changed(HEALTHY, rollout=HEALTHY.trainer + few)))) == "step 0"
    every = size * np.where(HEALTHY.version >= 2, 20, 1)
    assert outcome(timing.onset(view(changed(HEALTHY, rollout=HEALTHY.trainer + every)))) == "update"


def test_size_for_each_uncertainty_does_not_follow_the_policy() -> None:
    """Engine logits with the same noise, under a flat and a sharp policy."""
    sizes = []
    for scale in (1.0, 3.0):
        found = columns(Bigrams(made.noisy(0.05), plain, scale=scale).frames(6))
        sizes.append(relative_size(found))
        assert outcome(magnitude.relative(view(found))) == "some"
    assert sizes[0] == pytest.approx(sizes[1], rel=0.35)
    assert outcome(magnitude.relative(view(HEALTHY))) == "few"


def test_growth_over_the_versions_with_it() -> None:
    found = columns(Bigrams(plain, plain).frames(12, prompts=3))
    noise = np.random.default_rng(0).normal(0, 0.1, len(found))
    assert outcome(timing.growth(view(changed(found, rollout=found.rollout + noise * (1 + found.version))))) == "grows"
    assert outcome(timing.growth(view(changed(found, rollout=found.rollout + noise)))) == "flat"
    assert outcome(timing.growth(view(HEALTHY))) == "short"


def test_only_behind_a_change_of_weights() -> None:
    found = columns(Bigrams(plain, plain).frames(4, ends=0))
    version = found.version + (found.position >= 5) * (found.seq % 2 == 0)
    spanning = changed(found, version=version.astype(np.int32))
    assert int((spanning.seam > 0).sum()) == 5 * len(found.begins) // 2
    noise = np.random.default_rng(0).normal(0, 0.1, len(found)) * (spanning.seam > 0)
    assert outcome(places.seam(view(changed(spanning, rollout=found.rollout + noise)))) == "after only"
    assert outcome(places.seam(view(spanning))) == "no"
    assert outcome(places.seam(view(found))) == "none"


def test_with_the_lag_of_the_weights() -> None:
    lag = (HEALTHY.seq % 3).astype(np.int32)
    noise = np.random.default_rng(0).normal(0, 0.1, len(HEALTHY)) * lag
    assert outcome(timing.lag(view(changed(HEALTHY, lag=lag, rollout=HEALTHY.rollout + noise)))) == "with lag"
    assert outcome(timing.lag(view(changed(HEALTHY, lag=lag)))) == "no"
    assert outcome(timing.lag(view(HEALTHY))) == "no lag"
    # What begins at the first update is not the lag that begins with it.
    first = HEALTHY.version == 0
    later = changed(HEALTHY, lag=np.where(first, 0, 1).astype(np.int32), rollout=HEALTHY.rollout + 0.2 * ~first)
    assert outcome(timing.lag(view(later))) == "no lag"


def test_by_token_id() -> None:
    random = np.random.default_rng(0)
    by_id = random.normal(0, 0.2, 64)[HEALTHY.ids]
    assert outcome(shape.ids(view(changed(HEALTHY, rollout=HEALTHY.rollout + by_id)))) == "by id"
    noise = random.normal(0, 0.2, len(HEALTHY))
    assert outcome(shape.ids(view(changed(HEALTHY, rollout=HEALTHY.rollout + noise)))) == "no"


def test_tails() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.02, len(HEALTHY))
    assert outcome(magnitude.tails(view(changed(HEALTHY, rollout=HEALTHY.rollout + noise)))) == "usual"
    far = noise + 3.0 * (random.random(len(HEALTHY)) < 0.008)
    assert outcome(magnitude.tails(view(changed(HEALTHY, rollout=HEALTHY.rollout + far)))) == "few far"


def test_positions_first_early_and_late() -> None:
    noise = np.abs(np.random.default_rng(0).normal(0, 0.1, len(HEALTHY)))
    spot = HEALTHY.position
    for factor, wanted in (
        ((spot == 0) * 1.0 + 0.01, "first"),
        (0.8**spot, "early"),
        (spot + 0.1, "late"),
        (spot * 0 + 1.0, "flat"),
    ):
        moved = changed(HEALTHY, rollout=HEALTHY.trainer + noise * factor * -np.expm1(HEALTHY.trainer))
        assert outcome(places.position(view(moved))) == wanted


def test_staleness_as_the_trainer_reports_it() -> None:
    assert outcome(timing.staleness(view(HEALTHY))) == "not recorded"
    assert outcome(timing.staleness(view(HEALTHY, Facts(staleness=0.2, lag=3.0)))) == "high"
    assert outcome(timing.staleness(view(HEALTHY, Facts(staleness=0.2, lag=0.5)))) == "low"


def test_d_follows_the_engines_logprob_where_a_side_is_flatter() -> None:
    assert outcome(shape.surprise(view(columns(Bigrams(plain, plain, said=made.raw).frames(6))))) == "flattened"
    sharper = Bigrams(plain, lambda z, seen, at: made.log_softmax(z / 0.9))
    assert outcome(shape.surprise(view(columns(sharper.frames(6))))) == "sharpened"
    assert outcome(shape.surprise(view(columns(Bigrams(plain, made.noisy(0.1)).frames(6))))) == "no"


def rounded(logits: made.Logits, seen: list[int], at: int) -> made.Logits:
    """Logits rounded to eight bits, as bfloat16 has them."""
    mantissa, exponent = np.frexp(logits * 4)
    return made.log_softmax(np.ldexp(np.round(mantissa * 256), exponent) / 256 / 0.7)


def fine(logits: made.Logits, seen: list[int], at: int) -> made.Logits:
    return made.log_softmax(logits * 4 / 0.7)


@pytest.mark.parametrize(
    ("engine", "trainer", "wanted"),
    [(rounded, fine, "engine"), (fine, rounded, "trainer"), (rounded, rounded, "both"), (fine, fine, "neither")],
)
def test_whose_logits_lie_on_the_grid_of_bfloat16(engine: object, trainer: object, wanted: str) -> None:
    found = columns(Bigrams(engine, trainer, scale=0.5).frames(6))  # type: ignore[arg-type]
    assert outcome(shape.grid(view(found))) == wanted


def test_what_a_run_reports_of_itself() -> None:
    facts = Facts(
        temperature=1.0,
        fixes={
            "processed-logprobs": "on",
            "prefix-cache-off": "removed",
            "inflight-keep": "on",
            "fp32-lm-head": "mixed",
        },
        engines={"a": 3, "b": 4},
        failed=("a",),
        digests={"a": "12", "b": "13"},
        resets={"a": "freed", "b": "refused"},
    )
    found = {one.instrument: one.outcome for one in instruments.read(view(HEALTHY, facts))}
    assert found["processed-logprobs"] == found["prefix-cache-off"] == "repaired"
    assert (found["inflight-keep"], found["fp32-lm-head"]) == ("kept", "not repaired")
    assert (found["temperature"], found["versions"]) == ("one", "behind")
    assert (found["digests"], found["resets"]) == ("differ", "not freed")
    silent = {one.instrument: one.outcome for one in instruments.read(view(HEALTHY, Facts()))}
    assert {silent[one.name] for one in STATE} == {"not reported"}


def test_nothing_and_one_token_have_readings() -> None:
    with np.errstate(all="raise"):
        for found in (empty(), HEALTHY.take(np.arange(len(HEALTHY)) == 0)):
            for one in instruments.read(view(found)):
                assert one.outcome in BY_NAME[one.instrument].outcomes


@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_zeros_by_rounding_are_no_placeholders(decimals: int) -> None:
    """A policy that is nearly certain of the end of a sequence, written with few decimals; then with placeholders."""
    likely = np.where(HEALTHY.last, -0.3 * 10.0**-decimals, HEALTHY.trainer)
    found = changed(HEALTHY, trainer=likely, rollout=np.round(likely, decimals))
    assert outcome(places.zeros(view(found))) != "last"
    unlikely = np.where(HEALTHY.last, -1.5, HEALTHY.trainer)
    held = np.where(HEALTHY.last, 0.0, np.round(unlikely, decimals))
    assert outcome(places.zeros(view(changed(HEALTHY, trainer=unlikely, rollout=held)))) == "last"
