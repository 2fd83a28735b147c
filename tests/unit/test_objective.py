"""The objectives against float64 references written from the papers' and TRL's formulas, loop by loop."""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import pytest
import torch

from driftline.config import TrainerConfig
from trainer.learn import objective

LOW, HIGH = 0.2, 0.28


def draw(seed: int, rows: int = 12, width: int = 9, scale: float = 0.4):
    """Random logprobs, advantages and a ragged mask, one row of it empty."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(rows, width, generator=generator, dtype=torch.float64) * 3 - 0.01
    new = old + scale * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    lengths[rows // 2] = 0
    mask = torch.arange(width)[None] < lengths[:, None]
    return new, old, advantages, mask


def reference_ppo(new, old, advantages, mask):
    """PPO eq. 7 and TRL's clip statistics, token by token in Python floats."""
    total, low, high, outside, n = 0.0, 0, 0, 0, 0
    for b in range(new.shape[0]):
        for t in range(new.shape[1]):
            if not mask[b, t]:
                continue
            a, r = float(advantages[b]), math.exp(float(new[b, t]) - float(old[b, t]))
            total += min(r * a, max(1 - LOW, min(1 + HIGH, r)) * a)
            low += r < 1 - LOW and a < 0
            high += r > 1 + HIGH and a > 0
            outside += r < 1 - LOW or r > 1 + HIGH
            n += 1
    return -total / n, low / n, high / n, outside / n


def reference_gspo(new, old, advantages, mask):
    """GSPO eq. 5-7 (TRL: importance_sampling_level="sequence"), sequence by sequence in Python floats."""
    total, low, high, outside, n = 0.0, 0, 0, 0, 0
    for b in range(new.shape[0]):
        tokens = [t for t in range(new.shape[1]) if mask[b, t]]
        if not tokens:
            continue
        a = float(advantages[b])
        s = math.exp(sum(float(new[b, t]) - float(old[b, t]) for t in tokens) / len(tokens))
        total += min(s * a, max(1 - LOW, min(1 + HIGH, s)) * a)
        low += s < 1 - LOW and a < 0
        high += s > 1 + HIGH and a > 0
        outside += s < 1 - LOW or s > 1 + HIGH
        n += 1
    return -total / n, low / n, high / n, outside / n


REFERENCES = {"ppo": reference_ppo, "gspo": reference_gspo}


def trl_loss(new, old, advantages, mask, level):
    """TRL's GRPOTrainer in tensors: loss_type="bnpo" for tokens, "grpo" for sequences; differentiable, float64."""
    log_ratio = new - old
    if level == "sequence":
        weights = (log_ratio * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)
        weights = weights.unsqueeze(-1)
    else:
        weights = log_ratio
    coef_1 = torch.exp(weights)
    coef_2 = torch.clamp(coef_1, 1 - LOW, 1 + HIGH)
    per_token = -torch.min(coef_1 * advantages[:, None], coef_2 * advantages[:, None]).expand_as(new)
    if level == "sequence":
        present = mask.any(1)
        return (((per_token * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)) * present).sum() / present.sum()
    return (per_token * mask).sum() / mask.sum()


@pytest.mark.parametrize("name", ["ppo", "gspo"])
@pytest.mark.parametrize("seed", range(8))
def test_loss_and_clip_counts_agree_with_the_float64_reference(name: str, seed: int) -> None:
    new, old, advantages, mask = draw(seed, scale=0.4 if name == "ppo" else 0.9)
    total = objective.units(name, mask)
    terms = objective.OBJECTIVES[name](
        new.float(), old.float(), advantages.float(), mask, clip_low=LOW, clip_high=HIGH, total=total
    )
    loss, low, high, outside = REFERENCES[name](new, old, advantages, mask)
    assert terms.count == total
    assert float(terms.loss) == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert terms.clipped_low / total == low
    assert terms.clipped_high / total == high
    assert terms.clipped / total == outside
    assert outside > 0, "the draw must reach the clipped region for the test to mean anything"


