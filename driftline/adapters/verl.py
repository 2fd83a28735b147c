"""verl: an import attaches. By `pip install driftline` verl finds it by itself (its entry points `verl.plugins`).

verl imports it in every process of a run. Its training loop is in one, the task runner; it alone reaches the hooks:
`Tracking.log` for the numbers, `calculate_debug_metrics` for the token pairs, `CheckpointEngineManager.update_weights`
for the syncs. Read in verl 0.9.0 and 0.9.1.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from driftline.adapters.framework import Framework, Hook
from driftline.adapters.joined_trainer import JoinedTrainer
from driftline.adapters.pair_words import TrainerLogprob
from driftline.adapters.tensors import array
from driftline.pairs.pairs import UNKNOWN, Pairs, of_padded

TESTED: Final = ("0.9.0", "0.9.1")
NO_PAIRS: Final = "token pairs are not recorded: "
STEP: Final = "training/global_step"
"""Among the numbers of a training step, and not among those of a validation."""
SYNCS: Final = "verl sends its weights itself at the end of each step, and has not at the end of this one"
NO_PAUSE: Final = "this trainer of verl's runs on an event loop, which a pause would stop"
SEPARATED: Final = "verl.experimental.separation.ray_trainer"
"""Imported by the trainers without `trainer.v1` whose tokens may be older than the weights."""


class Verl:
    """What the hooks of this process know together."""

    def __init__(self) -> None:
        self.framework = Framework("verl", "verl", TESTED, rank=0)
        self.step = 0
        """The last step that has ended, by the last log or sync."""
        self.synced_step = -1
        self.temperature = 1.0
        self.synchronous = False
        """Whether every token of a step is sampled by the weights that the step begins with."""

    def hooks(self) -> list[Hook]:
        """Where verl is wrapped."""
        before, after = self.framework.before, self.framework.after
        pairs = before(self.on_pairs)
        metrics = "verl.utils.debug.metrics"
        return [
            Hook("verl.utils.tracking", "Tracking.__init__", before(self.on_config)),
            Hook("verl.utils.tracking", "Tracking.log", after(self.on_log), "no number of its steps is recorded"),
            Hook("verl.utils.tracking", "Tracking.finish", before(self.on_finish)),
            Hook(metrics, "calculate_debug_metrics", pairs, "token pairs are not recorded"),
            # It holds the function by a name of its own; imported before this adapter, that is the bare one.
            Hook("verl.trainer.ppo.v1.trainer_base", "calculate_debug_metrics", pairs),
            Hook(
                "verl.checkpoint_engine.base",
                "CheckpointEngineManager.update_weights",
                self.of_update_weights,
                "syncs are not recorded",
            ),
        ]

    # -- numbers and the step boundary --------------------------------------------------------------------------------

    def on_config(self, trainer: JoinedTrainer, tracking: Any, *args: Any, **kwargs: Any) -> None:
        """`Tracking(project_name, experiment_name, default_backend, config)`: the run's whole configuration."""
        del tracking
        config = kwargs.get("config", args[3] if len(args) > 3 else None)
        rollout = _at(config, "actor_rollout_ref", "rollout")
        self.temperature = float(_at(rollout, "temperature") or 1.0)
        mode = _at(config, "trainer", "v1", "trainer_mode")
        self.synchronous = mode == "sync" if _at(config, "trainer", "use_v1") else SEPARATED not in sys.modules
        trainer.describe(
            steps=int(_at(config, "trainer", "total_training_steps") or 0),
            model=str(_at(config, "actor_rollout_ref", "model", "path") or ""),
            temperature=self.temperature,
            objective=str(_at(config, "algorithm", "adv_estimator") or ""),
        )
        if _at(config, "algorithm", "rollout_correction", "bypass_mode"):
            why = "with algorithm.rollout_correction.bypass_mode verl takes the engine's logprobs for its own"
            trainer.not_recorded(NO_PAIRS + why)
        elif _at(rollout, "calculate_log_probs") is False:
            trainer.not_recorded(NO_PAIRS + "actor_rollout_ref.rollout.calculate_log_probs is off")

    def on_log(
        self, trainer: JoinedTrainer, result: Any, tracking: Any, data: Mapping[str, Any], step: int, *more: Any
    ) -> None:
        """`Tracking.log(data, step, backend)`, once a step when its weights have been sent, and after a validation."""
        del result, tracking, more
        trainer.metrics(data, step=int(step))
        if STEP not in data:
            return
        self.step = int(step)
        no_pause = NO_PAUSE if _on_a_loop() else ""
        synced = self.synced_step == self.step
        trainer.boundary(self.step, no_sync=SYNCS, just_synced=synced, no_pause=no_pause)

    def on_finish(self, trainer: JoinedTrainer, tracking: Any, exit_code: int = 0) -> None:
        """`Tracking.finish(exit_code)`, at the end of the training and again when it is collected."""
        del tracking
        trainer.close(f"verl ended with exit code {exit_code}" if exit_code else "")

    # -- token pairs --------------------------------------------------------------------------------------------------

    def on_pairs(self, trainer: JoinedTrainer, data: Any) -> None:
        """`calculate_debug_metrics(data)`, once a step when the trainer has recomputed the logprobs."""
        logprob: TrainerLogprob = "old" if self.synchronous else "proximal"
        pairs = pairs_of(data.batch, trainer.version if self.synchronous else UNKNOWN)
        trainer.pairs(pairs, step=self.step + 1, logprob=logprob, temperature=self.temperature)

    # -- syncs --------------------------------------------------------------------------------------------------------

    def of_update_weights(self, own: Callable[..., Any]) -> Callable[..., Any]:
        """`CheckpointEngineManager.update_weights(global_steps=None)`: a coroutine, in verl's own `auto_await`."""
        inner = inspect.unwrap(own)
        if not inspect.iscoroutinefunction(inner):

            @functools.wraps(own)
            def plain(manager: Any, global_steps: int | None = None, **kwargs: Any) -> Any:
                with self.framework.trainer().sync(self._of(global_steps)):
                    result = own(manager, global_steps, **kwargs)
                self.synced_step = self._of(global_steps)
                return result

            return plain

        @functools.wraps(inner)
        async def awaited(manager: Any, global_steps: int | None = None, **kwargs: Any) -> Any:
            with self.framework.trainer().sync(self._of(global_steps)):
                result = await inner(manager, global_steps, **kwargs)
            self.synced_step = self._of(global_steps)
            return result

        # `auto_await` looks at its caller to tell whether it is awaited: nothing may stand between the two.
        return inner.__globals__["auto_await"](awaited) if own is not inner else awaited

    def _of(self, global_steps: int | None) -> int:
        self.step = max(self.step, int(global_steps)) if global_steps is not None else self.step
        return self.step


