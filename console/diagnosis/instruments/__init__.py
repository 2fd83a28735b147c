"""Passive instruments: pure functions from a view of some tokens to a reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from console.diagnosis.instruments import contexts, magnitude, places, shape, state, timing
from console.diagnosis.instruments.view import View
from console.diagnosis.model import Reading

READERS: Final[tuple[Callable[[View], Reading], ...]] = (
    magnitude.size, magnitude.relative, timing.onset, timing.growth, places.engine, places.zeros, magnitude.sign,
    shape.sampler, contexts.context, shape.repeatable, places.position, places.seam, contexts.repeats, shape.shift,
    shape.ids, magnitude.tails, magnitude.bound, timing.lag, shape.surprise, shape.grid, timing.staleness,
    timing.updates,
    state.processed_logprobs, state.prefix_cache, state.in_flight, state.head, state.temperature, state.versions,
    state.digests, state.resets,
)  # fmt: skip


def read(view: View) -> tuple[Reading, ...]:
    """A reading of every passive instrument, in the order of the catalogue."""
    return tuple(reader(view) for reader in READERS)
