"""The logs in a folder and below, as the runs that they are of: several are told apart, parts of one are put together.

W&B's files are of one run where they have its id. Other logs are parts of one run where they have no name in common
(several writers), or where each goes on with the one before (a run that was resumed).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, pairwise
from math import nan
from pathlib import Path
from statistics import median
from typing import Final

from console.importing import console_logs, csv_logs, json_logs, tensorboard, wandb
from console.importing.files import lines
from console.importing.rows import Log, LogImportError, Row, SeveralRunsError, parse
from console.importing.steps import COUNTER, in_order, is_step, place
from driftline.text import plural, sanitize

TABLES: Final = (".jsonl", ".ndjson", ".csv", ".tsv")
_MOST_FILES, _DEEPEST = 50_000, 8
_SHOWN: Final = 6
_SNIFFED: Final = 20
_WRITERS: Final = frozenset({"train", "training", "eval", "evaluation", "val", "valid", "validation", "test"})
"""Folders that writers of one run make beside each other."""
_LAUNCH: Final = re.compile(r"[A-Z][a-z]{2}\d{2}_\d{2}-\d{2}-\d{2}_")
"""Folder of one launch as the Hugging Face Trainer names it: `Nov28_10-00-00_host`."""
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")


@dataclass
class Part:
    """One log of a run, placed by steps; `name` is its path in the folder."""

    name: str
    log: Log

    @property
    def names(self) -> set[str]:
        return {name for name in self.log.names() if not is_step(name)}

    @property
    def first(self) -> int:
        return min(row.step for row in self.log.rows)

    @property
    def last(self) -> int:
        return max(row.step for row in self.log.rows)

    @property
    def begin(self) -> float:
        return next((row.time for row in self.log.rows if row.time > 0), 0.0)

    @property
    def end(self) -> float:
        return max(row.time for row in self.log.rows)

    @property
    def every(self) -> float:
        """How many steps lie between two reports; NaN for a single one."""
        gaps = [two.step - one.step for one, two in pairwise(self.log.rows)]
        return float(median(gaps)) if gaps else nan


@dataclass(frozen=True)
class Wanted:
    """What was asked for: the step's name, and one of several runs; None where that is to be found."""

    step: str | None = None
    only: str | None = None


Runs = dict[str, list[Part]]


def read(path: Path, step: str | None = None, only: str | None = None) -> Log:
    """The one run whose logs are in a folder, or the one named `only`. Raises LogImportError, OSError."""
    unreadable: list[OSError] = []
    files = _files(path, unreadable)
    kinds: list[tuple[str, list[Path], Callable[[Path, list[Path], Wanted], Runs]]] = [
        ("W&B file", [one for one in files if one.suffix == wandb.SUFFIX], _wandb),
        ("event file", [one for one in files if tensorboard.MARK in one.name], _tensorboard),
        ("trainer_state.json", [one for one in files if one.name == json_logs.STATE], _states),
        ("JSONL or CSV log", [one for one in files if one.suffix in TABLES and _is_log(one)], _tables),
    ]
    found = [kind for kind in kinds if kind[1]]
    if not found:
        logs = [one for one in files if one.suffix in console_logs.SUFFIXES and console_logs.is_one(one)]
        if not logs:
            raise LogImportError(
                f"{path}: no log in it: neither a W&B run (*{wandb.SUFFIX}) nor event files (*{tensorboard.MARK}*), "
                f"{json_logs.STATE}, JSONL, CSV or a console log"
            )
        found = [("console log", logs, _tables)]
    runs = found[0][2](path, found[0][1], Wanted(step, only))
    log = _join(_chosen(path, runs, only))
    log.title = log.title or path.resolve().name
    log.notes += [f"not read: {plural(len(paths), word)} of the same folder" for word, paths, _ in found[1:]]
    log.notes += [f"not read: {error.filename}: {error.strerror}" for error in unreadable]
    return log


def _files(path: Path, unreadable: list[OSError]) -> list[Path]:
    """Files in a folder and below, without hidden folders and links (W&B's `latest-run` is one).

    Folders that cannot be listed are added to `unreadable`.
    """

    def walk() -> Iterator[Path]:
        for folder, below, names in os.walk(path, onerror=unreadable.append):
            here = Path(folder)
            deep = len(here.relative_to(path).parts) >= _DEEPEST
            below[:] = [] if deep else sorted(one for one in below if not one.startswith("."))
            yield from (here / name for name in sorted(names) if not name.startswith("."))

    return [one for one in islice(walk(), _MOST_FILES) if one.is_file()]


