"""The loop: take the oldest completed rollouts, measure, train, publish, sync. Generation never waits for it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from driftline.config import Config
from driftline.rundir import RunDir
from engine import EnginePool
from trainer import checkpoint, mismatch
from trainer.batch import Batch, Sample, collate
from trainer.checkpoint import State
from trainer.control import Control
from trainer.objective import group_advantages
from trainer.report import Reporter
from trainer.rollouts import Rollout, Rollouts
from trainer.setup import Setup
from trainer.sync import SyncDriver

TAKE_S = 0.1
"""How long the loop waits for rollouts before it looks for a pause or a stop again."""

STALL_S = 60.0
"""After so long without a batch the loop says so: an engine that a failed sync left paused looks like this."""


@dataclass(frozen=True)
class _Measured:
    """A batch with the trainer's logprobs of it, all [B, R]: under each token's own weights, and the reference's."""

    samples: list[Sample]
    batch: Batch
    own: torch.Tensor
    scored: torch.Tensor
    reference: torch.Tensor
    values: dict[str, float]


class Loop:
    """Steps count from 1; the weights that step n leaves behind are version n. `version` in a step's frames is the
    version at the start of that step, which is what its lag and staleness are measured against."""

    def __init__(
        self,
        config: Config,
        run: RunDir,
        setup: Setup,
        pool: EnginePool,
        syncs: SyncDriver,
        control: Control,
        report: Reporter,
    ) -> None:
        self._config = config
        self._run_dir = run
        self._setup = setup
        self._pool = pool
        self._syncs = syncs
        self._control = control
        self._report = report
        self._step = setup.start.step
        self._version = setup.start.version
        self._rollouts = Rollouts(pool, setup.task, config.rollout, setup.start.next_prompt)
        self._saved = setup.start.step
        self._labels = {"policy/clip_fraction": config.trainer.objective, "policy/entropy": "exact"}

    @property
    def step(self) -> int:
        """Steps completed."""
        return self._step

    def run(self, steps: int) -> None:
        """Train until `steps` are completed or somebody asks for the end. Raises EngineError, TrainerError."""
        if self._version:
            self._syncs.sync(self._step, "resume")
        self._rollouts.fill()
        while self._step < steps and not self._control.stopping:
            began = time.monotonic()
            rollouts = self._collect()
            if rollouts is None:
                break
            waited = time.monotonic() - began
            self._rollouts.fill()
            self._train(rollouts, began, waited)
            every = self._config.checkpoint.every
            if every and self._step % every == 0:
                self.save()

    def save(self) -> None:
        """Write a checkpoint of the last completed step, once."""
        if self._step == self._saved:
            return
        state = State(
            step=self._step,
            version=self._version,
            next_prompt=self._rollouts.next_prompt,
            config_digest=self._setup.start.config_digest,
        )
        setup = self._setup
        path = checkpoint.save(
            self._run_dir.checkpoints,
            state,
            setup.policy.model,
            setup.updater.optimizer,
            keep=self._config.checkpoint.keep,
        )
        self._saved = self._step
        self._report.event("checkpoint.saved", path.name, step=self._step)

    def _collect(self) -> list[Rollout] | None:
        stalled = time.monotonic() + STALL_S
        while not self._control.stopping:
            if self._control.paused:
                self._control.gate()
                stalled = time.monotonic() + STALL_S
            rollouts = self._rollouts.poll(TAKE_S)
            if rollouts is not None:
                return rollouts
            if time.monotonic() > stalled:
                stalled = float("inf")
                text = f"no full batch of rollouts for {STALL_S:.0f} s: {self._rollouts.waiting} groups are complete"
                self._report.event("rollouts.stalled", text, level="warn", step=self._step)
        return None

    def _train(self, rollouts: list[Rollout], began: float, waited: float) -> None:
        step, version = self._step + 1, self._version
        measured = self._measure(rollouts, step)
        scored_at = time.monotonic()
        rewards = torch.tensor([[sample.reward for sample in rollout.samples] for rollout in rollouts])
        advantages = group_advantages(rewards, scale=self._config.trainer.advantage_std).flatten()
        update = self._setup.updater.step(measured.batch, advantages, measured.reference, between=self._control.gate)
        if update.skipped:
            self._report.event(
                "train.skipped",
                f"{update.skipped} optimiser passes had a gradient that is not finite",
                level="warn",
                step=step,
            )
        trained_at = time.monotonic()
        self._step, self._version = step, version + 1
        self._setup.store.publish(self._version, self._setup.policy.weights())
        every = self._config.sync.every
        if every and step % every == 0:
            self._syncs.sync(step, "trainer")
        values = {
            **mismatch.rewards(rewards.numpy()),
            **update.values,
            **measured.values,
            **self._syncs.take_latest(),
            **self._engine_values(),
            "rollout/length_mean": measured.batch.tokens / measured.batch.size,
            "rollout/waiting_groups": float(self._rollouts.waiting),
            "time/wait_s": waited,
            "time/score_s": scored_at - began - waited,
            "time/train_s": trained_at - scored_at,
            "time/step_s": time.monotonic() - began,
        }
        self._report.metrics(values, step=step, version=version, labels=self._labels)
        self._report.tokens(
            measured.samples, measured.batch, measured.own.numpy(), measured.scored.numpy(), step=step, version=version
        )
        self._report.state(step=step, version=self._version)

    def _measure(self, rollouts: list[Rollout], step: int) -> _Measured:
        setup, version = self._setup, self._version
        samples = [sample for rollout in rollouts for sample in rollout.samples]
        batch = collate(samples, setup.tokenizer.pad_token_id or 0)
        now = setup.scorer.under(setup.store.newest()[1], batch)
        own, scored = setup.scorer.own(batch, version, now)
        reference = setup.scorer.under(setup.reference, batch)
        self._tell_lost(samples, batch, scored, step)
        values = {
            **mismatch.mismatch(own[scored].numpy(), batch.rollout[scored].numpy()),
            **mismatch.staleness(now[scored].numpy(), own[scored].numpy()),
            **mismatch.version_lag(version, batch.versions[batch.mask].numpy()),
        }
        return _Measured(samples, batch, own, scored, reference, values)

    def _tell_lost(self, samples: list[Sample], batch: Batch, scored: torch.Tensor, step: int) -> None:
        """Nothing is left out in silence: tokens without a finite logprob, and tokens older than what is kept."""
        broken = sum(len(sample.response) for sample in samples) - batch.tokens
        if broken:
            self._report.event(
                "tokens.not-finite",
                f"{broken} tokens without a finite engine logprob do not count",
                level="warn",
                step=step,
                tokens=broken,
            )
        unscored = batch.tokens - int(scored.sum())
        if unscored:
            self._report.event(
                "tokens.unscored",
                f"{unscored} tokens are older than the {self._config.trainer.keep_versions} kept versions "
                "(trainer.keep_versions) and have no mismatch",
                level="warn",
                step=step,
                tokens=unscored,
            )

    def _engine_values(self) -> dict[str, float]:
        stats = self._pool.stats()
        values = {
            "engine/tokens_per_s": stats.tokens_per_s,
            "engine/running": float(stats.running),
            "engine/waiting": float(stats.waiting),
            "engine/kv_use": stats.kv_use,
        }
        # Not a number while no prompt token was looked up: the prefix cache is off.
        if stats.prefix_hit_rate == stats.prefix_hit_rate:
            values["engine/prefix_hit_rate"] = stats.prefix_hit_rate
        return values