def pairs_of(batch: Any, version: int) -> Pairs:
    """Pairs of a batch of verl's: tensors [B, R] over the responses, padded on the right.

    Without `response_mask` the last R columns of `attention_mask` stand for it, as in verl. Raises KeyError for a
    batch without logprobs, ValueError for shapes that do not fit.
    """
    ids = array(batch["responses"])
    keys = set(batch.keys())
    mask = next((array(batch[name]) for name in ("response_mask", "attention_mask") if name in keys), None)
    scores = next((array(batch[name]) for name in ("token_level_scores", "rm_scores") if name in keys), None)
    return of_padded(
        ids,
        array(batch["rollout_log_probs"]),
        array(batch["old_log_probs"]),
        mask[:, -ids.shape[1] :] if mask is not None else ids == ids,
        version=version,
        rewards=scores.sum(axis=-1).tolist() if scores is not None and scores.ndim == 2 else (),
    )


def _at(config: Any, *path: str) -> Any:
    for key in path:
        config = config.get(key) if hasattr(config, "get") else None
    return config


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


VERL: Final = Verl()


def attach(run: str | Path | None = None, key: str | Path | None = None) -> bool:
    """Attach to verl in this process; False where no run is named. An import of this module has done it already."""
    return VERL.framework.attach(VERL.hooks(), run=run, key=key)


attach()
