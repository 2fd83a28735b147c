"""Helpers of the engine tests: a tiny model, and an independent float32 forward of it to compare logprobs with."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from driftline.config import EngineConfig, SamplingConfig
from engine import EnginePool, Group, RolloutRequest

VOCABULARY, EOS, PROMPT = 128, 1, 40
TEMPERATURE, MAX_TOKENS = 0.7, 48
LIMIT_S = 120.0
PROMPTS = np.random.default_rng(0)

CLOSE = 1e-4
"""Nats. Float32 on both sides differs by 1e-6 here; a wrong temperature, head or version by 1e-2 and more."""


def engine_left(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run. An orphan that has ended belongs to init until init collects it."""
    left = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and process.is_running():
                left.append(process)
    return left


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
    model: Qwen2ForCausalLM = Qwen2ForCausalLM(shape).float().eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(12)
    model.save_pretrained(path)
    return model


def engine_pool(
    model: Path,
    logs: Path,
    said: list[str],
    count: int = 1,
    on_event: Callable[[str, str, str, dict[str, Any]], None] | None = None,
    max_tokens: int = MAX_TOKENS,
    **options: Any,
) -> EnginePool:
    """A pool, not started, with processed logprobs and the fp32 head on."""
    return EnginePool(
        EngineConfig(count=count, max_num_seqs=64, cpus=1.0, kv_cache_gb=0.25, **options),
        SamplingConfig(temperature=TEMPERATURE, max_tokens=max_tokens),
        model=model,
        dtype="float32",
        fixes={"processed-logprobs": "on", "fp32-lm-head": "on"},
        connection=None,
        keys=None,
        log_dir=logs,
        on_progress=said.append,
        on_event=on_event,
    )


def engine_moved(model: Qwen2ForCausalLM, *, head_only: bool) -> Qwen2ForCausalLM:
    """A copy of the model with clearly other weights."""
    other = copy.deepcopy(model)
    torch.manual_seed(int(time.time_ns()) % 2**31)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if not head_only or name == "lm_head.weight":
                parameter.add_(torch.randn_like(parameter) * parameter.std() * 0.5)
    return other


def engine_submit(pool: EnginePool, groups: int, n: int = 8) -> None:
    """Submit groups 0, 1, ... of prompts that no test has used: a prefix cache may hold older weights' blocks."""
    for group in range(groups):
        pool.submit(RolloutRequest(group, PROMPTS.integers(2, VOCABULARY, PROMPT).tolist(), n))


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
    start = len(group.prompt_ids)
    # Padding on the right: what follows a token does not reach it.
    ids = torch.zeros(len(group.sequences), start + max(len(s.ids) for s in group.sequences), dtype=torch.long)
    ids[:, :start] = torch.tensor(group.prompt_ids)
    for row, sequence in zip(ids, group.sequences, strict=True):
        row[start : start + len(sequence.ids)] = torch.from_numpy(sequence.ids.copy())  # Ray hands them over read-only
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits / TEMPERATURE, -1)
    chosen = logprobs[:, start - 1 : -1].gather(2, ids[:, start:, None])[:, :, 0].numpy()
    return [row[: len(sequence.ids)] for row, sequence in zip(chosen, group.sequences, strict=True)]


def engine_gap(model: Qwen2ForCausalLM, groups: list[Group]) -> np.ndarray:
    """Absolute difference of engine and reference logprobs, over all tokens of all groups."""
    pairs = [
        np.abs(sequence.logprobs - reference)
        for group in groups
        for sequence, reference in zip(group.sequences, engine_reference(model, group), strict=True)
    ]
    return np.concatenate(pairs)


def engine_sockets(processes: set[psutil.Process]) -> set[str]:
    """Addresses other than the loopback on which any of the processes listens."""
    heard = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="inet")
        except psutil.NoSuchProcess:
            continue
        heard |= {c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN}
    return heard - {"127.0.0.1", "::1"}
