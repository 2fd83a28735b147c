"""Who is at the controls of a run, in few words: the same in the header of a console and on the line of `status`."""

from __future__ import annotations

from driftline.frames import Lease


def short(writer: Lease, session: str = "") -> str:
    """The holder as `ana@box`, with the process where that is the reader's own place; else its key's name.

    `session` is what the reader calls itself, "" where it cannot be the holder.
    """
    place, _, process = writer.session.rpartition(":")
    if not place or not process.isdigit():
        return writer.session or writer.issuer
    return writer.session if place == session.rpartition(":")[0] else place
