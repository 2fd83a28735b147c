"""Authentication of connections: ZeroMQ's protocol for it (ZAP, RFC 27), answered inside the hub's own loop.

A loop of its own would be one more thing to fail: ZAP fails open in libzmq when its handler is gone, unless
`zap_enforce_domain` is set. Here a hub that hangs accepts no connection, and every socket enforces the domain. What
a key may do is looked up again for every message, so that a grant taken away counts at once.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final, NamedTuple

import zmq
import zmq.utils.z85

from driftline.audit import Entry
from driftline.hub.effects import Now
from driftline.keys import Grant, Keys, new_pair, read_authorized
from driftline.rundir import RunError
from driftline.sockets import Context, Monitor, Socket, dial, secure_client

DOMAIN: Final = b"driftline"
_ENDPOINT: Final = "inproc://zeromq.zap.01"
_SELF_TEST_SECONDS: Final = 5.0
_ADDRESSES_KEPT: Final = 256
BAN_SECONDS: Final = 600.0

log = logging.getLogger("driftline.hub")


class AuthError(RuntimeError):
    """The hub cannot distinguish granted keys from unknown ones and must not run."""


class GrantChange(NamedTuple):
    """The grant of one key before and after an edit; None for none. At least one of them is a grant."""

    old: Grant | None
    new: Grant | None

    def entry(self, now: Now) -> Entry:
        """The change for the audit log."""
        kind = "added" if self.old is None else "removed" if self.new is None else "changed"
        grant = self.new or self.old
        assert grant is not None
        return Entry(f"key.{kind}", now.wall, grant.identity, data={"public": grant.public})


class GrantTable:
    """The authorized-keys file, read again when it changes. A file that became unreadable changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stat()
        self._grants = read_authorized(path)
        self._banned: dict[str, float] = {}
        self._changes: list[GrantChange] = []

    def ban(self, public: str) -> Grant | None:
        """Grant a key nothing for BAN_SECONDS, whatever the file says; return what it had.

        Not for ever: consoles that share a key must not all be locked out for the mistake of one.
        """
        self._banned[public] = time.monotonic() + BAN_SECONDS
        return self._grants.get(public)

    def grant(self, public: str) -> Grant | None:
        """The grant of this key (Z85); None for an unknown or banned key."""
        if public in self._banned:
            if time.monotonic() < self._banned[public]:
                return None
            del self._banned[public]
        return self._grants.get(public)

    def in_force(self) -> dict[str, Grant]:
        """Every grant that counts now, by public key: without those of banned keys."""
        return {public: grant for public in self._grants if (grant := self.grant(public)) is not None}

    @property
    def changed(self) -> bool:
        """Whether changes wait for `take_changes`."""
        return bool(self._changes)

    def take_changes(self) -> list[GrantChange]:
        """What is different from the last call, after a look at the file."""
        self.refresh()
        taken, self._changes = self._changes, []
        return taken

    def refresh(self) -> None:
        """Read the file again if it has changed; the changes wait for `take_changes`."""
        stamp = self._stat()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        old = self._grants
        try:
            self._grants = read_authorized(self._path)
        except RunError as error:
            log.error("%s; the grants read before stay in force", error)
        publics = sorted(old.keys() | self._grants.keys())
        changes = [GrantChange(old.get(public), self._grants.get(public)) for public in publics]
        self._changes += [change for change in changes if change.old != change.new]

    def _stat(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


class Authenticator:
    """The ZAP handler: accepts the keys of a GrantTable (and, during the self-test, one made for it).

    `refused_addresses` are the addresses of refused connections, which the server takes and logs.
    """

    def __init__(self, context: Context, table: GrantTable) -> None:
        self._table = table
        self._probe_key = ""
        self.refused_addresses: list[str] = []
        self.socket: Socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ENDPOINT)

    def serve(self) -> None:
        """Answer every request that is waiting; never blocks. Whatever is not clearly allowed is refused."""
        while True:
            try:
                request = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            number = request[1] if len(request) > 1 else b""
            try:
                user = self._user(request)
            except Exception:  # an error in this code must neither accept a key nor end the handler
                log.exception("a key could not be looked up; refused")
                user = ""
            status = (b"200", b"OK") if user else (b"400", b"no such key")
            if not user and len(self.refused_addresses) < _ADDRESSES_KEPT:
                self.refused_addresses.append(request[3].decode("ascii", "replace")[:64] if len(request) > 3 else "?")
            self.socket.send_multipart((b"1.0", number, *status, user.encode(), b""))

    def _user(self, request: list[bytes]) -> str:
        match request:
            case [b"1.0", _, domain, _, _, b"CURVE", key] if domain == DOMAIN and len(key) == 32:
                public = zmq.utils.z85.encode(key).decode()
                return public if self._known(public) else ""
            case _:
                return ""

    def _known(self, public: str) -> bool:
        """Whether a key may connect. The file is looked at before a refusal: the key may have been added just now."""
        if public == self._probe_key or self._table.grant(public) is not None:
            return True
        self._table.refresh()
        return self._table.grant(public) is not None

    def self_test(self, endpoints: list[tuple[str, int]], server: str) -> None:
        """Connect to every (endpoint, fitting socket type) with a granted key and an unknown one. Raises AuthError.

        It costs milliseconds and is the only proof that the sockets of *this* process are closed.
        """
        granted, unknown = new_pair(), new_pair()
        self._probe_key = granted.public
        try:
            for endpoint, kind in endpoints:
                if not self._accepted(endpoint, kind, server, granted):
                    raise AuthError(f"{endpoint}: a granted key was refused in the self-test")
                if self._accepted(endpoint, kind, server, unknown):
                    raise AuthError(f"{endpoint}: an unknown key was accepted in the self-test")
        finally:
            self._probe_key = ""
            self.refused_addresses.clear()

    def _accepted(self, endpoint: str, kind: int, server: str, keys: Keys) -> bool:
        context: Context = zmq.Context()
        try:
            client: Socket = context.socket(kind)
            client.linger = 0
            secure_client(client, server, keys)
            monitor = Monitor(client)
            dial(client, endpoint)
            tick_ms = 5
            for _ in range(int(_SELF_TEST_SECONDS * 1000 / tick_ms)):
                self.socket.poll(tick_ms)
                self.serve()
                monitor.update()
                if monitor.succeeded or monitor.refused:
                    return monitor.succeeded
            raise AuthError(f"{endpoint}: no answer to a handshake within {_SELF_TEST_SECONDS:.0f} s in the self-test")
        finally:
            context.destroy(linger=0)


def secure_server(socket: Socket, keys: Keys) -> None:
    """Make a hub socket speak CURVE, and only with keys that the Authenticator accepts."""
    socket.curve_server = True
    socket.curve_secretkey = keys.secret.encode()
    socket.curve_publickey = keys.public.encode()
    socket.zap_domain = DOMAIN
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
