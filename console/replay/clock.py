"""The clock of a replay: which frames are due, at which speed. Pure: the caller passes the time.

The time of a recording is its hub's. A wait longer than GAP (an engine that was started, a run that was paused) is
shortened to it, because no frame would come meanwhile.
"""

from __future__ import annotations

from typing import Final

SPEEDS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
GAP: Final = 5.0
"""Longest wait for the next frame, in recorded seconds."""


class Player:
    """Plays or is paused; `at` is the recorded time of the newest frame that was shown."""

    def __init__(self, speed: float = 1.0, *, playing: bool = False) -> None:
        self.speed = speed
        self.playing = playing
        self.at = 0.0
        self._since = 0.0
        """Monotonic time at which the recorded time was `at`."""

    def set_position(self, at: float, now: float) -> None:
        """The newest frame shown is of recorded time `at`."""
        self.at, self._since = at, now

    def play(self, playing: bool, now: float) -> None:
        """Play or pause."""
        self._settle(now)
        self.playing = playing

    def change_speed(self, steps: int, now: float) -> None:
        """Move the speed by `steps` entries up (down if negative) the list of speeds."""
        self._settle(now)
        above = [place for place, speed in enumerate(SPEEDS) if speed >= self.speed]
        place = above[0] if above else len(SPEEDS) - 1
        self.speed = SPEEDS[min(max(place + steps, 0), len(SPEEDS) - 1)]

    def seconds_until(self, time: float, now: float) -> float:
        """Seconds until a frame of recorded time `time` is due; infinite while paused."""
        if not self.playing:
            return float("inf")
        gap = min(max(time - self.at, 0.0), GAP)
        return max(gap / self.speed - (now - self._since), 0.0)

    def advance(self, time: float) -> None:
        """A frame of recorded time `time` is shown, at the moment at which it was due."""
        self._since += min(max(time - self.at, 0.0), GAP) / self.speed
        self.at = max(time, self.at)

    def _settle(self, now: float) -> None:
        """Advance the position to `now`, so that another speed applies from here on."""
        if self.playing:
            self.at += min((now - self._since) * self.speed, GAP)
        self._since = now
