"""A vLLM as its actor speaks to it, against the recorded interface of each version: names and signatures, no engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from driftline.config import EngineConfig, SamplingConfig
from engine import fixes
from engine.actor import launch
from engine.actor.counted_labels import CountedLabels
from engine.actor.host import Asked, EngineDiedError, Sampling, Span
from engine.actor.launch import EngineSpec
from engine.actor.stats import Counters
from engine.actor.v0 import V0Host
from engine.plugin import hosting, own_head, report, versions
from engine.plugin.load_ways import InThreeCalls, Layerwise, Plain, way_of
from engine.plugin.report import CoreFacts, Facts, WorkerFacts
from tests.unit.recorded_vllm import Vllm, module, recorded, recorded_v0

ENGINE = "vllm.engine.llm_engine:LLMEngine"
SCHEDULER = "vllm.core.scheduler:Scheduler"
BLOCKS = "vllm.core.block_manager:SelfAttnBlockSpaceManager"
OUTPUT, MADE = "vllm.outputs:RequestOutput", "vllm.outputs:CompletionOutput"
PARAMETERS = "vllm.sampling_params:SamplingParams"
ARGUMENTS = "vllm.engine.arg_utils:EngineArgs"
ASYNC = "vllm.v1.engine.async_llm:AsyncLLM"
PROCESSOR, STATE = "vllm.v1.engine.output_processor:OutputProcessor", "vllm.v1.engine.output_processor:RequestState"
TRANSFER = "vllm.distributed.weight_transfer.base:WeightTransferEngine"
HEAD = "vllm.model_executor.layers.logits_processor:LogitsProcessor"
SAMPLING = Sampling(2, 0.7, 8, [1])
VOCABULARY = 100

each_version = pytest.mark.parametrize("vllm", recorded(), ids=lambda one: one.version)


class Parameters:
    """SamplingParams that takes what the recorded one has."""

    known: frozenset[str] = frozenset()

    def __init__(self, **given: Any) -> None:
        assert not given.keys() - self.known, f"not of this vLLM: {given.keys() - self.known}"
        vars(self).update(given)


class Engine:
    """V0's engine with a step that gives every live request one token: 2, 3, 4, ... until its `max_tokens`."""

    def __init__(self, vllm: Vllm) -> None:
        self.vllm = vllm
        self.live: dict[str, Any] = {}
        self.given: dict[str, list[int]] = {}
        self.prompts: dict[str, list[int]] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.broken = False
        self.steps = 0
        blocks = vllm.make(BLOCKS, get_num_free_gpu_blocks=lambda: 30)
        scheduler = vllm.make(SCHEDULER, running=[1], waiting=[], swapped=[], num_cumulative_preemption=3)
        scheduler.block_manager = blocks
        config = module(
            "config", parallel_config=module("parallel", world_size=1),
            model_config=vllm.make("vllm.config.model:ModelConfig") if vllm.has("vllm.config.model:ModelConfig")
            else module("model", disable_cascade_attn=False, generation_config="vllm"),
            scheduler_config=module("scheduler"), cache_config=module("cache", enable_prefix_caching=None),
        )  # fmt: skip
        self.engine = vllm.make(
            ENGINE, vllm_config=config, cache_config=module("cache", num_gpu_blocks=40), scheduler=[scheduler],
            add_request=self._add, step=self._step, abort_request=self._abort, reset_prefix_cache=lambda: True,
            has_unfinished_requests=lambda: bool(self.live), collective_rpc=self._rpc,
        )  # fmt: skip

    def _add(self, request: str, prompt: dict[str, list[int]], parameters: Any) -> None:
        if len(prompt["prompt_token_ids"]) > 50:
            raise ValueError("the prompt is too long")
        self.live[request], self.given[request] = parameters, []
        self.prompts[request] = prompt["prompt_token_ids"]

    def _abort(self, request: str) -> None:
        del self.live[request]

    def _rpc(self, method: str, timeout: None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[dict[str, Any]]:
        self.calls.append((method, args, kwargs, self.steps))
        return [{"answer": len(self.calls)}]

    def _step(self) -> list[Any]:
        if self.broken:
            raise RuntimeError("the model is gone")
        self.steps += 1
        outputs = []
        for request, parameters in list(self.live.items()):
            given = self.given[request]
            token = 2 + len(given)
            given.append(token)
            done = len(given) >= parameters.max_tokens
            scores = getattr(parameters, "prompt_logprobs", None) is not None
            prompt = self.prompts[request]
            tables = [{token: SimpleNamespace(logprob=-float(at))} for at, token in enumerate(prompt)]
            made = self.vllm.make(
                MADE, index=0, token_ids=[token], finish_reason="length" if done else None,
                logprobs=None if scores else [{token: SimpleNamespace(logprob=-token / 10)}],
            )  # fmt: skip
            found = tables if scores else None
            outputs.append(
                self.vllm.make(OUTPUT, request_id=request, finished=done, outputs=[made], prompt_logprobs=found)
            )
            if done:
                del self.live[request]
        return outputs


@pytest.fixture
def v0(monkeypatch: pytest.MonkeyPatch) -> Engine:
    vllm = recorded_v0()
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vllm", module("vllm", __path__=[], __version__=vllm.version))
    platform = module("vllm.platforms", current_platform=module("platform", device_type="cpu"))
    monkeypatch.setitem(sys.modules, "vllm.platforms", platform)
    fitted = type("SamplingParams", (Parameters,), {"known": frozenset(vllm.names(PARAMETERS))})
    kinds = SimpleNamespace(DELTA="delta", FINAL_ONLY="final")
    monkeypatch.setitem(
        sys.modules, "vllm.sampling_params", module("params", SamplingParams=fitted, RequestOutputKind=kinds)
    )
    return Engine(vllm)


def run(engine: Engine, act: Callable[[V0Host], Coroutine[Any, Any, None]], counters: Counters | None = None) -> None:
    async def whole() -> None:
        host = V0Host(engine.engine, counters or Counters())
        await host.stamp("1.0")
        try:
            async with asyncio.timeout(30):
                await act(host)
        finally:
            host.shutdown()

    asyncio.run(whole())


def test_v0_samples_a_group_as_single_requests(v0: Engine) -> None:
    counters = Counters()

    async def act(host: V0Host) -> None:
        responses = await host.generate([5, 6, 7], SAMPLING, "one")
        assert [response.ids.tolist() for response in responses] == [list(range(2, 10))] * 2
        assert responses[0].logprobs.tolist() == pytest.approx([-token / 10 for token in range(2, 10)])
        assert (responses[0].logprobs.dtype, responses[0].ids.dtype) == (np.float32, np.int32)
        assert responses[0].spans == [Span("1.0", 0, 8)]
        assert responses[0].finish == "length"
        assert host.sequences == 0
        assert (host.built.generation, host.built.prefix_caching, host.built.async_scheduling) == ("V0", False, False)

    run(v0, act, counters)
    assert sorted(v0.given) == ["one-0", "one-1"]
    assert counters.generated == 16
    assert counters.preemptions == 3
    assert counters.kv_use == 0.25


def test_v0_stands_between_steps_and_labels_by_the_step(v0: Engine) -> None:
    async def act(host: V0Host) -> None:
        going = asyncio.create_task(host.generate([5], Sampling(1, 0.7, 500), "long"))
        while not host.sampled:
            await asyncio.sleep(0)
        await host.pause("keep", settle=False)
        steps, sampled = v0.steps, host.sampled
        assert 0 < sampled == steps < 500
        assert host.sequences == 1
        assert await host.call_workers("driftline_load", ("update",), {"head_dtype": ""}) == [{"answer": 1}]
        await asyncio.sleep(0.05)
        assert v0.steps == steps
        assert not going.done()
        await host.stamp("2.0")
        await host.resume()
        (response,) = await going
        assert response.spans == [Span("1.0", 0, sampled), Span("2.0", sampled, 500)]
        assert v0.calls == [("driftline_load", ("update",), {"head_dtype": ""}, steps)]

    run(v0, act)


@pytest.mark.parametrize("by_pause", [True, False])
def test_v0_ends_what_is_in_flight_with_what_it_has(v0: Engine, by_pause: bool) -> None:
    async def act(host: V0Host) -> None:
        going = asyncio.create_task(host.generate([5], Sampling(2, 0.7, 10**6), "long"))
        while not host.sampled:
            await asyncio.sleep(0)
        if by_pause:
            await host.pause("abort", settle=True)
        else:
            assert await host.abort() == 2
        responses = await going
        assert {response.finish for response in responses} == {"abort"}
        assert all(len(response.ids) == len(response.logprobs) for response in responses)
        assert v0.live == {}

    run(v0, act)


def test_v0_waits_for_what_is_in_flight_where_it_is_asked_to(v0: Engine) -> None:
    async def act(host: V0Host) -> None:
        going = asyncio.create_task(host.generate([5], Sampling(1, 0.7, 50), "long"))
        while not host.sampled:
            await asyncio.sleep(0)
        await host.pause("keep", settle=True)
        waits = asyncio.create_task(host.pause("wait", settle=True))
        await asyncio.sleep(0)
        early = asyncio.create_task(host.generate([6], SAMPLING, "early"))
        await waits
        assert (await going)[0].finish == "length"
        assert not early.done()
        assert host.sampled == 0
        late = asyncio.create_task(host.generate([5], SAMPLING, "late"))
        await asyncio.sleep(0.05)
        assert not late.done()
        await host.resume()
        await late
        await early

    run(v0, act)


def test_v0_scores_a_response_with_one_request(v0: Engine) -> None:
    async def act(host: V0Host) -> None:
        ids = np.array([20, 21, 22, 23], dtype=np.int32)
        scored = await host.score(Asked([10, 11], ids, [0, 2]), Sampling(1, 0.7, 1), "score")
        assert [(one.logprob, one.label) for one in scored if one is not None] == [(-2.0, "1.0"), (-4.0, "1.0")]
        assert host.sequences == 0

    run(v0, act)
    assert v0.prompts["score"] == [10, 11, 20, 21, 22]


def test_v0_refuses_a_request_and_lives_on_and_dies_of_a_step(v0: Engine) -> None:
    async def act(host: V0Host) -> None:
        with pytest.raises(Exception, match="ValueError: the prompt is too long"):
            await host.generate([5] * 51, SAMPLING, "too-long")
        await host.generate([5], SAMPLING, "fine")
        v0.broken = True
        with pytest.raises(EngineDiedError, match="RuntimeError: the model is gone"):
            await host.generate([5], SAMPLING, "last")
        assert host.errored
        with pytest.raises(EngineDiedError):
            await host.generate([5], SAMPLING, "after")

    run(v0, act)


def spec(model: Path, **changes: Any) -> EngineSpec:
    made = {
        "name": "engine-0", "index": 0, "config": EngineConfig(), "sampling": SamplingConfig(), "model": str(model),
        "dtype": "auto", "fixes": fixes.wanted_at_start({}), "log": "",
    }  # fmt: skip
    return EngineSpec(**(made | changes))


def test_v0_gets_arguments_that_it_knows_and_what_its_transformers_does_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "float32", "rope_parameters": {"rope_theta": 500000.0}}')
    one = spec(tmp_path)
    args = launch.v0_args(one, launch.vllm_args(one, cpu=True, transfers=False), cpu=True)
    assert not args.keys() - set(recorded_v0().names(ARGUMENTS))
    assert args["dtype"] == "float32"
    assert args["hf_overrides"] == {"rope_theta": 500000.0}
    assert args["enable_prefix_caching"] is None
    assert args["block_size"] == 16
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16", "rope_theta": 1e6}')
    args = launch.v0_args(one, launch.vllm_args(one, cpu=True, transfers=False), cpu=True)
    assert args["dtype"] == "bfloat16"
    assert "hf_overrides" not in args


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ImportError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /x/_C.abi3.so)",
         "wants GLIBCXX_3.4.32, which this system's libstdc++ does not have; driftline env add NAME --repair"),
        ("/lib/libc.so.6: version `GLIBC_2.38' not found", "wants GLIBC_2.38, which this system's C library does not"),
        ("AttributeError: '_OpNamespace' '_C' object has no attribute 'silu_and_mul'", ""),
    ],
)  # fmt: skip
def test_what_the_compiled_part_lacks_is_said(tmp_path: Path, line: str, said: str) -> None:
    log = tmp_path / "engine.log"
    assert launch.missing_symbols(log) == ""
    log.write_text(f"WARNING {line}\nAttributeError: later\n")
    found = launch.missing_symbols(log)
    assert said in found
    assert bool(found) is bool(said)
    assert launch.last_error(log) == "AttributeError: later"


