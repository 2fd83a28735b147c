"""The last few weight versions, so that every token can be scored under the weights that sampled it."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from trainer.batch import Batch
from trainer.policy import Policy

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

    def get(self, version: int) -> Weights | None:
        """The weights of a version, None when it is not kept any more."""
        with self._lock:
            return self._versions.get(version)


class Scorer:
    """A second copy of the model that takes on any kept version. Costs one model of memory."""

    def __init__(self, policy: Policy, store: WeightStore) -> None:
        self._policy = policy
        self._store = store
        self._policy.model.requires_grad_(False).eval()

    def under(self, weights: Weights, batch: Batch) -> Tensor:
        """Logprobs float32 [B, R] under some weights."""
        self._policy.load(weights)
        return self._policy.logprobs(batch)

    def own(self, batch: Batch, now: int, now_logprobs: Tensor) -> tuple[Tensor, Tensor]:
        """Logprobs [B, R] of each token under its own version, and a mask [B, R] of those that could be scored.

        One forward for each distinct version in the batch; `now_logprobs` serves for version `now`.
        """
        scored = torch.zeros_like(batch.mask)
        result = torch.zeros_like(batch.rollout)
        for version in np.unique(batch.versions[batch.mask].numpy()).tolist():
            here = batch.mask & (batch.versions == version)
            if version == now:
                result[here] = now_logprobs[here]
                scored |= here
                continue
            weights = self._store.get(version)
            if weights is None:
                continue
            rows = here.any(dim=1).nonzero()[:, 0]
            # In one piece for the whole row: a token of this version may follow tokens of an older one, whose
            # text, not whose cached hidden states, is what the trainer's own forward is conditioned on.
            part = torch.zeros_like(result)
            part[rows] = self.under(weights, batch.rows(rows))
            result[here] = part[here]
            scored |= here
        return result, scored
