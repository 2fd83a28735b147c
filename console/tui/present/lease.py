"""The lease in the words of a console: which session may act on the run, and how the header shows it. Pure."""

from __future__ import annotations

import time
from typing import Final

from console.status.lease import session_name
from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut
from driftline.frames import Lease

LONGEST: Final = 28
"""Cells that the name of the lease's session may take in the header."""
READ_ONLY: Final[Text] = ("RO", Ink.DIM)
"""The mode of a console that may not act, and of every console over a recording."""


def other(model: RunModel, session: str) -> Lease | None:
    """The session that holds the lease; None where there is none, or it is the console's own `session`."""
    writer = model.writer
    return writer if writer is not None and (not session or writer.session != session) else None


def holds(writer: Lease, session: str = "") -> str:
    """`ana@box holds the run since 12:04`."""
    since = time.strftime("%H:%M", time.localtime(writer.since))
    return f"{session_name(writer, session)} holds the run since {since}"


def mode(model: RunModel, session: str, *, operator: bool) -> Text:
    """For the header: whether this console may act, and the session that holds the lease if that is another one."""
    writer = other(model, session)
    word, ink = ("RW", Ink.WARN) if operator else READ_ONLY
    if writer is None:
        return word, ink
    name = cut(session_name(writer, session), LONGEST)
    return (f"{word} held by {name}", Ink.WARN) if operator else (f"{word}, {name} acts", Ink.DIM)
