"""Objective-side corrections: the weight of every token (PPO) or sequence (GSPO) of a step. Pure torch functions.

Notation as in `driftline.catalog.corrections`: roll [B, R] the engine's logprobs, prox [B, R] the trainer's under the
weights at the start of the step, d = prox - roll, w = exp(d). d holds mismatch and staleness together, as it does in
verl, TRL and NeMo-RL; the metrics separate the two, which are taken before any of this.

- `tis`: min(w, cap). Yao et al. 2025, eq. of truncated importance sampling; verl `rollout_is: token`, threshold 2;
  slime `tis_clip` 2.
- `sequence-mask`: w, and 0 for every token of a sequence whose geometric mean exp(mean d) is outside [low, high] or
  whose largest |d| exceeds `sequence_max_diff`. Geometric mean: Liu et al. 2025 (MIS) and NeMo-RL `seq-mask-tis`, whose
  kept sequences keep untruncated token weights; largest difference: NeMo-RL #2100, averages hide single tokens.
- `icepop`: w inside [alpha, beta], else 0. Ling team 2025, IcePop: M(k) = k for k in [alpha, beta], 0 otherwise.

A GSPO ratio belongs to a sequence, so its weight does too: the same three over s = exp(mean d), normalised by length as
the ratio itself (Zheng et al. 2025, eq. 7). What is masked stays in the denominator of the loss: a token of weight
0 counts as one that says nothing, and a step that is half masked is not trained on twice as hard.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from driftline.catalog.corrections import ICEPOP, OFF, SEQUENCE_MASK, TIS
from driftline.config import CorrectionConfig
from trainer.learn.objective import LOG_RATIO_LIMIT


@dataclass(frozen=True)
class Correction:
    """A correction applied to a step. `old` [B, R]: logprobs that the objective divides by. `weights`: float32, [B,
    R] over tokens (PPO) or [B] over sequences (GSPO), without a gradient; None for all one.

    `values`: the catalogue's `correction/*`; `all_masked`: nothing of the step is left to train on.
    """

    old: Tensor
    weights: Tensor | None
    values: dict[str, float]
    all_masked: bool = False

    def rows(self, rows: slice | Tensor, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """`old` and `weights` of some sequences, on a device."""
        weights = None if self.weights is None else self.weights[rows].to(device)
        return self.old[rows].to(device), weights


def correct(
    value: str, config: CorrectionConfig, prox: Tensor, roll: Tensor, mask: Tensor, objective: str
) -> Correction:
    """The correction `value` (an id of the catalogue) of one step. Shapes [B, R], mask true on response tokens."""
    if value == OFF:
        return Correction(roll, None, {**dict.fromkeys(_NAMES, 0.0), "correction/weight_mean": 1.0})
    d = (prox - roll).masked_fill(~mask, 0.0).double()
    if objective == "gspo":
        lengths = mask.sum(dim=1)
        over, counted = d.sum(dim=1) / lengths.clamp(min=1), lengths > 0
    else:
        over, counted = d, mask
    raw = torch.exp(over.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    weights, kept, truncated = raw, counted, torch.zeros_like(counted)
    if value == TIS:
        truncated = counted & (raw > config.tis_cap)
        weights = raw.clamp(max=config.tis_cap)
    elif value == ICEPOP:
        kept = counted & (raw >= config.icepop_low) & (raw <= config.icepop_high)
    elif value == SEQUENCE_MASK:
        rows = _sequences_kept(d, mask, config)
        kept = counted & (rows if objective == "gspo" else rows[:, None])
    else:
        raise ValueError(f"no correction '{value}'")
    weights = torch.where(kept, weights, 0.0).float()
    return Correction(prox, weights, _values(weights, kept, truncated, counted, mask), not bool(kept.any()))


_NAMES = (
    "correction/weight_mean",
    "correction/truncated_fraction",
    "correction/masked_fraction",
    "correction/masked_sequences",
)


def _sequences_kept(d: Tensor, mask: Tensor, config: CorrectionConfig) -> Tensor:
    """Which sequences [B] stay: geometric mean inside its band and no token beyond the limit."""
    mean = torch.exp(d.sum(dim=1) / mask.sum(dim=1).clamp(min=1))
    inside = (mean >= config.sequence_low) & (mean <= config.sequence_high)
    return inside & (d.abs().amax(dim=1) <= config.sequence_max_diff)


def _values(weights: Tensor, kept: Tensor, truncated: Tensor, counted: Tensor, mask: Tensor) -> dict[str, float]:
    """Shares over tokens, also where the weights are of sequences, so that the names mean the same everywhere."""
    wide = [one if one.dim() > 1 else one[:, None].expand_as(mask) for one in (weights, kept, truncated)]
    of_tokens, kept_tokens, cut_tokens = wide
    tokens, present = max(int(mask.sum()), 1), counted if counted.dim() == 1 else counted.any(dim=1)
    gone = present & ~(kept_tokens & mask).any(dim=1)
    numbers = (
        float(of_tokens[mask].double().mean()) if mask.any() else 1.0,
        float((cut_tokens & mask).sum()) / tokens,
        float((~kept_tokens & mask).sum()) / tokens,
        float(gone.sum()) / max(int(present.sum()), 1),
    )
    return dict(zip(_NAMES, numbers, strict=True))
