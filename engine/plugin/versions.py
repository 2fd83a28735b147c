"""Everything that differs between vLLM versions, and everything that is taken from vLLM's inside.

What is there decides, not the number: a version lies between those of TESTED, or the plugin only reports, and within
that range each attribute is asked for before it is used. `tests/unit/data/vllm_interfaces/` holds what versions of
that range have of it, and `tests/unit/test_vllm_interfaces.py` runs this module against all of them. All functions
raise what vLLM raises; their callers answer for that.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import re
import sys
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from driftline.after_import import after_import
from engine.plugin.report import PROCESSED, CoreFacts

TESTED: Final = ("0.18.1", "0.32.0")
"""Versions that the plugin's tests have passed on, oldest first. Those in between are acted on too."""

V0: Final = "vllm.worker."
"""Modules of V0's workers and runners. Its engine is one of our own pool's or none: the plugin joins V1's alone."""
OUR_HEAD: Final = "_driftline_head"
"""Mark of vLLM's logits processor where `engine.plugin.own_head` computes its last projection."""
_NUMBER: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_MARK: Final = "_driftline"

Serve = Callable[[Any], Callable[[str], None]]
"""Called with an engine core, on the thread that steps it, before its first step; what it returns is called when the
core ends, with the reason as a clause, "" for an orderly end."""


Failed = Callable[[str], None]
"""Called with what this vLLM lacks, as a clause."""


def installed() -> str:
    """vLLM's version."""
    import vllm

    return str(vllm.__version__)


def untested(version: str) -> str:
    """Why nothing may be switched on this version, as a clause; "" where it may."""
    here, oldest, newest = number(version), TESTED[0], TESTED[-1]
    if here and number(oldest) <= here <= number(newest):
        return ""
    return f"vLLM {version} is outside of what this plugin was tested with ({oldest} to {newest}): it only reports here"


def number(version: str) -> tuple[int, ...]:
    """A version's three numbers; none for one that is not written so."""
    found = _NUMBER.match(version)
    return tuple(map(int, found.groups())) if found is not None else ()


# -- the way to the core ----------------------------------------------------------------------------------------------


def hook_cores(serve: Serve, failed: Failed) -> None:
    """See to it that every engine core of this process, and of those forked from it, is served. Twice is as once.

    `failed` is called where this vLLM has no such classes; nothing is raised.
    """

    def loops(module: ModuleType) -> None:
        found = [one for one in vars(module).values() if inspect.isclass(one) and "run_busy_loop" in vars(one)]
        if not found:
            failed(f"{module.__name__} has no core with a loop")
        for cls in found:
            _hook_loop(cls, serve)

    def clients(module: ModuleType) -> None:
        if hasattr(module, "InprocClient"):
            _hook_client(module.InprocClient, serve)

    after_import("vllm.v1.engine.core", _guarded(loops, failed))
    after_import("vllm.v1.engine.core_client", _guarded(clients, failed))


def _guarded(act: Callable[[ModuleType], None], failed: Failed) -> Callable[[ModuleType], None]:
    """What goes wrong here must not be vLLM's import that fails."""

    def guarded(module: ModuleType) -> None:
        try:
            act(module)
        except Exception as error:  # noqa: BLE001  whatever a class of another version does not let be set
            failed(f"{module.__name__} is not as expected: {type(error).__name__}: {error}")

    return guarded


def _hook_loop(cls: type[Any], serve: Serve) -> None:
    """A core in a process of its own: served for as long as its loop runs."""
    loop = vars(cls)["run_busy_loop"]
    if hasattr(loop, _MARK):
        return

    @functools.wraps(loop)
    def run_busy_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        if hasattr(self, _MARK):  # an overriding loop has called this one
            return loop(self, *args, **kwargs)
        setattr(self, _MARK, True)
        ended = serve(self)
        why = ""
        try:
            return loop(self, *args, **kwargs)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise
        finally:
            ended(why)

    setattr(run_busy_loop, _MARK, True)
    # Attributes of vLLM's classes can only be set by name for a type checker.
    setattr(cls, "run_busy_loop", run_busy_loop)  # noqa: B010


