"""The publishing socket: each subscription is allowed or refused by the key that asks.

libzmq cannot end one subscriber's connection, nor cancel a subscription later. When a key loses a right, the socket is
closed and opened again at the same endpoint: every subscriber is disconnected for a moment, must authenticate again,
and fetches the frames of that moment as a page.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

import zmq

from driftline import wire
from driftline.frames import TOPIC, Tokens
from driftline.hub.auth import GrantChange
from driftline.hub.effects import Publish
from driftline.hub.ports import bind, rebind
from driftline.keys import Grant
from driftline.sockets import Socket

TOKENS: Final = TOPIC[Tokens]
TOPICS: Final = frozenset({*TOPIC.values(), wire.BEACON, b""})
"""All that can be subscribed to; anything else would only cost the hub memory."""
UNKNOWN_TOPICS_ALLOWED: Final = 64
"""How many unknown topics a key may ask for, each of which libzmq remembers; a client asks for none."""

_ASK, _LEAVE = b"\x01", b"\x00"
_A_TURN: Final = 256


class SubscriptionOutcome(NamedTuple):
    """Whether anything was waiting; refused grants with their topics; public keys that break the protocol; whether
    nothing more may be decided before a `reopen`; whether a new subscriber to beacons has come."""

    busy: bool
    refused: list[tuple[Grant | None, str]]
    offenders: set[str]
    out_of_step: bool = False
    new_listener: bool = False


def may_subscribe(grant: Grant | None, topic: bytes) -> bool:
    """Whether the holder of a key may have a topic. The empty topic is all of them."""
    if grant is None or not grant.may_watch or topic not in TOPICS:
        return False
    return grant.tokens or topic not in (TOKENS, b"")


class LiveSocket:
    """Publishes to subscribers that may have a topic. `make` returns a new XPUB socket, `grant` a sender's grant."""

    def __init__(
        self, make: Callable[[], Socket], grant: Callable[[zmq.Frame], Grant | None], address: str, old: str
    ) -> None:
        self._make, self._grant, self._address = make, grant, address
        self._watching: set[str] = set()
        self._unknown_topics: dict[str, int] = {}
        self.socket = self._fresh()
        self.endpoint = bind(self.socket, address, old)

    def publish(self, effect: Publish) -> None:
        """Send to every subscriber of the topic; one that does not read misses it and asks for a page."""
        self.socket.send_multipart((effect.topic, effect.head, effect.body), zmq.NOBLOCK)

    def subscriptions(self) -> SubscriptionOutcome:
        """Answer what is waiting, a bounded amount of it.

        libzmq identifies the subscriber being decided by order alone, and a message that is not a subscription shifts
        that order by one: what follows would be decided for another subscriber. No client of this project sends such
        messages. A key that does, or asks for unknown topics, is an offender; all must be disconnected to go on.
        """
        refused: list[tuple[Grant | None, str]] = []
        offenders: set[str] = set()
        busy = new_listener = False
        for _ in range(_A_TURN):
            try:
                frame = self.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            busy = True
            message, grant = frame.bytes, self._grant(frame)
            kind, topic = message[:1], message[1:]
            if kind not in (_ASK, _LEAVE):
                offenders |= {grant.public} if grant is not None else set()
                return SubscriptionOutcome(True, refused, offenders, out_of_step=True)
            if kind == _LEAVE:
                self._set(zmq.UNSUBSCRIBE, topic)
            elif grant is not None and may_subscribe(grant, topic):
                self._watching.add(grant.public)
                new_listener |= topic == wire.BEACON
                self._set(zmq.SUBSCRIBE, topic)
            else:
                refused.append((grant, topic[:32].decode("ascii", "replace")))
                if (
                    grant is not None
                    and topic not in TOPICS
                    and self._count_unknown_topic(grant.public) > UNKNOWN_TOPICS_ALLOWED
                ):
                    offenders.add(grant.public)
        return SubscriptionOutcome(busy, refused, offenders, new_listener=new_listener)

    def _count_unknown_topic(self, public: str) -> int:
        self._unknown_topics[public] = count = self._unknown_topics.get(public, 0) + 1
        return count

    def disconnect_revoked(self, changes: list[GrantChange]) -> bool:
        """Disconnect all subscribers if one of them has lost a right; True if so."""
        lost = [c.old.public for c in changes if c.old is not None and _lost_rights(c.old, c.new)]
        if self._watching.isdisjoint(lost):
            return False
        self.reopen()
        return True

    def reopen(self) -> None:
        """Disconnect all subscribers: each must authenticate and subscribe again."""
        self._watching.clear()
        self._unknown_topics.clear()
        self.socket.close(linger=0)
        self.socket = self._fresh()
        self.endpoint = rebind(self.socket, self._address, self.endpoint)

    def _fresh(self) -> Socket:
        socket = self._make()
        socket.setsockopt(zmq.XPUB_MANUAL, 1)
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        return socket

    def _set(self, option: int, topic: bytes) -> None:
        with contextlib.suppress(zmq.ZMQError):  # the subscriber has gone meanwhile
            self.socket.setsockopt(option, topic)


def _lost_rights(old: Grant, new: Grant | None) -> bool:
    """True if `new` may not see something that `old` might."""
    return any(may_subscribe(old, topic) and not may_subscribe(new, topic) for topic in TOPICS)
