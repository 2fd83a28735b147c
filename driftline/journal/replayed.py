"""What a hub adds up from its journal's records, and gets back at its next start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from driftline.journal.records import Record


class ReplayedState(Protocol):
    """State derived from the journal's records, which must be the same again after a restart."""

    def restore(self, record: Record) -> None:
        """Take over one record, in order."""

    def save(self) -> bytes:
        """Everything that `restore` has taken over, bounded in size."""

    def load(self, saved: bytes) -> None:
        """Start from what `save` gave; raises ValueError, with nothing changed, for what another version saved."""


class FullReplay:
    """No state of its own: every record of the journal is passed to `on_record` at each start."""

    def __init__(self, on_record: Callable[[Record], None] | None) -> None:
        self._on_record = on_record

    def restore(self, record: Record) -> None:
        if self._on_record is not None:
            self._on_record(record)

    def save(self) -> bytes:
        return b""

    def load(self, saved: bytes) -> None:
        if self._on_record is not None or saved:
            raise ValueError("every record is wanted")
