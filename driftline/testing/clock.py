"""A clock that moves only when it is moved."""

from __future__ import annotations


class Clock:
    """Wall time (Unix seconds) and monotonic time. It may stand in for the module `time`, or for `time.time` alone."""

    def __init__(self, wall: float = 1.0e9, mono: float = 50.0) -> None:
        self.wall, self.mono = wall, mono

    def wait(self, seconds: float) -> None:
        """Both times go on."""
        self.wall += seconds
        self.mono += seconds

    def jump(self, seconds: float) -> None:
        """The wall clock alone is set, forwards or back."""
        self.wall += seconds

    def time(self) -> float:
        """As `time.time`."""
        return self.wall

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return self.mono

    __call__ = time
