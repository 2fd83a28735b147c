"""Helpers of the engine tests: a tiny model, and an independent float32 forward of it to compare logprobs with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from driftline.config import EngineConfig, SamplingConfig
from engine import EnginePool, Group, RolloutRequest

VOCABULARY, EOS, PROMPT = 128, 1, 40
TEMPERATURE, MAX_TOKENS = 0.7, 48
LIMIT_S = 120.0


def engine_model(path: Path) -> Qwen2ForCausalLM:
    """A random Qwen2 in float32, saved under `path`; its head is scaled up so that distributions are far from flat."""
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=EOS,
    )
    model = Qwen2ForCausalLM(shape).float().eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(12)
    model.save_pretrained(path)
    return model


def engine_pool(model: Path, logs: Path, said: list[str], count: int = 1, **options: object) -> EnginePool:
    """A pool, not started, with processed logprobs and the fp32 head on."""
    return EnginePool(
        EngineConfig(count=count, max_num_seqs=64, cpus=1.0, **options),
        SamplingConfig(temperature=TEMPERATURE, max_tokens=MAX_TOKENS),
        model=model,
        dtype="float32",
        fixes={"processed-logprobs": "on", "fp32-lm-head": "on"},
        connection=None,
        keys=None,
        log_dir=logs,
        on_progress=said.append,
    )


def engine_submit(pool: EnginePool, groups: int, n: int = 8) -> None:
    """Submit groups 0, 1, ... of random prompts."""
    random = np.random.default_rng(groups)
    for group in range(groups):
        pool.submit(RolloutRequest(group, random.integers(2, VOCABULARY, PROMPT).tolist(), n))


def engine_collect(pool: EnginePool, groups: int) -> list[Group]:
    """Take exactly so many groups."""
    got: list[Group] = []
    while len(got) < groups:
        batch = pool.take(LIMIT_S)
        assert batch, f"no group within {LIMIT_S} s; in flight: {pool.in_flight}"
        got += batch
    assert len(got) == groups
    return got


def engine_rollouts(pool: EnginePool, groups: int, n: int = 8) -> list[Group]:
    """Submit and collect."""
    engine_submit(pool, groups, n)
    return engine_collect(pool, groups)


def engine_reference(model: Qwen2ForCausalLM, group: Group) -> list[np.ndarray]:
    """Logprob of every response token at the sampling temperature, one array a sequence, from a plain HF forward."""
    out = []
    start = len(group.prompt_ids)
    with torch.no_grad():
        for sequence in group.sequences:
            ids = torch.tensor([group.prompt_ids + sequence.ids.tolist()])
            logprobs = torch.log_softmax(model(ids).logits[0] / TEMPERATURE, -1)
            out.append(logprobs[start - 1 : -1].gather(1, ids[0, start:, None])[:, 0].numpy())
    return out


def engine_gap(model: Qwen2ForCausalLM, groups: list[Group]) -> np.ndarray:
    """Absolute difference of engine and reference logprobs, over all tokens of all groups."""
    pairs = [
        np.abs(sequence.logprobs - reference)
        for group in groups
        for sequence, reference in zip(group.sequences, engine_reference(model, group), strict=True)
    ]
    return np.concatenate(pairs)
