"""The newest message to the operator, for a while: an answer in the footer, an alarm in the header."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from driftline.frames import Level

SECONDS: Final = 6.0


class Notice:
    """One thing at a time: a newer one takes the place of the last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds of any origin."""
        self.clock = clock
        self._said: tuple[str, Level] | None = None
        self._until = 0.0

    def show(self, text: str, level: Level) -> None:
        """Show `text` from now on."""
        self._said, self._until = (text, level), self.clock() + SECONDS

    def clear(self) -> None:
        """Take it away before its time."""
        self._said = None

    def now(self) -> tuple[str, Level] | None:
        """The message of this moment, None without one."""
        if self._said is not None and self.clock() >= self._until:
            self._said = None
        return self._said