def _chosen(path: Path, runs: Runs, only: str | None) -> list[Part]:
    if not runs:
        raise LogImportError(f"{path}: no entry of its logs has a step and a number")
    if only is not None:
        found = [
            some
            for name, some in runs.items()
            if only in (name, Path(name).name, *(part.name for part in some), *(part.log.run for part in some))
        ]
        parts = runs.get(only) or (found[0] if len(found) == 1 else None)
        if parts is None:
            raise LogImportError(f"{path}: there is no run '{sanitize(only)}' in it; it has: {_listed(runs)}")
        return parts
    if len(runs) > 1:
        raise SeveralRunsError(
            f"{path}: {len(runs)} runs in it: {_listed(runs)}; name one by its path, or with --only NAME"
        )
    return next(iter(runs.values()))


def _listed(runs: Runs) -> str:
    more = f" and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return ", ".join(sanitize(name) for name in islice(runs, _SHOWN)) + more


def _join(parts: Sequence[Part]) -> Log:
    first = parts[0].log
    if len(parts) == 1:
        return first
    joined = Log(first.kind, title=first.title, counter=first.counter, counted=first.counted, run=first.run)
    joined.notes.append(f"parts of one run: {', '.join(sanitize(part.name) for part in parts)}")
    rows: list[Row] = []
    for part in parts:
        rows += part.log.rows
        joined.config |= part.log.config
        joined.axes |= part.log.axes
        joined.damaged += part.log.damaged
        joined.notes += [note for note in part.log.notes if note not in joined.notes]
        joined.left.merge(part.log.left)
    joined.rows = in_order(rows, joined)
    return joined


def _name(root: Path, one: Path) -> str:
    name = one.relative_to(root).as_posix()
    return root.resolve().name if name == "." else name


def _placed(name: str, log: Log, wanted: Wanted, others: list[str]) -> list[Part]:
    """A log as a part; nothing where none of its entries has a step, which is noted in `others`."""
    try:
        place(log, wanted.step)
    except LogImportError as error:
        others.append(f"{name}: {error}")
        return []
    return [Part(name, log)]


def _wandb(root: Path, files: list[Path], wanted: Wanted) -> Runs:
    runs: Runs = {}
    failed: list[str] = []
    for one in files:
        try:
            log = wandb.read(one)
        except LogImportError as error:
            failed.append(str(error))
            continue
        name = _name(root, one if one.parent == root else one.parent)
        run = log.run or one.stem
        for part in _placed(name, log, wanted, failed):
            runs.setdefault(run, []).append(part)
    if not runs:
        raise LogImportError(f"{root}: {failed[0]}")
    for parts in runs.values():
        parts.sort(key=lambda part: (part.begin, part.name))
        parts[0].log.notes += [f"not read: {reason}" for reason in failed]
    # Runs are named by the folder in which one finds them.
    return {parts[0].name: parts for parts in runs.values()}


def _tensorboard(root: Path, files: list[Path], wanted: Wanted) -> Runs:
    folders = sorted({one.parent for one in files})
    logs = {folder: tensorboard.read([one for one in files if one.parent == folder], folder.name) for folder in folders}
    tags = {folder: {tag for record in log.records for tag in record.values} for folder, log in logs.items()}
    owners: dict[Path, Path] = {}
    for folder in folders:
        above = next((one for one in folder.parents if one in logs), None)
        if folder.name.lower() in _WRITERS and folder != root:
            owners[folder] = folder.parent
        elif above is not None and tags[folder].isdisjoint(tags[above]):
            owners[folder] = owners[above]
        else:
            owners[folder] = folder
    runs: Runs = {}
    failed: list[str] = []
    for folder, log in logs.items():
        if not log.records:
            failed.append(f"{_name(root, folder)}: no scalar")
            continue
        owner = owners[folder]
        if folder != owner and list(owners.values()).count(owner) > 1:
            _prefix(log, f"{folder.relative_to(owner).as_posix()}/")
        for part in _placed(_name(root, folder), log, wanted, failed):
            runs.setdefault(_name(root, owner), []).append(part)
    if not runs and failed:
        raise LogImportError(f"{root}: contains no number (TensorBoard): {failed[0]}")
    # Writers of one run keep apart by their folders what they log under one name.
    if len(runs) > 1 and wanted.only is None and _disjoint([part for parts in runs.values() for part in parts]):
        for name, parts in runs.items():
            for part in parts:
                _prefix(part.log, f"{name}/")
        return {_name(root, root): [part for parts in runs.values() for part in parts]}
    return _united(root, runs, wanted.only)


