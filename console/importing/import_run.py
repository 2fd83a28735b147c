"""Converts a log of another framework to a run directory that every verb can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from console.importing import console_logs, folders, json_logs, tensorboard, wandb
from console.importing.rows import Log, LogImportError, SeveralRunsError, UnknownKindError
from console.importing.steps import place, several
from console.importing.token_files import TokenFiles, TokenStep
from console.importing.write import frames, write
from console.process import ending
from driftline.catalog import naming
from driftline.rundir import create
from driftline.text import sanitize

_LONGEST: Final = 400
"""Most characters of a name: frames have a largest size."""
PICKLES: Final = (".pt", ".pth", ".pkl", ".pickle", ".ckpt")
TOO_LONG: Final = f"numbers under a name of more than {_LONGEST} characters"


class ImportReport(msgspec.Struct, frozen=True):
    """Result of an import.

    `mapped` are the names that were renamed, `kept` those not in the catalogue; `known` says whether any name is in it.
    `labels` are the rules of numbers that are not the catalogue's, by its names. `left_out` and `notes` are lines:
    what was not read, with its count, and how the log was read. `token_steps` counts the steps with token pairs.
    """

    run: str
    path: str
    kind: str
    steps: int
    first: int
    last: int
    mapped: dict[str, str]
    kept: tuple[str, ...]
    damaged: int = 0
    labels: dict[str, str] = {}
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    known: bool = True
    token_steps: int = 0


def read(path: Path, step: str | None = None, only: str | None = None) -> Log:
    """Read a log, placed by steps: a W&B run, TensorBoard events, JSONL, CSV, `trainer_state.json`, a console log, or a
    folder of these. `step` names the step where it is not found, `only` the one of several runs.

    Raises LogImportError.
    """
    try:
        log = _read(path, step, only)
    except OSError as error:
        raise LogImportError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
    for row in log.rows:
        for name in [name for name in row.values if len(name) > _LONGEST]:
            log.left.add(TOO_LONG, name)
            del row.values[name]
    log.rows = [row for row in log.rows if row.values]
    if not log.rows:
        raise LogImportError(f"{path}: contains no number ({log.kind})")
    if note := several(log):
        log.notes.append(note)
    return log


def import_log(path: Path, root: Path, name: str, step: str | None = None, only: str | None = None) -> ImportReport:
    """Write the log at `path` as a new run `<name>-<4 hex>` under `root`. Raises LogImportError, RunError.

    Numbers of one step are one frame. A log that goes back to a step before (a resumed run) is written as it is:
    the table `metrics` merges such steps.
    """
    tokens = TokenFiles(path, only)
    log = read_beside(path, tokens, step, only)
    mapped = targets(log)
    with_pairs: set[int] = set()
    run = create(root, name)
    with ending.unfinished(run.path):
        try:
            write(run, frames(run, path, log, mapped, _noted(tokens, with_pairs)))
        except OSError as error:
            raise LogImportError(f"{error.filename or path}: {error.strerror or error}") from error
        if not log.rows and not with_pairs:
            raise LogImportError(f"{path}: no step of its token files is whole yet")
    steps = {row.step for row in log.rows} | with_pairs
    return ImportReport(
        run.id,
        str(run.path),
        log.kind,
        len(steps),
        min(steps),
        max(steps),
        {name: target.name for name, target in mapped.items() if name != target.name},
        tuple(name for name, target in mapped.items() if not target.known and name == target.name),
        log.damaged,
        {target.name: target.label for target in mapped.values() if target.label},
        tuple(log.left.lines()),
        tuple(log.notes),
        bool(with_pairs) or any(target.known for target in mapped.values()),
        len(with_pairs),
    )


def read_beside(path: Path, tokens: TokenFiles, step: str | None, only: str | None) -> Log:
    """The log, an empty one where there are only token files. Raises LogImportError."""
    try:
        return read(path, step, only)
    except SeveralRunsError:
        raise
    except LogImportError as error:
        if not tokens.found():
            raise
        return Log("token files", title=path.resolve().name, notes=[f"no log is read: {error}"])


def _noted(tokens: TokenFiles, steps: set[int]) -> Iterator[TokenStep]:
    for one in tokens.poll(ended=True):
        steps.add(one.step)
        yield one


def targets(log: Log) -> dict[str, naming.Target]:
    """Where each name goes; where the log has several steps, a label says by which a metric is."""
    mapped = naming.mapping(log.names())
    if len({log.axes[name] for name, target in mapped.items() if target.known}) < 2:
        return mapped
    return {
        name: replace(target, label=", ".join(filter(None, (target.label, f"by {sanitize(log.axes[name])}"))))
        if target.known
        else target
        for name, target in mapped.items()
    }


def _read(path: Path, step: str | None, only: str | None) -> Log:
    if not path.exists():
        raise LogImportError(f"{path}: there is no such file or folder")
    if path.is_dir():
        return folders.read(path, step, only)
    if not path.is_file():
        raise LogImportError(f"{path}: not a regular file")
    log = _reader(path, only)()
    if only is not None and log.run != only:
        raise LogImportError(f"{path}: there is no run '{sanitize(only)}' in it, it is a log of one run")
    if not any(record.values or record.texts for record in log.records):
        raise LogImportError(f"{path}: contains no number ({log.kind})")
    try:
        place(log, step)
    except LogImportError as error:
        raise LogImportError(f"{path}: {error}") from error
    return log


def _reader(path: Path, only: str | None) -> Callable[[], Log]:
    if path.suffix == wandb.SUFFIX:
        return lambda: wandb.read(path)
    if tensorboard.MARK in path.name:
        return lambda: tensorboard.read([path], path.resolve().parent.name)
    if path.suffix in (*folders.TABLES, ".json") or path.suffix in console_logs.SUFFIXES:
        return lambda: folders.read_file(path, only)
    if path.suffix in PICKLES:
        raise UnknownKindError(
            f"{path}: a pickle ({path.suffix}) runs what stands in it when it is opened, and is not read; write "
            f"its numbers as a log ({', '.join(folders.TABLES)}), or report them by a Probe"
        )
    raise UnknownKindError(
        f"{path}: unknown kind of file; allowed: a W&B run ({wandb.SUFFIX}), event files (*{tensorboard.MARK}*), "
        f".jsonl, .csv, .tsv, {json_logs.STATE}, a console log ({', '.join(filter(None, console_logs.SUFFIXES))}), "
        "or a folder of these"
    )
