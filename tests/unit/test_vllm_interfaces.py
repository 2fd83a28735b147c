"""The engine plugin against what vLLM versions have: recorded names and signatures, no engine."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from typing import Any

import pytest

from driftline import after_import
from engine.plugin import versions
from engine.plugin.core import CoreHandle
from engine.types import EngineError
from tests.unit.recorded_vllm import Vllm, module, recorded

CORE = "vllm.v1.engine.core"
PROC = f"{CORE}:EngineCoreProc"
DATA_PARALLEL = f"{CORE}:DPEngineCoreProc"
CLIENT = "vllm.v1.engine.core_client:InprocClient"
SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
BLOCKS = "vllm.v1.core.kv_cache_manager:KVCacheManager"
REQUEST = "vllm.v1.request:Request"
EXECUTOR = "vllm.v1.executor.abstract:Executor"
WORKER = "vllm.v1.worker.worker_base:WorkerBase"
RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
RUNNER_2 = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
SAMPLER = "vllm.v1.sample.sampler:Sampler"
SAMPLER_2 = "vllm.v1.worker.gpu.sample.sampler:Sampler"
TOP = "vllm.v1.sample.ops.topk_topp_sampler:TopKTopPSampler"
REJECTION = "vllm.v1.sample.rejection_sampler:RejectionSampler"
PROMPT = "vllm.v1.worker.gpu.sample.prompt_logprob:PromptLogprobsWorker"
PROCESSOR = "vllm.model_executor.layers.logits_processor:LogitsProcessor"

each_version = pytest.mark.parametrize("vllm", recorded(), ids=lambda one: one.version)


@pytest.fixture(autouse=True)
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded modules in the place of an installed vLLM's, and no hook left behind."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(after_import, "_finder", after_import._Finder())
    for name in ("vllm", "vllm.v1"):
        monkeypatch.setitem(sys.modules, name, module(name, __path__=[]))


def test_every_tested_version_is_recorded() -> None:
    assert set(versions.TESTED) <= {one.version for one in recorded()}


@each_version
def test_it_is_acted_on(vllm: Vllm) -> None:
    assert versions.untested(vllm.version) == ""
    assert versions.untested(f"{vllm.version}+cpu") == ""


@pytest.mark.parametrize("version", ["0.8.5.post2", "0.18.0", "0.99.0", "1.0.0", "dev", ""])
def test_outside_of_them_it_only_reports(version: str) -> None:
    assert "it only reports here" in versions.untested(version)


@each_version
def test_every_core_with_a_loop_is_served(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    lacking: list[str] = []
    proc = vllm.make_class(PROC, run_busy_loop=lambda: "ran")
    base = vllm.make_class(f"{CORE}:EngineCore")
    parallel = vllm.make_class(DATA_PARALLEL, run_busy_loop=lambda: "ran in parallel")
    cores = {one.__name__: one for one in (base, proc, parallel)}
    monkeypatch.setitem(sys.modules, CORE, module(CORE, **cores))
    built = vllm.make_class(CLIENT, __init__=lambda *args, **kwargs: None)
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.core_client", module("client", InprocClient=built))

    def serve(core: Any) -> Callable[[str], None]:
        served.append(core)
        return lambda why: served.append(why)

    versions.hook_cores(serve, lacking.append)
    for cls in (proc, parallel):
        served.clear()
        core = cls()
        assert core.run_busy_loop().startswith("ran")
        assert served == [core, ""]
    assert lacking == []
    assert hasattr(built.__init__, "_driftline")
    assert vllm.has(CLIENT, "engine_core")


@each_version
def test_the_workers_get_their_methods(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking: list[str] = []
    base = vllm.make_class(WORKER)
    monkeypatch.setitem(sys.modules, "vllm.v1.worker.worker_base", module("base", WorkerBase=base))
    versions.hook_workers({"driftline_method": lambda self: "answered"}, lacking.append)
    assert base().driftline_method() == "answered"
    assert lacking == []
    assert vllm.parameters(EXECUTOR, "collective_rpc")[:2] == ["self", "method"]
    assert "args" in vllm.parameters(EXECUTOR, "collective_rpc")
    assert vllm.has(RUNNER, "model_config")
    assert vllm.has(RUNNER, "get_model")


class Held:
    """A core of a version with all that hangs on it, and what has been asked of it."""

    def __init__(self, vllm: Vllm, monkeypatch: pytest.MonkeyPatch, place: str = PROC) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.standing = False
        kinds = vllm.make_class("vllm.v1.engine:EngineCoreRequestType")
        for name in ("UTILITY", "WAKEUP"):
            if vllm.has("vllm.v1.engine:EngineCoreRequestType", name):
                setattr(kinds, name, name)
        monkeypatch.setitem(sys.modules, "vllm.v1.engine", module("vllm.v1.engine", EngineCoreRequestType=kinds))
        platform = module("vllm.platforms", current_platform=module("platform", device_type="cpu"))
        monkeypatch.setitem(sys.modules, "vllm.platforms", platform)
        monkeypatch.setattr(versions, "installed", lambda: vllm.version)
        found = ("blocks", 48, 0) if "int, int" in vllm.returned(BLOCKS, "get_computed_blocks") else ("blocks", 48)
        self.blocks = vllm.make(BLOCKS, usage=0.25, get_computed_blocks=lambda request: found)
        scheduler = vllm.make(
            SCHEDULER, running=[1, 2], waiting=[3], skipped_waiting=[], deferred_waiting={4, 5},
            kv_cache_manager=self.blocks, get_request_counts=lambda: (2, 1),
            update_from_output=lambda *args: "updated", _preempt_request=lambda *args, **kwargs: None,
        )  # fmt: skip
        model = vllm.make(
            "vllm.config.model:ModelConfig", disable_cascade_attn=True, generation_config="auto",
            get_diff_sampling_param=lambda: {"temperature": 0.7},
        )  # fmt: skip
        config = module(
            "config", model_config=model, parallel_config=None,
            scheduler_config=vllm.make("vllm.config.scheduler:SchedulerConfig", async_scheduling=False),
            cache_config=vllm.make("vllm.config.cache:CacheConfig", enable_prefix_caching=True),
        )  # fmt: skip
        self.core = vllm.make(
            place, vllm_config=config, scheduler=scheduler, input_queue=queue.Queue(), step_counter=0,
            pending_pause=False, model_executor=vllm.make(EXECUTOR, is_sleeping=False),
            _handle_client_request=lambda kind, request: self.asked.append(("request", kind, request)),
            pause_scheduler=self._pause, resume_scheduler=self._resume, is_scheduler_paused=lambda: self.standing,
            reset_prefix_cache=lambda *args, **kwargs: True, get_weight_version=lambda: "7",
        )  # fmt: skip
        self.handle = CoreHandle(self.core, hooked=True)

    def _pause(self, mode: str = "abort", clear_cache: bool = True) -> None:
        self.standing = True
        self.asked.append(("pause", mode, clear_cache))

    def _resume(self) -> None:
        self.standing = False
        self.asked.append(("resume",))


@each_version
def test_a_core_is_read(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(vllm, monkeypatch)
    handle = held.handle
    facts = handle.facts()
    assert (facts.prefix_caching, facts.async_scheduling, facts.cascade_attention) == (True, False, False)
    assert (facts.platform, facts.vllm, facts.sampling_source) == ("cpu", vllm.version, "generation_config=auto")
    assert handle.queue_lengths == (2, 3 if vllm.has(SCHEDULER, "deferred_waiting") else 1)
    assert handle.kv_use == 0.25
    assert handle.paused is False
    assert handle.weight_version == (7 if vllm.has(PROC, "get_weight_version") else -1)
    handle.read_sampling_defaults()
    assert handle.facts().sampling_defaults == {"temperature": 0.7}


@each_version
def test_what_is_handed_over_runs_on_the_core_s_thread(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(vllm, monkeypatch)
    future = held.handle.submit(lambda: "done")
    assert not future.done()
    held.core._handle_client_request(*held.core.input_queue.get_nowait())
    assert future.result(1.0) == "done"
    held.core._handle_client_request("ADD", "a client's")
    assert held.asked == [("request", "ADD", "a client's")]


@each_version
def test_an_operator_pauses_it_and_lets_it_go(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(vllm, monkeypatch)
    assert held.handle.pause() == 3 + 2 * vllm.has(SCHEDULER, "deferred_waiting")
    assert held.handle.paused
    assert held.handle.resume() == ""
    held.core.pause_scheduler("keep", False)
    assert held.handle.facts().pause == ("keep", False)
    assert "its framework holds it" in held.handle.resume()
    held.core.resume_scheduler()
    pauses = [("pause", "keep", False), ("resume",), ("pause", "keep", False), ("resume",)]
    assert held.asked == pauses
    assert held.handle.reset_prefix_cache() is True


@each_version
def test_no_rank_of_data_parallel_experts_is_paused_alone(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(vllm, monkeypatch, DATA_PARALLEL)
    with pytest.raises(EngineError, match="step together"):
        held.handle.pause()
    assert held.asked == []


@each_version
def test_a_request_reads_no_cached_block_once_it_is_switched(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(vllm, monkeypatch)
    request = vllm.make(REQUEST, cache_salt="7", skip_reading_prefix_cache=False, num_tokens=64)
    held.blocks.get_computed_blocks(request)
    assert (held.handle.totals.queried, held.handle.totals.hit) == (64, 48)
    assert held.handle.facts().salted == 1
    held.handle.set_skip_reads(True)
    held.blocks.get_computed_blocks(request)
    assert request.skip_reading_prefix_cache is True
    assert held.handle.totals.queried == 64
    assert vllm.has("vllm.v1.request:Request", "num_tokens")


@each_version
def test_tokens_and_preemptions_are_counted(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(vllm, monkeypatch)
    held.core.scheduler.requests = {"a": module("request", num_output_tokens=1), "b": module("b", num_output_tokens=2)}
    assert held.handle.generated() == 3
    assert vllm.has("vllm.v1.request:Request", "num_output_tokens")
    assert vllm.has(SCHEDULER, "_free_blocks")
    assert vllm.has(SCHEDULER, "_preempt_request")


@each_version
def test_the_logprobs_mode_is_set_on_every_part_of_the_first_runner(vllm: Vllm) -> None:
    """The part that samples chooses its kernels when it is built: it is built anew, with what it was built with."""
    built: list[tuple[Any, ...]] = []
    parameters = vllm.parameters(TOP, "__init__")
    top_class = vllm.make_class(TOP, __init__=lambda *args, **kwargs: built.append((args, kwargs)))
    top = top_class.__new__(top_class)
    top.logprobs_mode = "raw_logprobs"
    if vllm.has(TOP, "use_fp64_gumbel"):
        top.use_fp64_gumbel = True
    sampler = vllm.make(SAMPLER, logprobs_mode="raw_logprobs", topk_topp_sampler=top)
    rejection = vllm.make(REJECTION, is_processed_logprobs_mode=False, is_logits_logprobs_mode=False)
    runner = vllm.make(RUNNER, sampler=sampler, rejection_sampler=rejection, model_config=module("model"))
    assert versions.logprobs_modes(runner) == ["raw_logprobs"]
    versions.set_logprobs_mode(runner, "processed_logprobs")
    extra = {"use_fp64_gumbel": True} if "use_fp64_gumbel" in parameters and vllm.has(TOP, "use_fp64_gumbel") else {}
    assert built == [((), {"logprobs_mode": "processed_logprobs", **extra})]
    assert sampler.logprobs_mode == "processed_logprobs"
    assert rejection.is_processed_logprobs_mode is True
    assert runner.model_config.logprobs_mode == "processed_logprobs"
    assert versions.runner_kind(runner) == "V1"


@each_version
def test_and_on_those_of_the_second(vllm: Vllm) -> None:
    sampler = vllm.make(SAMPLER_2, logprobs_mode="raw_logprobs")
    prompts = vllm.make(PROMPT, logprobs_mode="raw_logprobs")
    runner = vllm.make(RUNNER_2, sampler=sampler, prompt_logprobs_worker=prompts, model_config=module("model"))
    assert versions.logprobs_modes(runner) == ["raw_logprobs"]
    versions.set_logprobs_mode(runner, "processed_logprobs")
    assert versions.logprobs_modes(runner) == ["processed_logprobs"]
    assert versions.runner_kind(runner) == "V2"


@each_version
def test_the_head_s_dtype_is_read_where_there_is_one(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    own = vllm.make_class(PROCESSOR, forward=None, _get_logits=None)
    for name in ("forward", "_get_logits", "_apply_head"):
        if name in vars(own):
            vars(own)[name].__module__ = own.__module__
    name = "vllm.model_executor.layers.logits_processor"
    for parent in ("vllm.model_executor", "vllm.model_executor.layers"):
        monkeypatch.setitem(sys.modules, parent, module(parent, __path__=[]))
    monkeypatch.setitem(sys.modules, name, module(name, LogitsProcessor=own))
    processor = own()
    if vllm.has(PROCESSOR, "head_dtype"):
        processor.head_dtype = "torch.float32"
    model = module("model", modules=lambda: [processor])
    runner = vllm.make(RUNNER, model_config=module("config", dtype="torch.bfloat16"), get_model=lambda: model)
    known = vllm.has(PROCESSOR, "head_dtype")
    assert versions.heads(runner) == (["float32" if known else "bfloat16"], known, "")
