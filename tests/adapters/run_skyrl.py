"""SkyRL's own loop `train()`, with the phases that need a GPU replaced. Arguments: sync, skip or async; a hook to miss.

`skip` is a loss that is optimised against the engine's logprobs: the trainer computes none. `async` is a class of the
name that its fully asynchronous trainer has, whose own loop fires no events.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

from tests.adapters.gpu_parts import stand_in
from tests.adapters.run_openrlhf import spaces
from tests.adapters.stepping import BATCH, PROMPT, Calls, steps, without


def config() -> types.SimpleNamespace:
    """SkyRL's configuration, as far as its loop reads it."""
    nothing = {"eval_interval": -1, "hf_save_interval": 0, "ckpt_interval": 0, "print_example_interval": 0}
    algorithm = {"use_kl_in_reward": False, "temperature": 0.8, "advantage_estimator": "grpo"}
    return spaces(
        trainer={
            **nothing,
            "algorithm": {**algorithm, "dynamic_sampling": {"type": None}, "policy_loss_type": "regular"},
            "epochs": 1,
            "num_logger_train_samples": 0,
            "dump_data_batch": False,
            "update_ref_every_epoch": False,
            "max_training_steps": None,
            "strategy": "fsdp2",
            "policy": {"model": {"path": "tiny", "lora": {"rank": 0}}, "torch_profiler_config": {"enable": False}},
            "critic": {"model": {"path": None}},
        },
        generator={
            "n_samples_per_prompt": 2,
            "inference_engine": {
                "backend": "vllm",
                "offload_kv_for_weight_sync": False,
                "weight_sync_backend": "nccl",
            },
            "sampling_params": None,
            "step_wise_trajectories": False,
        },
        environment={"env_class": "test"},
    )


class Prompts:
    """A data loader whose next batch comes when a step is asked for."""

    def __len__(self) -> int:
        return 1000

    def __iter__(self) -> Iterator[Any]:
        return iter(steps())


def batch(mode: str) -> Any:
    """A step's batch by SkyRL's own padding."""
    torch = importlib.import_module("torch")
    names = importlib.import_module("skyrl.backends.skyrl_train.training_batch")
    made = importlib.import_module("skyrl.train.dataset.preprocess").convert_prompts_responses_to_batch_tensors
    lengths = [len(one) - one.count(0) for one in BATCH["ids"]]

    def cut(name: str) -> list[Any]:
        return [row[:keep] for row, keep in zip(BATCH[name], lengths, strict=True)]

    # SkyRL 0.4.0 takes the token that pads, those before it a tokenizer.
    takes_token = "pad_token_id" in inspect.signature(made).parameters
    padding = 0 if takes_token else types.SimpleNamespace(pad_token_id=0)
    rewards = [[0.0] * keep for keep in lengths]
    sequences, attention, responses, _, mask, rollout, *_ = made(
        padding, PROMPT, cut("ids"), rewards, cut("mask"), cut("rollout")
    )
    trainer = torch.zeros_like(rollout)
    for row, (one, keep) in enumerate(zip(cut("trainer"), lengths, strict=True)):
        trainer[row, trainer.shape[1] - keep :] = torch.tensor(one)
    made_of = {
        "sequences": sequences,
        "attention_mask": attention,
        "response_mask": responses,
        "loss_mask": mask,
        "rollout_logprobs": rollout,
        "action_log_probs": None if mode == "skip" else trainer,
    }
    training = names.TrainingInputBatch(made_of)
    training.metadata = {"uids": ["a", "b"], "response_length": mask.shape[1]}
    return training


def trainer(mode: str) -> Any:
    """SkyRL's trainer without its set-up."""
    groups = importlib.import_module("ray.util.placement_group")
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    if not hasattr(groups, "PlacementGroupSchedulingStrategy"):  # SkyRL 0.2.0 looks for it there, as older Rays had it
        groups.PlacementGroupSchedulingStrategy = strategies.PlacementGroupSchedulingStrategy
    module = importlib.import_module("skyrl.train.trainer")
    dispatch = importlib.import_module("skyrl.backends.skyrl_train.workers.worker_dispatch")
    dispatch.ray = types.SimpleNamespace(get=lambda refs: refs)
    module.prepare_generator_input = lambda *_args: ({"prompts": ["p"]}, ["a", "b"])
    module.get_sampling_params_for_backend = lambda *_args: None

    async def done(*_args: Any, **_kwargs: Any) -> None:
        return None

    class Loop(module.RayPPOTrainer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.cfg, self.train_dataloader, self.global_step, self.total_training_steps = config(), Prompts(), 0, 40
            self.colocate_all, self.ref_model, self.resume_mode = False, None, module.ResumeMode.NONE
            self.all_metrics, self.all_timings, self._num_training_gpus = {}, {}, 1
            self._ray_gpu_monitor = self._vllm_metrics_scraper = self.trajectory_logger = None
            self.eval_dataloader, self.inference_engine_client = None, None
            self.tokenizer = types.SimpleNamespace(decode=lambda ids, **_kwargs: f"<{ids[0]}>")
            self.tracker = module.Tracking("driftline", "test", "console", {})
            if hasattr(module, "CallbackHandler"):
                self._callback_handler = module.CallbackHandler()
                self._training_control = module.TrainingControl()
            self.dispatch = object.__new__(dispatch.WorkerDispatch)
            self.dispatch.cfg, self.dispatch.colocate_all = self.cfg, False
            self.dispatch._actor_groups = {"policy": Calls()}
            self.dispatch._inference_engine_client = types.SimpleNamespace(
                pause_generation=done, resume_generation=done, increment_weight_version=lambda: None
            )

        async def generate(self, generator_input: Any) -> Any:
            return {"response_ids": [[1, 2]], "rewards": [0.5]}

        def init_weight_sync_state(self) -> None: ...

        def _remove_tail_data(self, prompts: Any) -> Any:
            return prompts

        def postprocess_generator_output(self, output: Any, uids: Any) -> Any:
            return output, uids

        def convert_to_training_input(self, output: Any, uids: Any) -> Any:
            return batch(mode)

        def fwd_logprobs_values_reward(self, data: Any) -> Any:
            return data

        def compute_advantages_and_returns(self, data: Any) -> Any:
            data["rewards"] = data["loss_mask"]
            return data

        def train_critic_and_policy(self, data: Any) -> Any:
            self.all_metrics.update({"reward/avg_raw_reward": 0.5, "policy/policy_entropy": 1.5})
            return {"policy_loss": 0.1}

    if mode == "async":

        class FullyAsyncLoop(Loop):
            async def train(self) -> None:
                await self.dispatch.save_weights_for_sampler()
                for _ in self.train_dataloader:
                    self.global_step += 1
                    await asyncio.to_thread(self.train_critic_and_policy, batch(mode))
                    await self.dispatch.save_weights_for_sampler()
                    self.all_metrics.update({"trainer/global_step": self.global_step})
                    self.tracker.log(self.all_metrics, step=self.global_step, commit=False)
                self.tracker.finish()

        return FullyAsyncLoop()
    return Loop()


def main(mode: str, hook: str) -> None:
    stand_in()
    without(hook)
    skyrl = importlib.import_module("driftline.adapters.skyrl")
    loop = trainer(mode)
    skyrl.attach(loop)
    asyncio.run(loop.train())


if __name__ == "__main__":
    main(*sys.argv[1:])
