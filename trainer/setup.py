"""Everything a run needs before its first step: model, policy, reference, task, and what a checkpoint restores."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from driftline.config import Config, engine_configs
from driftline.rundir import RunDir
from trainer import checkpoint
from trainer.checkpoint import State
from trainer.errors import TrainerError
from trainer.learn import models
from trainer.learn.lm_head import Head, float32_at_start
from trainer.learn.policy import Policy
from trainer.learn.tasks import ReverseDigits
from trainer.learn.update import Updater
from trainer.learn.versions import Scorer, Weights, WeightStore
from trainer.learn.warm_start import warm_start


@dataclass(frozen=True)
class Setup:
    """The trainer's own things. Memory: the policy in float32 with AdamW's two moments, a second copy to score
    with, the reference and `trainer.keep_versions` versions in the body's dtype.

    `model_path` is what the engines load, as version 0; `start` is where the run begins or goes on.
    """

    policy: Policy
    head: Head
    updater: Updater
    scorer: Scorer
    store: WeightStore
    reference: Weights
    task: ReverseDigits
    tokenizer: PreTrainedTokenizerBase
    model_path: Path
    dtype: torch.dtype
    start: State


def threads(config: Config) -> int:
    """Torch threads: as configured, or the cores of this process that the engines' `cpus` leave, at least 1.

    Measured on two cores: with both, the trainer starves the engine, and rollouts are still in flight at every sync.
    """
    engines = math.ceil(sum(one.cpus for one in engine_configs(config.engine)))
    return config.trainer.threads or max(1, len(os.sched_getaffinity(0)) - engines)


def build(config: Config, run: RunDir, *, resume: bool, digest: str, on_progress: Callable[[str], None]) -> Setup:
    """Make or load the model, warm it, write it for the engines, restore a checkpoint. Raises TrainerError."""
    torch.set_num_threads(threads(config))
    torch.manual_seed(models.seed(config))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = models.resolve_dtype(config.model.dtype, device)
    path = Path(config.model.path).expanduser().resolve() if config.model.path else run.path / "model"
    saved = _newest_checkpoint(run) if resume else None
    on_progress("resuming" if saved else "loading the model" if config.model.path else "making a tiny model")
    # A resumed run's reference is the model that its first process began with.
    model, tokenizer = models.load_path(path) if saved else models.load(config)
    model.to(device).eval()
    policy = Policy(model, temperature=config.sampling.temperature, fp32_head=float32_at_start(config), dtype=dtype)
    task = ReverseDigits(config.task, tokenizer, config.run.seed)
    policy.check_head(torch.tensor([task.prompt(0).ids]))
    if not config.model.path and not saved:
        taught = ReverseDigits(config.task, tokenizer, models.seed(config))
        _warm(policy, taught, tokenizer, config.model.warm_start_batches, on_progress)
        models.export(model, tokenizer, path, dtype)
    torch.manual_seed(config.run.seed)
    reference = policy.weights()
    # The master weights start as what engines load, so that version 0 is the same numbers on both sides.
    policy.load(reference)
    store = WeightStore(config.trainer.keep_versions)
    twin = Policy(copy.deepcopy(model), temperature=policy.temperature, fp32_head=policy.fp32_head, dtype=dtype)
    updater = Updater(policy, config.trainer)
    start = State(step=0, version=0, next_prompt=0, config_digest=digest)
    if saved:
        start = checkpoint.restore(saved, model, updater.optimizer)
        for group in updater.optimizer.param_groups:
            group["lr"] = config.trainer.lr
    store.publish(start.version, policy.weights())
    return Setup(
        policy=policy,
        head=Head(policy, config.trainer.head),
        updater=updater,
        scorer=Scorer(twin, store),
        store=store,
        reference=reference,
        task=task,
        tokenizer=tokenizer,
        model_path=path,
        dtype=dtype,
        start=start,
    )


def _newest_checkpoint(run: RunDir) -> Path:
    found = checkpoint.complete(run.checkpoints)
    if not found:
        raise TrainerError(f"{run.checkpoints}: no checkpoint to resume from; start without --resume")
    return found[0]


def _warm(
    policy: Policy,
    task: ReverseDigits,
    tokenizer: PreTrainedTokenizerBase,
    batches: int,
    on_progress: Callable[[str], None],
) -> None:
    def progress(batch: int, loss: float) -> None:
        if batch % 10 == 0 or batch == batches:
            on_progress(f"warm start: batch {batch} of {batches}, loss {loss:.2f}")

    if batches:
        warm_start(policy, task, batches, pad_id=tokenizer.pad_token_id, progress=progress)
