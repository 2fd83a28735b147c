"""The one reader of published segments in a vLLM worker's process: it keeps the latest one mapped."""

from __future__ import annotations

from typing import Final

from engine.weights.publish import Reader

READER: Final = Reader()
"""After a load that was not as expected it is unmapped."""
