"""JSONL logs, and the `trainer_state.json` of the Hugging Face Trainer.

A JSONL line is an object; nested ones are joined with "/", and the wrapping of verl's file logger
(`{"step": 3, "data": {...}}`) is taken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from console.importing import files
from console.importing.moments import find, unix_seconds
from console.importing.rows import NO_TIME, LeftOut, Log, LogImportError, Record, number, parse, record
from console.importing.steps import COUNTED, COUNTER

STATE: Final = "trainer_state.json"
NO_OBJECT: Final = "lines that are no JSON object"


def jsonl(path: Path) -> Log:
    """A log of one JSON object a line. Raises LogImportError, OSError."""
    log = Log("JSONL", title=path.stem)
    lines = 0
    for line in files.lines(path):
        if not line.strip():
            continue
        try:
            parsed = parse(line)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, Mapping):
            log.damaged += len(line)
            log.left.add(NO_OBJECT)
            continue
        lines += 1
        add(log, _unwrapped(parsed))
    if not lines:
        raise LogImportError(f"{path}: no line of it is a JSON object")
    return log


def trainer_state(path: Path) -> Log:
    """`log_history` of a `trainer_state.json`. Raises LogImportError, OSError."""
    try:
        history = parse(files.read(path))["log_history"]
        lines: list[Mapping[str, Any]] = [line for line in history if isinstance(line, Mapping)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LogImportError(f"{path}: no log_history in it, as a Hugging Face Trainer writes it") from error
    log = Log("Trainer state", title=path.parent.name)
    for line in lines:
        add(log, line)
    return log


def add(log: Log, entry: Mapping[str, Any], counter: float | None = None) -> None:
    """Add one entry of a log as a record, with its time and W&B's own step taken out."""
    found = entry_record(entry, log.left)
    if found is None:
        return
    found.counter = counter
    if counter is None and COUNTER in found.values:
        found.counter = found.values.pop(COUNTER)
        log.counter, log.counted = COUNTER, COUNTED
    log.records.append(found)


def entry_record(entry: Mapping[str, Any], left: LeftOut, separator: str = "/") -> Record | None:
    """An entry's numbers and its time; None where a name is no valid text. Nested names are joined by `separator`."""
    rest, time = dict(entry), 0.0
    for name in find(rest):
        seconds = unix_seconds(rest[name])
        if seconds is not None:
            time = seconds
            del rest[name]
            break
        if isinstance(rest[name], str) and rest[name] and number(rest[name]) is None:
            left.add(NO_TIME, name)
            del rest[name]
    found = record(rest, left, separator)
    if found is not None:
        found.time = time
    return found


def _unwrapped(line: Mapping[str, Any]) -> Mapping[str, Any]:
    data = line.get("data")
    return {**data, "step": line["step"]} if isinstance(data, Mapping) and "step" in line else line
