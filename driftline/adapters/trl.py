"""TRL's GRPO and RLOO trainers in a run, by one line once they are made: `driftline.adapters.trl.attach(trainer)`.

Metrics come by a callback (`on_log`), token pairs from what `_generate_and_score_completions` returns, syncs from
`vllm_generation.sync_weights`. Both methods are wrapped on this one trainer, not on their classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from driftline.adapters.joined_trainer import JoinedTrainer
from driftline.pairs.pairs import of_padded

TESTED: Final = ("1.16.0",)
"""Oldest and newest release that the adapter's tests have passed on."""
TEXTS: Final = 256
"""Most prompts of a batch that are turned into text."""

NO_ENGINE: Final = (
    "TRL generates with the trainer's own model here (use_vllm=False): there is no engine to send weights to"
)
NO_PAIRS: Final = (
    "no token pairs: TRL generates with the trainer's own model here (use_vllm=False), so there is no engine's logprob"
)
NO_OLD: Final = (
    "no token pairs: TRL computes no logprobs of its own for what the engine sampled "
    "(vllm_importance_sampling_correction=False)"
)


def attach(trainer: Any, *, run: str | Path | None = None, key: str | Path | None = None) -> JoinedTrainer:
    """Have a trainer report to the run of $DRIFTLINE_RUN, or to `run` with the key file `key`, from now on.

    Call it once, after the trainer is made and before `train()`, in every process; all but the first are inert. Without
    a run nothing is changed. Raises nothing.
    """
    accelerator = getattr(trainer, "accelerator", None)
    rank = getattr(accelerator, "process_index", None)
    joined = JoinedTrainer("TRL", _installed(), TESTED, run=run, key=key, rank=rank)
    if joined.active:
        with joined.guard("attach"):
            _Attached(trainer, joined).hook()
    return joined


