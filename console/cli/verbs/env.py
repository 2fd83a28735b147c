"""`driftline env`: environments of other vLLM versions, made from the repository's pins."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

from console.environments import known, machine, make, place
from console.environments.command import EndedBySignalError
from console.environments.known import Known
from console.environments.place import Record
from console.errors import OK, USAGE, CommandError
from console.formatting import to_json
from console.process.signals import Signals


def add(args: argparse.Namespace) -> int:
    """Make an environment, check it, and print what it took; one that is there already is left as it is.

    One that was left half made is made anew. Exit code 1, with a sentence, where something is missing or in the way.
    """
    wanted = _known(args.name)
    folder = place.root(os.environ) / wanted.name
    with place.claimed(folder) as mine, Signals() as signals:
        if not mine:
            raise CommandError(f"{wanted.name} is just being made or removed by another process")
        there = place.record(folder)
        if there is not None:
            print(f"{wanted.name} is there: {_words(there, folder)}{_aged(wanted, there)}")
            return OK
        if place.installed(folder, make.pins_digest(wanted)):
            print(f"{folder} was installed and not checked: only that is done now", flush=True)
        elif folder.exists():
            print(f"{folder} was left half made: it is removed and made anew", flush=True)
            shutil.rmtree(folder)
        wish = make.Wish(
            wanted, folder, args.python, os.environ.get("TORCH_INDEX", ""), args.repair, args.build or machine.build()
        )
        try:
            made = make.make(wish, _say, signals)
        except EndedBySignalError as ended:
            raise CommandError(
                f"ended by a signal; what there is of {wanted.name} counts as half made", ended.exit_code
            ) from None
    print(f"{wanted.name}: {_words(made, folder)}")
    for name, value in made.variables.items():
        print(f"  a process that runs vLLM in it needs {name}={value}")
    return OK


def list_environments(args: argparse.Namespace) -> int:
    """Every environment that can be made, and what there is of it.

    With --json one array of {"name", "vllm", "path", "state" (made, half made, not made), "bytes", "seconds", "torch",
    "python", "build", "current"}; `current` says whether it was made from the pins as they are now.
    """
    root = place.root(os.environ)
    rows = []
    for one in known.ALL.values():
        folder = root / one.name
        there = place.record(folder)
        state = "made" if there is not None else "half made" if folder.exists() else "not made"
        rows.append((one, folder, there, state))
    if args.json:
        print(to_json([_document(*row) for row in rows]))
        return OK
    for one, folder, there, state in rows:
        if there is not None:
            detail = _words(there, folder) + _aged(one, there)
        else:
            detail = f"about {one.disk_gb:.1f} GB without TORCH_INDEX"
        print(f"{one.name:18}  {state:9}  {detail}")
    return OK


def remove(args: argparse.Namespace) -> int:
    """Delete an environment, whole or half made. Refused while processes run in it."""
    wanted = _known(args.name)
    folder = place.root(os.environ) / wanted.name
    with place.claimed(folder) as mine:
        if not mine:
            raise CommandError(f"{wanted.name} is just being made or removed by another process")
        if not folder.exists():
            raise CommandError(f"there is no {folder}")
        if pids := place.users(folder):
            raise CommandError(f"{wanted.name} is in use by process {', '.join(map(str, pids[:8]))}")
        size = place.size(folder)
        place.remove(folder)
    print(f"removed {folder}: {size / 1e9:.1f} GB")
    return OK


def _known(name: str) -> Known:
    found = known.find(name)
    if found is None:
        raise CommandError(known.unknown(name), USAGE)
    return found


def _say(text: str) -> None:
    print(text, flush=True)


def _words(made: Record, folder: Path) -> str:
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(made.made))
    what = f"vLLM {made.vllm}, torch {made.torch}"
    return f"{what}, {made.bytes / 1e9:.1f} GB, made in {made.seconds:.0f} s on {day}, {folder}"


def _aged(wanted: Known, there: Record) -> str:
    current = make.pins_digest(wanted) == there.pins
    return "" if current else "; made from other pins than the repository has now: remove it and add it again"


def _document(one: Known, folder: Path, there: Record | None, state: str) -> dict[str, object]:
    return {
        "name": one.name,
        "vllm": one.version if there is None else there.vllm,
        "path": str(folder),
        "state": state,
        "bytes": None if there is None else there.bytes,
        "seconds": None if there is None else there.seconds,
        "torch": None if there is None else there.torch,
        "python": None if there is None else there.python,
        "build": None if there is None else there.build,
        "current": None if there is None else make.pins_digest(one) == there.pins,
    }
