"""Where a run is, as a console reaches it: a directory here, a connection file with a key, or another machine."""

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
from driftline.rundir import RUN_VARIABLE, Connection, RunDir, find, parse_connection, read_connection
from driftline.text import sanitize

KEY_VARIABLE: Final = "DRIFTLINE_KEY"
Role = Literal["viewer", "operator"]

_LOOK_SECONDS: Final = 5.0
"""How often a connection file on another machine is read again while its hub is silent."""
_PING_SECONDS: Final = 3.0


class Place(Protocol):
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
        """True while its hub runs, as far as can be told from here."""
        ...

    def connection(self) -> Connection:
        """Where the hub is now, in addresses of this machine. Raises RunError or CommandError."""
        ...

    def credentials(self, role: Role) -> Keys:
        """The key to show. Raises RunError or CommandError."""
        ...

    def note(self) -> str:
        """A clause about the way to the run while that is broken, else ""."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


def place(name: str | None, *, key: str | None = None, connection: str | None = None) -> Place:
    """The run named: an id, a directory, `ssh://[user@]host[:port]/path`, or a connection file.

    `key`: a key file instead of the run's own (default $DRIFTLINE_KEY); `connection`: a connection file from
    elsewhere. Raises RunError or CommandError.
    """
    key = key or os.environ.get(KEY_VARIABLE) or None
    name = name or (os.environ.get(RUN_VARIABLE) if connection is None else None) or None
    own = Path(key) if key else None
    if name is not None and name.startswith("ssh://"):
        return There(name, key=own, connection=Path(connection) if connection else None)
    if connection is not None and name is not None:
        raise CommandError("give a run or --connection FILE, not both", USAGE)
    file = connection or name
    if connection is not None or (file is not None and os.path.isfile(file)):
        return Apart(Path(str(file)), own)
    return Here(find(name), own)


class Here:
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


class Apart:
    """A connection file and a key that were brought here from the run's own machine."""

    def __init__(self, file: Path, key: Path | None) -> None:
        if key is None:
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
        return answers(self.connection(), self._keys)

    def connection(self) -> Connection:
        return read_connection(self._file)

    def credentials(self, role: Role) -> Keys:  # noqa: ARG002  the one key that there is; the hub knows its role
        return self._keys

    def note(self) -> str:
        return ""

    def close(self) -> None:
        pass


class There:
    """A run directory of another machine, through OpenSSH. Opens the way on construction, with questions if need be."""

    def __init__(self, name: str, *, key: Path | None, connection: Path | None) -> None:
        # Only now, for a run that is elsewhere.
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
        self._looked = time.monotonic()
        try:
            self._tunnel = Tunnel(self._address, prompts=sys.stdin.isatty() and sys.stderr.isatty())
        except TunnelError as error:
            raise CommandError(f"ssh to {self._address.destination}: {error}", NO_RUN) from error
        try:
            self._far = self._read()
            self._near = self._tunnel.forward(self._far)
        except TunnelError as error:
            self._tunnel.close()
            raise CommandError(f"ssh to {self._address.destination}: {error}", FAILED) from error
        except BaseException:
            self._tunnel.close()
            raise
        self._tunnel.on_renewed(self._renew)

    @property
    def id(self) -> str:
        return self._far.run

    @property
    def directory(self) -> RunDir | None:
        return None

    @property
    def ssh_pid(self) -> int | None:
        """Process of OpenSSH that holds the connection."""
        return self._tunnel.pid

    def live(self) -> bool:
        if not self._tunnel.up:
            return True  # nobody here can tell, and the way comes back by itself
        keys = self._own or next(iter(self._keys.values()), None) or self.credentials("viewer")
        return answers(self._near, keys)

    def connection(self) -> Connection:
        """The same addresses each time; a hub that has moved on its machine is forwarded anew first."""
        with self._lock:
            if self._tunnel.up and time.monotonic() - self._looked > _LOOK_SECONDS:
                # The file is not there while a hub starts; it is looked for again.
                with contextlib.suppress(self._error, CommandError):
                    self._refresh()
                self._looked = time.monotonic()
            return self._near

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
        """On a new connection: the hub may have moved meanwhile, and nothing is forwarded yet."""
        with contextlib.suppress(CommandError):  # its hub may be starting; what was forwarded before is the best guess
            self._far = self._read()
        self._near = self._tunnel.forward(self._far)
        self._looked = time.monotonic()

    def _refresh(self) -> None:
        far = self._read()
        if (far.live, far.rpc, far.server) != (self._far.live, self._far.rpc, self._far.server):
            self._far, self._near = far, self._tunnel.forward(far)

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


def answers(connection: Connection, keys: Keys) -> bool:
    """True if a hub answers there; also when it answers that it does not know the key."""
    # Who finds a run of this machine need not speak to its hub, and does not wait for the import of what that takes.
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


__all__ = ["Apart", "Here", "Place", "Role", "There", "answers", "place"]
