"""Targets: a run directory of this machine, a connection file with a key, or a run directory reached over SSH."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Final, Literal, Protocol

from console.errors import FAILED, NO_RUN, USAGE, CommandError
from driftline.keys import Keys, load, load_file, parse_pair
from driftline.rundir import RUN_VARIABLE, Connection, RunDir, RunError, find, parse_connection, read_connection
from driftline.text import sanitize

KEY_VARIABLE: Final = "DRIFTLINE_KEY"
Role = Literal["viewer", "operator"]

_REREAD_SECONDS: Final = 5.0
"""Seconds between two readings of the connection file on another machine."""
_PING_SECONDS: Final = 3.0


class Target(Protocol):
    """A run as a console reaches it."""

    @property
    def id(self) -> str:
        """The run's name."""
        ...

    @property
    def directory(self) -> RunDir | None:
        """The run's directory, where it is on this machine."""
        ...

    def live(self) -> bool:
        """True while its hub runs, as far as this machine can know."""
        ...

    def connection(self) -> Connection:
        """The hub's endpoints now, as addresses of this machine. Raises RunError or CommandError."""
        ...

    def credentials(self, role: Role) -> Keys:
        """The key to authenticate with. Raises RunError or CommandError."""
        ...

    def note(self) -> str:
        """A clause about the connection to the run while it is down, else ""."""
        ...

    def close(self) -> None:
        """Close every connection and process of this target."""
        ...


def find_target(name: str | None, *, key: str | None = None, connection: str | None = None) -> Target:
    """The run named: an id, a directory, `ssh://[user@]host[:port]/path`, or a connection file.

    `key`: a key file instead of the run's own (default $DRIFTLINE_KEY); `connection`: a connection file from
    elsewhere. Raises RunError or CommandError.
    """
    key = key or os.environ.get(KEY_VARIABLE) or None
    name = name or (os.environ.get(RUN_VARIABLE) if connection is None else None) or None
    own = Path(key) if key else None
    if name is not None and name.startswith("ssh://"):
        return SshRun(name, key=own, connection=Path(connection) if connection else None)
    if connection is not None and name is not None:
        raise CommandError("give a run or --connection FILE, not both", USAGE)
    file = connection or name
    if connection is not None or (file is not None and os.path.isfile(file)):
        return ConnectionFileRun(Path(str(file)), own)
    return LocalRun(find(name), own)


class LocalRun:
    """A run directory of this machine."""

    def __init__(self, run: RunDir, key: Path | None = None) -> None:
        self._run, self._key = run, key

    @property
    def id(self) -> str:
        return sanitize(self._run.id)

    @property
    def directory(self) -> RunDir | None:
        return self._run

    def live(self) -> bool:
        return self._run.live()

    def connection(self) -> Connection:
        return self._run.connection()

    def credentials(self, role: Role) -> Keys:
        return load_file(self._key) if self._key is not None else load(self._run, role)

    def note(self) -> str:
        return ""

    def close(self) -> None:
        pass


def _is_connection(file: Path) -> bool:
    """True for a connection file."""
    try:
        read_connection(file)
    except RunError:
        return False
    return True


class ConnectionFileRun:
    """A connection file and a key that were copied from the run's own machine."""

    def __init__(self, file: Path, key: Path | None) -> None:
        if key is None:
            if not _is_connection(file):
                find(str(file))  # says what it is instead
            raise CommandError(f"{file}: a connection file needs a key: --key FILE, or ${KEY_VARIABLE}", USAGE)
        self._file = file
        self._keys = load_file(key)
        self._run = self.connection().run

    @property
    def id(self) -> str:
        return self._run

    @property
    def directory(self) -> RunDir | None:
        return None

    def live(self) -> bool:
        return hub_answers(self.connection(), self._keys)

    def connection(self) -> Connection:
        return read_connection(self._file)

    def credentials(self, role: Role) -> Keys:  # noqa: ARG002  the one key that there is; the hub knows its role
        return self._keys

    def note(self) -> str:
        return ""

    def close(self) -> None:
        pass


