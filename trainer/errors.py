"""What goes wrong for the operator to read."""

from __future__ import annotations


class TrainerError(RuntimeError):
    """A run that cannot start or go on; the message is one whole sentence for the operator."""
