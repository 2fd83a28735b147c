"""The loop: take the oldest completed rollouts, measure, train, publish, sync. Generation never waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from driftline.catalog.corrections import OFF
from driftline.config import Config
from driftline.pairs import formulas
from driftline.rundir import RunDir
from driftline.text import plural
from engine import EnginePool
from trainer import checkpoint
from trainer.checkpoint import State
from trainer.control.command_thread import CommandThread
from trainer.control.fix_tracker import FixTracker
from trainer.control.sync_driver import SyncDriver
from trainer.learn.batch import Batch, Sample, collate
from trainer.learn.correction import Correction, correct
from trainer.learn.objective import group_advantages
from trainer.learn.update import Update
from trainer.learn.versions import Scores
from trainer.measure import fix_effects
from trainer.measure.alarm import MismatchAlarm
from trainer.measure.fix_states import States
from trainer.measure.shadow import values as shadow_values
from trainer.measure.sync_spans import Data
from trainer.probing import Probed, Prober, tokens_of
from trainer.report import Reporter
from trainer.rollouts import Rollout, RolloutBatch, Rollouts
from trainer.setup import Setup

TAKE_S = 0.1
"""How long the loop waits for rollouts before it looks for a pause or a stop again."""

STALL_S = 60.0
"""After so long without a batch the loop says so: an engine that a failed sync left paused looks like this."""


@dataclass(frozen=True)
class _Measured:
    """A batch with the trainer's logprobs of it, all [B, R]: under each token's own weights and head, and the
    reference's; `heads` is true on tokens that were scored with a float32 head. `groups` [B] numbers the prompts."""

    samples: list[Sample]
    groups: npt.NDArray[np.int64]
    batch: Batch
    scores: Scores
    heads: torch.Tensor
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
        control: CommandThread,
        fixes: FixTracker,
        report: Reporter,
    ) -> None:
        self._config = config
        self._run_dir = run
        self._setup = setup
        self._pool = pool
        self._syncs = syncs
        self._control = control
        self._fixes = fixes
        self._states = States()
        self._report = report
        self._step = setup.start.step
        self._version = setup.start.version
        self._rollouts = Rollouts(pool, setup.task, config.rollout, setup.start.next_prompt, self._states)
        self._prober = Prober(pool, setup.scorer, setup.store, config.sampling.temperature)
        control.probes.tokens_of, control.probes.estimate = tokens_of, self._prober.estimate
        on_alarm = config.diagnosis.active == "on-alarm"
        self._alarm = MismatchAlarm(config.diagnosis.apart) if on_alarm else None
        self._saved = setup.start.step
        self._labels = {"policy/clip_fraction": config.trainer.objective, "policy/entropy": "exact"}

    @property
    def step(self) -> int:
        """Steps completed."""
        return self._step

    def run(self, steps: int) -> None:
        """Train until `steps` are completed or the end is requested. Raises EngineError, TrainerError."""
        if self._version:
            self._syncs.sync(self._step, "resume", boundary=True)
        self._rollouts.submit_prompts()
        while self._step < steps and not self._control.stopping:
            began = time.monotonic()
            taken = self._collect()
            if taken is None:
                break
            waited = time.monotonic() - began
            self._rollouts.submit_prompts()
            self._train(taken, began, waited)
            every = self._config.checkpoint.every
            if every and self._step % every == 0:
                self.save()
        account = self._rollouts.account
        text = ", ".join(f"{count} {what}" for what, count in account.items())
        self._report.event("rollouts.account", f"groups: {text}", level="info", step=self._step, **account)

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

    def _collect(self) -> RolloutBatch | None:
        stalled = time.monotonic() + STALL_S
        while not self._control.stopping:
            if self._control.paused:
                stalled = float("inf")
            self._control.between_steps()
            stalled = min(stalled, time.monotonic() + STALL_S)
            taken = self._rollouts.take_batch(TAKE_S, self._version)
            if taken is not None:
                return taken
            # Groups that were too old have made room for new ones.
            self._rollouts.submit_prompts()
            if time.monotonic() > stalled:
                stalled = float("inf")
                self._report_stalled()
        return None

    def _report_stalled(self) -> None:
        away = [f"{e.engine} is {e.phase}" for e in self._pool.stats().engines if e.phase != "running"]
        text = f"no full batch of rollouts for {STALL_S:.0f} s: {self._rollouts.waiting} groups are complete"
        text += f"; {', '.join(away)}" if away else ""
        self._report.event("rollouts.stalled", text, level="warn", step=self._step)

    def _train(self, taken: RolloutBatch, began: float, waited: float) -> None:
        step, version, rollouts = self._step + 1, self._version, taken.rollouts
        self._report_stale(taken, step)
        measured = self._measure(rollouts, step)
        self._control.probes.carry_out(partial(self._probe, measured))
        reason = self._alarm.due(measured.values, time.monotonic()) if self._alarm is not None else ""
        if reason:
            self._control.probes.by_itself(reason, step, partial(self._probe, measured))
        scored_at = time.monotonic()
        rewards = torch.tensor([[sample.reward for sample in rollout.samples] for rollout in rollouts])
        advantages = group_advantages(rewards, scale=self._config.trainer.advantage_std).flatten()
        correction = self._correct(measured, step)
        update = self._setup.updater.step(
            measured.batch, advantages, measured.reference, correction, between=self._control.wait_while_paused
        )
        if update.skipped:
            self._report.event(
                "train.skipped",
                f"{update.skipped} optimiser passes had a gradient that is not finite",
                level="warn",
                step=step,
            )
        trained_at = time.monotonic()
        self._measure_effects(measured, update, step, corrected=correction.weights is not None)
        self._step, self._version = step, version + 1
        self._setup.store.publish(self._version, self._setup.policy.weights())
        every = self._config.sync.every
        if every and step % every == 0:
            self._sync(step)
        shadow, compared = shadow_values(self._pool.take_shadow())
        values = {
            **formulas.rewards(rewards.numpy()),
            **update.values,
            **measured.values,
            **correction.values,
            **self._syncs.take_latest(),
            **self._engine_values(),
            **shadow,
            "async/stale_groups": float(taken.stale),
            "async/stale_dropped": float(taken.dropped),
            "rollout/length_mean": measured.batch.tokens / measured.batch.size,
            "rollout/waiting_groups": float(self._rollouts.waiting),
            "rollout/oldest_groups": float(self._rollouts.age),
            "time/wait_s": waited,
            "time/score_s": scored_at - began - waited,
            "time/train_s": trained_at - scored_at,
            "time/step_s": time.monotonic() - began,
        }
        self._report.metrics(values, step=step, version=version, labels=self._labels | compared)
        own, scored = measured.scores.own.numpy(), measured.scores.scored.numpy()
        self._report.tokens(measured.samples, measured.batch, own, scored, step=step, version=version)
        self._report.state(step=step, version=self._version)

    def _probe(self, measured: _Measured, tokens: int, check: Callable[[], None]) -> Data:
        """An active round over the tokens of this step, while the engines still hold its version."""
        probed = Probed(measured.samples, measured.batch, measured.scores, self._setup.head.float32)
        return self._prober.run(probed, tokens, check) | {"version": self._version}

    def _correct(self, measured: _Measured, step: int) -> Correction:
        """Apply the effective correction to the step; send an event where it masks every token."""
        value, config = self._control.correction, self._config
        batch = measured.batch
        made = correct(
            value, config.correction, measured.scores.now, batch.rollout, batch.mask, config.trainer.objective
        )
        objective = config.trainer.objective
        self._labels["policy/clip_fraction"] = objective if value == OFF else f"{objective}, {value}"
        if made.all_masked:
            text = f"{value} masks every token of this step: nothing is learnt from it"
            self._report.event("correction.all-masked", text, level="warn", step=step)
        return made

    def _sync(self, step: int) -> None:
        """The step's own sync. It would wait for an engine when none is up, and a stop must not wait with it.

        None comes any more once Ray has died: the next batch of rollouts says so.
        """
        while self._control.no_engine_up and not self._control.stopping and not self._pool.abandoned:
            time.sleep(TAKE_S)
        if not self._control.no_engine_up:
            self._syncs.sync(step, "trainer", boundary=True)

    def _measure(self, rollouts: Sequence[Rollout], step: int) -> _Measured:
        setup, version = self._setup, self._version
        samples = [sample for rollout in rollouts for sample in rollout.samples]
        groups = np.repeat(np.arange(len(rollouts)), [len(rollout.samples) for rollout in rollouts])
        batch = collate(samples, setup.tokenizer.pad_token_id or 0)
        heads = setup.head.scoring(batch.states, self._states)
        scores = setup.scorer.score(batch, version, heads)
        reference = setup.scorer.logprobs_under(setup.reference, batch, float32_head=setup.head.float32)
        own, scored = scores.own, scores.scored
        self._report_lost(samples, batch, scored, step)
        values = {
            **formulas.mismatch(own[scored].numpy(), batch.rollout[scored].numpy()),
            **formulas.staleness(scores.now[scored].numpy(), own[scored].numpy()),
            **formulas.version_lag(version, batch.versions[batch.mask].numpy()),
        }
        return _Measured(samples, groups, batch, scores, heads, reference, values)

    def _measure_effects(self, measured: _Measured, update: Update, step: int, *, corrected: bool) -> None:
        """Pass the step's numbers by fix state to the measurement of fix effects."""
        batch, scores = measured.batch, measured.scores
        of_this_head = ((measured.heads == self._setup.head.float32) | ~batch.mask).all(dim=1).numpy()
        rows = fix_effects.rows(
            (scores.own - batch.rollout).numpy(),
            scores.scored.numpy(),
            batch.mask.numpy(),
            batch.states.numpy(),
            batch.versions.numpy(),
            update.rows,
            # A ratio of another head than the token's is the switch's doing, not the state's; a corrected one is over
            # the trainer's own logprobs and says nothing of a fix.
            comparable=of_this_head & (not corrected),
            groups=measured.groups,
        )
        self._fixes.add_rows(step, {self._states[number]: row for number, row in rows.items()})

    def _report_stale(self, taken: RolloutBatch, step: int) -> None:
        if not taken.stale:
            return
        limit, kept = self._config.rollout.max_lag, taken.stale - taken.dropped
        what = f"{taken.dropped} dropped and asked for anew" if taken.dropped else f"{kept} kept"
        self._report.event(
            "rollouts.stale",
            f"{plural(taken.stale, 'group')} with a token more than {limit} versions old (rollout.max_lag): {what}",
            level="warn",
            step=step,
            groups=taken.stale,
            dropped=taken.dropped,
        )

    def _report_lost(self, samples: list[Sample], batch: Batch, scored: torch.Tensor, step: int) -> None:
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
