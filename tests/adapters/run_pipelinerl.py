"""PipelineRL's own functions on a tiny model, as its finetune loop calls them. Arguments: packed or padded, a hook."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import types
from typing import Any

from tests.adapters.gpu_parts import stand_in
from tests.adapters.stepping import steps, without

ELSEWHERE = ("wandb", "litellm", "redis", "jsonref", "pipelinerl.torch_utils", "pipelinerl.streams", "pipelinerl.llm")
"""What its modules import for other processes, or for NCCL, which torch's CPU build does not have."""
TOKENS = [[5, 6, 7, 8, 9], [3, 4, 5]]
LABELS = [[-100, -100, 7, 8, 9], [-100, 4, 5]]


def batch(torch: Any, kind: type[Any], packed: bool) -> Any:
    """Two sequences with old logprobs of -1, one row after the other or padded on the right."""
    if packed:
        rows, labels = [TOKENS[0] + TOKENS[1]], [LABELS[0] + LABELS[1]]
    else:
        rows = [TOKENS[0], [*TOKENS[1], 0, 0]]
        labels = [LABELS[0], [*LABELS[1], -100, -100]]
    ids, of = torch.tensor(rows), torch.tensor(labels)
    one = torch.ones(ids.shape)
    return kind(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        labels=of,
        position_ids=torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]]) if packed else None,
        rewards=one,
        advantages=one,
        ref_logprobs=-one,
        old_logprobs=torch.where(of == -100, 0.0, -1.0),
        group_tokens=one * 4,
        num_labels=one * 3,
        overflow=one * 0,
        model_version=0,
        is_packed=packed,
    )


def main(mode: str, hook: str) -> None:
    stand_in(*ELSEWHERE)
    without(hook)
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    importlib.import_module("driftline.adapters.pipelinerl")
    logs = importlib.import_module("pipelinerl.finetune.logging_")
    rl = importlib.import_module("pipelinerl.finetune.rl")
    kind = importlib.import_module("pipelinerl.finetune.types").PipelineBatchEncoding
    logs.get_accelerator = lambda: types.SimpleNamespace(is_main_process=True)
    logs.wandb = types.SimpleNamespace(log=lambda *_args, **_kwargs: None)
    size = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, intermediate_size=8, num_key_value_heads=2))
    update = functools.partial(rl.rl_step, model)
    for step in steps():
        made = batch(torch, kind, mode == "packed")
        config = rl.RLConfig(temperature=0.5, batch_size=2, kl_coef=0.0, final_kl_coef=0.0)
        loss, stats = update(made, step, 40, config)
        loss.backward()
        logs.log_metrics(logging.getLogger("test"), step, {f"rl/{name}": value for name, value in stats.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
