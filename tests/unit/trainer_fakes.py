"""Stand-ins for the trainer's unit tests. The policy sampler is no engine: it samples from the trainer's own model."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from msgspec.structs import replace as replace_struct

from driftline.catalog.fixes import BY_ID, OFF
from driftline.config import SyncConfig
from driftline.frames import (
    Ack,
    AckState,
    Effect,
    EngineFix,
    EngineState,
    Event,
    FixState,
    How,
    Level,
    Metrics,
    RunState,
    Span,
)  # fmt: skip
from engine import EngineError, EnginePool, Group, PauseReport, PoolStats, RolloutRequest, Sequence, SyncReport
from engine.types import RestartReport, ShadowPair, ShadowStep
from trainer.control.fix_tracker import FixTracker
from trainer.control.sync_driver import SyncDriver
from trainer.learn.lm_head import Head
from trainer.learn.policy import Policy
from trainer.learn.versions import WeightStore
from trainer.report import Reporter

NAME = "policy-sampler"
SYNC = SyncConfig(timeout=1.0)
T = TypeVar("T")


class RecordingProbe:
    """Keeps what a Probe would have sent."""

    def __init__(self) -> None:
        self.frames: list[object] = []
        self.metrics: list[Metrics] = []
        self.token_calls: list[dict[str, Any]] = []
        self.changed = threading.Condition()

    def send(self, frame: object) -> None:
        with self.changed:
            self.frames.append(frame)
            self.changed.notify_all()

    def emit(
        self, values: Mapping[str, float], *, step: int, version: int = -1, labels: dict[str, str] | None = None
    ) -> None:
        self.metrics.append(Metrics(step, version, 0.0, dict(values), labels or {}))

    def event(self, kind: str, text: str, level: Level = "info", step: int = -1, **data: Any) -> None:
        self.send(Event(0.0, level, kind, text, step, data))

    def ack(self, id: str, state: AckState, detail: str = "", data: dict[str, Any] | None = None) -> None:
        self.send(Ack(id, state, 0.0, detail, data or {}))

    def tokens(self, **call: Any) -> None:
        self.token_calls.append(call)

    def of(self, kind: type[T]) -> list[T]:
        with self.changed:
            return [frame for frame in self.frames if isinstance(frame, kind)]

    def acks(self, command: str) -> list[Ack]:
        return [ack for ack in self.of(Ack) if ack.id == command]

    def wait(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
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
    """Answers like an engine pool by sampling from a copy of a policy, at once, in the caller's thread.

    `hows` says how each fix takes effect, `held` the rolling restart that is under way; `offset` is added to every
    logprob and `fix_offsets` where that fix is off.
    """

    names = (NAME,)
    abandoned = False

    def __init__(self, policy: Policy, *, max_tokens: int, eos: int, seed: int = 0) -> None:
        self._policy = policy
        self._max_tokens = max_tokens
        self._eos = eos
        self._generator = torch.Generator().manual_seed(seed)
        self._ready: deque[Group] = deque()
        self.version = 0
        self.epoch = 0
        self.paused = False
        self.syncs: list[int] = []
        self.fixes = dict.fromkeys(BY_ID, OFF)
        self.hows: dict[str, How] = {fix_id: fix.how for fix_id, fix in BY_ID.items()}
        self.staged: dict[str, str] = {}
        self.held: tuple[str, str, Future[list[RestartReport]]] | None = None
        self.lease_until = 0.0
        self.sync_calls: list[dict[str, object]] = []
        self.broken_syncs: deque[SyncReport | BaseException] = deque()
        self.syncing = threading.Event()
        self.may_sync = threading.Event()
        self.may_sync.set()
        self.offset = 0.0
        self.fix_offsets: dict[str, float] = {}
        self.fail_fix = ""
        self.shadow_share = 0.0
        self.shadow_fails = ""
        self.submitted = 0

    @torch.no_grad()
    def submit(self, request: RolloutRequest) -> None:
        self.submitted += 1
        ids = torch.tensor([request.prompt_ids] * request.n)
        start, logprobs = ids.shape[1], []
        for _ in range(self._max_tokens):
            distribution = self._next(ids)
            token = torch.multinomial(distribution.exp(), 1, generator=self._generator)
            logprobs.append(distribution.gather(1, token))
            ids = torch.cat([ids, token], 1)
        off = sum(offset for fix, offset in self.fix_offsets.items() if self.fixes[fix] == OFF)
        values = torch.cat(logprobs, 1).numpy() + np.float32(self.offset + off)
        sequences = []
        for row in range(request.n):
            tokens = ids[row, start:].numpy()
            ends = np.nonzero(tokens == self._eos)[0]
            n = int(ends[0]) + 1 if ends.size else len(tokens)
            sequences.append(
                Sequence(
                    ids=tokens[:n].astype(np.int32),
                    logprobs=values[row, :n].astype(np.float32),
                    versions=np.full(n, self.version, np.int32),
                    epochs=np.full(n, self.epoch, np.int32),
                    finish="stop" if ends.size else "length",
                )
            )
        states = {self.epoch: dict(self.fixes)}
        self._ready.append(Group(request.group, NAME, request.prompt_ids, sequences, 0.0, 0.0, states))

    def _next(self, ids: torch.Tensor) -> torch.Tensor:
        """Logprobs [n, V] of the next token, with the head that the fix says."""
        self._policy.fp32_head = self.fixes["fp32-lm-head"] == "on"
        hidden = self._policy._hidden(input_ids=ids, use_cache=False)[:, -1]
        return torch.log_softmax(self._policy._logits(hidden) / self._policy.temperature, -1)

    @property
    def outstanding(self) -> int:
        return len(self._ready)

    def take(self, timeout: float) -> list[Group]:
        if self.paused:
            time.sleep(min(timeout, 0.01))
            return []
        groups = list(self._ready)
        self._ready.clear()
        return groups

    def sync(self, weights: Mapping[str, torch.Tensor], version: int, **policy: object) -> list[SyncReport]:
        self.syncing.set()
        assert self.may_sync.wait(30)
        self.sync_calls.append(policy)
        if self.broken_syncs:
            broken = self.broken_syncs.popleft()
            if isinstance(broken, BaseException):
                raise broken
            return [broken]
        before, self.version = self.version, version
        self._policy.load(weights)
        self.syncs.append(version)
        if self.staged:
            self._switch(self.staged)
            self.staged = {}
        return [self.report(version_before=before, version_after=version)]

    def report(self, **changes: Any) -> SyncReport:
        """A sync as it should be; 200 ms for 1,000 bytes."""
        fixes = tuple(states[0] for states in self.fix_states().values())
        report = SyncReport(
            NAME, True, 0, 0, 100.0, 0.1, 0.2, 0.3, 0.7, 1000, 3, verify_s=0.06, reset_s=0.04, held_s=0.65,
            reset="freed", digest="d1", straddling=5, fixes=fixes,
        )  # fmt: skip
        return replace(report, **changes)

    def pause(self, lease_until: float = 0.0) -> list[PauseReport]:
        self.paused, self.lease_until = True, lease_until
        return [PauseReport(NAME, True, True, 0.0, 2)]

    def resume(self) -> list[PauseReport]:
        self.paused = False
        return [PauseReport(NAME, False, True, 0.0, 2)]

    def set_fix(self, fix_id: str, value: str, engine: str = "") -> list[EngineFix]:
        if self.fail_fix:
            raise EngineError(self.fail_fix)
        if engine:
            return [replace_struct(self.fix_states()[fix_id][0], effective=value, wanted=value)]
        self._switch({fix_id: value})
        return self.fix_states()[fix_id]

    def _switch(self, values: dict[str, str]) -> None:
        self.fixes |= values
        self.epoch += 1

    def how(self, fix_id: str, value: str, engine: str = "") -> How:
        if self.hows[fix_id] == "not_available":
            raise EngineError(f"{NAME}: {fix_id} cannot be switched {value} here")
        return self.hows[fix_id]

    def stage_fix(self, fix_id: str, value: str) -> None:
        self.staged[fix_id] = value

    def restart_fix(self, fix_id: str, value: str) -> Future[list[RestartReport]]:
        if self.held is not None:
            raise EngineError(f"a rolling restart for {self.held[0]} is under way; wait for its end")
        self.held = fix_id, value, Future()
        return self.held[2]

    def end_restart(self, error: str = "") -> None:
        """The rolling restart that is under way ends, well or not."""
        assert self.held is not None, "a rolling restart is under way"
        fix_id, value, future = self.held
        self.held = None
        if error:
            future.set_exception(EngineError(error))
            return
        self._switch({fix_id: value})
        future.set_result([RestartReport(NAME, 12.5, 3, self.version)])

    def fix_states(self) -> dict[str, list[EngineFix]]:
        return {fix: [EngineFix(NAME, value, self.hows[fix])] for fix, value in self.fixes.items()}

    def set_shadow(self, share: float) -> None:
        if self.shadow_fails and share:
            raise EngineError(self.shadow_fails)
        self.shadow_share = share

    def take_shadow(self) -> ShadowStep:
        size = np.full(4, 0.5)
        pairs = (ShadowPair("engine-0", "engine-1", size),) if self.shadow_share else ()
        return ShadowStep(pairs, 0, self.shadow_share, self.shadow_share)

    def stats(self) -> PoolStats:
        state = EngineState(NAME, "running", self.version, 0.0)
        return PoolStats(1.0, 2, 3, 0.4, 0.5, 1.0, (state,))


@dataclass
class Desk:
    """What stands between a pool and the loop: the desk of the fixes, the sync driver and the trainer's head."""

    fixes: FixTracker
    syncs: SyncDriver
    head: Head


def desk(
    pool: PolicySampler,
    store: WeightStore,
    report: Reporter,
    head: Head,
    wanted: dict[str, str] | None = None,
    *,
    version: int = 0,
    step: int = 0,
    config: SyncConfig = SYNC,
) -> Desk:
    """The trainer's own parts over a pool, as a session puts them together."""
    fixes = FixTracker(pool.fix_states(), wanted or {}, {}, head, report, version=version, step=step)
    return Desk(fixes, SyncDriver(cast("EnginePool", pool), store, report, fixes, head, config), head)


__all__ = ["NAME", "Effect", "FixState", "PolicySampler", "RecordingProbe", "Span", "desk", "first_state"]
