"""Keeps the engines busy: a fixed number of groups in flight or waiting, handed to the trainer oldest first."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from driftline.config import RolloutConfig
from engine import EnginePool, Group, RolloutRequest
from trainer.errors import TrainerError
from trainer.learn.batch import Sample
from trainer.learn.tasks import Prompt, ReverseDigits
from trainer.measure.fix_states import UNKNOWN, States


@dataclass(frozen=True)
class Rollout:
    """One finished group: a prompt and its samples, all from one engine."""

    prompt: Prompt
    samples: tuple[Sample, ...]

    @property
    def oldest(self) -> int | None:
        """Version of its oldest token; None without any token."""
        return min((version for sample in self.samples for version in sample.versions), default=None)


@dataclass(frozen=True)
class RolloutBatch:
    """The groups of one step. `stale` were found too old for it since the step before, `dropped` of them left out."""

    rollouts: list[Rollout]
    stale: int
    dropped: int


class Rollouts:
    """`prompts + ahead` groups are in flight or waiting at any time: generation goes on while the trainer trains.

    A group with a token more than `rollout.max_lag` versions behind the weights that the step starts from is stale:
    it is dropped, and `submit_prompts` asks for a new prompt in its place, or kept, as `rollout.stale` says.
    """

    def __init__(
        self, pool: EnginePool, task: ReverseDigits, config: RolloutConfig, next_prompt: int, states: States
    ) -> None:
        self._pool = pool
        self._task = task
        self._config = config
        self._asked: dict[int, Prompt] = {}
        self._ready: deque[Rollout] = deque()
        self._states = states
        self._dropped = self._dropped_ever = self._trained = 0
        self._first = self.next_prompt = next_prompt

    @property
    def waiting(self) -> int:
        """Groups completed and not yet taken."""
        return len(self._ready)

    @property
    def age(self) -> int:
        """How many groups have been asked for since the oldest that is outstanding: one that is lost grows old."""
        return self.next_prompt - min(self._asked, default=self.next_prompt)

    @property
    def account(self) -> dict[str, int]:
        """Counts of the groups by outcome: `asked` is the sum of the others, or one was lost or doubled."""
        return {
            "asked": self.next_prompt - self._first,
            "trained": self._trained,
            "dropped": self._dropped_ever,
            "waiting": len(self._ready),
            "outstanding": self._pool.outstanding,
        }

    def submit_prompts(self) -> None:
        """Submit prompts until enough groups are under way."""
        while len(self._asked) + len(self._ready) < self._config.prompts + self._config.ahead:
            prompt = self._task.prompt(self.next_prompt)
            self._asked[prompt.index] = prompt
            self.next_prompt += 1
            request = RolloutRequest(group=prompt.index, prompt_ids=list(prompt.ids), n=self._config.samples)
            self._pool.submit(request)

    def take_batch(self, timeout: float, version: int) -> RolloutBatch | None:
        """The `prompts` oldest completed groups, or None when there are not enough after `timeout` seconds.

        `version` is the one that the step starts from. Raises EngineError when no engine can go on, TrainerError for
        a group that is not what was asked for.
        """
        if len(self._ready) < self._config.prompts:
            for group in self._pool.take(timeout):
                self._ready.append(self._finish(group))
        if self._config.stale == "drop":
            fresh = [rollout for rollout in self._ready if not self._stale(rollout, version)]
            old = len(self._ready) - len(fresh)
            self._dropped += old
            self._dropped_ever += old
            self._ready = deque(fresh)
        if len(self._ready) < self._config.prompts:
            return None
        rollouts = [self._ready.popleft() for _ in range(self._config.prompts)]
        self._trained += len(rollouts)
        dropped, self._dropped = self._dropped, 0
        kept = sum(self._stale(rollout, version) for rollout in rollouts)
        return RolloutBatch(rollouts, stale=dropped + kept, dropped=dropped)

    def _stale(self, rollout: Rollout, version: int) -> bool:
        limit, oldest = self._config.max_lag, rollout.oldest
        return limit >= 0 and oldest is not None and version - oldest > limit

    def _finish(self, group: Group) -> Rollout:
        prompt = self._asked.pop(group.group, None)
        if prompt is None:
            raise TrainerError(f"{group.engine} returned group {group.group}, which is not in flight")
        if len(group.sequences) != self._config.samples:
            raise TrainerError(
                f"{group.engine} returned {len(group.sequences)} samples for group {group.group}, "
                f"{self._config.samples} were asked for"
            )
        samples, states = [], self._states.group_numbers(group)
        for sequence in group.sequences:
            ids = tuple(int(token) for token in sequence.ids)
            count = self._task.length(ids)
            samples.append(
                Sample(
                    prompt=prompt.ids,
                    response=ids[:count],
                    logprobs=tuple(float(value) for value in sequence.logprobs[:count]),
                    versions=tuple(int(version) for version in sequence.versions[:count]),
                    reward=self._task.reward(prompt, ids[:count]),
                    engine=group.engine,
                    text=prompt.text,
                    states=tuple(states.get(int(epoch), UNKNOWN) for epoch in sequence.epochs[:count]),
                )
            )
        return Rollout(prompt=prompt, samples=tuple(samples))
