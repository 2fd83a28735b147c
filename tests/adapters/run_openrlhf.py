"""OpenRLHF's own trainer of one step, with what is to be on GPUs replaced. Arguments: sync or async, a hook to miss."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

from tests.adapters.gpu_parts import stand_in
from tests.adapters.stepping import BATCH, PROMPT, Calls, steps, without


def spaces(**values: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(**{k: spaces(**v) if isinstance(v, dict) else v for k, v in values.items()})


def arguments(mode: str) -> types.SimpleNamespace:
    """OpenRLHF's arguments, as far as a step reads them."""
    return spaces(
        train={
            "async_enable": mode == "async",
            "dynamic_batch_enable": False,
            "colocate_all": False,
            "colocate_actor_ref": False,
            "colocate_critic_reward": False,
        },
        actor={"model_name_or_path": "tiny"},
        critic={"freezing_steps": -1},
        rollout={"temperature": 0.8, "micro_batch_size": 1, "n_samples_per_prompt": 2, "batch_size": 1},
        ds={"enable_sleep": False, "ring_attn_size": 1, "tensor_parallel_size": 1},
        vllm={"enable_sleep": False},
        algo={
            "advantage": {
                "estimator": "group_norm",
                "gamma": 1.0,
                "is_correction_level": "token",
                "lambd": 1.0,
                "no_std_norm": False,
            },
            "kl": {"init_coef": 0.0, "target": None, "use_loss": False, "estimator": "k1"},
            "dynamic_filtering_enable": False,
        },
        reward={"clip_range": None, "overlong_buffer_len": None, "stop_properly_penalty_coef": None},
        logger={"logging_steps": 1, "wandb": {"key": None}, "tensorboard_dir": None},
        ckpt={"save_steps": float("inf"), "best_metric_key": ""},
    )


def samples(torch: Any, experience: Any) -> list[Any]:
    """Rollouts as its samples generator makes them: prompt and response, both shifted by the token predicted."""
    made = []
    for prompt, ids, mask, rollout in zip(PROMPT, BATCH["ids"], BATCH["mask"], BATCH["rollout"], strict=True):
        keep = len(ids) - ids.count(0)
        sequence = [*prompt, *ids[:keep]]
        actions = [0] * (len(prompt) - 1) + mask[:keep]
        made.append(
            experience(
                sequences=torch.tensor([sequence]),
                attention_mask=torch.ones(1, len(sequence), dtype=torch.long),
                action_mask=torch.tensor([actions]),
                rollout_log_probs=torch.tensor([[0.0] * (len(prompt) - 1) + rollout[:keep]]),
                prompts=["p"],
                labels=["l"],
                images=[None],
                mm_train_inputs=[None],
                rewards=torch.tensor([float(keep == 2)]),
                response_length=torch.tensor([float(keep)]),
                truncated=torch.tensor([False]),
                total_length=torch.tensor([float(len(sequence))]),
                info={"reward": torch.tensor([float(keep == 2)])},
            )
        )
    return made


def main(mode: str, hook: str) -> None:
    stand_in()
    without(hook)
    importlib.import_module("driftline.adapters.openrlhf")
    torch = importlib.import_module("torch")
    trainer = importlib.import_module("openrlhf.trainer.ppo_trainer")
    maker = importlib.import_module("openrlhf.trainer.ppo_utils.experience_maker")
    experience = importlib.import_module("openrlhf.trainer.ppo_utils.experience").Experience
    maker.ray = trainer.ray = types.SimpleNamespace(get=lambda refs: refs, put=lambda value: value)
    args = arguments(mode)

    def forward(**kwargs: Any) -> Any:
        """The actor's logprobs of each micro-batch."""
        given = iter(zip(BATCH["trainer"], PROMPT, strict=True))
        return [
            [torch.tensor([[0.0] * (len(prompt) - 1) + one])[:, : mask.shape[1]] * mask]
            for mask, (one, prompt) in zip(kwargs["action_mask"], given, strict=True)
        ]

    group = types.SimpleNamespace(
        async_run_method_batch=lambda method_name, **kwargs: forward(**kwargs) if method_name == "forward" else [],
        async_run_method=lambda method_name, **kwargs: (
            [{"ppo_kl": 0.01, "vllm_kl": 0.02, "actor_lr": 1e-6}] if method_name == "fit" else []
        ),
    )
    tokenizer = types.SimpleNamespace(pad_token_id=0, decode=lambda ids, **_kwargs: ["text"])
    strategy = types.SimpleNamespace(args=args)
    loop = trainer.BasePPOTrainer(strategy, group, None, None, None, Calls(), tokenizer)
    for step in steps():
        status, now = loop.train_step(samples(torch, experience), step - 1)
        assert now == step
        if hasattr(loop, "save_logs_and_checkpoints"):
            loop.save_logs_and_checkpoints(now, status, {})


if __name__ == "__main__":
    main(*sys.argv[1:])
