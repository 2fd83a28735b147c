"""The word for a journal whose files are gone, in a module of its own: screens need nothing else of a journal."""

from __future__ import annotations

from typing import Final

LOST: Final = "journal lost"
"""Begins the sentence by which hub and consoles name this state."""
