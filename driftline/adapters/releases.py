"""Releases of a framework: whether an installed one lies within those that an adapter was tested with. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_NUMBERS: Final = re.compile(r"\d+(?:\.\d+)*")


def untested(installed: str, tested: Sequence[str]) -> str:
    """Why an installed release is none that was tested, as a clause; "" if it lies between them, or none is named."""
    numbers = [_numbers(one) for one in tested]
    if not numbers or not installed:
        return ""
    own, said = _numbers(installed), _said(tested)
    # A patch release of a tested minor release counts as tested.
    if own[:2] < min(numbers)[:2]:
        return f"{installed} is older than what this adapter was tested with ({said})"
    if own[:2] > max(numbers)[:2]:
        return f"{installed} is newer than what this adapter was tested with ({said})"
    return ""


def _numbers(release: str) -> tuple[int, ...]:
    found = _NUMBERS.match(release.strip())
    return tuple(int(part) for part in found[0].split(".")) if found else (0,)


def _said(tested: Sequence[str]) -> str:
    ordered = sorted(tested, key=_numbers)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"
