"""A trainer that can be made wrong: the real loop, with a scorer and rollouts that have a fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from engine import EnginePool, Group
from tests.blind.faults import TrainerFault
from tests.blind.recorded import JournalProbe
from trainer.learn.batch import Batch, Sample
from trainer.learn.policy import Policy
from trainer.learn.versions import Scorer, Scores, Weights, WeightStore
from trainer.loop import Loop
from trainer.rollouts import Rollout, Rollouts

IN_FLIGHT_S: Final = 2.0
Acts = Mapping[int, Callable[[], object]]
"""What happens at a step."""


class FaultyScorer(Scorer):
    """Scores on `twin`, a copy of the policy that is made wrong here; `policy` is what trains."""

    def __init__(self, twin: Policy, store: WeightStore, policy: Policy, fault: TrainerFault) -> None:
        super().__init__(twin, store)
        self._fault = fault
        for one in (twin, policy):
            one.temperature += fault.temperature
        _bend(twin, fault)

    def score(self, batch: Batch, now: int, float32_head: Tensor) -> Scores:
        """As the real one, or all tokens under the newest weights."""
        scores = super().score(batch, now, float32_head)
        return replace(scores, own=scores.now) if self._fault.newest else scores

    def logprobs_under(self, weights: Weights, batch: Batch, *, float32_head: bool) -> Tensor:
        """As the real one, or with the other head than it says."""
        other = self._fault.head == "bfloat16"
        return super().logprobs_under(weights, batch, float32_head=float32_head != other)


def _bend(twin: Policy, fault: TrainerFault) -> None:
    modules: list[Any] = list(twin.model.modules())  # attributes of their own that torch's Module does not declare
    for module in modules:
        if fault.dropout and hasattr(module, "attention_dropout"):
            module.attention_dropout = fault.dropout
        if fault.eps and hasattr(module, "variance_epsilon"):
            module.variance_epsilon += fault.eps
        if fault.rope != 1.0 and isinstance(getattr(module, "inv_freq", None), Tensor):
            size = module.inv_freq.shape[0]
            module.inv_freq = module.inv_freq * fault.rope ** -(torch.arange(size) / size)
    if fault.dropout:
        twin.model.train()


class FaultyRollouts(Rollouts):
    """Changes what comes back of an engine on its way into the batch; `fault` is set once it is there."""

    fault = TrainerFault()
    late = False

    def submit_prompts(self) -> None:
        """As the real ones; with `late` only at the start."""
        if not self.late or self.next_prompt == self._first:
            super().submit_prompts()

    def submit_now(self) -> None:
        """As `submit_prompts`, in any case."""
        super().submit_prompts()

    def _finish(self, group: Group) -> Rollout:
        rollout = super()._finish(group)
        return replace(rollout, samples=tuple(self._changed(sample) for sample in rollout.samples))

    def _changed(self, sample: Sample) -> Sample:
        length = len(sample.response)
        if self.fault.inserted and length > 3:
            # One token is two after the text was tokenized again: what follows stands one place further on.
            at = 1 + (sum(sample.response) % (length // 2))
            ids = (*sample.response[: at + 1], sample.response[at], *sample.response[at + 1 : -1])
            sample = replace(sample, response=ids)
        if self.fault.zero_last and length:
            sample = replace(sample, logprobs=(*sample.logprobs[:-1], 0.0))
        return sample


class FaultyLoop(Loop):
    """The real loop; after each step it writes down what each engine says of itself, as the engine itself would."""

    def blind(
        self, probe: JournalProbe, pool: EnginePool, fault: TrainerFault, syncs: Acts, measures: Acts, *, late: bool
    ) -> None:
        """Take the fault on, before the first step; what happens before the sync, and the measuring, of a step.

        `late`: groups are asked for just before a sync, but for the first ones.
        """
        self._journal, self._seen, self._syncs_of, self._measures_of = probe, pool, syncs, measures
        self._rollouts.__class__ = FaultyRollouts
        assert isinstance(self._rollouts, FaultyRollouts)
        self._rollouts.fault, self._rollouts.late = fault, late

    def _sync(self, step: int) -> None:
        if step in self._syncs_of:
            self._syncs_of[step]()
        assert isinstance(self._rollouts, FaultyRollouts)
        if self._rollouts.late:
            self._rollouts.submit_now()
            self._wait_until_in_flight()
        super()._sync(step)

    def _wait_until_in_flight(self) -> None:
        deadline = time.monotonic() + IN_FLIGHT_S
        while not self._seen.stats().running and time.monotonic() < deadline:
            time.sleep(0.002)

    def _measure(self, rollouts: Sequence[Rollout], step: int) -> Any:
        if step in self._measures_of:
            self._measures_of[step]()
        return super()._measure(rollouts, step)

    def _engine_values(self) -> dict[str, float]:
        values = super()._engine_values()
        for state in self._seen.stats().engines:
            self._journal.of_engine(state)
        return values
