"""Waiting for a condition, with a limit and with words for the failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 30.0
"""Seconds after which a condition that should come within milliseconds counts as failed."""


def until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait until `condition()` is true; raise AssertionError, with `what` it was, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:.0f} s for {what}")
        time.sleep(0.01)
