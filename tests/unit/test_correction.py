"""Objective-side corrections against float64 references, loop by loop, and what the trainer does with the command."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch

from driftline.catalog import corrections
from driftline.config import Config, ConfigError, CorrectionConfig, TrainerConfig, parse
from driftline.frames import Event, RunState
from tests.unit.test_objective import HIGH, LOW, draw
from tests.unit.test_trainer_control import Rig
from tests.unit.test_trainer_loop import CONFIG, Run
from trainer.learn import objective
from trainer.learn.correction import correct

LIMITS = CorrectionConfig(sequence_low=0.9, sequence_high=1.15, sequence_max_diff=0.9)
ON = [one.id for one in corrections.CORRECTIONS if one.id != corrections.OFF]


def reference_weight(value: str, d: list[float], i: int | None) -> float:
    """Weight of token i of a sequence with differences d, or of the whole sequence (i None): the papers' formulas."""
    mean = math.exp(sum(d) / len(d))
    w = mean if i is None else math.exp(d[i])
    if value == "tis":
        return min(w, LIMITS.tis_cap)
    if value == "icepop":
        return w if LIMITS.icepop_low <= w <= LIMITS.icepop_high else 0.0
    inside = LIMITS.sequence_low <= mean <= LIMITS.sequence_high and max(map(abs, d)) <= LIMITS.sequence_max_diff
    return w if inside else 0.0


def drawn(seed: int, scale: float = 0.35):
    """new, prox, roll, advantages, mask: the backends differ by `scale`, with a heavy tail that every limit meets."""
    new, prox, advantages, mask = draw(seed, rows=24)
    generator = torch.Generator().manual_seed(seed + 100)
    tail = torch.where(torch.rand(prox.shape, generator=generator) < 0.05, 4.0, 0.5)
    roll = prox - scale * tail * torch.randn(prox.shape, generator=generator, dtype=torch.float64)
    return new, prox, roll, advantages, mask


@pytest.mark.parametrize("objective_name", ["ppo", "gspo"])
@pytest.mark.parametrize("value", ON)
@pytest.mark.parametrize("seed", range(6))
def test_weights_and_loss_agree_with_a_float64_reference(value: str, objective_name: str, seed: int) -> None:
    new, prox, roll, advantages, mask = drawn(seed)
    made = correct(value, LIMITS, prox.float(), roll.float(), mask, objective_name)
    total, loss, kept_sequences, present = objective.units(objective_name, mask), 0.0, 0, 0
    weights, masked, tokens, cut = [], 0, 0, 0
    for b in range(mask.shape[0]):
        n = int(mask[b].sum())
        if not n:
            continue
        d = [float(prox[b, t] - roll[b, t]) for t in range(n)]
        a, own = float(advantages[b]), []
        places = range(n) if objective_name == "ppo" else [None]
        for i in places:
            own.append(reference_weight(value, d, i))
            log_ratio = (new[b, :n] - prox[b, :n]).mean() if i is None else new[b, i] - prox[b, i]
            r = math.exp(float(log_ratio))
            loss -= own[-1] * min(r * a, min(max(r, 1 - LOW), 1 + HIGH) * a)
            raw = math.exp(sum(d) / n if i is None else d[i])
            cut += (value == "tis" and raw > LIMITS.tis_cap) * (n if i is None else 1)
        wide = own * n if objective_name == "gspo" else own
        weights += wide
        masked, tokens, present = masked + sum(w == 0 for w in wide), tokens + n, present + 1
        kept_sequences += any(wide)
    terms = objective.OBJECTIVES[objective_name](
        new.float(), made.old, advantages.float(), mask, clip_low=LOW, clip_high=HIGH, total=total, weights=made.weights
    )
    assert float(terms.loss) == pytest.approx(loss / total, rel=1e-4, abs=1e-6)
    assert made.values["correction/weight_mean"] == pytest.approx(sum(weights) / tokens, rel=1e-5)
    assert made.values["correction/truncated_fraction"] == pytest.approx(cut / tokens)
    assert made.values["correction/masked_fraction"] == pytest.approx(masked / tokens)
    assert made.values["correction/masked_sequences"] == pytest.approx(1 - kept_sequences / present)


def test_every_limit_was_met_by_the_draws() -> None:
    seen = dict.fromkeys(ON, 0.0)
    for seed in range(6):
        _, prox, roll, _, mask = drawn(seed)
        for value in ON:
            made = correct(value, LIMITS, prox, roll, mask, "ppo").values
            seen[value] += made["correction/truncated_fraction"] + made["correction/masked_fraction"]
    assert all(0 < share < 6 for share in seen.values()), seen


@pytest.mark.parametrize("value", ON)
def test_backends_that_agree_are_left_alone(value: str) -> None:
    new, prox, _, advantages, mask = drawn(1)
    made = correct(value, LIMITS, prox, prox, mask, "ppo")
    assert made.weights is not None
    assert torch.equal(made.weights, mask.float())
    kinds = dict(clip_low=LOW, clip_high=HIGH, total=int(mask.sum()))
    with_it = objective.ppo(new, made.old, advantages, mask, weights=made.weights, **kinds).loss
    assert float(with_it) == pytest.approx(float(objective.ppo(new, prox, advantages, mask, **kinds).loss))


