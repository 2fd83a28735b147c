"""Objectives over rollout logprobs: PPO-clip per token with GRPO advantages, and GSPO. Pure torch functions.

`old` is the engine's rollout logprob, as in PipelineRL: there is no recomputed proximal policy in between, so
whatever the backend gets wrong enters the ratio directly. Under a correction (`trainer.learn.correction`) `old` is the
trainer's own, and `weights`, without a gradient, multiply the surrogate: [B, R] for PPO, [B] for GSPO. All logprobs
are natural logarithms at the sampling temperature, shape [B, R]: B sequences, R response positions, right padded;
`mask` [B, R] is true on response tokens. Sources: PPO-clip: Schulman et al. 2017, eq. 7; group-relative advantages:
GRPO (Shao et al. 2024, section 4.1) with TRL's constant in the denominator; GSPO: Zheng et al. 2025, eq. 5-7; k3:
Schulman, "Approximating KL divergence", 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ADVANTAGE_STD_FLOOR = 1e-4
"""Added to a group's standard deviation (TRL's GRPOTrainer), so that an all-equal group divides by something."""

LOG_RATIO_LIMIT = 20.0
"""|log ratio| is limited to this inside exp(), as verl does, so that one broken token cannot make the loss infinite."""


@dataclass(frozen=True)
class Terms:
    """One objective over some sequences. `loss` carries the gradient and is already divided by the step's total.

    `clipped`, `clipped_low` and `clipped_high` are counts, `count` what they are counted over: tokens (PPO) or
    sequences (GSPO). "low" and "high" count only where the clip acts on the gradient (TRL); `clipped` counts a
    ratio outside the range whatever the advantage's sign (PipelineRL). `row_clipped` and `row_counted` [B] are the
    same two by sequence: `clipped` and `count` are their sums.
    """

    loss: Tensor
    clipped: float
    clipped_low: float
    clipped_high: float
    count: int
    row_clipped: Tensor
    row_counted: Tensor


def group_advantages(rewards: Tensor, *, scale: bool) -> Tensor:
    """Rewards [groups, samples] to advantages of that shape: minus the group's mean, over its std if `scale`.

    The standard deviation is the unbiased one (n - 1), as in TRL.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if not scale:
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + ADVANTAGE_STD_FLOOR)


def k3(log_ratio: Tensor) -> Tensor:
    """Schulman's k3 estimate of a KL divergence from one sample, exp(l) - l - 1 >= 0, elementwise."""
    return torch.expm1(log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)) - log_ratio


def ppo(
    new: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    total: int,
    weights: Tensor | None = None,
) -> Terms:
    """PPO-clip at token level: -sum of min(r A, clip(r) A) over the tokens, divided by `total` tokens of the step.

    `advantages` [B] is shared by the tokens of a sequence. `total` spans all micro-batches of the step, so that
    their losses add up to the token mean however the step is cut.
    """
    ratio = _ratio((new - old).masked_fill(~mask, 0.0))
    wide = advantages[:, None].expand_as(ratio)
    return _clipped_surrogate(ratio, wide, mask, clip_low, clip_high, total, weights)


def gspo(
    new: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    total: int,
    weights: Tensor | None = None,
) -> Terms:
    """GSPO: the ratio of a sequence is exp(mean over its tokens of new - old); clipping and mean over sequences.

    `total` is the number of sequences with at least one token over all micro-batches of the step.
    """
    lengths = mask.sum(dim=1)
    present = lengths > 0
    log_ratio = (new - old).masked_fill(~mask, 0.0).sum(dim=1) / lengths.clamp(min=1)
    return _clipped_surrogate(_ratio(log_ratio), advantages, present, clip_low, clip_high, total, weights)


OBJECTIVES = {"ppo": ppo, "gspo": gspo}


def units(objective: str, mask: Tensor) -> int:
    """How many tokens (PPO) or non-empty sequences (GSPO) a mask [B, R] holds: the `total` of an objective."""
    counted = mask if objective == "ppo" else mask.any(dim=1)
    return int(counted.sum())


def kl_penalty(new: Tensor, ref: Tensor, mask: Tensor, *, total_tokens: int) -> Tensor:
    """Sum of k3(ref - new) over the tokens, divided by `total_tokens` of the step: a share of the token mean."""
    return k3((ref - new).masked_fill(~mask, 0.0)).sum() / max(total_tokens, 1)


def _ratio(log_ratio: Tensor) -> Tensor:
    return torch.exp(log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def _clipped_surrogate(
    ratio: Tensor,
    advantages: Tensor,
    counted: Tensor,
    clip_low: float,
    clip_high: float,
    total: int,
    weights: Tensor | None,
) -> Terms:
    low, high = 1.0 - clip_low, 1.0 + clip_high
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
    if weights is not None:
        surrogate = surrogate * weights
    loss = -(surrogate * counted).sum() / max(total, 1)
    below, above = (ratio < low) & counted, (ratio > high) & counted
    row_clipped, row_counted = _by_row(below | above), _by_row(counted)
    return Terms(
        loss=loss,
        clipped=float(row_clipped.sum()),
        clipped_low=float((below & (advantages < 0)).sum()),
        clipped_high=float((above & (advantages > 0)).sum()),
        count=int(row_counted.sum()),
        row_clipped=row_clipped,
        row_counted=row_counted,
    )


def _by_row(hits: Tensor) -> Tensor:
    """Counts [B] of a mask [B, R] over tokens or [B] over sequences."""
    return hits.flatten(1).sum(dim=1) if hits.dim() > 1 else hits.long()
