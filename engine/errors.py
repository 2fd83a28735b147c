"""What goes wrong with an engine; apart from `engine.types`, which would cost the plugin's processes more imports."""

from __future__ import annotations


class EngineError(RuntimeError):
    """An engine that cannot start, died or refused; the message is a whole sentence that names it."""


class DeadCoreError(EngineError):
    """vLLM's engine core is dead; the actor around it lives on, and says so."""
