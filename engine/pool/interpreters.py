"""Which Python each engine runs on, and how its actor finds Driftline's code there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import driftline
from driftline import environments
from driftline.config import EngineConfig, engine_configs
from driftline.environments import Environment, EnvironmentUnusableError
from engine.types import EngineError, engine_names

CODE: Final = "code"
"""Folder beside the logs with links to the packages that an actor of another environment imports."""


@dataclass(frozen=True)
class OwnSpec:
    """What one engine's spec has of its own; `dtype` is what its model is loaded in."""

    config: EngineConfig
    dtype: str
    environment: Environment | None


def own_specs(config: EngineConfig, dtype: str, environ: Mapping[str, str]) -> dict[str, OwnSpec]:
    """The part of each engine's spec that is its own, by name. `dtype` is the model's.

    Runs the Python of each environment once. Raises EngineError for one that no engine can run in.
    """
    found: dict[str, OwnSpec] = {}
    made: dict[str, Environment | None] = {"": None}
    for name, one in zip(engine_names(config.count), engine_configs(config), strict=True):
        if one.environment not in made:
            try:
                environment = environments.find(one.environment, environ)
                environments.check(environment)
            except EnvironmentUnusableError as error:
                raise EngineError(f"{name}: engine.environment: {error}") from error
            made[one.environment] = environment
        found[name] = OwnSpec(one, dtype if one.dtype == "model" else one.dtype, made[one.environment])
    return found


def packages() -> list[Path]:
    """Folders of the packages that an actor imports."""
    return [Path(str(driftline.__file__)).parent, Path(__file__).resolve().parents[1]]


def runtime_options(environment: Environment | None, folder: Path) -> dict[str, Any]:
    """Options of a Ray actor that runs in an environment; none for the driver's own.

    The actor needs `driftline` and `engine`, and nothing else of what is installed here: where they lie among other
    packages, only links to them go on its path.
    """
    if environment is None:
        return {}
    here = packages()
    parents = {package.parent for package in here}
    if any(parent.name in ("site-packages", "dist-packages") for parent in parents):
        links = folder / CODE
        links.mkdir(exist_ok=True)
        for package in here:
            if not (links / package.name).exists():
                (links / package.name).symlink_to(package)
        parents = {links}
    path = [*sorted(map(str, parents)), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {
        "runtime_env": {
            "py_executable": str(environment.python),
            "env_vars": {"PYTHONPATH": os.pathsep.join(dict.fromkeys(os.pathsep.join(path).split(os.pathsep)))},
        }
    }
