"""Stand-ins for the trainer's unit tests. The policy sampler is no engine: it samples from the trainer's own model."""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np
import torch

from driftline.fixes import BY_ID
from driftline.frames import Ack, EngineFix, EngineState, Event, FixState, Metrics, RunState, Span
from engine import EngineError, Group, PauseReport, PoolStats, RolloutRequest, Sequence, SyncReport

NAME = "policy-sampler"


class RecordingProbe:
    """Keeps what a Probe would have sent."""

    def __init__(self) -> None:
        self.frames: list[object] = []
        self.metrics: list[Metrics] = []
        self.token_calls: list[dict] = []
        self.changed = threading.Condition()

    def send(self, frame: object) -> None:
        with self.changed:
            self.frames.append(frame)
            self.changed.notify_all()

    def emit(self, values, *, step, version=-1, labels=None) -> None:
        self.metrics.append(Metrics(step, version, 0.0, dict(values), labels or {}))

    def event(self, kind, text, level="info", step=-1, **data) -> None:
        self.send(Event(0.0, level, kind, text, step, data))

    def ack(self, id, state, detail="", data=None) -> None:
        self.send(Ack(id, state, 0.0, detail, data or {}))

    def tokens(self, **call) -> None:
        self.token_calls.append(call)

    def of(self, kind: type) -> list:
        with self.changed:
            return [frame for frame in self.frames if isinstance(frame, kind)]

    def acks(self, command: str) -> list[Ack]:
        return [ack for ack in self.of(Ack) if ack.id == command]

    def wait(self, condition, timeout: float = 30.0) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout), "the condition did not come about"

    def answer(self, command: str) -> Ack:
        """The terminal ack of a command."""
        terminal = {"applied", "failed", "refused", "expired"}
        self.wait(lambda: any(isinstance(f, Ack) and f.id == command and f.state in terminal for f in self.frames))
        return self.acks(command)[-1]


def first_state(steps: int = 10) -> RunState:
    return RunState(run="r", status="starting", step=0, steps=steps, version=0, time=0.0)


class PolicySampler:
    """Answers like an engine pool by sampling from a copy of a policy, at once, in the caller's thread."""

    names = (NAME,)

    def __init__(self, policy, *, max_tokens: int, eos: int, seed: int = 0) -> None:
        self._policy = policy
        self._max_tokens = max_tokens
        self._eos = eos
        self._generator = torch.Generator().manual_seed(seed)
        self._ready: deque[Group] = deque()
        self.version = 0
        self.epoch = 0
        self.paused = False
        self.syncs: list[int] = []
        self.fixes = {fix: "off" for fix in BY_ID}
        self.offset = 0.0
        self.fail_fix = ""
        self.submitted = 0

    @torch.no_grad()
    def submit(self, request: RolloutRequest) -> None:
        self.submitted += 1
        ids = torch.tensor([request.prompt_ids] * request.n)
        start, logprobs = ids.shape[1], []
        for _ in range(self._max_tokens):
            logits = self._policy.model(input_ids=ids, use_cache=False).logits[:, -1].float()
            distribution = torch.log_softmax(logits / self._policy.temperature, -1)
            token = torch.multinomial(distribution.exp(), 1, generator=self._generator)
            logprobs.append(distribution.gather(1, token))
            ids = torch.cat([ids, token], 1)
        values = torch.cat(logprobs, 1).numpy()
        sequences = []
        for row in range(request.n):
            tokens = ids[row, start:].numpy()
            ends = np.nonzero(tokens == self._eos)[0]
            n = int(ends[0]) + 1 if ends.size else len(tokens)
            sequences.append(
                Sequence(
                    ids=tokens[:n].astype(np.int32),
                    logprobs=values[row, :n].astype(np.float32) + np.float32(self.offset),
                    versions=np.full(n, self.version, np.int32),
                    epochs=np.full(n, self.epoch, np.int32),
                    finish="stop" if ends.size else "length",
                )
            )
        self._ready.append(Group(request.group, NAME, request.prompt_ids, sequences, 0.0, 0.0, {self.epoch: dict(self.fixes)}))

    def take(self, timeout: float) -> list[Group]:
        if self.paused:
            time.sleep(min(timeout, 0.01))
            return []
        groups = list(self._ready)
        self._ready.clear()
        return groups

    def sync(self, weights, version: int, *, timeout: float = 0.0) -> list[SyncReport]:
        before, self.version = self.version, version
        self._policy.load(weights)
        self.syncs.append(version)
        return [SyncReport(NAME, True, before, version, 100.0, 0.1, 0.2, 0.3, 0.6, 1000, 3)]

    def pause(self) -> list[PauseReport]:
        self.paused = True
        return [PauseReport(NAME, True, True, 0.0, 2)]

    def resume(self) -> list[PauseReport]:
        self.paused = False
        return [PauseReport(NAME, False, True, 0.0, 2)]

    def set_fix(self, fix_id: str, value: str) -> list[EngineFix]:
        if self.fail_fix:
            raise EngineError(self.fail_fix)
        self.fixes[fix_id] = value
        self.epoch += 1
        return self.fix_states()[fix_id]

    def fix_states(self) -> dict[str, list[EngineFix]]:
        return {fix: [EngineFix(NAME, value, "live")] for fix, value in self.fixes.items()}

    def stats(self) -> PoolStats:
        state = EngineState(NAME, "running", self.version, 0.0)
        return PoolStats(1.0, 2, 3, 0.4, 0.5, 1.0, (state,))


__all__ = ["NAME", "FixState", "PolicySampler", "RecordingProbe", "Span", "first_state"]
