"""SkyRL: `trainer.add_callback(DriftlineCallback())`, or `attach(trainer)` for every trainer of its.

SkyRL has callbacks from 0.3.0 on, and its fully asynchronous trainer fires none up to 0.4.0: `attach` adds the callback
where the trainer's loop fires events, and wraps the same three methods of it otherwise. Read in 0.2.0, 0.3.0 and 0.4.0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from driftline.adapters.framework import Framework
from driftline.adapters.joined_trainer import JoinedTrainer
from driftline.adapters.pair_words import TrainerLogprob
from driftline.adapters.tensors import array
from driftline.pairs.pairs import UNKNOWN, Pairs, of_padded

TESTED: Final = ("0.2.0", "0.3.0", "0.4.0")
SYNCS: Final = "SkyRL sends its weights itself at the end of each step, and has not at the end of this one"
STEP: Final = "trainer/global_step"
"""Among the numbers of a training step, and not among those of an evaluation alone."""
NO_PAIRS: Final = "token pairs are not recorded: "
NO_TRAINER: Final = (
    f"{NO_PAIRS}the losses of this run are optimised against the engine's logprobs: SkyRL computes none of its own"
)
NO_ROLLOUT: Final = f"{NO_PAIRS}the engine is not asked for logprobs (generator.sampling_params.logprobs)"


class _Reports:
    """One SkyRL trainer in this process."""

    def __init__(self, run: str | Path | None, key: str | Path | None) -> None:
        self.framework = Framework("SkyRL", "skyrl", TESTED, rank=0)
        self.attached = self.framework.attach((), run=run, key=key)
        self.synced_step = -1

    def starts(self, trainer: JoinedTrainer, loop: Any) -> None:
        """Before the first step."""
        trainer.describe(
            steps=int(getattr(loop, "total_training_steps", 0) or 0),
            model=str(_at(loop.cfg, "trainer", "policy", "model", "path") or ""),
            temperature=_temperature(loop),
            objective=str(_at(loop.cfg, "trainer", "algorithm", "advantage_estimator") or ""),
        )
        self.wrap_syncs(loop, trainer)

    def wrap_syncs(self, loop: Any, trainer: JoinedTrainer) -> None:
        """Put spans around `dispatch.save_weights_for_sampler`, a coroutine, of this trainer's dispatch alone."""
        own = getattr(getattr(loop, "dispatch", None), "save_weights_for_sampler", None)
        if own is None:
            trainer.hook_missing("trainer.dispatch.save_weights_for_sampler", "syncs are not recorded")
            return

        @functools.wraps(own)
        async def save_weights_for_sampler(*args: Any, **kwargs: Any) -> Any:
            step = int(loop.global_step)
            with self.framework.trainer().sync(step):
                result = await own(*args, **kwargs)
            self.synced_step = step
            return result

        if not hasattr(own, "__wrapped__"):
            loop.dispatch.save_weights_for_sampler = save_weights_for_sampler

    def batch(self, trainer: JoinedTrainer, loop: Any, batch: Any) -> None:
        """A step's batch, with the logprobs that the trainer has recomputed."""
        if _get(batch, "rollout_logprobs") is None:
            trainer.not_recorded(NO_ROLLOUT)
        elif _get(batch, "action_log_probs") is None:
            trainer.not_recorded(NO_TRAINER)
        else:
            asynchronous = _asynchronous(loop)
            logprob: TrainerLogprob = "proximal" if asynchronous else "old"
            step = int(loop.global_step)
            pairs = pairs_of(batch, UNKNOWN if asynchronous else step - 1)
            pieces = _pieces(getattr(loop, "tokenizer", None))
            trainer.pairs(
                pairs, step=step, version=step - 1, logprob=logprob, temperature=_temperature(loop), pieces=pieces
            )

    def numbers(self, trainer: JoinedTrainer, step: int, logs: Mapping[str, Any]) -> None:
        """What the trainer is about to log."""
        trainer.metrics(logs, step=step)

    def ends_step(self, trainer: JoinedTrainer, step: int) -> None:
        """Between two steps. The coroutine that trains waits here, and with it the loop that it runs on."""
        trainer.boundary(step, no_sync=SYNCS, just_synced=self.synced_step == step)


