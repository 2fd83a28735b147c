"""OpenRLHF: an import before `ray.init` attaches, here and in the job's workers.

    python -m driftline.adapters.openrlhf -m openrlhf.cli.train_ppo_ray ...

All hooks are in the one process that holds the training loop, on `BasePPOTrainer`: the batch of a step as the
experience maker returns it, with token ids and of all ranks; `broadcast_to_vllm`; the numbers of a step, also where
neither W&B nor TensorBoard is on. `PolicyLoss.forward` has the same pairs by micro-batch, without ids, in as many
processes as there are GPUs. Read in OpenRLHF 0.11.1 and 0.11.2.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from driftline.adapters.framework import Framework, Hook
from driftline.adapters.joined_trainer import JoinedTrainer
from driftline.adapters.pair_words import TrainerLogprob
from driftline.adapters.ray_workers import attach_in_workers, run_module
from driftline.adapters.tensors import array
from driftline.pairs.pairs import UNKNOWN, Collector, Pairs, Sampled

TESTED: Final = ("0.11.1", "0.11.2")
SYNCS: Final = "OpenRLHF sends its weights itself at the end of each step, and has not at the end of this one"
NO_ROLLOUT: Final = (
    "token pairs are not recorded: OpenRLHF asks for the engine's logprobs only with algo.advantage.is_correction_* on"
)
TRAINER: Final = "openrlhf.trainer.ppo_trainer"


class OpenRLHF:
    """What the hooks of this process know together."""

    def __init__(self) -> None:
        self.framework = Framework("OpenRLHF", "openrlhf", TESTED, rank=0)
        self.step = 0
        """The last step that has ended."""
        self.within = False
        """Whether the step after it is going on."""
        self.synced_step = -1

    def hooks(self) -> list[Hook]:
        """Where OpenRLHF is wrapped."""
        before, after = self.framework.before, self.framework.after
        return [
            Hook(TRAINER, "BasePPOTrainer.init_checkpoint_states", after(self.on_resume)),
            Hook(TRAINER, "BasePPOTrainer.train_step", before(self.on_step)),
            Hook(
                TRAINER,
                "BasePPOTrainer.save_logs_and_checkpoints",
                before(self.on_logs),
                "no number of its steps is recorded, and no request is carried out",
            ),
            Hook(TRAINER, "BasePPOTrainer.broadcast_to_vllm", self.of_broadcast, "syncs are not recorded"),
            Hook(
                "openrlhf.trainer.ppo_utils.experience_maker",
                "RemoteExperienceMaker.make_experience_batch",
                after(self.on_experiences),
                "token pairs are not recorded",
            ),
        ]

    def on_resume(self, trainer: JoinedTrainer, states: Mapping[str, Any], loop: Any) -> None:
        """What `init_checkpoint_states()` returns: the step that a run goes on from, 0 of a new one."""
        del trainer, loop
        self.step = int(states.get("global_step", 0))

    def on_step(self, trainer: JoinedTrainer, loop: Any, rollout_samples: Any, global_step: int) -> None:
        """`train_step(rollout_samples, global_step)`, where `global_step` counts the steps before this one."""
        del rollout_samples
        self.step, self.within = int(global_step), True
        args = loop.args
        trainer.describe(
            steps=int(getattr(loop, "max_steps", 0) or 0),
            model=str(_at(args, "actor", "model_name_or_path") or ""),
            temperature=_temperature(args),
            objective=str(_at(args, "algo", "advantage", "estimator") or ""),
        )

    def on_experiences(self, trainer: JoinedTrainer, experiences: Sequence[Any], maker: Any, *more: Any) -> None:
        """What `make_experience_batch(rollout_samples)` returns: a step's batch, with the logprobs recomputed."""
        del more
        if all(one.rollout_log_probs is None for one in experiences):
            trainer.not_recorded(NO_ROLLOUT)
            return
        asynchronous = bool(_at(maker.args, "train", "async_enable"))
        logprob: TrainerLogprob = "proximal" if asynchronous else "old"
        # Before their first sync the engines hold what they were started with: the weights of step 0.
        version = UNKNOWN if asynchronous else max(trainer.version, 0)
        pairs = pairs_of(experiences, version)
        trainer.pairs(
            pairs,
            step=self.step + 1,
            version=max(trainer.version, 0),
            logprob=logprob,
            temperature=_temperature(maker.args),
        )

    def of_broadcast(self, own: Callable[..., Any]) -> Callable[..., Any]:
        """`broadcast_to_vllm()`: at the end of each step, and of a resumed run at its start."""

        @functools.wraps(own)
        def wrapper(loop: Any, *args: Any, **kwargs: Any) -> Any:
            step = self.step + 1 if self.within else self.step
            with self.framework.trainer().sync(step):
                result = own(loop, *args, **kwargs)
            self.synced_step = step
            return result

        return wrapper

    def on_logs(
        self,
        trainer: JoinedTrainer,
        loop: Any,
        global_step: int,
        logs_dict: Mapping[str, Any] | None = None,
        *more: Any,
        **others: Any,
    ) -> None:
        """`save_logs_and_checkpoints(global_step, logs_dict)`: the end of a step."""
        del loop, more, others
        self.step, self.within = int(global_step), False
        trainer.metrics({f"train/{name}": value for name, value in (logs_dict or {}).items()}, step=self.step)
        trainer.boundary(self.step, no_sync=SYNCS, just_synced=self.synced_step == self.step)


def pairs_of(experiences: Sequence[Any], version: int) -> Pairs:
    """Pairs of OpenRLHF's experiences: `sequences` [B, T], masks and logprobs [B, A] of its last A tokens.

    Feedback tokens and padding have an engine's logprob of 0.0 and are false in `action_mask`. Those without an
    engine's logprobs are left out. Raises ValueError for shapes that do not fit.
    """
    found = Collector()
    for one in experiences:
        if one.rollout_log_probs is None:
            continue
        mask, rollout, trainer = array(one.action_mask), array(one.rollout_log_probs), array(one.action_log_probs)
        ids = array(one.sequences)[:, -mask.shape[1] :]
        rewards = array(one.rewards).ravel() if one.rewards is not None else None
        for row in range(ids.shape[0]):
            reward = float(rewards[row]) if rewards is not None and rewards.size == ids.shape[0] else float("nan")
            found.add(Sampled(ids[row], rollout[row], trainer[row], mask[row], version, reward))
    return found.pairs()


def _temperature(args: Any) -> float:
    return float(_at(args, "rollout", "temperature") or 1.0)


def _at(args: Any, *path: str) -> Any:
    for name in path:
        args = getattr(args, name, None)
    return args


OPENRLHF: Final = OpenRLHF()


def attach(run: str | Path | None = None, key: str | Path | None = None) -> bool:
    """Attach to OpenRLHF in this process; False where no run is named. An import of this module has done it already."""
    return OPENRLHF.framework.attach(OPENRLHF.hooks(), run=run, key=key)


def main(arguments: Sequence[str]) -> None:
    """Run a module of OpenRLHF's with its workers attached."""
    run_module(arguments, "python -m driftline.adapters.openrlhf -m openrlhf.cli.train_ppo_ray ARGUMENTS...")


if __name__ == "__main__":
    from driftline.adapters import openrlhf  # as itself, not as __main__: one attaches

    openrlhf.main(sys.argv[1:])
elif attach():
    attach_in_workers(f"{__name__}.attach")