def test_without_a_correction_the_objective_divides_by_the_engine_s_logprobs() -> None:
    _, prox, roll, _, mask = drawn(2)
    made = correct("off", LIMITS, prox, roll, mask, "ppo")
    assert made.old is roll
    assert made.weights is None
    assert set(made.values.values()) == {0.0, 1.0}


def test_the_weight_has_no_gradient() -> None:
    new, prox, roll, advantages, mask = drawn(3)
    new.requires_grad_()
    made = correct("tis", LIMITS, prox, roll, mask, "ppo")
    assert made.weights is not None
    total = int(mask.sum())
    loss = objective.ppo(new, prox, advantages, mask, clip_low=9, clip_high=9, total=total, weights=made.weights).loss
    (gradient,) = torch.autograd.grad(loss, new)
    expected = -(made.weights.double() * torch.exp(new - prox) * advantages[:, None] * mask / total)
    assert torch.allclose(gradient, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[correction]\nvalue = "ppo"', "correction.value"),
        ("[correction]\nicepop_low = 2.0", "correction.icepop_low and icepop_high: 2 to 5 does not hold 1"),
        ("[correction]\nsequence_high = 0.9", "correction.sequence_low and sequence_high"),
        ("[correction]\ncap = 2", "unknown key 'correction.cap'"),
    ],
)
def test_a_bad_correction_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(text, "run.toml")


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rig():
    rig = Rig()
    rig.control.start()
    yield rig
    rig.control.close()


def test_a_correction_is_wanted_at_once_and_in_force_between_two_steps_only(rig: Rig) -> None:
    command = rig.send("correction.set", value="tis")
    rig.probe.wait(lambda: rig.report.run.correction_requested == "tis")
    assert rig.control.correction == "off"
    assert [ack.state for ack in rig.probe.acks(command)] == ["accepted"]
    rig.control.between_steps()
    ack = rig.probe.answer(command)
    assert (ack.state, ack.data) == ("applied", {"effective": "tis", "since_step": 8})
    assert rig.control.correction == "tis"
    state = rig.probe.of(RunState)[-1]
    assert (state.correction, state.correction_requested, state.correction_since) == ("tis", "tis", 8)
    assert (state.correction_by, state.correction_generation) == ("op:ana", 1)


def test_who_overrules_the_verdict_is_on_record(rig: Rig) -> None:
    command = rig.send("correction.set", value="icepop", despite="fail: mismatch .16")
    rig.probe.wait(lambda: rig.report.run.correction_requested == "icepop")
    rig.control.between_steps()
    rig.probe.answer(command)
    (event,) = [event for event in rig.probe.of(Event) if event.kind == "correction.applied"]
    assert event.level == "warn"
    assert "op:ana" in event.text
    assert "despite: fail: mismatch .16" in event.text


@pytest.mark.parametrize(
    ("generation", "value", "says"),
    [(-1, "ppo", "unknown correction 'ppo'; allowed: off, tis"), (3, "tis", "generation 0, you saw 3")],
)
def test_an_unfit_wish_is_refused_and_changes_nothing(rig: Rig, generation: int, value: str, says: str) -> None:
    ack = rig.probe.answer(rig.send("correction.set", generation=generation, value=value))
    assert ack.state == "refused"
    assert says in ack.detail
    assert rig.report.run.correction_requested != value


def test_what_waits_when_the_run_ends_is_answered() -> None:
    rig = Rig()
    rig.control.start()
    command = rig.send("correction.set", value="tis")
    rig.probe.wait(lambda: rig.report.run.correction_requested == "tis")
    rig.control.close()
    assert rig.probe.answer(command).state == "failed"


@pytest.mark.parametrize("objective_name", ["ppo", "gspo"])
def test_a_run_that_starts_with_a_correction_trains_with_it_and_says_so(tmp_path, objective_name: str) -> None:
    config: Config = msgspec.structs.replace(
        CONFIG,
        correction=CorrectionConfig(value="tis", tis_cap=1.1),
        trainer=TrainerConfig(threads=1, keep_versions=2, objective=objective_name),
    )
    run = Run(tmp_path, config)
    run.pool.offset = -0.25
    run.loop.run(2)
    for frame in run.probe.metrics:
        assert frame.labels["policy/clip_fraction"] == f"{objective_name}, tis"
        # exp(.25) is above the cap for every token: the mismatch is still reported as it is.
        assert frame.values["mismatch/abs_diff_mean"] == pytest.approx(0.25, abs=1e-4)
    first = run.probe.metrics[0].values
    assert first["correction/truncated_fraction"] == 1
    assert first["correction/weight_mean"] == pytest.approx(1.1)


def test_a_step_of_which_nothing_is_left_says_so(tmp_path) -> None:
    config = msgspec.structs.replace(CONFIG, correction=CorrectionConfig(value="icepop", icepop_high=1.1))
    run = Run(tmp_path, config)
    run.pool.offset = -0.25
    run.loop.run(1)
    assert run.probe.metrics[0].values["correction/masked_fraction"] == 1
    assert run.probe.metrics[0].values["correction/masked_sequences"] == 1
    assert [event.kind for event in run.probe.of(Event) if event.kind.startswith("correction")] == [
        "correction.all-masked"
    ]
