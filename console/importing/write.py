"""A read log as the frames and the journal of a run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from console.importing.pair_frames import by_step, pair_frames
from console.importing.rows import Log, LogImportError, Row
from console.importing.token_files import TokenStep
from driftline.catalog.naming import Target, version
from driftline.frames import Event, Frame, FrameError, Metrics, RunState, Tokens, encode
from driftline.journal.journal import Journal, JournalError, Record, record_encoder
from driftline.rundir import RunDir
from driftline.text import sanitize

PRODUCER: Final = "import"
_DESCRIBED: Final = 40
_NAMES: Final = 10_000
"""Most numbers in a frame: a step with more is several frames, as a frame has a largest size."""
_MODEL: Final = ("model", "model_name", "model_path")


def frames(
    run: RunDir, path: Path, log: Log, mapped: Mapping[str, Target], tokens: Iterable[TokenStep] = ()
) -> Iterator[Frame]:
    """The frames of a run: its state, what was imported and how, numbers and token pairs by step, its end."""
    origin = sanitize(f"{log.kind} {log.title or path.resolve().name}")
    times = [row.time for row in log.rows if row.time > 0]
    begin, end = (times[0], times[-1]) if times else (time.time(),) * 2
    last = max((row.step for row in log.rows), default=0)
    model = next((sanitize(str(log.config[key]))[:200] for key in _MODEL if key in log.config), "")
    state = RunState(run.id, "running", 0, last, 0, begin, model=model, detail=f"imported from {origin}")
    yield state
    known = sum(target.known for target in mapped.values())
    text = f"imported from {origin}: {len(log.rows)} rows, {known} names known"
    name = sanitize(path.name)
    yield Event(begin, "info", "run.imported", text, data={"kind": log.kind, "from": name, "damaged": log.damaged})
    own = [sanitize(name) for name, target in mapped.items() if not target.known]
    if own:
        shown = ", ".join(own[:_DESCRIBED]) + ("" if len(own) <= _DESCRIBED else f" and {len(own) - _DESCRIBED} more")
        yield Event(begin, "info", "import.names", f"kept under their own names: {shown}")
    for line in log.notes:
        yield Event(begin, "info", "import.note", line)
    for frame in by_step(list(_numbers(log, begin, mapped)), _pairs(tokens, log)):
        last = frame.step
        yield frame
    if log.damaged:
        log.left.add("bytes that could not be read", count=log.damaged)
    for line in log.left.lines():
        yield Event(end, "warn", "import.left_out", f"left out: {line}")
    yield msgspec.structs.replace(state, status="finished", step=last, steps=max(last, state.steps), time=end)


def _numbers(log: Log, now: float, mapped: Mapping[str, Target]) -> Iterator[Metrics]:
    for row in log.rows:
        now = row.time or now
        yield from row_metrics(row, now, mapped)


def _pairs(tokens: Iterable[TokenStep], log: Log) -> Iterator[list[Metrics | Tokens]]:
    rng = np.random.default_rng(0)
    for found in tokens:
        log.left.merge(found.left_out)
        if made := list(pair_frames(found, rng)):
            yield made


def row_metrics(row: Row, now: float, mapped: Mapping[str, Target]) -> Iterator[Metrics]:
    """The numbers of a row at Unix time `now` as frames, under the names that `mapped` gives them."""
    values: dict[str, float] = {}
    for name, value in row.values.items():
        target = mapped[name]
        values[target.name] = value * target.factor if target.factor != 1 else value
    labels = {mapped[name].name: mapped[name].label for name in row.values if mapped[name].label}
    given = version(row.values)
    rest = iter(values.items())
    while part := dict(islice(rest, _NAMES)):
        yield Metrics(row.step, given, now, part, {name: label for name, label in labels.items() if name in part})


def write(run: RunDir, made: Iterable[Frame]) -> None:
    """Write frames as a run's journal. Raises LogImportError."""
    try:
        journal = Journal(run.journal)
        try:
            for frame in made:
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