@pytest.mark.parametrize("name", ["ppo", "gspo"])
@pytest.mark.parametrize("seed", range(4))
def test_gradient_agrees_with_float64_autograd_of_trl_s_formula(name: str, seed: int) -> None:
    new, old, advantages, mask = draw(seed, scale=0.9)
    reference = new.clone().requires_grad_()
    trl_loss(reference, old, advantages, mask, "token" if name == "ppo" else "sequence").backward()
    mine = new.float().requires_grad_()
    total = objective.units(name, mask)
    objective.OBJECTIVES[name](
        mine, old.float(), advantages.float(), mask, clip_low=LOW, clip_high=HIGH, total=total
    ).loss.backward()
    error = (mine.grad.double() - reference.grad).norm() / reference.grad.norm()
    assert error < 1e-5
    assert not mine.grad[~mask].any()


@pytest.mark.parametrize("name", ["ppo", "gspo"])
def test_micro_batches_add_up_to_the_whole_batch(name: str) -> None:
    new, old, advantages, mask = draw(3)
    compute = objective.OBJECTIVES[name]
    total = objective.units(name, mask)
    whole = compute(new, old, advantages, mask, clip_low=LOW, clip_high=HIGH, total=total)
    cuts = [slice(0, 5), slice(5, 6), slice(6, 12)]
    parts = [compute(new[c], old[c], advantages[c], mask[c], clip_low=LOW, clip_high=HIGH, total=total) for c in cuts]
    assert sum(float(p.loss) for p in parts) == pytest.approx(float(whole.loss), rel=1e-12)
    assert sum(p.clipped for p in parts) == whole.clipped
    assert sum(p.count for p in parts) == total


@pytest.mark.parametrize("name", ["ppo", "gspo"])
def test_padding_and_garbage_outside_the_mask_change_nothing(name: str) -> None:
    new, old, advantages, mask = draw(5)
    total = objective.units(name, mask)
    compute = objective.OBJECTIVES[name]
    clean = compute(new, old, advantages, mask, clip_low=LOW, clip_high=HIGH, total=total)
    dirty_new, dirty_old = new.masked_fill(~mask, float("nan")), old.masked_fill(~mask, float("inf"))
    dirty = compute(dirty_new, dirty_old, advantages, mask, clip_low=LOW, clip_high=HIGH, total=total)
    assert float(dirty.loss) == float(clean.loss)
    assert (dirty.clipped, dirty.clipped_low, dirty.clipped_high) == (
        clean.clipped,
        clean.clipped_low,
        clean.clipped_high,
    )


def test_one_broken_token_does_not_make_the_loss_infinite() -> None:
    new = torch.tensor([[0.0, -1.0]], requires_grad=True)
    old = torch.tensor([[-500.0, -1.0]])
    terms = objective.ppo(
        new, old, torch.tensor([-1.0]), torch.ones(1, 2, dtype=torch.bool), clip_low=LOW, clip_high=HIGH, total=2
    )
    terms.loss.backward()
    assert torch.isfinite(terms.loss)
    assert torch.isfinite(new.grad).all()


@pytest.mark.parametrize("scale", [True, False])
def test_advantages_are_grpo_s(scale: bool) -> None:
    rewards = torch.rand(5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rewards[2] = 0.5
    got = objective.group_advantages(rewards.float(), scale=scale).double()
    for g in range(5):
        values = [float(v) for v in rewards[g]]
        mean = sum(values) / 8
        std = math.sqrt(sum((v - mean) ** 2 for v in values) / 7)
        want = [(v - mean) / (std + 1e-4) if scale else v - mean for v in values]
        assert got[g].tolist() == pytest.approx(want, rel=1e-5, abs=1e-6)
    assert not got[2].any(), "an all-equal group teaches nothing"


@pytest.mark.parametrize("seed", range(4))
def test_kl_penalty_is_schulman_s_k3_of_new_against_ref(seed: int) -> None:
    new, ref, _, mask = draw(seed)
    tokens = int(mask.sum())
    want = (
        sum(
            math.exp(float(ref[b, t] - new[b, t])) - float(ref[b, t] - new[b, t]) - 1
            for b in range(new.shape[0])
            for t in range(new.shape[1])
            if mask[b, t]
        )
        / tokens
    )
    got = objective.kl_penalty(new.float(), ref.float(), mask, total_tokens=tokens)
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_the_configuration_allows_exactly_the_objectives_there_are() -> None:
    allowed = get_args(get_type_hints(TrainerConfig)["objective"])
    assert set(allowed) == set(objective.OBJECTIVES)
