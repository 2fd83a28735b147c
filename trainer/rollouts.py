"""Keeps the engines busy: a fixed number of groups in flight or waiting, handed to the trainer oldest first."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from driftline.config import RolloutConfig
from engine import EnginePool, Group, RolloutRequest
from trainer.batch import Sample
from trainer.errors import TrainerError
from trainer.tasks import Prompt, ReverseDigits


@dataclass(frozen=True)
class Rollout:
    """One finished group: a prompt and its samples, all from one engine."""

    prompt: Prompt
    samples: tuple[Sample, ...]


class Rollouts:
    """`prompts + ahead` groups are in flight or waiting at any time: generation goes on while the trainer trains."""

    def __init__(self, pool: EnginePool, task: ReverseDigits, config: RolloutConfig, next_prompt: int) -> None:
        self._pool = pool
        self._task = task
        self._config = config
        self._asked: dict[int, Prompt] = {}
        self._ready: deque[Rollout] = deque()
        self.next_prompt = next_prompt

    @property
    def waiting(self) -> int:
        """Groups completed and not yet taken."""
        return len(self._ready)

    def fill(self) -> None:
        """Submit prompts until enough groups are under way."""
        while len(self._asked) + len(self._ready) < self._config.prompts + self._config.ahead:
            prompt = self._task.prompt(self.next_prompt)
            self._asked[prompt.index] = prompt
            self.next_prompt += 1
            request = RolloutRequest(group=prompt.index, prompt_ids=list(prompt.ids), n=self._config.samples)
            self._pool.submit(request)

    def poll(self, timeout: float) -> list[Rollout] | None:
        """The `prompts` oldest completed groups, or None when there are not enough after `timeout` seconds.

        Raises EngineError when an engine is dead, TrainerError for a group that is not what was asked for.
        """
        if len(self._ready) < self._config.prompts:
            for group in self._pool.take(timeout):
                self._ready.append(self._finish(group))
        if len(self._ready) < self._config.prompts:
            return None
        return [self._ready.popleft() for _ in range(self._config.prompts)]

    def _finish(self, group: Group) -> Rollout:
        prompt = self._asked.pop(group.group, None)
        if prompt is None:
            raise TrainerError(f"{group.engine} returned group {group.group}, which is not in flight")
        if len(group.sequences) != self._config.samples:
            raise TrainerError(
                f"{group.engine} returned {len(group.sequences)} samples for group {group.group}, "
                f"{self._config.samples} were asked for"
            )
        samples = []
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
                )
            )
        return Rollout(prompt=prompt, samples=tuple(samples))
