"""One engine in one environment: samples, and loads other weights while it does, through the pool's own host.

Runs on the environment's Python: `python -m tests.versions.child ORDER.json`. What was sampled goes into OUT, an .npz:
for each row of the table the prompts, tokens, logprobs and the version of the weights of each token.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from driftline import environments
from driftline.config import EngineConfig, SamplingConfig
from engine import fixes
from engine.actor import entry_point, launch, v0, v1
from engine.actor.epochs import label, stamps
from engine.actor.host import Host, Response, Sampling
from engine.actor.launch import EngineSpec
from engine.actor.stats import Counters, stat_logger
from engine.plugin import hosting, worker

MOST = 64


def build(order: dict[str, Any]) -> tuple[Host, Any]:
    """The host, and the module that it is of."""
    environment = environments.find(order["environment"], os.environ) if order["environment"] else None
    config = EngineConfig(max_num_seqs=MOST, max_model_len=128, kv_cache_gb=0.25)
    os.environ.update(launch.environment(config) | (dict(environment.variables) if environment else {}))
    entry_point.ensure("table")
    spec = EngineSpec(
        "table", 0, config, SamplingConfig(), order["model"], "float32", fixes.wanted_at_start({}), "",
        environment=environment,
    )  # fmt: skip
    args = launch.vllm_args(spec, cpu=True, transfers=hosting.transfers_weights())
    os.environ.update(hosting.kv_cache_variable(config.kv_cache_gb))
    if hosting.is_v0():
        return v0.build(launch.v0_args(spec, args, cpu=True), Counters()), v0
    return v1.build(args, stat_logger(Counters())), v1


class Rows:
    """What each row of the table was sampled with."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}

    def add(self, name: str, prompts: list[list[int]], groups: list[list[Response]]) -> None:
        """One response to each prompt."""
        responses = [group[0] for group in groups]
        width = max(len(one.ids) for one in responses)
        for part in ("ids", "logprobs", "versions"):
            self.arrays[f"{name}/{part}"] = np.full((len(responses), width), -1.0 if part == "logprobs" else -1)
        for row, one in enumerate(responses):
            count = len(one.ids)
            self.arrays[f"{name}/ids"][row, :count] = one.ids
            self.arrays[f"{name}/logprobs"][row, :count] = one.logprobs
            self.arrays[f"{name}/versions"][row, :count] = stamps(one.spans, count)[0]
        self.arrays[f"{name}/prompts"] = np.asarray(prompts)


async def sampled(host: Host, prompts: list[list[int]], tokens: int, name: str) -> list[list[Response]]:
    """One response to each prompt, all at once."""
    asked = Sampling(1, 0.7, tokens)
    return list(await asyncio.gather(*(host.generate(one, asked, f"{name}-{at}") for at, one in enumerate(prompts))))


async def load(host: Host, path: str, version: int) -> None:
    """Load the weights of a file, verified, between two steps; what is in flight keeps its keys and values."""
    import torch

    from engine.weights.publish import digest, publish

    weights = torch.load(path)
    with publish(weights) as manifest:
        await host.pause("keep", settle=False)
        (answer,) = await host.call_workers(worker.LOAD, (dict(manifest), digest(weights)), {"head_dtype": ""})
        if "error" in answer or answer["problem"] or answer["digest"] != digest(weights):
            raise SystemExit(f"the load failed: {answer}")
        await asyncio.gather(host.stamp(label(version, 0)), host.resume())


async def fill(order: dict[str, Any], rows: Rows) -> None:
    """Every row of this engine."""
    host, module = build(order)
    tokens, rng = int(order["tokens"]), np.random.default_rng(3)

    def fresh() -> list[list[int]]:
        found: list[list[int]] = rng.integers(2, order["vocabulary"], (MOST, 40)).tolist()
        return found

    await host.stamp(label(0, 0))
    for mode in order["modes"]:
        if host.built.generation != "V0":
            (answer,) = await host.call_workers(worker.APPLY, (), {"logprobs_mode": f"{mode}_logprobs"})
            assert "error" not in answer, answer
        for penalty in order["penalties"]:
            plain = module._parameters
            module._parameters = functools.partial(plain, repetition_penalty=penalty)
            prompts = fresh()
            rows.add(f"{mode}/{penalty}", prompts, await sampled(host, prompts, tokens, f"{mode}-{penalty}"))
            module._parameters = plain
    # From here on processed, which is the last of the modes.
    cached = fresh()
    rows.add("before", cached, await sampled(host, cached, tokens, "before"))
    prompts = fresh()
    going = asyncio.gather(*(host.generate(one, Sampling(1, 0.7, 40), f"on-{at}") for at, one in enumerate(prompts)))
    while host.sampled < MOST * 4:
        await asyncio.sleep(0.0005)
    await load(host, order["moved"], 1)
    rows.add("across", prompts, list(await going))
    rows.add("after, same prompts", cached, await sampled(host, cached, tokens, "after"))
    await host.reset_prefix_cache()
    rows.add("after, cache emptied", cached, await sampled(host, cached, tokens, "emptied"))
    host.shutdown()


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    made = Rows()
    asyncio.run(fill(given, made))
    np.savez(given["out"], **made.arrays)
    os._exit(0)  # vLLM's threads must not hold this up
