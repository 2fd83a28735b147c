"""`driftline config`: the operator's own configuration, its effective values and their origins."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from console.errors import OK, USAGE, CommandError
from console.formatting import to_json
from console.launch.preflight import check_environments, read_config
from console.settings import file
from driftline.config import engine_configs


def show(args: argparse.Namespace) -> int:
    """Print every key with its value and where that comes from: default, file, environment or option.

    --json prints {`path`, `exists`, `settings`: {KEY: {`value`, `from`}}}.
    """
    found = _load({name: getattr(args, name) for name in ("theme", "marker", "fps")})
    rows = list(found.rows())
    if args.json:
        settings = {name: {"value": value, "from": origin} for name, value, origin in rows}
        print(to_json({"path": str(found.path), "exists": found.exists, "settings": settings}))
        return OK
    print(f"{found.path}{'' if found.exists else ' (does not exist: defaults)'}")
    width = max(len(name) for name, _, _ in rows)
    for name, value, origin in rows:
        text = {True: "true", False: "false", "": "-"}.get(value, value) if isinstance(value, bool | str) else value
        print(f"{name:<{width}}  {text!s:<24}  {origin}")
    return OK


def path(_args: argparse.Namespace) -> int:
    """Print where the file is, or would be."""
    print(file.path(os.environ))
    return OK


def check(args: argparse.Namespace) -> int:
    """Print whether the file can be used, yours or the configuration of a run; exit code 2 with one sentence if not.

    Of a run also what it needs of this machine is looked for: packages, the model, the environments of its engines.
    """
    if args.run is not None:
        return _check_run(args.run)
    found = _load({})
    print(f"{found.path}: {'can be used' if found.exists else 'does not exist; the defaults apply'}")
    return OK


def _check_run(path: Path) -> int:
    config = read_config(path)
    vllm = check_environments(config, path)
    print(f"{path}: can be used")
    if config.engine.each or vllm:
        for index, engine in enumerate(engine_configs(config.engine)):
            where = f"environment {engine.environment}, vLLM {vllm[engine.environment]}" if engine.environment else ""
            print(f"  engine-{index}: {where or 'in the environment of the trainer'}")
    return OK


def keys(args: argparse.Namespace) -> int:
    """Print the bindings by id with their keys, as `[keys]` names them. --json prints an array of the same."""
    from console.settings.keymap import ident, mapped

    rows = [
        {"id": ident(key), "keys": key.shown, "acts_on_run": key.acts_on_run, "description": key.description}
        for key in mapped(_load({}).settings.keys)
    ]
    if args.json:
        print(to_json(rows))
        return OK
    width = max(len(str(row["id"])) for row in rows)
    for row in rows:
        print(f"{row['id']:<{width}}  {row['keys']:<10}  {row['description']}")
    return OK


def _load(options: dict[str, object]) -> file.Effective:
    try:
        found = file.load(os.environ, options)
        file.check_keys(found)
    except file.ConfigError as error:
        raise CommandError(str(error), USAGE) from error
    return found
