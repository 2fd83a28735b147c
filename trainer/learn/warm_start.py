"""Supervised warm start: a few batches of right answers, so that a tiny model has something to improve on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainer.learn.batch import Sample, collate
from trainer.learn.policy import Policy
from trainer.learn.tasks import ReverseDigits

BATCH = 64
LEARNING_RATE = 1e-3
FIRST_PROMPT = 2**31
"""Prompts of the warm start are numbered from here, far from those of the run."""


def warm_start(
    policy: Policy, task: ReverseDigits, batches: int, *, pad_id: int, progress: Callable[[int, float], None]
) -> None:
    """Train on `batches` batches of answers with AdamW; `progress(batch, loss)` is called after each.

    The loss is the mean negative logprob of the answer's tokens at temperature 1, whatever the policy's own.
    """
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    temperature, policy.temperature = policy.temperature, 1.0
    policy.model.train()
    try:
        for number in range(batches):
            first = FIRST_PROMPT + number * BATCH
            prompts = [task.prompt(first + i) for i in range(BATCH)]
            answers = [task.answer_ids(prompt) for prompt in prompts]
            samples = [
                Sample(prompt.ids, answer, (0.0,) * len(answer), (0,) * len(answer), 0.0, "", prompt.text)
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
            batch = collate(samples, pad_id).to(policy.device)
            logprobs, _ = policy.score(batch)
            loss = -(logprobs * batch.mask).sum() / batch.tokens
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress(number + 1, float(loss.detach()))
    finally:
        policy.temperature = temperature
        policy.model.eval()
