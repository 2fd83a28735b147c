"""Messages of the three sockets beside the frames: greetings, acknowledgements, requests and pages.

Ingest (producer DEALER to hub ROUTER), one part a message, distinguished by the first byte:

    b"D" incarnation u64 | pseq u64 | dropped u64 | body     a frame; `pseq` counts from 1 per incarnation
    b"P" incarnation u64 | dropped u64                        keep-alive, answered with Acked
    b"H" Hello                                                greeting, answered with Welcome or Refused
    b"L" Lost                                                 what the producer had to drop, by topic, since its start

Live (hub XPUB): topic | epoch u64, seq u64, previous u64 | record, where `previous` is the sequence number of the
last frame before this one that is not a Tokens frame: a subscriber without the tokens topic has missed nothing
exactly when `previous` is not above what it has. Topic `beacon` carries a Beacon five times a second, and at once for a
new subscriber.

Rpc (client DEALER to hub ROUTER): one Request, one Reply with the same id. Integers are little-endian.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Final, Literal

import msgspec

from driftline.frames import Ack, AckState, Command, Lease, Verb

DATA: Final = b"D"
PING: Final = b"P"
HELLO: Final = b"H"
LOST: Final = b"L"
DATA_HEAD: Final = struct.Struct("<cQQQ")
PING_HEAD: Final = struct.Struct("<cQQ")
LIVE_HEAD: Final = struct.Struct("<QQQ")
BEACON: Final = b"beacon"

PAGE_FRAMES: Final = 256
PAGE_BYTES: Final = 4 * 1024 * 1024
REQUEST_BYTES: Final = 64 * 1024
"""Largest request or greeting in bytes."""

LEASE_SECONDS: Final = 120.0
"""How long a session holds the lease after its last command or renewal."""
MAX_SESSION: Final = 80
"""Characters in a session's name for itself."""
LEASE_FREE_VERBS: Final[frozenset[Verb]] = frozenset({"mark"})
"""Commands that change nothing in a run and need no lease."""


class _Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Common options of every message."""


class _Strict(_Message, frozen=True, forbid_unknown_fields=True):
    """Common options of what a client may ask: nothing that the hub does not know."""


class Hello(_Message, frozen=True):
    """A producer's greeting. `first` is the oldest pseq it can still send; `nonce` pairs the answer with it."""

    producer: str
    incarnation: int
    first: int
    nonce: int
    dropped: int
    schema: int


class Lost(_Message, frozen=True):
    """Frames that an incarnation has dropped so far, by topic; their sum is what its other messages call `dropped`."""

    incarnation: int
    topics: dict[str, Annotated[int, msgspec.Meta(ge=0, le=2**62)]]

    def __post_init__(self) -> None:
        if sum(self.topics.values()) > 2**62:
            raise ValueError("more than can be counted")


class Welcome(_Message, tag="w", frozen=True):
    """Answer to the Hello with this nonce: the hub has everything up to `last`, go on from `last + 1`."""

    epoch: int
    nonce: int
    last: int


class Acked(_Message, tag="k", frozen=True):
    """Everything up to `last` is in the journal."""

    incarnation: int
    last: int


class HelloPlease(_Message, tag="h", frozen=True):
    """The hub does not know this connection, or misses frames: greet again."""


class Refused(_Message, tag="x", frozen=True):
    """This key may not produce under this name, or speaks another schema."""

    reason: str


class NotCovered(_Message, tag="n", frozen=True):
    """A frame was refused, as all others of its kind will be: this key may not send them. Sent once for each kind."""

    reason: str


ToProducer = Welcome | Acked | HelloPlease | Refused | NotCovered | Command


