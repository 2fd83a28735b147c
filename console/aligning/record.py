"""What an alignment leaves in the run's journal, so that it can be undone from any console, also after a crash. Pure.

Before the first command a `mark` is sent whose argument ALIGN has what was wanted of each fix, and what is set:
`processed-logprobs:off>on fp32-lm-head:off>on`. Setting it back leaves the word UNDONE there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from console.aligning.plan import Alignment
from driftline.catalog.fixes import UnknownFixError, check
from driftline.frames import Command

ALIGN: Final = "align"
UNDONE: Final = "undone"

Record = Mapping[str, tuple[str, str]]
"""By fix the value that was wanted before, and the one that was set."""


def mark(made: Alignment, standing: Record | None = None) -> dict[str, str]:
    """The arguments of the mark that goes before an alignment. Undoing it sets back a `standing` one before it, too."""
    record = dict(standing or {})
    for one in made.settings:
        record[one.fix] = (record.get(one.fix, (one.before, ""))[0], one.value)
    said = ", ".join(f"{one.fix} {one.value}" for one in made.settings)
    word = "undo the alignment" if made.undoes else "align"
    text = {"text": f"{word}: {said or 'sync'}{' and a sync' if made.sync and said else ''}"}
    if made.undoes:
        return text | {ALIGN: UNDONE}
    written = " ".join(f"{fix}:{before}>{value}" for fix, (before, value) in record.items())
    return text | ({ALIGN: written} if written else {})


def found(commands: Iterable[Command]) -> Record | None:
    """The alignment that stands, of commands newest first; None where none was made, or the last one was undone."""
    for command in commands:
        if command.verb == "mark" and ALIGN in command.args:
            return _read(command.args[ALIGN])
    return None


def _read(text: str) -> Record | None:
    """Read a record. None for an undone one, and for what no console of this version wrote."""
    record = {}
    for part in text.split():
        fix, colon, values = part.partition(":")
        before, arrow, value = values.partition(">")
        try:
            check(fix, before)
            check(fix, value)
        except UnknownFixError:
            continue
        if colon and arrow:
            record[fix] = (before, value)
    return record or None
