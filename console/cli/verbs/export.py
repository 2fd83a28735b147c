"""`driftline export`: a table of a run, live or ended, as a Polars file."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from console.cli.verbs.on_disk import print_damage
from console.cli.verbs.ranges import parse_steps, parse_time
from console.connect.resolve import connect_client, open_target
from console.errors import FAILED, OK, USAGE, CommandError
from console.export import ExportError, source_of, through_hub
from console.export import export as write
from console.process.signals import Signals

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
            signals = stack.enter_context(Signals())
            # In a thread: Python handles a signal only when the main thread runs bytecode, which it does ten times a
            # second here; the signal may be delivered to any thread, and would not end a longer wait.
            pool = stack.enter_context(ThreadPoolExecutor(1))
            interruptible = _InterruptibleSource(source, signals)
            writing = pool.submit(
                write,
                interruptible,
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
    except _SignalledError as error:
        return error.exit_code
    except ExportError as error:
        raise CommandError(str(error), FAILED) from error
    print(f"{report.path}: {report.rows} rows, {report.columns} columns")
    print_damage(report.damaged)
    return OK


class _SignalledError(Exception):
    """A signal came; `exit_code` is 128 + its number, as in a shell."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code


class _InterruptibleSource:
    """A source that raises between two parts once a signal has come; the writer then removes its partial file."""

    def __init__(self, source: Source, signals: Signals) -> None:
        self.id = source.id
        self._source = source
        self._signals = signals

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

    def _look(self) -> None:
        if self._signals:
            raise _SignalledError(self._signals.exit_code)

    def config_digest(self) -> str:
        return self._source.config_digest()

    def synthetic(self) -> bool:
        return self._source.synthetic()