def _hook_client(cls: type[Any], serve: Serve) -> None:
    """A core in its caller's process (VLLM_ENABLE_V1_MULTIPROCESSING=0): served until the process ends."""
    build = cls.__init__
    if hasattr(build, _MARK):
        return

    @functools.wraps(build)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  it takes the place of one
        build(self, *args, **kwargs)
        atexit.register(serve(self.engine_core), "")

    setattr(__init__, _MARK, True)
    setattr(cls, "__init__", __init__)  # noqa: B010  as above


def core_of_this_process() -> Any:
    """The core whose loop the main thread is in, found by looking, with nothing changed; None where there is none."""
    main = threading.main_thread().ident
    frame = sys._current_frames().get(main or 0)
    while frame is not None:
        if frame.f_code.co_name == "run_busy_loop":
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


def run_between_steps(core: Any, jobs: Callable[[], None]) -> Callable[[Any], None]:
    """Have the core run callables on its own thread between two steps; returns the way to hand one over.

    A core with a loop takes them from the queue of its clients' requests, which wakes it where it is idle. One in its
    caller's process looks before each step (`jobs` runs what has been handed over).
    """
    if hasattr(core, "input_queue") and hasattr(core, "_handle_client_request"):
        from vllm.v1.engine import EngineCoreRequestType

        handle = core._handle_client_request

        @functools.wraps(handle)
        def handle_client_request(kind: Any, request: Any) -> None:
            if request is jobs:
                jobs()
            else:
                handle(kind, request)

        core._handle_client_request = handle_client_request
        kind = getattr(EngineCoreRequestType, "WAKEUP", EngineCoreRequestType.UTILITY)
        return lambda _: core.input_queue.put_nowait((kind, jobs))
    step = core.step_fn

    @functools.wraps(step)
    def step_fn(*args: Any, **kwargs: Any) -> Any:
        jobs()
        return step(*args, **kwargs)

    core.step_fn = step_fn
    return lambda _: None


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> bool:
    """Put `make(method)` in the place of a method of this one object, signature and all; False where it has none."""
    method = getattr(owner, name, None)
    if method is None:
        return False
    setattr(owner, name, functools.wraps(method)(make(method)))
    return True


def has_loop(core: Any) -> bool:
    """Whether the core takes a job while it is idle."""
    return hasattr(core, "input_queue")


# -- reading the core -------------------------------------------------------------------------------------------------


def queue_lengths(core: Any) -> tuple[int, int]:
    """Requests that run, and that wait."""
    scheduler = core.scheduler
    if hasattr(scheduler, "get_request_counts"):
        running, waiting = scheduler.get_request_counts()
        return int(running), int(waiting) + len(getattr(scheduler, "deferred_waiting", ()))
    skipped = getattr(scheduler, "skipped_waiting", ())
    return len(scheduler.running), len(scheduler.waiting) + len(skipped)


def tokens_in_flight(core: Any) -> int:
    """Tokens that requests which have not ended have been given. From any thread."""
    requests = getattr(core.scheduler, "requests", None)
    return sum(request.num_output_tokens for request in list(requests.values())) if requests else 0


def kv_use(core: Any) -> float:
    """The used part of the KV cache, 0 to 1."""
    return float(core.scheduler.kv_cache_manager.usage)


def paused(core: Any) -> bool:
    """Whether the scheduler gives out no steps."""
    return bool(core.is_scheduler_paused()) if hasattr(core, "is_scheduler_paused") else False


def asleep(core: Any) -> bool:
    """Whether the weights are off the device: what reads them then may take the process down."""
    return bool(getattr(core.model_executor, "is_sleeping", False))


