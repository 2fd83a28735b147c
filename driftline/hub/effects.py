"""Effects: requests of the hub's pure parts to the server around them, in order, as data."""

from __future__ import annotations

import time
from typing import NamedTuple

from driftline.audit import Entry
from driftline.frames import Frame
from driftline.keys import HUB as HUB


class Now(NamedTuple):
    """The clock: `wall` stamps frames and is what deadlines arrive in (Unix seconds), `mono` times everything."""

    wall: float
    mono: float


def clock() -> Now:
    """The time now."""
    return Now(time.time(), time.monotonic())


class Write(NamedTuple):
    """Stamp this frame, append it to the journal, then report `on_written` (or `on_write_failed`).

    `frame` is the decoded `body`. `asker` is the client to answer, where a request led to it. `audit`, where there is
    one, goes into the audit log first: what cannot be recorded there does not happen. `arrived` is when the frame came,
    where its deadline counts from then.
    """

    body: bytes
    frame: Frame
    producer: str = HUB
    incarnation: int = 0
    pseq: int = 0
    asker: tuple[bytes, int] | None = None
    audit: Entry | None = None
    arrived: Now | None = None


class Stamp(NamedTuple):
    """Place of a frame in the journal: its number, the newest plain number before it, and the encoded record."""

    seq: int
    previous: int
    plain: bool
    record: bytes


class Publish(NamedTuple):
    """Send to every subscriber of the topic."""

    topic: bytes
    head: bytes
    body: bytes


class ToProducer(NamedTuple):
    """Send to one connection of the ingest socket."""

    peer: bytes
    message: bytes


class ToClient(NamedTuple):
    """Send to one connection of the rpc socket."""

    peer: bytes
    message: bytes


class Sync(NamedTuple):
    """Force the journal to the disk up to `seq`, then report `on_synced`."""

    seq: int


class Note(NamedTuple):
    """Add this to the audit log."""

    entry: Entry


class SendPage(NamedTuple):
    """Read a page from the journal and send it to a client."""

    peer: bytes
    id: int
    start: int
    limit: int
    tokens: bool


Effect = Write | Publish | ToProducer | ToClient | Sync | SendPage | Note
