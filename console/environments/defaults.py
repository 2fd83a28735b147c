"""The defaults that a vLLM declares, asked of its own interpreter."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Final

from console.errors import CommandError
from driftline.environments import Environment

LIMIT_S: Final = 120.0
"""Importing vLLM takes some seconds, on a busy machine some ten."""
_MOST: Final = 80

_ASK: Final = """
import dataclasses, json
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
plain = (bool, int, float, str, type(None))
print("driftline:" + json.dumps({name: repr(value) for name, value in found.items() if isinstance(value, plain)}))
"""


def declared(environment: Environment) -> dict[str, str]:
    """Plain defaults of `EngineArgs` and `SamplingParams`, by name, as Python writes them. Raises CommandError."""
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
    found: dict[str, str] = json.loads(answer.removeprefix("driftline:"))
    return {name: value[:_MOST] for name, value in found.items()}
