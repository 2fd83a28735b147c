"""The frames of an ended run, as verbs read them: what is missing is said, what cannot be read is a sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from console.errors import FAILED, CommandError
from driftline.frames import Stamped
from driftline.journal.records import Damage
from driftline.rundir import RunDir


def warn_of(damaged: int) -> None:
    """Say on stderr that a journal was not whole."""
    if damaged:
        print(f"driftline: {damaged} bytes of the journal are damaged and were left out", file=sys.stderr)


def frames(run: RunDir) -> Iterator[Stamped]:
    """Every frame, from the journal, or from Parquet where retention has taken that away; then `warn_of` its damage.

    Raises CommandError.
    """
    from console.recorded import frames as stream  # takes a while to load, and a live run needs none of it

    damage = Damage()
    try:
        yield from stream.frames(run, damage=damage)
    except GeneratorExit:  # the reader (head) has had enough; asking what is unreadable would load Polars for it
        raise
    except stream.unreadable() as error:
        raise CommandError(stream.damaged(run), FAILED) from error
    warn_of(damage.bytes)
