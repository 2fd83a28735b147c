"""What the environment says about joining: which run, with which key, under which name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from driftline import membership as driftline_membership
from driftline import rundir
from driftline.keys import Keys
from driftline.membership import PAUSE_LEASE_S
from driftline.rundir import Connection, RunDir, RunError

NAME_VARIABLE: Final = "DRIFTLINE_ENGINE"
ENGINE_KEY: Final = "engine"
"""The key of a run directory that an engine takes where none is named."""
MOST_ENGINES: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


class Membership(NamedTuple):
    """A run to join, as `driftline.membership.Membership`, and the name to do it under."""

    run: RunDir | None
    connection: Connection | None
    keys: Keys
    name: str
    """"" for the first free one."""
    lease: float = PAUSE_LEASE_S
    """Seconds after which a pause ends by itself."""

    @property
    def id(self) -> str:
        """The run's name."""
        return self.run.id if self.run is not None else self.connection.run if self.connection is not None else ""


def membership(environ: Mapping[str, str]) -> Membership:
    """The run that the variables name. Raises RunError with a sentence: no such run, no key, no name, no lease."""
    name = environ.get(NAME_VARIABLE, "")
    if name and _NAME.fullmatch(name) is None:
        raise RunError(f"{NAME_VARIABLE}='{name[:80]}': a name is 1 to 64 letters, digits, '.', '_' or '-'")
    to = driftline_membership.membership(environ, ENGINE_KEY)
    return Membership(to.run, to.connection, to.keys, name, to.lease)


class NameClaim:
    """A name that no other engine process of this machine has in this run, for as long as this one lives.

    The claim is a lock on a file, which ends with its process however that dies; so an engine that is started again
    gets the name that its predecessor had. Where no lock can be had the process id makes the name.
    """

    def __init__(self, to: Membership) -> None:
        self._file = -1
        self.name = to.name or self._claimed(to)

    def _claimed(self, to: Membership) -> str:
        machine = _NO_NAME.sub("-", socket.gethostname())[:32]
        # Engines of other machines claim names where this one does not see them.
        prefix = "engine" if to.run is not None else f"engine-{machine}"
        folder = (
            to.run.path / "engines"
            if to.run is not None
            else Path(tempfile.gettempdir()) / f"driftline-{os.getuid()}-{_NO_NAME.sub('-', to.id)}"
        )
        with contextlib.suppress(OSError, RunError):
            rundir.make_private(folder)
            for number in range(MOST_ENGINES):
                if self._lock(folder / f"{number}.lock"):
                    return f"{prefix}-{number}"
        return f"engine-{machine}-{os.getpid()}"

    def _lock(self, path: Path) -> bool:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:
            os.close(file)
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Give the name back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