class _Attached:
    """The hooks in one trainer."""

    def __init__(self, trainer: Any, joined: JoinedTrainer) -> None:
        self._trainer, self._joined = trainer, joined
        self._processes = int(getattr(getattr(trainer, "accelerator", None), "num_processes", 1))
        self._rewards: npt.NDArray[np.float64] | None = None

    def hook(self) -> None:
        trainer, joined = self._trainer, self._joined
        self._describe()
        if hasattr(trainer, "add_callback"):
            trainer.add_callback(_callback(self))
        else:
            joined.hook_missing("Trainer.add_callback", "there are no metrics, and no commands are carried out")
        if not self._wrap(trainer, "_generate_and_score_completions", self._scoring):
            joined.hook_missing("_generate_and_score_completions", "there are no token pairs")
        self._wrap(trainer, "_calculate_rewards", self._rewarding)
        if not getattr(trainer, "use_vllm", False):
            joined.not_recorded(NO_PAIRS)
        elif not self._wrap(getattr(trainer, "vllm_generation", None), "sync_weights", self._syncing):
            joined.hook_missing("vllm_generation.sync_weights", "syncs are not seen and cannot be asked for")

    def _describe(self, steps: int = 0) -> None:
        trainer = self._trainer
        config = getattr(getattr(trainer, "model", None), "config", None)
        self._joined.describe(
            steps=max(0, steps),
            model=str(getattr(config, "_name_or_path", "")),
            temperature=float(getattr(trainer, "temperature", 1.0)),
            objective=str(getattr(trainer, "loss_type", "") or type(trainer).__name__),
        )

    @staticmethod
    def _wrap(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> bool:
        method = getattr(owner, name, None)
        if method is None:
            return False
        setattr(owner, name, functools.wraps(method)(make(method)))
        return True

    # -- hooks --------------------------------------------------------------------------------------------------------

    def on_begin(self, steps: int) -> None:
        self._describe(steps)

    def on_log(self, logs: Mapping[str, Any], step: int) -> None:
        self._joined.metrics(logs, step=step)

    def on_step_end(self, step: int, stop: Callable[[], object]) -> None:
        sync, why = self._way_to_sync()
        self._joined.boundary(step, sync=sync, no_sync=why, stop=stop)

    def on_end(self) -> None:
        self._joined.close()

    def _way_to_sync(self) -> tuple[Callable[[], object] | None, str]:
        if not getattr(self._trainer, "use_vllm", False):
            return None, NO_ENGINE
        if not hasattr(getattr(self._trainer, "vllm_generation", None), "sync_weights"):
            return None, "this TRL has no vllm_generation.sync_weights"
        if self._processes > 1:
            return None, f"{self._processes} processes train together: only all of them at once can send the weights"
        return self._sync_now, ""

    def _sync_now(self) -> None:
        trainer = self._trainer
        trainer.vllm_generation.sync_weights()
        # The engine has this step's weights now: the next generation need not send them again.
        if hasattr(trainer, "_last_loaded_step"):
            trainer._last_loaded_step = trainer.state.global_step

    def _syncing(self, sync_weights: Callable[..., Any]) -> Callable[..., Any]:
        def synced(*args: Any, **kwargs: Any) -> Any:
            with self._joined.sync(int(self._trainer.state.global_step)):
                return sync_weights(*args, **kwargs)

        return synced

    def _rewarding(self, calculate: Callable[..., Any]) -> Callable[..., Any]:
        def rewarded(*args: Any, **kwargs: Any) -> Any:
            found = calculate(*args, **kwargs)
            with self._joined.guard("rewards"):
                weights = _numbers(self._trainer.reward_weights)
                self._rewards = np.nansum(_numbers(found) * weights, axis=1)
            return found

        return rewarded

    def _scoring(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        def scored(*args: Any, **kwargs: Any) -> Any:
            self._rewards = None
            output = generate(*args, **kwargs)
            with self._joined.guard("pairs"):
                if self._trainer.model.training:
                    self._report_pairs(output)
            return output

        return scored

    def _report_pairs(self, output: Mapping[str, Any]) -> None:
        trainer, joined = self._trainer, self._joined
        rollout, own = output.get("sampling_per_token_logps"), output.get("old_per_token_logps")
        if rollout is None or own is None:
            joined.not_recorded(NO_PAIRS if rollout is None else NO_OLD)
            return
        ids, mask = _numbers(output["completion_ids"]).astype(np.int64), _numbers(output["completion_mask"])
        if output.get("tool_mask") is not None:
            mask = mask * _numbers(output["tool_mask"])  # what a tool answered was not sampled
        rows = len(ids)
        tokenizer = getattr(trainer, "processing_class", None)
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        found = of_padded(
            ids,
            _numbers(rollout),
            _numbers(own),
            mask,
            version=joined.version,
            # Rewards are gathered over all processes; this one is the first.
            rewards=self._rewards[:rows].tolist() if self._rewards is not None else (),
            prompts=_texts(tokenizer, output, rows),
        )
        joined.pairs(
            found,
            step=int(trainer.state.global_step) + 1,  # the step that these are for, as its metrics will say
            logprob="old",
            temperature=float(trainer.temperature),
            pieces=(lambda one: str(tokenizer.decode([one]))) if tokenizer is not None else None,
        )


def _callback(attached: _Attached) -> Any:
    """A TrainerCallback of transformers'; its base is there only where that is installed."""
    from transformers import TrainerCallback

    def on_train_begin(_: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG001
        attached.on_begin(int(state.max_steps))

    def on_log(_: Any, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG001
        attached.on_log(logs or {}, int(state.global_step))

    def on_step_end(_: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG001
        attached.on_step_end(int(state.global_step), lambda: setattr(control, "should_training_stop", True))

    def on_train_end(_: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG001
        attached.on_end()

    hooks = {one.__name__: one for one in (on_train_begin, on_log, on_step_end, on_train_end)}
    return type("DriftlineCallback", (TrainerCallback,), {"__doc__": "Reports to a run of Driftline.", **hooks})()


def _installed() -> str:
    try:
        return metadata.version("trl")
    except metadata.PackageNotFoundError:
        return ""


def _numbers(tensor: Any) -> npt.NDArray[np.float64]:
    """A tensor of any dtype and device; numpy has no bfloat16."""
    return np.asarray(tensor.detach().cpu().double().numpy(), dtype=np.float64)


def _texts(tokenizer: Any, output: Mapping[str, Any], rows: int) -> Sequence[str]:
    """The prompts [rows] as text, without their padding; none for a large batch."""
    if tokenizer is None or rows > TEXTS or "prompt_ids" not in output or "prompt_mask" not in output:
        return ()
    ids, mask = _numbers(output["prompt_ids"]).astype(np.int64), _numbers(output["prompt_mask"]).astype(bool)
    return [str(tokenizer.decode(ids[row][mask[row]].tolist())) for row in range(rows)]
