"""Checks everything that can be checked before a run is started, and makes its directory. Nothing runs yet."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Final

from console.environments import defaults
from console.errors import USAGE, CommandError
from driftline import config as configuration
from driftline import environments, toml_file
from driftline.rundir import RunDir, RunError, create, runs_root

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
NEEDED: Final = ("torch", "ray", "vllm", "transformers")
"""Packages that engine and trainer import; searched for without importing it, which would take seconds."""


def load_config(path: Path) -> configuration.Config:
    """The configuration, if it can be run on this machine. Raises CommandError with exit code 2."""
    config = read_config(path)
    check_environments(config, path)
    _check_model(config, path)
    return config


def read_config(path: Path) -> configuration.Config:
    """As `load_config`, without running the Pythons of the engines' environments."""
    try:
        config = configuration.load(path)
    except configuration.ConfigError as error:
        raise CommandError(str(error), USAGE) from error
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise CommandError(
            f"a run needs {', '.join(missing)}, not installed here: pip install 'driftline[cpu]' or 'driftline[cuda]'",
            USAGE,
        )
    model = config.model.path
    if model and not Path(model).is_dir():
        raise CommandError(f"{path}: model.path: there is no directory {model}", USAGE)
    return config


def check_environments(config: configuration.Config, path: Path) -> dict[str, str]:
    """Run the Python of each environment that the engines are to run in, once; returns the version of each one's vLLM.

    Raises CommandError with exit code 2.
    """
    found: dict[str, str] = {}
    for engine in configuration.engine_configs(config.engine):
        named = engine.environment
        if named and named not in found:
            try:
                found[named] = environments.check(environments.find(named, os.environ))
            except environments.EnvironmentUnusableError as error:
                raise CommandError(f"{path}: engine.environment: {error}", USAGE) from error
    return found


def _check_model(config: configuration.Config, path: Path) -> None:
    """Whether each environment's vLLM has the architecture of a model that is named: an older one may not.

    Imports vLLM there, which takes some ten seconds: only where a run has both. Raises CommandError with exit code 2.
    """
    named = {engine.environment for engine in configuration.engine_configs(config.engine)} - {""}
    if not config.model.path or not named:
        return
    for one in sorted(named):
        environment = environments.find(one, os.environ)
        sentence = defaults.cannot_load(environment, defaults.declared(environment), Path(config.model.path))
        if sentence:
            raise CommandError(f"{path}: model.path: {sentence}", USAGE)


def check_name(name: str, option: str = "--name") -> str:
    """The first part of a run's id, given with `option`. Raises CommandError with exit code 2."""
    if not NAME.fullmatch(name):
        raise CommandError(f"{option}: '{name}' is not 1 to 31 lower-case letters, digits and hyphens", USAGE)
    return name


def make_run(name: str, config: Path | None = None) -> RunDir:
    """A fresh run directory, with a copy of the configuration as it is now. Raises CommandError."""
    text = ""
    if config is not None:
        try:
            text = toml_file.read(config, toml_file.TomlError)
        except toml_file.TomlError as error:
            raise CommandError(str(error), USAGE) from error
    check_name(name)
    try:
        run = create(runs_root(), name)
    except RunError as error:
        raise CommandError(str(error)) from error
    if config is not None:
        run.config.write_text(text, encoding="utf-8")
    return run