@each_version
def test_v1_gets_arguments_that_it_knows(vllm: Vllm, tmp_path: Path) -> None:
    transfers = vllm.has(TRANSFER) and vllm.has(TRANSFER, "start_weight_update")
    args = launch.vllm_args(spec(tmp_path), cpu=True, transfers=transfers)
    assert not args.keys() - set(vllm.names(ARGUMENTS))
    assert ("weight_transfer_config" in args) is transfers


def test_the_kv_cache_of_an_old_version_is_sized_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, found in (("0.8.5.post2", "3"), ("0.18.1+cpu", "3"), ("0.20.2", None), ("0.32.0", None)):
        monkeypatch.setattr(versions, "installed", lambda version=version: version)
        assert hosting.kv_cache_variable(2.25).get("VLLM_CPU_KVCACHE_SPACE") == found


@each_version
def test_what_a_pool_s_engine_asks_of_v1_is_there(vllm: Vllm) -> None:
    for name in ("generate", "collective_rpc", "pause_generation", "resume_generation", "reset_prefix_cache", "abort"):
        assert vllm.has(ASYNC, name), name
    assert {"mode", "clear_cache"} <= set(vllm.parameters(ASYNC, "pause_generation"))
    for name in ("external_req_id", "request_index", "detokenizer"):
        assert vllm.has(STATE, name), name
    assert vllm.has(PROCESSOR, "request_states")
    assert vllm.has(PROCESSOR, "get_num_unfinished_requests")
    if vllm.has(MADE, "weight_versions"):
        assert vllm.has(ASYNC, "update_weight_version")
    for name in ("n", "temperature", "max_tokens", "flat_logprobs", "skip_reading_prefix_cache", "stop_token_ids"):
        assert vllm.has(PARAMETERS, name), name


