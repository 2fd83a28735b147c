"""Kinds of the events by which a run reports the active rounds that it has made by itself."""

from __future__ import annotations

from typing import Final

MADE: Final = "diagnosis.round"
"""The figures are the event's data, with a `reason`."""
FAILED: Final = "diagnosis.round-failed"
