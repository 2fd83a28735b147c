"""The share of shadow scoring: which fraction of the sampled groups another engine of the pool scores as well."""

from __future__ import annotations


class BadShareError(ValueError):
    """Not a share; the message says what is allowed."""


def share(text: str) -> float:
    """A fraction from 0 to 1; `off` is 0. Raises BadShareError."""
    try:
        value = 0.0 if text == "off" else float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:  # NaN neither
        raise BadShareError(f"shadow share: '{text[:40]}' is no fraction; allowed: 0 to 1, such as .25, or off")
    return value
