"""The last few weight versions, so that every token can be scored under the weights that sampled it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.learn.batch import Batch
from trainer.learn.policy import Policy

Weights = dict[str, Tensor]


class WeightStore:
    """Keeps the newest `keep` versions in CPU memory: at most `keep` times the model's size in the body's dtype.

    Thread-safe: the loop publishes, the control thread reads the newest for a sync asked for by an operator.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._versions: OrderedDict[int, Weights] = OrderedDict()
        self._lock = threading.Lock()

    def publish(self, version: int, weights: Weights) -> None:
        """Add a version, which must be newer than all before, and forget the oldest beyond `keep`."""
        with self._lock:
            if self._versions and version <= next(reversed(self._versions)):
                raise ValueError(f"version {version} is not newer than {next(reversed(self._versions))}")
            self._versions[version] = weights
            while len(self._versions) > self._keep:
                self._versions.popitem(last=False)

    def newest(self) -> tuple[int, Weights]:
        """The newest version and its weights."""
        with self._lock:
            version = next(reversed(self._versions))
            return version, self._versions[version]

    def versions(self) -> list[int]:
        """The kept versions, newest first."""
        with self._lock:
            return list(reversed(self._versions))

    def get(self, version: int) -> Weights | None:
        """The weights of a version, None when it is not kept any more."""
        with self._lock:
            return self._versions.get(version)


@dataclass(frozen=True)
class Scores:
    """The trainer's logprobs of a batch, float32 [B, R], each token's with the head that sampled it.

    `own` under the token's own weights where `scored`, `now` under the newest ones.
    """

    now: Tensor
    own: Tensor
    scored: Tensor


class Scorer:
    """A second copy of the model that takes on any kept version and either head. Costs one model of memory."""

    def __init__(self, policy: Policy, store: WeightStore) -> None:
        self._policy = policy
        self._store = store
        self._policy.model.requires_grad_(False).eval()

    def logprobs_under(self, weights: Weights, batch: Batch, *, float32_head: bool) -> Tensor:
        """Logprobs float32 [B, R] under some weights and one head."""
        self._policy.load(weights)
        self._policy.fp32_head = float32_head
        return self._policy.logprobs(batch)

    @property
    def temperature(self) -> float:
        """That of the copy that scores."""
        return self._policy.temperature

    def dropout(self) -> float:
        """The largest probability with which the copy that scores drops a number, 0 where it drops none."""
        modules = [module for module in self._policy.model.modules() if module.training]
        found = [float(getattr(module, name, 0.0) or 0.0) for module in modules for name in ("p", "attention_dropout")]
        return max(found, default=0.0)

    def even(self, weights: Weights, batch: Batch, *, float32_head: bool, temperature: float) -> Tensor:
        """`logprobs_under` at another temperature and with dropout off, which are as they were afterwards."""
        with self._evened(temperature):
            return self.logprobs_under(weights, batch, float32_head=float32_head)

    def likeliest(
        self, weights: Weights, batch: Batch, count: int, *, float32_head: bool, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """`Policy.likeliest` under some weights, at a temperature and with dropout off."""
        with self._evened(temperature):
            self.logprobs_under(weights, batch.rows(slice(0, 1)), float32_head=float32_head)
            return self._policy.likeliest(batch, count)

    @contextmanager
    def _evened(self, temperature: float) -> Iterator[None]:
        policy, before = self._policy, self._policy.temperature
        training = [module for module in policy.model.modules() if module.training]
        policy.temperature = temperature
        policy.model.eval()
        try:
            yield
        finally:
            policy.temperature = before
            for module in training:
                module.training = True

    def score(self, batch: Batch, now: int, float32_head: Tensor) -> Scores:
        """Score every token under the weights and with the head that sampled it.

        `now` is the newest version, `float32_head` bool [B, R]. With one head it is a forward over the batch for the
        newest version and one over the rows concerned for each older one; around a switch of the head, tokens of both
        come together for a few steps and cost one set of forwards each. Versions that are not kept any more are left
        out of `scored`.
        """
        scores = Scores(torch.zeros_like(batch.rollout), torch.zeros_like(batch.rollout), torch.zeros_like(batch.mask))
        for head in (False, True):
            of_head = batch.mask & (float32_head == head)
            versions = batch.versions[of_head].unique().tolist()
            for version in sorted({*versions, now}) if versions else ():
                weights = self._store.get(version)
                here = of_head if version == now else of_head & (batch.versions == version)
                if weights is None:
                    continue
                rows = here.any(dim=1).nonzero()[:, 0]
                # In one piece for the whole row: a token of this version may follow tokens of an older one, whose
                # text, not whose cached hidden states, is what the trainer's own forward is conditioned on.
                part = torch.zeros_like(batch.rollout)
                part[rows] = self.logprobs_under(weights, batch.rows(rows), float32_head=head)
                if version == now:
                    scores.now[here] = part[here]
                    here = here & (batch.versions == version)
                scores.own[here] = part[here]
                scores.scored[here] = True
        return scores