def pauses_alone(core: Any) -> bool:
    """Whether this core may stand still without others: ranks of data-parallel experts step together.

    Those count their common steps, in every version; agreeing on a pause (`pending_pause`) is newer than 0.20.2.
    """
    return not hasattr(core, "step_counter")


def weight_version(core: Any) -> int:
    """The label of the weights, where it is a number; -1 where there is none, or another word."""
    label = str(core.get_weight_version()) if hasattr(core, "get_weight_version") else ""
    return int(label) if label.isascii() and label.isdigit() and len(label) < 16 else -1


def read_core(core: Any) -> CoreFacts:
    """What does not change while the engine lives, from its configuration as vLLM has resolved it."""
    from vllm.platforms import current_platform

    config = core.vllm_config
    model = config.model_config
    cascade = getattr(model, "disable_cascade_attn", None)
    asynchronous = getattr(config.scheduler_config, "async_scheduling", None)
    caching = getattr(config.cache_config, "enable_prefix_caching", None)
    return CoreFacts(
        platform=str(current_platform.device_type),
        vllm=installed(),
        prefix_caching=None if caching is None else bool(caching),
        async_scheduling=None if asynchronous is None else bool(asynchronous),
        cascade_attention=None if cascade is None else not cascade,
        sampling_source="generation_config=" + str(getattr(model, "generation_config", "?")),
    )


def sampling_defaults(core: Any) -> dict[str, Any] | None:
    """Sampling parameters that a request gets where it names none; None where this vLLM does not say.

    Reads files of the model; not for the thread that steps.
    """
    model = core.vllm_config.model_config
    return dict(model.get_diff_sampling_param()) if hasattr(model, "get_diff_sampling_param") else None


# -- a worker, in its process -----------------------------------------------------------------------------------------


def hook_workers(methods: dict[str, Callable[..., Any]], failed: Failed) -> None:
    """Give every worker of this process, and of those forked from it, these methods: `collective_rpc` finds them."""

    def workers(module: ModuleType) -> None:
        if not hasattr(module, "WorkerBase"):
            failed(f"{module.__name__} has no WorkerBase")
            return
        for name, method in methods.items():
            setattr(module.WorkerBase, name, method)

    after_import("vllm.v1.worker.worker_base", _guarded(workers, failed))
    after_import("vllm.worker.worker_base", _guarded(workers, failed))  # V0's


def hook_transfer_engines(engines: Mapping[str, tuple[str, str]], failed: Failed) -> None:
    """Let vLLM's factory of weight-transfer engines know these: name to module and class, imported when asked for."""

    def factories(module: ModuleType) -> None:
        factory = module.WeightTransferEngineFactory
        for name, (place, cls) in engines.items():
            if name not in factory._registry:
                factory.register_engine(name, place, cls)

    after_import("vllm.distributed.weight_transfer.factory", _guarded(factories, failed))


def logprobs_modes(runner: Any) -> list[str]:
    """The mode of every part of a model runner that returns logprobs; of one that is as it should be they agree."""
    if runner_kind(runner) == "V0":
        return [PROCESSED]  # `model_executor/layers/sampler.py`: log_softmax after penalties and temperature
    sampler = runner.sampler
    parts = [sampler, getattr(sampler, "topk_topp_sampler", None), getattr(runner, "prompt_logprobs_worker", None)]
    modes = [getattr(part, "logprobs_mode", None) for part in parts if part is not None]
    return sorted({str(mode) for mode in modes if mode is not None})