def _prefix(log: Log, prefix: str) -> None:
    for record in log.records:
        record.values = {f"{prefix}{name}": value for name, value in record.values.items()}
    for row in log.rows:
        row.values = {f"{prefix}{name}": value for name, value in row.values.items()}
    log.axes = {f"{prefix}{name}": axis for name, axis in log.axes.items()}


def _states(root: Path, files: list[Path], wanted: Wanted) -> Runs:
    """Of each run the newest state: every one has the whole history up to its step."""
    newest: dict[Path, tuple[int, Path, Log]] = {}
    failed: list[str] = []
    for one in files:
        folder = one.parent
        if _CHECKPOINT.fullmatch(folder.name) and folder != root:
            folder = folder.parent
        try:
            log = json_logs.trainer_state(one)
            place(log, wanted.step)
        except LogImportError as error:
            failed.append(str(error))
            continue
        last = max(row.step for row in log.rows)
        if folder not in newest or last > newest[folder][0]:
            newest[folder] = last, one, log
    if not newest and failed:
        raise LogImportError(failed[0])
    runs: Runs = {}
    for folder, (_, one, log) in newest.items():
        log.title = folder.resolve().name
        log.notes.append(f"read from {sanitize(_name(root, one))}")
        runs[_name(root, folder)] = [Part(_name(root, one), log)]
    return runs


def _tables(root: Path, files: list[Path], wanted: Wanted) -> Runs:
    runs: Runs = {}
    failed: list[str] = []
    for one in files:
        name = _name(root, one)
        try:
            log = read_file(one, wanted.only if one.suffix in (".csv", ".tsv") else None)
        except SeveralRunsError:
            raise
        except LogImportError as error:
            failed.append(str(error))
            continue
        if parts := _placed(name, log, wanted, failed):
            # Charts of W&B are files of their own, of a run that they name.
            runs.setdefault(log.run or name, []).extend(parts)
    if not runs and failed:
        raise LogImportError(failed[0])
    found = _united(root, runs, wanted.only)
    for parts in found.values():
        parts[0].log.notes += [f"not read: {reason}" for reason in failed]
    return found


def read_file(path: Path, only: str | None) -> Log:
    """A JSONL, CSV, JSON or console log by its suffix. Raises LogImportError, OSError."""
    if path.suffix in (".jsonl", ".ndjson"):
        return json_logs.jsonl(path)
    if path.suffix in (".csv", ".tsv"):
        return csv_logs.table(path, only)
    if path.suffix == ".json":
        return json_logs.trainer_state(path)
    return console_logs.read(path)


def _united(root: Path, runs: Runs, only: str | None) -> Runs:
    """The runs, or one where all are parts of the same."""
    if len(runs) < 2 or only is not None:
        return runs
    parts = sorted(
        (part for some in runs.values() for part in some), key=lambda part: (part.begin, part.first, part.name)
    )
    if _disjoint(parts) or _resumed(parts):
        return {_name(root, root): parts}
    return runs


def _disjoint(parts: Sequence[Part]) -> bool:
    return all(one.names.isdisjoint(two.names) for one, two in combinations(parts, 2))


def _resumed(parts: Sequence[Part]) -> bool:
    """True where each goes on with the one before, from a later step than that began at: two seeds begin at one step.

    Launches of one output folder are known as such; other parts also report the same names, as often, one after the
    other.
    """
    launches = all(_LAUNCH.match(Path(part.name).name) for part in parts)

    def follows(one: Part, two: Part) -> bool:
        if launches:
            return two.first > one.first
        later = two.first > one.first + max(1, (one.last - one.first) // 20) and two.begin >= one.end
        alike = 2 * len(one.names & two.names) > min(len(one.names), len(two.names))
        return later and alike and not (one.every < two.every or one.every > two.every)

    return all(follows(one, two) for one, two in pairwise(parts))


def _is_log(path: Path) -> bool:
    """True for a table in which a step stands: other tables (data sets, samples) lie in the same folders."""
    try:
        head = list(islice(lines(path), _SNIFFED))
    except (OSError, LogImportError):
        return False
    if path.suffix in (".csv", ".tsv"):
        names = re.split(r"[,\t]", head[0].decode("utf-8-sig", "replace")) if head else []
        return any(is_step(name.strip().strip('"')) or name.strip().strip('"') == COUNTER for name in names)
    steps = []
    for line in head:
        try:
            entry = parse(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            steps += [str(value) for name, value in entry.items() if is_step(name) or name == COUNTER][:1]
    # Samples of one step, as verl and NeMo-RL dump them, have it in every line.
    return bool(steps) and (len(steps) < 3 or len(set(steps)) > 1)
