"""A command as it is typed, as the words that a program is started with. No shell."""

from __future__ import annotations

import shlex


def words(command: str) -> tuple[str, ...]:
    """The program and its arguments, quoted as for a shell. Raises ValueError: a clause of what is wrong."""
    try:
        found = tuple(shlex.split(command))
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {str(error).lower()}") from error
    if not found or not found[0]:
        raise ValueError("is empty; allowed: a program and its arguments")
    if any("\0" in word for word in found):
        raise ValueError("has a NUL character; allowed: a program and its arguments")
    return found
