"""verl's own functions, called as its trainers call them. Arguments: the trainer's mode, a function to be without."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import types
from typing import Any

from tests.adapters.gpu_parts import stand_in
from tests.adapters.stepping import BATCH, Calls, steps, without


def config(mode: str) -> dict[str, Any]:
    """What verl hands to its tracking: the run's configuration, resolved."""
    return {
        "trainer": {"use_v1": True, "v1": {"trainer_mode": mode}, "total_training_steps": 40},
        "actor_rollout_ref": {"model": {"path": "tiny"}, "rollout": {"temperature": 0.8, "calculate_log_probs": True}},
        "algorithm": {"adv_estimator": "grpo"},
    }


def main(mode: str, hook: str) -> None:
    stand_in()
    if hook:
        os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"  # an installed driftline would be there before it is missing
    base = importlib.import_module("verl.checkpoint_engine.base")
    trainer = importlib.import_module("verl.trainer.ppo.v1.trainer_base")
    without(hook)
    if hook.endswith(":calculate_debug_metrics"):
        del trainer.calculate_debug_metrics  # it holds the function by a name of its own
    importlib.import_module("driftline.adapters.verl")  # as model.external_lib does: after verl's own modules
    torch = importlib.import_module("torch")
    protocol = importlib.import_module("verl.protocol")
    base.ray = types.SimpleNamespace(get=lambda refs: refs)  # no cluster: its actors are of this process

    manager = object.__new__(base.CheckpointEngineManager)
    manager.backend, manager.actor_wg = "naive", Calls()
    tracking = importlib.import_module("verl.utils.tracking").Tracking("driftline", "test", ["console"], config(mode))
    if hasattr(manager, "update_weights"):
        manager.update_weights(0)

    async def awaited(step: int) -> Any:
        return await manager.update_weights(step)

    for step in steps():
        batch = {
            "responses": torch.tensor(BATCH["ids"]),
            "response_mask": torch.tensor(BATCH["mask"]),
            "rollout_log_probs": torch.tensor(BATCH["rollout"]),
            "old_log_probs": torch.tensor(BATCH["trainer"], dtype=torch.bfloat16 if step == 3 else torch.float32),
        }
        metrics = {"actor/entropy": 1.5, "critic/score/mean": 0.5, "training/global_step": step}
        if hasattr(trainer, "calculate_debug_metrics"):
            metrics |= trainer.calculate_debug_metrics(protocol.DataProto.from_dict(batch))
        if hasattr(manager, "update_weights"):
            # Once as the synchronous trainers call it, once as the fully asynchronous one does.
            result = manager.update_weights(step) if step % 2 else asyncio.run(awaited(step))
            assert result == {}, result
        tracking.log(data=metrics, step=step)
    tracking.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
