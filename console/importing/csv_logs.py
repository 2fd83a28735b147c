"""CSV and TSV tables with a row of names: loggers' files, and the downloads of W&B's and TensorBoard's charts.

A chart of W&B is downloaded as its step, and for each run and metric the columns `<run> - <metric>`,
`<run> - <metric>__MIN` and `<run> - <metric>__MAX`; a chart of TensorBoard as `Wall time`, `Step` and `Value`, the
metric's name being in that of the file (`run-<run>-tag-<metric>.csv`).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from console.importing import files
from console.importing.json_logs import add
from console.importing.rows import Log, LogImportError, SeveralRunsError, text_number
from console.importing.steps import form
from driftline.text import sanitize

BETWEEN: Final = " - "
_BOUNDS: Final = ("__MIN", "__MAX")
NO_NAME: Final = "values of columns without a name"
BOUNDS: Final = "values of the chart's __MIN and __MAX columns"
_TENSORBOARD: Final = ("wall_time", "step", "value")


def table(path: Path, only: str | None = None) -> Log:
    """A CSV file with a row of names; of a chart with several runs the one named `only`.

    Raises LogImportError, OSError.
    """
    csv.field_size_limit(files.LONGEST)
    log = Log("CSV", title=path.stem)
    try:
        whole = _lines(path)
        first = next(whole, "")
        lines = list(csv.reader(chain([first], whole), delimiter=max(",;\t", key=first.count)))
    except csv.Error as error:
        raise LogImportError(f"{path}: not a CSV file: {error}") from error
    if len(lines) < 2:
        raise LogImportError(f"{path}: no row in it")
    head, rows = _distinct(lines[0]), lines[1:]
    if runs := _runs(head):
        names = _of_chart(path, head, runs, only, log)
    elif tuple(map(form, head)) == _TENSORBOARD:
        names = dict(enumerate(("wall_time", "step", _tag(path))))
    else:
        names = {at: name for at, name in enumerate(head) if name}
    _drop_bounds(head, rows, names, log)
    for row in rows:
        nameless = sum(bool(cell.strip()) for at, cell in enumerate(row) if at >= len(head) or not head[at])
        if nameless:
            log.left.add(NO_NAME, count=nameless)
        if cells := {name: _cell(row[at]) for at, name in names.items() if at < len(row) and row[at].strip()}:
            add(log, cells)
    return log


def _lines(path: Path) -> Iterator[str]:
    for line in files.text_lines(path, "utf-8-sig"):
        if len(line) >= files.LONGEST:
            raise csv.Error(f"a line of more than {files.LONGEST} characters")
        yield line


def _distinct(head: Sequence[str]) -> list[str]:
    """The names of the columns; a further one of a name has its number behind it."""
    seen: Counter[str] = Counter()
    found = []
    for name in head:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if name and seen[name] > 1 else name)
    return found


def _cell(text: str) -> float | str:
    found = text_number(text)
    return text if found is None else found


def _runs(head: Sequence[str]) -> dict[str, list[int]]:
    """The places of each run's columns in a chart that W&B downloaded; nothing for another table."""
    columns = set(head)
    if not any(f"{name}{bound}" in columns for name in head if BETWEEN in name for bound in _BOUNDS):
        return {}
    runs: dict[str, list[int]] = {}
    for at, name in enumerate(head):
        if BETWEEN in name:
            runs.setdefault(name.rpartition(BETWEEN)[0], []).append(at)
    return runs


def _of_chart(
    path: Path, head: Sequence[str], runs: Mapping[str, list[int]], only: str | None, log: Log
) -> dict[int, str]:
    """The names of the columns that are read: the chart's axis, and one run's metrics."""
    shown = ", ".join(sanitize(name) for name in runs)
    if only is None and len(runs) > 1:
        raise SeveralRunsError(f"{path}: {len(runs)} runs in it: {shown}; choose one with --only NAME")
    if only not in runs and len(runs) > 1:
        raise LogImportError(f"{path}: there is no run '{sanitize(str(only))}' in it; it has: {shown}")
    log.run = log.title = only if only is not None and only in runs else next(iter(runs))
    axis = {at: name for at, name in enumerate(head) if name and BETWEEN not in name}
    return axis | {at: head[at].rpartition(BETWEEN)[2] for at in runs[log.run]}


def _drop_bounds(head: Sequence[str], rows: Sequence[Sequence[str]], names: dict[int, str], log: Log) -> None:
    """Take the columns of a chart's bounds out of the names, and say where a value is a mean of several."""
    places = {name: at for at, name in enumerate(head)}
    bucketed = False
    for at in list(names):
        plain = places.get(head[at][: -len(_BOUNDS[0])]) if head[at].endswith(_BOUNDS) else None
        if plain is None:
            continue
        given = [row for row in rows if at < len(row) and row[at].strip()]
        log.left.add(BOUNDS, names.pop(at), len(given))
        bucketed |= any(row[plain] != row[at] for row in given)
    if bucketed:
        log.notes.append("the chart was downloaded in buckets: a value is the mean of several steps")


def _tag(path: Path) -> str:
    """The metric of a chart that TensorBoard downloaded: it writes `train_reward` for `train/reward`."""
    tag = path.stem.rpartition("-tag-")[2]
    return tag.replace("_", "/", 1)