class DriftlineCallback:
    """SkyRL's `TrainingCallback`, without an import of SkyRL: an event that it does not know is ignored."""

    def __init__(self, run: str | Path | None = None, key: str | Path | None = None) -> None:
        self._reports = _Reports(run, key)

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_args: None

    def on_train_start(self, trainer: Any, callback_input: Any, control: Any) -> None:
        """Before the first step; the engines have been sent their weights already."""
        del callback_input, control
        self._report("on_train_start", self._reports.starts, trainer)

    def on_step_start(self, trainer: Any, callback_input: Any, control: Any) -> None:
        """The boundary: the step before this one has sent its weights and logged its numbers."""
        del trainer, control
        self._report("on_step_start", self._reports.ends_step, int(callback_input.global_step) - 1)

    def on_step_end(self, trainer: Any, callback_input: Any, control: Any) -> None:
        """The batch that the step has trained on."""
        del control
        self._report("on_step_end", self._reports.batch, trainer, callback_input.batch)

    def on_log(self, trainer: Any, callback_input: Any, control: Any) -> None:
        """The numbers of a step, or of an evaluation before the first."""
        del trainer, control
        self._report("on_log", self._reports.numbers, int(callback_input.global_step), dict(callback_input.logs or {}))

    def on_train_end(self, trainer: Any, callback_input: Any, control: Any) -> None:
        """The training has come to its end."""
        del trainer, callback_input, control
        self._reports.framework.close()

    def _report(self, event: str, act: Callable[..., None], *args: Any) -> None:
        if self._reports.attached:
            self._reports.framework.report(event, act, *args)


def attach(trainer: Any, run: str | Path | None = None, key: str | Path | None = None) -> bool:
    """Attach to one of SkyRL's trainers before its `train()`. False where no run is named."""
    if _fires_events(trainer):
        callback = DriftlineCallback(run, key)
        trainer.add_callback(callback)
        return callback._reports.attached
    reports = _Reports(run, key)
    if not reports.attached:
        return False
    framework = reports.framework
    framework.report("attach", reports.starts, trainer)

    def batch(joined: JoinedTrainer, data: Any, *_args: Any, **_kwargs: Any) -> None:
        reports.batch(joined, trainer, data)

    def log(joined: JoinedTrainer, _result: Any, data: Mapping[str, Any], step: int, *_args: Any, **_kw: Any) -> None:
        reports.numbers(joined, int(step), data)
        if STEP in data:
            reports.ends_step(joined, int(step))

    def finish(joined: JoinedTrainer, *_args: Any, **_kwargs: Any) -> None:
        joined.close()

    ways: list[tuple[Any, str, Callable[[Callable[..., Any]], Callable[..., Any]], str]] = [
        (trainer, "train_critic_and_policy", framework.before(batch), "token pairs are not recorded"),
        (getattr(trainer, "tracker", None), "log", framework.after(log), "no number of its steps is recorded"),
        (getattr(trainer, "tracker", None), "finish", framework.before(finish), "its end is not recorded"),
    ]
    for owner, name, wrap, lost in ways:
        own = getattr(owner, name, None)
        if own is None:
            framework.trainer().hook_missing(f"{type(owner).__name__}.{name}", lost)
        else:
            setattr(owner, name, wrap(own))
    return True


def pairs_of(batch: Any, version: int) -> Pairs:
    """Pairs of SkyRL's `TrainingInputBatch`: `sequences` [B, T], the others [B, R] over the last R of its tokens.

    Padding is on the left, with an engine's logprob of 0.0, and false in `loss_mask`. Raises ValueError for shapes that
    do not fit.
    """
    mask = array(batch["loss_mask"]) > 0
    ids = array(batch["sequences"])[:, -mask.shape[1] :]
    rollout, trainer = array(batch["rollout_logprobs"]), array(batch["action_log_probs"])
    return of_padded(ids, rollout, trainer, mask, version=version)


def _fires_events(trainer: Any) -> bool:
    """Whether the trainer's loop fires callbacks: it has them, and `train` as it is in its class calls `_fire`."""
    code = getattr(getattr(type(trainer), "train", None), "__code__", None)
    return hasattr(trainer, "add_callback") and code is not None and "_fire" in code.co_names


def _asynchronous(trainer: Any) -> bool:
    return any("Async" in one.__name__ for one in type(trainer).__mro__)


def _temperature(trainer: Any) -> float:
    return float(_at(trainer.cfg, "trainer", "algorithm", "temperature") or 1.0)


def _pieces(tokenizer: Any) -> Callable[[int], str] | None:
    return (lambda token: str(tokenizer.decode([token]))) if hasattr(tokenizer, "decode") else None


def _get(batch: Any, key: str) -> Any:
    return batch.get(key) if hasattr(batch, "get") else None


def _at(config: Any, *path: str) -> Any:
    for name in path:
        config = getattr(config, name, None)
    return config
