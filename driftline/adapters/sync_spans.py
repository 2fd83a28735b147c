"""A framework's own sync of weights as the frames of a sync."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from driftline.frames import Span

POOL: Final = "pool"
"""The engine that a sync's spans name where the framework does not say which of its engines took the weights."""


class Synced(NamedTuple):
    """A sync that has ended; `failed` is why the engines do not hold the weights, "" where they do."""

    name: str
    version: int
    seconds: float
    failed: str


class Sync:
    """A sync that is going on: the adapter may time its phases (`pause`, `load`, `verify`, `reset`, `resume`)."""

    def __init__(self) -> None:
        self._start, self._began = time.time(), time.monotonic()
        self._phases: list[tuple[str, float, float]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase."""
        start, began = time.time(), time.monotonic()
        try:
            yield
        finally:
            self._phases.append((name, start, time.monotonic() - began))

    def spans(self, synced: Synced, before: int, step: int, engine: str) -> list[Span]:
        """One span for each phase that was timed, and one over all of the sync."""
        return [
            Span(
                synced.name, engine, phase, start, seconds, before, synced.version, step,
                ok=not synced.failed, detail=synced.failed,
            )
            for phase, start, seconds in [*self._phases, ("total", self._start, synced.seconds)]
        ]  # fmt: skip

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began
