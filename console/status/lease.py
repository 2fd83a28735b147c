"""The session that has a run's lease, in few words: used in the header of a console and on the line of `status`."""

from __future__ import annotations

from driftline.frames import Lease


def session_name(writer: Lease, session: str = "") -> str:
    """The session of the lease as `ana@box`, with its process if that is also the reader's user and host; else its key.

    `session` is the reader's own session, "" if it has none.
    """
    place, _, process = writer.session.rpartition(":")
    if not place or not process.isdigit():
        return writer.session or writer.issuer
    return writer.session if place == session.rpartition(":")[0] else place