class SshRun:
    """A run directory of another machine, through OpenSSH. Connects on construction; OpenSSH may ask questions."""

    def __init__(self, name: str, *, key: Path | None, connection: Path | None) -> None:
        # Imported here: a run of this machine does not need it.
        from console.connect import ssh

        try:
            self._address = ssh.parse(name)
        except ssh.AddressError as error:
            raise CommandError(str(error), USAGE) from error
        from console.connect.tunnel import Tunnel, TunnelError

        self._error = TunnelError
        self._file = connection
        self._keys: dict[str, Keys] = {}
        self._own = load_file(key) if key is not None else None
        self._lock = threading.Lock()
        self._last_read = time.monotonic()
        try:
            self._tunnel = Tunnel(self._address, prompts=sys.stdin.isatty() and sys.stderr.isatty())
        except TunnelError as error:
            raise CommandError(f"ssh to {self._address.destination}: {error}", NO_RUN) from error
        try:
            self._remote = self._read()
            self._forwarded = self._tunnel.forward(self._remote)
        except TunnelError as error:
            self._tunnel.close()
            raise CommandError(f"ssh to {self._address.destination}: {error}", FAILED) from error
        except BaseException:
            self._tunnel.close()
            raise
        self._tunnel.on_renewed(self._renew)

    @property
    def id(self) -> str:
        return self._remote.run

    @property
    def directory(self) -> RunDir | None:
        return None

    @property
    def ssh_pid(self) -> int | None:
        """Process of OpenSSH that holds the connection."""
        return self._tunnel.pid

    def live(self) -> bool:
        if not self._tunnel.up:
            return True  # unknown while the tunnel is down, which reconnects by itself
        keys = self._own or next(iter(self._keys.values()), None) or self.credentials("viewer")
        return hub_answers(self._forwarded, keys)

    def connection(self) -> Connection:
        """The same addresses each time; a hub that has changed its ports is forwarded anew first."""
        with self._lock:
            if self._tunnel.up and time.monotonic() - self._last_read > _REREAD_SECONDS:
                # The file does not exist while a hub starts; it is read again later.
                with contextlib.suppress(self._error, CommandError):
                    self._refresh()
                self._last_read = time.monotonic()
            return self._forwarded

    def credentials(self, role: Role) -> Keys:
        if self._own is not None:
            return self._own
        if role not in self._keys:
            self._keys[role] = self._read_key(role)
        return self._keys[role]

    def note(self) -> str:
        return self._tunnel.note

    def close(self) -> None:
        self._tunnel.close()

    def _renew(self) -> None:
        """After a reconnect: the hub may have other ports by now, and nothing is forwarded yet."""
        with contextlib.suppress(
            CommandError
        ):  # its hub may be starting; the addresses known before are the best guess
            self._remote = self._read()
        self._forwarded = self._tunnel.forward(self._remote)
        self._last_read = time.monotonic()

    def _refresh(self) -> None:
        remote = self._read()
        if (remote.live, remote.rpc, remote.server) != (self._remote.live, self._remote.rpc, self._remote.server):
            self._remote, self._forwarded = remote, self._tunnel.forward(remote)

    def _read(self) -> Connection:
        if self._file is not None:
            return read_connection(self._file)
        path = self._address.file("connection.json")
        data = self._get(path, "the connection file")
        try:
            return parse_connection(data)
        except ValueError as error:
            raise CommandError(f"{self._address.host}: {path}: not a connection file: {error}", NO_RUN) from error

    def _read_key(self, role: Role) -> Keys:
        path = self._address.file(f"keys/{role}.key")
        data = self._get(path, f"the {role}'s key")
        try:
            return parse_pair(data.decode("ascii"))
        except ValueError as error:
            raise CommandError(f"{self._address.host}: {path}: not a key file of this project", FAILED) from error

    def _get(self, path: str, what: str) -> bytes:
        try:
            return self._tunnel.read(path)
        except self._error as error:
            words = str(error)
            where = f"{self._address.host}: {what} of the run at {self._address.path}"
            if "No such file" in words:
                raise CommandError(f"{where} is not there; is this the run's directory?", NO_RUN) from error
            if "ermission denied" in words:
                raise CommandError(
                    f"{where} may not be read by that user; have its owner make you a key (driftline keys new) and "
                    f"attach with --connection FILE --key FILE",
                    FAILED,
                ) from error
            raise CommandError(f"{where} cannot be read: {words}", FAILED) from error


def hub_answers(connection: Connection, keys: Keys) -> bool:
    """True if a hub answers at this address, even if it refuses the key."""
    # Imported here: finding a run of this machine needs no client of its hub, and should not wait for the import.
    from driftline.consumer.rpc import Client, ClientError, RefusedError

    client = Client(connection, keys)
    try:
        client.ping(_PING_SECONDS)
    except RefusedError:
        return True
    except ClientError:
        return False
    finally:
        client.close()
    return True


__all__ = ["ConnectionFileRun", "LocalRun", "Role", "SshRun", "Target", "find_target", "hub_answers"]
