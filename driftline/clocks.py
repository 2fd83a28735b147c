"""Ends of leases and deadlines: wall times on the wire, the monotonic clock where they are judged.

A wall clock may jump by hours. A wall time is therefore looked at once, when it arrives; what is left then is what the
lease or the command has.
"""

from __future__ import annotations

import time
from typing import Final

_PASSED: Final = 1e-9
"""A time of the monotonic clock, which begins near 0 with the machine, that has passed; 0 would be no end."""


def by_monotonic(wall: float) -> float:
    """A wall time (Unix seconds) that has just arrived, as a time of this machine's monotonic clock; 0 is no end."""
    return max(time.monotonic() + wall - time.time(), _PASSED) if wall > 0 else 0.0


def by_wall(end: float) -> float:
    """What `by_monotonic` gave, as a wall time of now, for another process; 0 is no end."""
    return time.time() + end - time.monotonic() if end > 0 else 0.0


def passed(end: float) -> bool:
    """Whether what `by_monotonic` gave has passed; never for 0."""
    return 0 < end < time.monotonic()