class Beacon(_Message, frozen=True):
    """The hub's heartbeat. `head` is the newest sequence number, `plain` the newest that is not a Tokens frame, `base`
    the head at the start of this epoch. `degraded` is a sentence when the journal cannot be written, else ""; `crowded`
    one when a producer has made too many names (`driftline.hub.name_watch`); `missing` is a clause about what the
    journal lacks, None from a hub of before this field."""

    epoch: int
    head: int
    plain: int
    base: int
    time: float
    degraded: str = ""
    crowded: str = ""
    missing: str | None = None


class SnapshotRequest(_Strict, tag="snapshot", frozen=True):
    """Ask for the newest state of the run, its engines and fixes."""

    id: int


class PageRequest(_Strict, tag="page", frozen=True):
    """Ask for at most `limit` frames with seq >= `start`, without Tokens frames unless asked for."""

    id: int
    start: int
    limit: int = PAGE_FRAMES
    tokens: bool = True


class CommandRequest(_Strict, tag="command", frozen=True):
    """Ask for a command; asking again with the same command id changes nothing."""

    id: int
    command: Command


class AcksRequest(_Strict, tag="acks", frozen=True):
    """Ask for the acks of a command, without the first `after`."""

    id: int
    command: str
    after: int = 0


class PingRequest(_Strict, tag="ping", frozen=True):
    """Ask for the hub's clock."""

    id: int


class LeaseRequest(_Strict, tag="writer", frozen=True):
    """Take the lease (also from another session), renew it, or release it; see `driftline.hub.lease`."""

    id: int
    session: str
    action: Literal["take", "renew", "release"]


Request = SnapshotRequest | PageRequest | CommandRequest | AcksRequest | PingRequest | LeaseRequest


class SnapshotReply(_Message, tag="snapshot", frozen=True):
    """Newest states as records, the role of the key that asked, and clauses about what the journal lacks."""

    id: int
    run: str
    epoch: int
    head: int
    time: float
    role: str
    states: tuple[msgspec.Raw, ...]
    missing: tuple[str, ...] = ()


class PageReply(_Message, tag="page", frozen=True):
    """Records of a page; every number from the asked start up to `next` (exclusive) has been looked at.

    `first` is the oldest number that the journal still has: a page asked for from before it begins there.
    """

    id: int
    epoch: int
    head: int
    plain: int
    base: int
    next: int
    records: tuple[msgspec.Raw, ...]
    first: int = 1


class CommandReply(_Message, tag="command", frozen=True):
    """The command is journaled; `state` is its newest state."""

    id: int
    state: AckState
    detail: str = ""


class AcksReply(_Message, tag="acks", frozen=True):
    """Acks of a command in the order of the journal; `known` is false for an id that the hub has never seen."""

    id: int
    known: bool
    acks: tuple[Ack, ...]


class Pong(_Message, tag="pong", frozen=True):
    """The hub's clock."""

    id: int
    time: float


class LeaseReply(_Message, tag="writer", frozen=True):
    """The lease now; `mine`: whether the requester holds it; `former`: the session it was taken from, else ""."""

    id: int
    writer: Lease
    mine: bool
    former: str = ""


HELD: Final = "held"
"""Kind of the refusal of a command because another session holds the lease."""


class Refusal(_Message, tag="refusal", frozen=True):
    """The request was refused; `reason` is a clause for the operator. `id` is 0 where none could be read."""

    id: int
    reason: str
    kind: str = ""


Reply = SnapshotReply | PageReply | CommandReply | AcksReply | Pong | LeaseReply | Refusal

pack = msgspec.msgpack.Encoder().encode
"""Encode any message of this file."""

hello_decoder: Final[msgspec.msgpack.Decoder[Hello]] = msgspec.msgpack.Decoder(Hello)
lost_decoder: Final[msgspec.msgpack.Decoder[Lost]] = msgspec.msgpack.Decoder(Lost)
to_producer_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(ToProducer)
beacon_decoder: Final[msgspec.msgpack.Decoder[Beacon]] = msgspec.msgpack.Decoder(Beacon)
request_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Request)
reply_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Reply)
