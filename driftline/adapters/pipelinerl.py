"""PipelineRL: an import in its finetune process attaches (`pipelinerl/entrypoints/run_finetune.py`, its first line).

PipelineRL has no release on a package index and no callbacks. Its numbers pass `log_metrics`, its syncs
`WeightUpdateManager.send_weight_update`; `rl_step` keeps the trainer's logprobs to itself, so that they are computed a
second time from the logits that its model returns, by a hook on that model within the call. Read at commit 58d3934.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from driftline.adapters.framework import Framework, Hook
from driftline.adapters.joined_trainer import JoinedTrainer
from driftline.adapters.tensors import array
from driftline.pairs.pairs import UNKNOWN, Collector, Sampled

LOOP: Final = "pipelinerl.finetune_loop"
SYNCS: Final = "PipelineRL sends its weights itself by its weight_update_interval, and has not at the end of this step"
RANKS: Final = "it trains on several ranks, and the others would wait in a collective that times out"
SHARDED: Final = "token pairs are not recorded: with seq_parallel a rank holds only a part of each sequence"
CHUNK: Final = 256
"""Tokens whose logits are normalised at a time: 150 MB at a vocabulary of 150,000."""


class PipelineRL:
    """What the hooks of this process know together."""

    def __init__(self) -> None:
        self.framework = Framework("PipelineRL", "pipelinerl", ("0.1.0",))
        self.step = 0
        self.synced_step = -1
        self.temperature = 1.0
        self._pairs = Collector()

    def hooks(self) -> list[Hook]:
        """Where PipelineRL is wrapped: where a function is defined, and where another module has it by name."""
        after = self.framework.after(self.on_metrics)
        return [
            Hook("pipelinerl.finetune.logging_", "log_metrics", after, "no number of its steps is recorded"),
            Hook(LOOP, "log_metrics", after),
            Hook("pipelinerl.finetune.rl", "rl_step", self.of_rl_step, "token pairs are not recorded"),
            Hook(LOOP, "rl_step", self.of_rl_step),
            Hook(LOOP, "WeightUpdateManager.send_weight_update", self.of_send, "syncs are not recorded"),
            Hook(LOOP, "rl_finetuning_worker", self.of_worker),
        ]

    def of_rl_step(self, own: Callable[..., Any]) -> Callable[..., Any]:
        """`rl_step(model, batch, current_step, max_step, config, seq_parallel_group)`: one micro-batch."""

        @functools.wraps(own)
        def rl_step(
            model: Any, batch: Any, current_step: Any, max_step: Any, config: Any, *args: Any, **kwargs: Any
        ) -> Any:
            trainer = self.framework.trainer()
            if not trainer.active or batch.sentinel:
                return own(model, batch, current_step, max_step, config, *args, **kwargs)
            if (args and args[0] is not None) or kwargs.get("seq_parallel_group") is not None:
                trainer.not_recorded(SHARDED)
                return own(model, batch, current_step, max_step, config, *args, **kwargs)

            def returned(_model: Any, _args: Any, output: Any) -> None:
                with trainer.guard("rl_step"):
                    self.temperature = float(config.temperature)
                    self._collect(batch, output.logits.detach())

            handle = model.register_forward_hook(returned)
            try:
                return own(model, batch, current_step, max_step, config, *args, **kwargs)
            finally:
                handle.remove()

        return rl_step

    def _collect(self, batch: Any, logits: Any) -> None:
        """Add a micro-batch: ids, labels and old logprobs [B, T], logits [B, T, V] that predict the next token."""
        ids, old = array(batch.input_ids), array(batch.old_logprobs)
        mask = array(batch.labels) != -100
        mask[:, 0] = False  # no logits predict it
        rows, places = np.nonzero(mask)
        new = np.zeros(ids.shape, np.float32)
        for at in range(0, rows.size, CHUNK):
            r, p = rows[at : at + CHUNK], places[at : at + CHUNK]
            picked = logits[r.tolist(), (p - 1).tolist()].float() / self.temperature
            wanted = picked.gather(1, batch.input_ids[r.tolist(), p.tolist()].unsqueeze(1)).squeeze(1)
            new[r, p] = array(wanted - picked.logsumexp(dim=-1))
        for row in range(ids.shape[0]):
            begins = np.flatnonzero(array(batch.position_ids)[row] == 0).tolist() if batch.is_packed else []
            for begin, end in itertools.pairwise(sorted({0, *begins, ids.shape[1]})):
                part = np.s_[row, begin:end]
                if mask[part].any():
                    self._pairs.add(Sampled(ids[part], old[part], new[part], mask[part], UNKNOWN))

    def on_metrics(
        self, trainer: JoinedTrainer, result: Any, logger: Any, completed_steps: int, metrics: Mapping[str, Any]
    ) -> None:
        """`log_metrics(logger, completed_steps, metrics)`: after an optimiser step."""
        del result, logger
        self.step = int(completed_steps)
        trainer.metrics(metrics, step=self.step)
        pairs, self._pairs = self._pairs.pairs(), Collector()
        if pairs.sequences:
            # The weights move once a step, after its last micro-batch: these are of its start.
            trainer.pairs(pairs, step=self.step, logprob="proximal", temperature=self.temperature)

    def of_send(self, own: Callable[..., Any]) -> Callable[..., Any]:
        """`send_weight_update(version)`, where a version is the number of samples trained on; then the boundary."""

        @functools.wraps(own)
        def send_weight_update(manager: Any, version: int) -> Any:
            trainer = self.framework.trainer()
            with trainer.sync(self.step, version=int(version)):
                result = own(manager, version)
            with trainer.guard("send_weight_update"):
                no_pause = RANKS if trainer.world > 1 else ""
                trainer.boundary(self.step, no_sync=SYNCS, just_synced=True, no_pause=no_pause)
            return result

        return send_weight_update

    def of_worker(self, own: Callable[..., Any]) -> Callable[..., Any]:
        """`rl_finetuning_worker(...)`: the whole training."""

        @functools.wraps(own)
        def rl_finetuning_worker(*args: Any, **kwargs: Any) -> Any:
            result = own(*args, **kwargs)
            self.framework.close()
            return result

        return rl_finetuning_worker


PIPELINERL: Final = PipelineRL()


def attach(run: str | Path | None = None, key: str | Path | None = None) -> bool:
    """Attach to PipelineRL in this process; False where no run is named. An import does it already."""
    return PIPELINERL.framework.attach(PIPELINERL.hooks(), run=run, key=key)


attach()
