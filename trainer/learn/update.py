"""One trainer step: a few optimiser passes over one batch, and the numbers of the policy that come out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from driftline.config import TrainerConfig
from trainer.learn import objective
from trainer.learn.batch import Batch
from trainer.learn.correction import Correction
from trainer.learn.policy import BODY_BUDGET, Policy


@dataclass
class _Sums:
    """Sums over micro-batches and passes, in float64 by way of Python floats; `rows` as in Update."""

    rows: npt.NDArray[np.float64]
    kl_new_old: float = 0.0
    kl_ref: float = 0.0
    entropy: float = 0.0
    tokens: int = 0
    clipped: float = 0.0
    clipped_low: float = 0.0
    clipped_high: float = 0.0
    counted: int = 0
    grad_norms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Update:
    """`values` under the catalogue's `policy/*` names, means over the passes; `skipped` passes had a gradient that
    was not finite and left the weights alone.

    `rows` float64 [B, 3] is the same by sequence, so that it can be summed over any of them: what the clip fraction is
    counted over and what was clipped, summed over the passes, and the sum of k3 over the tokens, mean over the passes.
    """

    values: dict[str, float]
    skipped: int
    rows: npt.NDArray[np.float64]


class Updater:
    """The optimiser and its passes. AdamW, gradients clipped by their L2 norm over all parameters."""

    def __init__(self, policy: Policy, config: TrainerConfig) -> None:
        self._policy = policy
        self._config = config
        self._parameters = [p for p in policy.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self._parameters, lr=config.lr, weight_decay=config.weight_decay)

    def step(
        self, batch: Batch, advantages: Tensor, ref: Tensor, correction: Correction, *, between: Callable[[], None]
    ) -> Update:
        """Run the passes. `advantages` [B], `ref` [B, R] logprobs of the frozen reference; `correction` of this batch.

        `between` is called before every micro-batch: the place where a pause may wait.
        """
        sums, skipped = _Sums(rows=np.zeros((batch.size, 3))), 0
        # Not train(): under dropout the ratio would be of another distribution than the one that engines sample from.
        self._policy.model.eval()
        for _ in range(self._config.passes):
            skipped += not self._pass(batch, advantages, ref, correction, sums, between)
        sums.rows[:, 2] /= self._config.passes
        return Update(_values(sums, self.optimizer.param_groups[0]["lr"]), skipped, sums.rows)

    def _pass(
        self,
        batch: Batch,
        advantages: Tensor,
        ref: Tensor,
        correction: Correction,
        sums: _Sums,
        between: Callable[[], None],
    ) -> bool:
        config, device = self._config, self._policy.device
        tokens, total = batch.tokens, objective.units(config.objective, batch.mask)
        self.optimizer.zero_grad(set_to_none=True)
        for rows in batch.micro_batches(BODY_BUDGET):
            between()
            part = batch.rows(rows).to(device)
            new, entropy = self._policy.score(part)
            old, weights = correction.rows(rows, device)
            terms = objective.OBJECTIVES[config.objective](
                new,
                old,
                advantages[rows].to(device),
                part.mask,
                clip_low=config.clip_low,
                clip_high=config.clip_high,
                total=total,
                weights=weights,
            )
            penalty = objective.kl_penalty(new, ref[rows].to(device), part.mask, total_tokens=tokens)
            loss = terms.loss + config.kl_coef * penalty if config.kl_coef else terms.loss
            loss.backward()
            _accumulate(sums, rows, terms, new, old, entropy, penalty, part, tokens)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, config.grad_clip))
        sums.grad_norms.append(norm)
        if not torch.isfinite(torch.tensor(norm)):
            return False
        self.optimizer.step()
        return True


def _accumulate(
    sums: _Sums,
    rows: slice,
    terms: objective.Terms,
    new: Tensor,
    old: Tensor,
    entropy: Tensor,
    penalty: Tensor,
    part: Batch,
    tokens: int,
) -> None:
    with torch.no_grad():
        log_ratio = (new - old).masked_fill(~part.mask, 0.0).double()
        by_row = torch.stack([terms.row_counted, terms.row_clipped, (torch.expm1(log_ratio) - log_ratio).sum(dim=1)], 1)
        sums.rows[rows] += by_row.double().cpu().numpy()
        sums.kl_new_old += float(by_row[:, 2].sum())
        sums.kl_ref += float(penalty) * tokens
        sums.entropy += float(entropy[part.mask].double().sum())
    sums.tokens += int(part.mask.sum())
    sums.clipped += terms.clipped
    sums.clipped_low += terms.clipped_low
    sums.clipped_high += terms.clipped_high
    sums.counted += terms.count


def _values(sums: _Sums, lr: float) -> dict[str, float]:
    tokens, counted = max(sums.tokens, 1), max(sums.counted, 1)
    return {
        "policy/clip_fraction": sums.clipped / counted,
        "policy/clip_fraction_low": sums.clipped_low / counted,
        "policy/clip_fraction_high": sums.clipped_high / counted,
        "policy/kl_new_old": sums.kl_new_old / tokens,
        "policy/kl_ref": sums.kl_ref / tokens,
        "policy/entropy": sums.entropy / tokens,
        "policy/grad_norm": sum(sums.grad_norms) / max(len(sums.grad_norms), 1),
        "policy/lr": lr,
    }
