"""Labels of tokens: the weights and the fixes that sampled each, exactly.

vLLM's core stamps the outputs of every step with one string. Driftline's is "VERSION.EPOCH": an epoch is a stretch
of an engine's life in which no fix changed. Around a live switch the core gets "VERSION.-1", then the switch, then
"VERSION.NEXT"; it handles one after the other between steps, so a token that carries an epoch was sampled under
that epoch's states and no other, and the few that a step sampled in the middle say so (IN_BETWEEN).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from engine.actor.host import Span
from engine.types import IN_BETWEEN

States = Mapping[str, str]
"""Fix id to value."""


def label(version: int, epoch: int) -> str:
    """The string for vLLM's core."""
    return f"{version}.{epoch}"


def parse(text: str) -> tuple[int, int]:
    """Version and epoch of a label. Raises ValueError for one that is not ours."""
    version, dot, epoch = text.partition(".")
    if not dot:
        raise ValueError(f"{text!r} is not a VERSION.EPOCH label")
    return int(version), int(epoch)


def stamps(spans: Iterable[Span], length: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Versions and epochs of a response's tokens, each int32 [length].

    Raises ValueError for a label that is not ours, or a token without one.
    """
    versions = np.full(length, -1, dtype=np.int32)
    epochs = np.full(length, IN_BETWEEN, dtype=np.int32)
    for span in spans:
        versions[span.start : span.end], epochs[span.start : span.end] = parse(span.version)
    if (versions < 0).any():
        raise ValueError(f"{int((versions < 0).sum())} of {length} tokens carry no label")
    return versions, epochs


class Epochs:
    """The epochs that a token may still come back with, and what the fixes were in them.

    A request can only carry epochs from the one it began in on, so older ones than any request's in flight are
    dropped: memory grows with the switches during the longest request, not with the run.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.epoch = 0
        self._states: dict[int, dict[str, str]] = {0: {}}
        self._began: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._states)

    @property
    def label(self) -> str:
        """The label for the core to stamp now."""
        return label(self.version, self.epoch)

    @property
    def between(self) -> str:
        """The label for the core to stamp while a fix is being switched."""
        return label(self.version, IN_BETWEEN)

    @property
    def following(self) -> str:
        """The label for the core to stamp from the next `enter` on."""
        return label(self.version, self.epoch + 1)

    def describe(self, states: States) -> None:
        """Set the values of the fixes in the current epoch."""
        self._states[self.epoch] = dict(states)

    def enter(self, states: States) -> None:
        """Begin the next epoch."""
        self.epoch += 1
        self.describe(states)
        self._forget()

    def enter_if_changed(self, states: States) -> bool:
        """Begin the next epoch if the fixes differ from those of this one; returns whether they did."""
        changed = dict(states) != self._states[self.epoch]
        if changed:
            self.enter(states)
        return changed

    def request_began(self, request: int) -> None:
        """A request may bring tokens of this epoch and later ones, until it has `ended`."""
        self._began[request] = self.epoch

    def request_ended(self, request: int) -> None:
        """A request has ended: it returns no more tokens."""
        del self._began[request]
        self._forget()

    def all_described(self, epochs: Iterable[int]) -> bool:
        """Whether all of these have been described: the core stamps a new one before the switch that began it ends."""
        return all(epoch in self._states for epoch in epochs if epoch != IN_BETWEEN)

    def states(self, epochs: Iterable[int]) -> dict[int, dict[str, str]]:
        """The values of the fixes in these epochs; IN_BETWEEN has no states and is left out."""
        return {epoch: dict(self._states[epoch]) for epoch in sorted(set(epochs)) if epoch != IN_BETWEEN}

    def _forget(self) -> None:
        oldest = min(self._began.values(), default=self.epoch)
        for epoch in [epoch for epoch in self._states if epoch < oldest]:
            del self._states[epoch]
