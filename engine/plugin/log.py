"""The name under which the plugin writes to an engine's log."""

from __future__ import annotations

from typing import Final

LOG: Final = "vllm.driftline"
"""Below vLLM's own logger, so that what is said here stands in the engine's log in its format."""
