"""`driftline compact`: the closed segments of a run's journal as Parquet tables."""

from __future__ import annotations

import argparse

from console.connect.resolve import local_run_dir
from console.errors import FAILED, OK, CommandError
from console.recorded.compaction.compact import CompactError, check
from console.recorded.compaction.compact import compact as compact_journal


def compact(args: argparse.Namespace) -> int:
    """Compact every closed segment that is not compacted yet, one line each; with --check read the tables back."""
    run = local_run_dir(args.run, "compact")
    if args.check:
        return _check(args)
    done = False
    try:
        for note in compact_journal(run):
            done = True
            rows = ", ".join(f"{number} {table}" for table, number in note.rows.items())
            print(f"segment {note.segment}: {note.journal_bytes} -> {note.parquet_bytes} bytes: {rows}", flush=True)
    except CompactError as error:
        raise CommandError(str(error), FAILED) from error
    if not done:
        print("nothing to do: every closed segment is compacted")
    return OK


def _check(args: argparse.Namespace) -> int:
    run = local_run_dir(args.run, "compact")
    wrong = check(run)
    if wrong:
        raise CommandError("; ".join(wrong), FAILED)
    print(f"{run.parquet}: all tables are as written")
    return OK
