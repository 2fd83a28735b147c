"""What the environment says about joining a run: which one, with which key, and how long a pause may last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from driftline import keys as run_keys
from driftline import rundir
from driftline.keys import Keys
from driftline.rundir import RUN_VARIABLE, Connection, RunDir, RunError

KEY_VARIABLE: Final = "DRIFTLINE_KEY"
LEASE_VARIABLE: Final = "DRIFTLINE_PAUSE_LEASE"
PAUSE_LEASE_S: Final = 600.0
"""How long a pause lasts at most, as `trainer.pause_lease` of Driftline's own runs."""
LONGEST_LEASE_S: Final = 86_400.0


class Membership(NamedTuple):
    """A run to join: its directory on this machine, or a connection from elsewhere, and the key to do it with."""

    run: RunDir | None
    connection: Connection | None
    keys: Keys
    lease: float = PAUSE_LEASE_S
    """Seconds after which a pause ends by itself."""

    @property
    def id(self) -> str:
        """The run's name."""
        return self.run.id if self.run is not None else self.connection.run if self.connection is not None else ""


def membership(environ: Mapping[str, str], key: str) -> Membership:
    """The run that the variables name; in a run directory `key` is taken where they name none.

    Raises RunError with a sentence: no such run, no key, no lease.
    """
    place = environ.get(RUN_VARIABLE, "")
    lease = pause_lease(environ)
    named = environ.get(KEY_VARIABLE, "")
    if place.endswith(".json") or Path(place).is_file():
        if not named:
            raise RunError(f"{RUN_VARIABLE} is a connection file; {KEY_VARIABLE} must name a key file beside it")
        return Membership(None, rundir.read_connection(Path(place)), run_keys.load_file(Path(named)), lease)
    run = rundir.find(place)
    return Membership(run, None, run_keys.load_file(Path(named)) if named else run_keys.load(run, key), lease)


def pause_lease(environ: Mapping[str, str]) -> float:
    """Seconds that a pause lasts at most. Raises RunError."""
    text = environ.get(LEASE_VARIABLE, "")
    try:
        seconds = float(text or PAUSE_LEASE_S)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= LONGEST_LEASE_S:
        raise RunError(f"{LEASE_VARIABLE}='{text[:80]}': a lease is 1 to {LONGEST_LEASE_S:.0f} seconds")
    return seconds
