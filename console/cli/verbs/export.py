"""`driftline export`: a table of a run, live or ended, as a Polars file."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final

from console.cli.verbs.on_disk import print_damage
from console.cli.verbs.ranges import parse_steps, parse_time
from console.connect.resolve import connect_client, open_target
from console.errors import FAILED, OK, USAGE, CommandError
from console.export import ExportError, source_of, through_hub
from console.export import export as write
from console.process import ending
from driftline.text import sanitize

if TYPE_CHECKING:
    import polars as pl

    from console.export.numbers import Numbers
    from console.export.source import Source
    from driftline.journal.records import Damage


_POLL_SECONDS: Final = 0.1
"""Seconds between two checks for a signal."""


def export(args: argparse.Namespace) -> int:
    """Write --table to --out and print `PATH: R rows, C columns`; on a failure nothing is left under that name.

    A run of this machine is read from its directory; one of another machine from its hub, page by page.
    """
    try:
        columns = tuple(name.strip() for name in (args.columns or "").split(",") if name.strip())
        within, since, until = parse_steps(args.steps), parse_time(args.since), parse_time(args.until)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from error
    try:
        with open_target(args, ended=True) as run, contextlib.ExitStack() as stack:
            if run.directory is not None:
                source = source_of(run.directory)
            else:
                source = through_hub(stack.enter_context(connect_client(run, "viewer")), run.id)
            # In a thread: Python handles a signal only when the main thread runs bytecode, which it does ten times a
            # second here; the signal may be delivered to any thread, and would not end a longer wait.
            pool = stack.enter_context(ThreadPoolExecutor(1))
            stop = Event()
            stack.callback(stop.set)
            # A signal within it would leave a thread that the pool does not know, and does not wait for.
            with ending.deferred():
                writing = pool.submit(
                    write,
                    _StoppableSource(source, stop),
                    Path(args.out),
                    args.table,
                    columns=columns,
                    steps=within,
                    since=since,
                    until=until,
                    long=args.long,
                )
            while not wait([writing], _POLL_SECONDS).done:
                pass
            report = writing.result()
    except ExportError as error:
        raise CommandError(str(error), FAILED) from error
    print(f"{report.path}: {report.rows} rows, {report.columns} columns")
    for lack in report.missing:
        print(f"driftline: {sanitize(lack)}", file=sys.stderr)
    print_damage(report.damaged)
    return OK


class _StoppableSource:
    """A source that raises between two parts once `stop` is set; the writer then removes its partial file."""

    def __init__(self, source: Source, stop: Event) -> None:
        self.id = source.id
        self._source = source
        self._stop = stop

    @property
    def damage(self) -> Damage:
        return self._source.damage

    def parts(self, stored: str, *args: Any, **kwargs: Any) -> Iterator[pl.DataFrame]:
        for part in self._source.parts(stored, *args, **kwargs):
            self._look()
            yield part

    def numbers(self, *args: Any) -> Iterator[Numbers]:
        for part in self._source.numbers(*args):
            self._look()
            yield part

    def missing(self) -> list[str]:
        return self._source.missing()

    def _look(self) -> None:
        if self._stop.is_set():
            raise ExportError("stopped")

    def config_digest(self) -> str:
        return self._source.config_digest()

    def synthetic(self) -> bool:
        return self._source.synthetic()
