"""Converts a log of another framework to a run directory that every verb can read."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from console.importing import jsonl_csv, names, tensorboard, wandb
from console.importing.rows import Log, LogImportError
from driftline.catalog.metrics import BY_NAME
from driftline.frames import Event, Frame, FrameError, Metrics, RunState, encode
from driftline.journal.journal import Journal, JournalError, Record, record_encoder
from driftline.rundir import RunDir, create

PRODUCER: Final = "import"
_DESCRIBED: Final = 40
_INT64: Final = 2**63


class ImportReport(msgspec.Struct, frozen=True):
    """Result of an import. `mapped` are the names that were renamed, `kept` those not in the catalogue."""

    run: str
    path: str
    kind: str
    steps: int
    first: int
    last: int
    mapped: dict[str, str]
    kept: tuple[str, ...]
    damaged: int = 0


def read(path: Path, step: str | None = None) -> Log:
    """Read a log: a W&B run or its folder, TensorBoard events, JSONL or CSV. Raises LogImportError."""
    try:
        log = _reader(path, step)()
    except OSError as error:
        raise LogImportError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not any(row.values for row in log.rows):
        raise LogImportError(f"{path}: contains no number ({log.kind})")
    return log


def import_log(path: Path, root: Path, name: str, step: str | None = None) -> ImportReport:
    """Write the log at `path` as a new run `<name>-<4 hex>` under `root`. Raises LogImportError, RunError.

    Numbers of one step are one frame. A log that goes back to a step before (a resumed run) is written as it is:
    the table `metrics` merges such steps.
    """
    log = read(path, step)
    mapped = names.mapping({name for row in log.rows for name in row.values})
    run = create(root, name)
    try:
        _write(run, list(_frames(run, path, log, mapped)))
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    steps = [row.step for row in log.rows]
    return ImportReport(
        run.id,
        str(run.path),
        log.kind,
        len(set(steps)),
        min(steps),
        max(steps),
        {name: target for name, target in mapped.items() if name != target},
        tuple(name for name, target in mapped.items() if name == target and names.catalogued(name) != name),
        log.damaged,
    )


def _reader(path: Path, step: str | None) -> Callable[[], Log]:
    if not path.exists():
        raise LogImportError(f"{path}: there is no such file or folder")
    if path.is_dir():
        runs = sorted(path.glob(f"*{wandb.SUFFIX}"))
        if len(runs) == 1:
            return lambda: wandb.read(runs[0])
        if len(runs) > 1:
            raise LogImportError(
                f"{path}: {len(runs)} W&B runs in it; name one: {', '.join(run.name for run in runs[:4])}"
            )
        if (path / "wandb-history.jsonl").exists():
            return lambda: jsonl_csv.jsonl(path / "wandb-history.jsonl", step)
        if tensorboard.files(path):
            return lambda: tensorboard.read(path)
        raise LogImportError(
            f"{path}: neither a W&B run (*{wandb.SUFFIX}) nor event files (*{tensorboard.MARK}*) in it"
        )
    if path.suffix == wandb.SUFFIX:
        return lambda: wandb.read(path)
    if tensorboard.MARK in path.name:
        return lambda: tensorboard.read(path)
    if path.suffix in (".jsonl", ".ndjson"):
        return lambda: jsonl_csv.jsonl(path, step)
    if path.suffix == ".json":
        return lambda: jsonl_csv.trainer_state(path, step)
    if path.suffix in (".csv", ".tsv"):
        return lambda: jsonl_csv.table(path, step)
    raise LogImportError(
        f"{path}: unknown kind of file; allowed: a W&B run ({wandb.SUFFIX}), event files (*{tensorboard.MARK}*), "
        ".jsonl, .csv, trainer_state.json, or a folder of the first two"
    )


def _frames(run: RunDir, path: Path, log: Log, mapped: dict[str, str]) -> Iterator[Frame]:
    origin = f"{log.kind} {log.title or path.name}"
    times = [row.time for row in log.rows if row.time > 0]
    begin, end = (times[0], times[-1]) if times else (time.time(),) * 2
    steps = max(row.step for row in log.rows)
    model = next((str(log.config[key])[:200] for key in ("model", "model_name", "model_path") if key in log.config), "")
    state = RunState(run.id, "running", 0, steps, 0, begin, model=model, detail=f"imported from {origin}")
    yield state
    known = sum(target in BY_NAME for target in mapped.values())
    text = f"imported from {origin}: {len(log.rows)} rows, {known} names known"
    yield Event(begin, "info", "run.imported", text, data={"kind": log.kind, "from": path.name, "damaged": log.damaged})
    own = [name for name, target in mapped.items() if name == target]
    if own:
        shown = ", ".join(own[:_DESCRIBED]) + ("" if len(own) <= _DESCRIBED else f" and {len(own) - _DESCRIBED} more")
        yield Event(begin, "info", "import.names", f"kept under their own names: {shown}")
    labels = names.labels(mapped)
    for row in log.rows:
        if row.values and -_INT64 <= row.step < _INT64:
            values = {mapped[name]: value for name, value in row.values.items()}
            given_labels = {name: label for name, label in labels.items() if name in values}
            yield Metrics(row.step, names.version(row.values), row.time or begin, values, given_labels)
    yield msgspec.structs.replace(state, status="finished", step=log.rows[-1].step, time=end)


def _write(run: RunDir, frames: list[Frame]) -> None:
    try:
        journal = Journal(run.journal)
        try:
            for frame in frames:
                seq = journal.head + 1
                body = msgspec.Raw(encode(frame))
                moment = frame.time if isinstance(frame, (Metrics, Event, RunState)) else time.time()
                journal.append(record_encoder.encode(Record(seq, moment, PRODUCER, body, 1, seq)), seq, True)
        finally:
            journal.close()
    except (JournalError, FrameError) as error:
        raise LogImportError(f"{run.path}: not written: {error}") from error
    # Runs are listed by the age of their directory: the run is as old as its import.
    os.utime(run.path)
