"""Errors with messages for the operator."""

from __future__ import annotations


class TrainerError(RuntimeError):
    """A run that cannot start or go on; the message is one whole sentence for the operator."""


class RefusedError(Exception):
    """A command that must not be carried out; the message is a whole sentence for its sender."""


class CancelledError(Exception):
    """A command that was under way and is not wanted any more; the message says by whom."""


class ExpiredError(Exception):
    """A command whose deadline passed before it could take effect."""
