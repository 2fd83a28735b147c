"""Frames of an ended run for verbs: damage is reported on stderr, an unreadable journal is an error of one sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from console.connect.resolve import connect_client
from console.connect.target import Target
from console.errors import FAILED, CommandError
from driftline.frames import Stamped
from driftline.journal.holes import lacks
from driftline.journal.records import Damage
from driftline.rundir import RunDir
from driftline.text import sanitize


def print_damage(damaged: int) -> None:
    """Say on stderr that a journal was not whole."""
    if damaged:
        print(f"driftline: {damaged} bytes of the journal are damaged and were left out", file=sys.stderr)


def lacks_of(run: Target) -> list[str]:
    """What the journal of a run lacks, in clauses: from its files, or as the hub of another machine says.

    Raises CommandError.
    """
    if run.directory is not None:
        return lacks(run.directory)
    if not run.live():
        return []
    with connect_client(run, "viewer") as client:
        return list(client.snapshot().missing)


def print_lacks(found: Iterable[str]) -> None:
    """Say on stderr which segments of a journal are missing in its middle: what is read from it has the same hole."""
    for lack in found:
        print(f"driftline: {sanitize(lack)}", file=sys.stderr)


def read_frames(run: RunDir) -> Iterator[Stamped]:
    """Every frame, from the journal, or from Parquet where retention has removed that; damage is reported at the end.

    Raises CommandError.
    """
    from console.recorded import frames as stream  # takes a while to load, and a live run needs none of it

    damage = Damage()
    try:
        yield from stream.frames(run, damage=damage)
    except GeneratorExit:  # the reader (head) has ended; `unreadable` below would load Polars
        raise
    except stream.unreadable() as error:
        raise CommandError(stream.damaged(run), FAILED) from error
    print_damage(damage.bytes)
