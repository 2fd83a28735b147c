"""Rate limits of one key: token buckets, so that a burst passes and a flood does not."""

from __future__ import annotations

from typing import Final

import msgspec

AFTER_RESTART: Final = 0.5
_KEYS_KEPT: Final = 4096


class Rate(msgspec.Struct, frozen=True):
    """`burst` at once, `per_second` in the long run."""

    per_second: float
    burst: float


class Limits(msgspec.Struct, frozen=True):
    """Limits of one hub. A console that pages in a long journal needs hundreds of requests a second, an operator
    with a script a few commands; `commands_kept` is how many the hub remembers, `acks_kept` how many of each;
    `states_kept` how many newest states of things that have a name."""

    commands: Rate = Rate(10.0, 50.0)
    requests: Rate = Rate(2000.0, 4000.0)
    commands_kept: int = 2000
    acks_kept: int = 64
    states_kept: int = 1024


def limit_text(rate: Rate) -> str:
    """A rate in the words of a refusal."""
    return f"{rate.per_second:g} a second (or {rate.burst:g} at once)"


class RateLimiter:
    """One bucket a key, all of one rate.

    `full` is the share of the burst that a key not seen before has. What the keys had used up ends with their hub;
    one that was started again gives half a burst, so that crashes are no way around a limit and no punishment.
    """

    def __init__(self, rate: Rate, full: float = 1.0) -> None:
        self.rate = rate
        self._start = max(1.0, full * rate.burst)
        self._levels: dict[str, tuple[float, float]] = {}

    def allow(self, key: str, mono: float) -> bool:
        """True if `key` may go on; false if it has used up what it had."""
        level, at = self._levels.get(key, (self._start, mono))
        level = min(self.rate.burst, level + max(0.0, mono - at) * self.rate.per_second)
        allowed = level >= 1.0
        if key not in self._levels and len(self._levels) >= _KEYS_KEPT:
            self._levels.clear()  # only granted keys get here, so this is a table of thousands of them
        self._levels[key] = (level - 1.0 if allowed else level, mono)
        return allowed
