"""The engine's pure parts: launch arguments, what a fix is on an engine, rates, and the import discipline."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from driftline.catalog.fixes import BY_ID, FIXES
from driftline.config import EngineConfig, SamplingConfig
from driftline.frames import EngineFix, EngineState
from engine import fixes
from engine.actor import launch
from engine.actor.stats import Counters, pool_stats
from engine.plugin import report
from engine.plugin.report import CoreFacts, Facts, WorkerFacts
from engine.types import EngineError, EngineSample
from tests.environment import needs_engine

CORE = CoreFacts("cpu", "0.0.0", prefix_caching=True, async_scheduling=False, cascade_attention=True)
WORKER = WorkerFacts(("raw_logprobs",), "float32", ("bfloat16",), True, "")
CPU = Facts(CORE, (WORKER,), "")


def changed(**fields: Any) -> Facts:
    """An engine that differs in these facts of its core or its worker."""
    inside = {name: value for name, value in fields.items() if name in WORKER.__struct_fields__}
    core = replace(CORE, **{name: value for name, value in fields.items() if name not in inside})
    return replace(CPU, core=core, workers=(replace(WORKER, **inside),))


def described(facts: Facts, inflight: str = "on") -> dict[str, EngineFix]:
    return fixes.describe("engine-0", facts, inflight)


def spec(config: EngineConfig, **fields: str) -> launch.EngineSpec:
    return launch.EngineSpec(
        name="engine-3",
        index=3,
        config=config,
        sampling=SamplingConfig(),
        model="/model",
        dtype="float32",
        fixes=fixes.wanted_at_start(fields),
        log="/log",
    )


# -- fixes ----------------------------------------------------------------------------------------------------------


def test_every_fix_of_the_catalogue_is_described() -> None:
    states = described(CPU)
    assert list(states) == [fix.id for fix in FIXES]
    for fix_id, state in states.items():
        assert state.engine == "engine-0"
        assert state.effective in BY_ID[fix_id].values
        assert state.detail


@pytest.mark.parametrize(
    ("fix_id", "facts", "effective"),
    [
        ("processed-logprobs", CPU, "off"),
        ("processed-logprobs", changed(logprobs_modes=("processed_logprobs",)), "on"),
        ("prefix-cache-off", CPU, "off"),
        ("prefix-cache-off", changed(skip_reads=True), "on"),
        ("prefix-cache-off", changed(prefix_caching=False), "removed"),
        ("async-scheduling-off", CPU, "on"),
        ("async-scheduling-off", changed(platform="cuda", async_scheduling=True), "off"),
        ("fp32-lm-head", CPU, "off"),
        ("fp32-lm-head", changed(head_dtypes=("float32",)), "on"),
        ("fp32-lm-head", changed(head_dtypes=("float32", "bfloat16")), "mixed"),
        ("fp32-lm-head", changed(head_dtypes=()), ""),
    ],
)
def test_effective_is_what_was_read_back(fix_id: str, facts: Facts, effective: str) -> None:
    assert described(facts)[fix_id].effective == effective


@pytest.mark.parametrize("value", ["on", "wait", "off"])
def test_the_pause_is_the_pool_s_own_choice(value: str) -> None:
    state = described(changed(pause=("abort", True)), value)["inflight-keep"]
    assert (state.effective, state.how) == (value, "next_sync")


def test_every_value_is_the_plugin_s_reading() -> None:
    """One account of an engine: what the pool adds is the way in which a value can change."""
    for facts in (CPU, changed(prefix_caching=False), changed(head_dtypes=("float32",)), changed(skip_reads=True)):
        for state in report.fixes("engine-0", facts, 1.0):
            if state.fix != "inflight-keep":
                assert described(facts)[state.fix].effective == state.effective


def test_a_fix_says_since_which_version() -> None:
    states = described(replace(CPU, since={"fp32-lm-head": 7}))
    assert states["fp32-lm-head"].since_version == 7
    assert states["processed-logprobs"].since_version == -1


def test_async_scheduling_is_not_available_on_cpu_and_needs_a_restart_elsewhere() -> None:
    assert described(CPU)["async-scheduling-off"].how == "not_available"
    assert described(changed(platform="cuda"))["async-scheduling-off"].how == "engine_restart"


@pytest.mark.parametrize(
    ("fix_id", "facts", "value", "path"),
    [
        ("processed-logprobs", CPU, "on", "live"),
        ("prefix-cache-off", CPU, "on", "live"),
        ("prefix-cache-off", CPU, "removed", "engine_restart"),
        ("prefix-cache-off", changed(prefix_caching=False), "off", "engine_restart"),
        ("prefix-cache-off", changed(prefix_caching=False), "on", "engine_restart"),
        ("prefix-cache-off", changed(prefix_caching=False), "removed", "live"),
        ("async-scheduling-off", CPU, "off", "not_available"),
        ("async-scheduling-off", CPU, "on", "live"),
        ("async-scheduling-off", changed(platform="cuda"), "off", "engine_restart"),
        ("inflight-keep", CPU, "wait", "next_sync"),
        ("inflight-keep", CPU, "on", "next_sync"),  # it may have to replace a staged value
        ("fp32-lm-head", CPU, "on", "next_sync"),
    ],
)
def test_each_value_has_its_path(fix_id: str, facts: Facts, value: str, path: str) -> None:
    assert fixes.path(described(facts)[fix_id], fix_id, value) == path


@pytest.mark.parametrize(("value", "path"), [("on", "live"), ("removed", "engine_restart")])
def test_an_engine_that_reports_nothing_has_the_catalogues_path(value: str, path: str) -> None:
    absent = EngineFix("engine-0", "", "live", detail="restarting")
    assert fixes.path(absent, "prefix-cache-off", value) == path


def test_only_a_change_that_cannot_be_made_is_refused() -> None:
    states = described(CPU)
    assert fixes.refusal(states["processed-logprobs"], "processed-logprobs", "on") == ""
    assert fixes.refusal(states["async-scheduling-off"], "async-scheduling-off", "on") == ""
    sentence = fixes.refusal(states["async-scheduling-off"], "async-scheduling-off", "off")
    assert sentence.startswith("engine-0: async-scheduling-off cannot be switched off here: vLLM's CPU platform")
    assert fixes.not_live(states["async-scheduling-off"], "async-scheduling-off", "off") == sentence


def test_what_takes_effect_later_is_said_to() -> None:
    states = described(CPU)
    assert fixes.not_live(states["processed-logprobs"], "processed-logprobs", "on") == ""
    head = fixes.not_live(states["fp32-lm-head"], "fp32-lm-head", "on")
    assert head == "engine-0: fp32-lm-head on takes effect with the next weight sync, not at once"
    cache = fixes.not_live(states["prefix-cache-off"], "prefix-cache-off", "removed")
    assert cache == "engine-0: prefix-cache-off removed takes effect with a restart of the engine, not at once"


@pytest.mark.parametrize(("freed", "words"), [(True, "returned true"), (False, "returned false"), (None, "")])
def test_the_cache_resets_answer_is_shown(freed: bool | None, words: str) -> None:
    detail = described(changed(skip_reads=True, freed=freed))["prefix-cache-off"].detail
    assert detail.startswith("requests begun since then read no cached block")
    assert words in detail
    assert ("reset_prefix_cache" in detail) == (freed is not None)


@pytest.mark.parametrize(
    ("value", "body", "head"),
    [
        ("on", "float32", "float32"),
        ("on", "bfloat16", "float32"),
        ("off", "float32", "bfloat16"),
        ("off", "bfloat16", "bfloat16"),
        ("off", "float16", "float16"),
    ],
)
def test_head_dtype(value: str, body: str, head: str) -> None:
    assert fixes.head_dtype(value, body) == head


def test_unnamed_fixes_start_at_vllms_default() -> None:
    wanted = fixes.wanted_at_start({"fp32-lm-head": "on"})
    kept = ("fp32-lm-head", "inflight-keep")  # trainers have always kept requests in flight unless configured otherwise
    assert wanted == {fix.id: "on" if fix.id in kept else "off" for fix in FIXES}
    assert fixes.wanted_at_start({"inflight-keep": "off"})["inflight-keep"] == "off"


# -- launch ---------------------------------------------------------------------------------------------------------


def test_arguments_differ_by_hardware_and_seed_by_index() -> None:
    config = EngineConfig(kv_cache_gb=0.5, gpu_memory_utilization=0.4)
    cpu = launch.vllm_args(spec(config), cpu=True)
    gpu = launch.vllm_args(spec(config, **{"async-scheduling-off": "on"}), cpu=False)
    assert cpu["kv_cache_memory_bytes"] == 2**29
    assert "gpu_memory_utilization" not in cpu
    assert (gpu["gpu_memory_utilization"], gpu["async_scheduling"]) == (0.4, False)
    assert cpu["seed"] == 3
    assert cpu["enable_prefix_caching"] is True  # else the fix could not be switched back


def test_a_removed_prefix_cache_and_the_transport_are_arguments() -> None:
    assert launch.vllm_args(spec(EngineConfig(), **{"prefix-cache-off": "on"}), cpu=True)["enable_prefix_caching"]
    removed = launch.vllm_args(spec(EngineConfig(), **{"prefix-cache-off": "removed"}), cpu=True)
    assert removed["enable_prefix_caching"] is False
    assert removed["weight_transfer_config"] == {"backend": "driftline_shm"}


def test_free_arguments_pass_and_taken_ones_are_named() -> None:
    passed = launch.vllm_args(spec(EngineConfig(args={"max_num_batched_tokens": 512})), cpu=True)
    assert passed["max_num_batched_tokens"] == 512
    with pytest.raises(EngineError, match=r"engine\.args: dtype is decided by another key"):
        launch.vllm_args(spec(EngineConfig(args={"dtype": "float16"})), cpu=True)


def test_one_worker_runs_in_the_core_s_process_and_several_do_not() -> None:
    def executor(cpu: bool = True, **args: Any) -> Any:
        return launch.vllm_args(spec(EngineConfig(args=args)), cpu=cpu).get("distributed_executor_backend")

    # vLLM's own choice on a GPU is the same; on a CPU its "uni" would be turned into a process, this path is not.
    assert (executor(), executor(cpu=False)) == (launch.IN_CORE, None)
    assert executor(tensor_parallel_size=1, max_num_batched_tokens=512) == launch.IN_CORE
    for several in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        assert executor(**{several: 2}) is None
    assert executor(distributed_executor_backend="mp") == "mp"


def test_threads_follow_cpus() -> None:
    assert launch.environment(EngineConfig(cpus=0.5))["OMP_NUM_THREADS"] == "1"
    assert launch.environment(EngineConfig(cpus=4))["OMP_NUM_THREADS"] == "4"


def test_each_other_vllm_has_a_cache_of_its_own() -> None:
    packages = [f"/envs/{name}/site-packages/vllm/__init__.py" for name in ("vllm-0.18.1", "vllm-0.8.5", "vllm-0.18.1")]
    folders = {launch.own_cache(package, {"VLLM_CACHE_ROOT": "/c"})["VLLM_CACHE_ROOT"] for package in packages}
    assert len(folders) == 2
    assert {Path(folder).parent for folder in folders} == {Path("/c")}
    at_home = launch.own_cache(packages[0], {"XDG_CACHE_HOME": "/x"})["VLLM_CACHE_ROOT"]
    assert Path(at_home).parent == Path("/x/vllm")


def test_stop_ids_come_from_both_files(tmp_path: Path) -> None:
    assert launch.stop_ids(tmp_path) == []
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 5}))
    assert launch.stop_ids(tmp_path) == [5]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 2]}))
    assert launch.stop_ids(tmp_path) == [2, 5, 9]
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": None}))
    assert launch.stop_ids(tmp_path) == [2, 9]


def test_a_model_path_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such directory"):
        launch.check_model(tmp_path / "absent")
    with pytest.raises(EngineError, match=r"holds no config\.json"):
        launch.check_model(tmp_path)


def test_the_cause_is_found_in_a_log(tmp_path: Path) -> None:
    log = tmp_path / "engine-0.log"
    assert launch.last_error(log) == ""
    log.write_text(
        "INFO starting\n"
        "(EngineCore pid=1) ERROR 11-23 [core.py:1] Traceback (most recent call last):\n"
        "(EngineCore pid=1) ERROR 11-23 [core.py:2] ValueError: No common block size for 16\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert launch.last_error(log) == "ValueError: No common block size for 16"


def test_a_sentence_has_one_line_and_an_end() -> None:
    assert launch.one_line("ValidationError: 1 error\n  no such key\n  For further information visit x") == (
        "ValidationError: 1 error no such key"
    )
    assert len(launch.one_line("x" * 1000)) == 400


# -- statistics -----------------------------------------------------------------------------------------------------


def sample(engine: str, when: float, generated: int, queries: int, hits: int, **fields: float) -> EngineSample:
    state = EngineState(engine, "running", 1, when, **fields)  # type: ignore[arg-type]
    return EngineSample(state, generated, queries, hits)


def test_pool_stats_are_over_the_interval() -> None:
    before = [sample("engine-0", 10.0, 100, 50, 50), sample("engine-1", 10.0, 0, 0, 0)]
    after = [
        sample("engine-0", 12.0, 300, 150, 70, running=3, waiting=1, kv_use=0.25),
        sample("engine-1", 14.0, 200, 100, 80, running=2, waiting=0, kv_use=0.5),
    ]
    stats = pool_stats(before, after)
    assert stats.tokens_per_s == pytest.approx(200 / 2 + 200 / 4)
    assert (stats.running, stats.waiting, stats.kv_use, stats.interval_s) == (5, 1, 0.5, 4.0)
    assert stats.prefix_hit_rate == pytest.approx((20 + 80) / (100 + 100))
    assert [state.engine for state in stats.engines] == ["engine-0", "engine-1"]


def test_an_idle_interval_has_no_hit_rate_and_no_rate() -> None:
    same = [sample("engine-0", 10.0, 100, 50, 50)]
    stats = pool_stats(same, same)
    assert math.isnan(stats.prefix_hit_rate)
    assert stats.tokens_per_s == 0.0
    assert pool_stats([], []).kv_use == 0.0


def test_counters_add_up_steps() -> None:
    counters = Counters()
    prefix = types.SimpleNamespace(queries=10, hits=4, preempted_queries=2, preempted_hits=1)
    step = types.SimpleNamespace(
        num_running_reqs=2,
        num_waiting_reqs=3,
        num_skipped_waiting_reqs=1,
        kv_cache_usage=0.5,
        prefix_cache_stats=prefix,
    )
    batch = types.SimpleNamespace(num_generation_tokens=7, num_preempted_reqs=1)
    for _ in range(2):
        counters.scheduled(step)  # type: ignore[arg-type]
        counters.iterated(batch)  # type: ignore[arg-type]
    assert (counters.running, counters.waiting, counters.kv_use) == (2, 4, 0.5)
    assert (counters.prefix_queries, counters.prefix_hits) == (24, 10)
    assert (counters.generated, counters.preemptions) == (14, 2)
    counters.reset()
    assert counters.generated == 0


# -- imports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import engine, engine.types, engine.fixes, engine.actor.stats", ("ray", "vllm", "torch")),
        ("from engine import EnginePool", ("ray", "vllm")),
        ("import engine.actor.actor", ("ray", "vllm", "torch")),
    ],
)
@needs_engine
@pytest.mark.slow
def test_importing_costs_no_engine(statement: str, absent: tuple[str, ...]) -> None:
    code = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "written", "signal"),
    [
        ("Engine core initialization failed. Failed core proc(s): {'EngineCore': -9}", "", "SIGKILL"),
        ("Failed core proc(s): {'EngineCore_DP0': 1, 'EngineCore_DP1': -15}", "", "SIGTERM"),
        ("Failed core proc(s): {'EngineCore': -99}", "", "signal 99"),
        ("Failed core proc(s): {'EngineCore': 1}", "", ""),
        # Its end was seen before its exit code was there: killed, unless it has said why it failed.
        ("Failed core proc(s): {}", "(EngineCore pid=7) INFO: Initializing a V1 LLM engine", "a signal"),
        ("Failed core proc(s): {}", "(EngineCore pid=7) ValueError: no such model", ""),
        ("no memory: -9", "", ""),
    ],
)
def test_a_core_that_was_killed_while_it_loaded(text: str, written: str, signal: str, tmp_path: Path) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text(written)
    assert launch.killed_core(text, log) == signal