@each_version
def test_weights_are_loaded_in_the_way_that_the_version_has(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    new = vllm.has(TRANSFER, "start_weight_update")
    monkeypatch.setattr(hosting, "transfers_weights", lambda: new)
    runner = vllm.make("vllm.v1.worker.gpu_model_runner:GPUModelRunner")
    assert isinstance(way_of(SimpleNamespace(model_runner=runner)), InThreeCalls if new else Layerwise)
    if new:  # what `transfer_shm` puts in its place
        init = vllm.parameters(TRANSFER, "__init__")
        assert init == ["self", "config", "vllm_config", "device", "model"]
        assert vllm.parameters(TRANSFER, "receive_weights") == ["self", "update_info"]


def test_v0_loads_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = recorded_v0()
    monkeypatch.setattr(hosting, "transfers_weights", lambda: False)
    runner = vllm.make("vllm.worker.cpu_model_runner:CPUModelRunner", model_config=module("config"))
    assert isinstance(way_of(SimpleNamespace(model_runner=runner)), Plain)
    assert vllm.has("vllm.worker.cpu_model_runner:CPUModelRunner", "get_model")
    assert versions.runner_kind(runner) == "V0"
    assert versions.logprobs_modes(runner) == ["processed_logprobs"]
    versions.set_logprobs_mode(runner, "processed_logprobs")
    with pytest.raises(ValueError, match="and no others"):
        versions.set_logprobs_mode(runner, "raw_logprobs")


@pytest.mark.parametrize("vllm", [recorded_v0(), *recorded()], ids=lambda one: one.version)
def test_a_head_of_ours_where_vllm_has_none(vllm: Vllm) -> None:
    plain: list[tuple[Any, ...]] = []
    own = vllm.make_class(
        HEAD, _get_logits=lambda *args: plain.append(args) or "plain", _gather_logits=lambda logits: logits,
        _apply_head=lambda *args: None,
    )  # fmt: skip
    has = vllm.has(HEAD, "_apply_head")
    before = own._get_logits
    own_head.install(module("layers", LogitsProcessor=own))
    own_head.install(module("layers", LogitsProcessor=own))
    assert (own._get_logits is before) is has
    assert getattr(own, versions.OUR_HEAD, False) is not has
    if has:
        return
    torch = pytest.importorskip("torch")
    processor = own()
    hidden, head = torch.randn(3, 8), SimpleNamespace(weight=torch.randn(12, 8))
    assert processor._get_logits(hidden, head, None) == "plain"
    assert plain == [(hidden, head, None)]
    processor.head_dtype, processor.org_vocab_size = torch.bfloat16, 10
    logits = processor._get_logits(hidden, head, None)
    assert (logits.dtype, tuple(logits.shape)) == (torch.bfloat16, (3, 10))
    whole = (hidden.bfloat16() @ head.weight.bfloat16().T)[:, :10]
    assert torch.allclose(logits, whole)


@each_version
def test_labels_are_counted_where_vllm_has_none(vllm: Vllm) -> None:
    states: dict[str, Any] = {}
    counts = {"r-0": 0, "r-1": 0}

    def added(request: Any, *args: Any, **kwargs: Any) -> None:
        name = request.request_id
        detokenizer = SimpleNamespace(num_output_tokens=lambda: counts[name])
        states[name] = vllm.make(STATE, external_req_id="r", request_index=int(name[-1]), detokenizer=detokenizer)

    processor = vllm.make(PROCESSOR, add_request=added, request_states=states)
    labels = CountedLabels(processor)
    labels.stamp("1.0")
    for name in counts:
        processor.add_request(SimpleNamespace(request_id=name), "prompt")
    counts["r-0"] = 3
    labels.stamp("1.-1")
    labels.stamp("2.0")
    counts["r-0"] = 5
    assert labels.spans("r", 0, 5) == [Span("1.0", 0, 3), Span("2.0", 3, 5)]
    assert labels.spans("r", 1, 4) == [Span("2.0", 0, 4)]
    processor.add_request(SimpleNamespace(request_id="r-0"), "prompt")
    labels.forget("r", 2)
    labels.stamp("3.0")
    assert not labels._marks


def facts_of_v0() -> Facts:
    core = CoreFacts("cpu", "0.8.5.post2", False, False, None, generation="V0")
    return Facts(core, (WorkerFacts((report.PROCESSED,), "float32", ("float32",), False, "", head_ours=True),), "")


def test_the_fixes_of_v0_are_reported_as_what_they_are_there() -> None:
    found = fixes.describe("engine-0", facts_of_v0(), "on")
    assert {fix_id: (one.effective, one.how) for fix_id, one in found.items()} == {
        "processed-logprobs": ("on", "not_available"),
        "prefix-cache-off": ("removed", "not_available"),
        "async-scheduling-off": ("on", "not_available"),
        "inflight-keep": ("on", "next_sync"),
        "fp32-lm-head": ("on", "next_sync"),
    }
    assert found["processed-logprobs"].detail == "V0: processed by itself; its sampler has no raw ones"
    assert found["prefix-cache-off"].detail.startswith("V0: off by default")
    assert found["async-scheduling-off"].detail == "V0 has no async scheduling"
    assert "Driftline's code switches it" in found["fp32-lm-head"].detail
    for value in ("on", "removed"):
        assert fixes.not_live(found["prefix-cache-off"], "prefix-cache-off", value) == ""
    assert "cannot be switched off here" in fixes.refusal(found["prefix-cache-off"], "prefix-cache-off", "off")
    assert "cannot be switched off here: V0" in fixes.refusal(found["processed-logprobs"], "processed-logprobs", "off")