def set_logprobs_mode(runner: Any, mode: str) -> None:
    """Set the mode in every part that has one, in place: other parts hold references to the sampler.

    Raises ValueError on V0, whose sampler has one alone.
    """
    if runner_kind(runner) == "V0":
        if mode != PROCESSED:
            raise ValueError("V0's sampler returns logprobs of the processed distribution, and no others")
        return
    runner.model_config.logprobs_mode = mode  # prompt logprobs of the first model runner
    sampler = runner.sampler
    sampler.logprobs_mode = mode
    if hasattr(sampler, "topk_topp_sampler"):
        # This one chooses its kernels by mode when it is built.
        part = sampler.topk_topp_sampler
        known = inspect.signature(type(part).__init__).parameters
        extra = {name: getattr(part, name) for name in ("use_fp64_gumbel",) if name in known and hasattr(part, name)}
        sampler.topk_topp_sampler = type(part)(logprobs_mode=mode, **extra)
    if hasattr(runner, "prompt_logprobs_worker"):
        runner.prompt_logprobs_worker.logprobs_mode = mode
    rejection: Any = getattr(runner, "rejection_sampler", None)
    if hasattr(rejection, "is_processed_logprobs_mode"):
        rejection.is_processed_logprobs_mode = mode.startswith("processed")
    if hasattr(rejection, "is_logits_logprobs_mode"):
        rejection.is_logits_logprobs_mode = mode.endswith("logits")


def heads(runner: Any) -> tuple[list[str], bool, str]:
    """Dtypes of the last projections, whether this vLLM has a dtype of its own for them, and who computes them.

    The last is "" where vLLM's own code does, or ours in a pool's engine, else the module that has put itself there.
    """
    from vllm.model_executor.layers.logits_processor import LogitsProcessor

    ours = bool(getattr(LogitsProcessor, OUR_HEAD, False))
    own = {LogitsProcessor.__module__} | ({"engine.plugin.own_head"} if ours else set())
    methods = [getattr(LogitsProcessor, name, None) for name in ("forward", "_get_logits", "_apply_head")]
    foreign = sorted({method.__module__ for method in methods if method is not None and method.__module__ not in own})
    body = runner.model_config.dtype
    modules = list(runner.get_model().modules())
    found = [module for module in modules if isinstance(module, LogitsProcessor)]
    # A framework may also bring a quantization of its own for the last layer alone, as PipelineRL does.
    methods = [getattr(one, "quant_method", None) for one in modules if type(one).__name__ == "ParallelLMHead"]
    places = {type(method).__module__ for method in methods if method is not None}
    foreign += sorted(place for place in places if not place.startswith("vllm."))
    dtypes = {getattr(one, "head_dtype", None) or body for one in found}
    switch = any(hasattr(one, "head_dtype") for one in found) and not ours
    return sorted(str(one).removeprefix("torch.") for one in dtypes), switch, ", ".join(foreign)


def our_head(runner: Any) -> bool:
    """Whether the last projection is computed by `engine.plugin.own_head`."""
    processors = [one for one in runner.get_model().modules() if type(one).__name__ == "LogitsProcessor"]
    return any(getattr(one, OUR_HEAD, False) for one in processors)


def set_head_dtype(runner: Any, name: str) -> None:
    """Compute the last projection in this dtype. Raises ValueError for a quantized one, or a model that has none."""
    import torch
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.logits_processor import LogitsProcessor
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

    model, dtype = runner.get_model(), getattr(torch, name)
    processors = [module for module in model.modules() if isinstance(module, LogitsProcessor)]
    if not processors:
        raise ValueError(f"{type(model).__name__} has no logits processor")
    if dtype != runner.model_config.dtype:
        if not all(hasattr(processor, "head_dtype") for processor in processors):
            raise ValueError(f"vLLM {installed()} has no dtype of its own for the last projection")
        # vLLM would raise in the middle of a step, which ends the engine.
        plain = (UnquantizedEmbeddingMethod, UnquantizedLinearMethod)
        for path, layer in model.named_modules():
            if isinstance(layer, VocabParallelEmbedding) and not isinstance(layer.quant_method, plain):
                raise ValueError(f"{path} is quantized; its projection stays in the model's dtype")
    for processor in processors:
        processor.head_dtype = dtype


def runner_kind(runner: Any) -> str:
    """Which of vLLM's model runners this is: V1's two, or V0's."""
    if type(runner).__module__.startswith(V0):
        return "V0"
    return "V2" if ".worker.gpu." in type(runner).__module__ else "V1"
