"""A GRPO run as a user of TRL writes it, on a tiny model, with one line for Driftline.

    python -m tests.join.trl_run MODEL OUT STEPS

MODEL is a folder with a model and its tokenizer. vLLM runs in this process (`vllm_mode="colocate"`).
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

import driftline.adapters.trl

PROMPTS = [f"reverse:{number}=" for number in range(1000, 1064)]
TEMPERATURE = 0.7


def digits(completions: list[str], **_: Any) -> list[float]:
    """The part of a completion that is digits."""
    return [sum(one.isdigit() for one in text) / max(1, len(text)) for text in completions]


def keep_weights_as_they_are() -> None:
    """Let vLLM's CPU build compute with plain weights.

    Where the processor has AVX-512 it packs linear weights for oneDNN, where it has AMX also for kernels of its own,
    and drops the originals: what TRL writes its new weights into is gone, and its first sync ends in "'Parameter'
    object has no attribute 'weight_loader'". On a GPU there is nothing of the kind.
    """
    from vllm.model_executor.layers import utils

    def keep(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = keep


def main(model: str, out: str, steps: int) -> None:
    """Train."""
    keep_weights_as_they_are()
    config = GRPOConfig(
        output_dir=out,
        max_steps=steps,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=24,
        learning_rate=1e-4,
        temperature=TEMPERATURE,
        beta=0.01,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=128,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = GRPOTrainer(
        model=model, reward_funcs=digits, args=config, train_dataset=Dataset.from_dict({"prompt": PROMPTS})
    )
    driftline.adapters.trl.attach(trainer)
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
