"""JSONL and CSV logs, and the `trainer_state.json` of the Hugging Face Trainer.

A JSONL line is an object; nested ones are joined with "/", and the wrapping of verl's file logger
(`{"step": 3, "data": {...}}`) is taken off.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from console.importing.rows import Log, LogImportError, Row, flat, number, parse
from driftline.text import sanitize

STEPS: Final = (
    "step", "_step", "global_step", "training/global_step", "train/global_step", "trainer/global_step",
    "stats/completed_steps", "iteration", "iter", "update", "epoch_step",
)  # fmt: skip
_MOST, _LONGEST = 20, 40
"""Most names in a message, and most characters of each."""
TIMES: Final = ("time", "timestamp", "_timestamp", "wall_time", "created_at")


def jsonl(path: Path, step: str | None = None) -> Log:
    """A log of one JSON object a line. Raises LogImportError, OSError."""
    log = Log("JSONL", title=path.stem)
    lines: list[Mapping[str, Any]] = []
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                parsed = parse(line)
            except (ValueError, RecursionError):
                log.damaged += len(line)
                continue
            if isinstance(parsed, Mapping):
                lines.append(parsed)
    if not lines:
        raise LogImportError(f"{path}: no line of it is a JSON object")
    log.rows = _rows(path, map(_unwrapped, lines), step)
    return log


def trainer_state(path: Path, step: str | None = None) -> Log:
    """`log_history` of a `trainer_state.json`. Raises LogImportError, OSError."""
    try:
        parsed = parse(path.read_bytes())
        history = [line for line in parsed["log_history"] if isinstance(line, Mapping)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LogImportError(f"{path}: no log_history in it, as a Hugging Face Trainer writes it") from error
    return Log("Trainer state", _rows(path, history, step), path.parent.name)


def table(path: Path, step: str | None = None) -> Log:
    """A CSV file with a row of names. Raises LogImportError, OSError."""
    log = Log("CSV", title=path.stem)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            lines: list[Mapping[str, Any]] = [
                {name: _cell(cell) for name, cell in line.items() if name and isinstance(cell, str) and cell}
                for line in csv.DictReader(file)
            ]
        except csv.Error as error:
            raise LogImportError(f"{path}: not a CSV file: {error}") from error
    if not lines:
        raise LogImportError(f"{path}: no row in it")
    log.rows = _rows(path, lines, step)
    return log


def _unwrapped(line: Mapping[str, Any]) -> Mapping[str, Any]:
    data = line.get("data")
    return {**data, "step": line["step"]} if isinstance(data, Mapping) and "step" in line else line


def _cell(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _rows(path: Path, lines: Iterable[Mapping[str, Any]], step: str | None) -> list[Row]:
    rows = []
    names: dict[str, None] = {}
    for line in lines:
        values = flat(line, separator="/")
        names |= dict.fromkeys(line)
        key = step if step is not None else next((name for name in STEPS if name in values), None)
        at = values.pop(key, None) if key is not None else None
        if at is None or not abs(at) <= 2**53:  # NaN is not a step either
            continue
        moment = next((name for name in TIMES if name in line), None)
        time = _moment(line[moment]) if moment is not None else 0.0
        rows.append(Row(int(at), time, {n: v for n, v in values.items() if n not in STEPS and n != moment}))
    if not rows:
        wanted = f"'{step}'" if step is not None else f"any of {', '.join(STEPS)}"
        raise LogImportError(f"{path}: no line has a step under {wanted}; it has: {_shown(names)}")
    return rows


def _shown(names: Iterable[str]) -> str:
    """The first names, sanitised: the file may have any."""
    return ", ".join(sanitize(name)[:_LONGEST] for name in islice(names, _MOST))


def _moment(value: object) -> float:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            return 0.0
    return number(value) or 0.0
