"""The defaults that a vLLM declares, asked of its own interpreter."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from console.errors import CommandError
from driftline import bounded_file
from driftline.environments import Environment

LIMIT_S: Final = 120.0
"""Importing vLLM takes some seconds, on a busy machine some ten."""
_MOST: Final = 80
_CONFIG_BYTES: Final = 16 << 20

_ASK: Final = """
import dataclasses, gc, json
gc.disable()  # a fifth of the import, and the process ends right after it
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
import msgspec
found = {}
for one in dataclasses.fields(EngineArgs):
    if one.default is not dataclasses.MISSING:
        found[one.name] = one.default
for one in msgspec.structs.fields(SamplingParams):
    if not one.name.startswith("_") and one.default is not msgspec.NODEFAULT:
        found["SamplingParams." + one.name] = one.default
try:
    from vllm.model_executor.models import ModelRegistry
    known = sorted(ModelRegistry.get_supported_archs())
except Exception:
    known = []
plain = (bool, int, float, str, type(None))
plainly = {name: repr(value) for name, value in found.items() if isinstance(value, plain)}
print("driftline:" + json.dumps({"defaults": plainly, "architectures": known}))
"""


@dataclass(frozen=True)
class Declared:
    """Plain defaults of `EngineArgs` and `SamplingParams`, by name, as Python writes them, and the architectures of

    models that it has; none where it does not say.
    """

    defaults: dict[str, str]
    architectures: frozenset[str]


def cannot_load(environment: Environment, declared: Declared, model: Path) -> str:
    """Why this vLLM cannot load a model, as a sentence; "" where nothing is known against it."""
    try:
        config = json.loads(bounded_file.read(model / "config.json", _CONFIG_BYTES))
        wanted = [str(one) for one in config.get("architectures") or []]
    except (OSError, ValueError, AttributeError, TypeError):
        return f"{model}: holds no config.json that can be read; a local Hugging Face model directory is needed"
    if not wanted or not declared.architectures or declared.architectures & set(wanted):
        return ""
    return f"{model}: the vLLM of {environment.named} has no {' or '.join(wanted)}, which this model is"


def declared(environment: Environment) -> Declared:
    """Ask it. Raises CommandError."""
    environ = {**os.environ, **environment.variables, "CUDA_VISIBLE_DEVICES": "", "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        done = subprocess.run(
            [str(environment.python), "-c", _ASK], capture_output=True, timeout=LIMIT_S, check=False,
            stdin=subprocess.DEVNULL, env=environ,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{environment.named}: its vLLM was not asked for its defaults: {error}") from error
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    answer = next((line for line in lines if line.startswith("driftline:")), "")
    if not answer:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise CommandError(f"{environment.named}: its vLLM does not import: {last[0][:200] if last else 'no answer'}")
    found = json.loads(answer.removeprefix("driftline:"))
    plain = {name: value[:_MOST] for name, value in found["defaults"].items()}
    return Declared(plain, frozenset(found["architectures"]))
