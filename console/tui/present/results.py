"""What came of a command, from the data of its last acknowledgement, in words that fit a dialog.

Keys are flat: `version`, and `engine-0.pause_s` for what one engine says. Seconds are told as durations and bytes with
their unit; what is zero, empty or technical (digests, ids) is left to the screens and the journal that have it whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from console.tui.paint.units import duration, size

Value = str | int | float | bool

LEFT_OUT: Final = frozenset({"sync", "digest", "version_before", "gb_per_s", "attempts"})


def results(data: Mapping[str, Value]) -> list[str]:
    """A line for the whole and one for each engine, in the order of the data; empty for none."""
    lines: dict[str, list[str]] = {}
    for key, value in data.items():
        subject, _, name = key.rpartition(".")
        if name in LEFT_OUT or value is True or (value is not False and not value):
            continue  # what went well is what the rest says; nothing and zero say nothing
        lines.setdefault(subject, []).append(_told(name, value))
    return [f"{subject}  {', '.join(told)}" if subject else ", ".join(told) for subject, told in lines.items()]


def _told(name: str, value: Value) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return f"not {words}"
    if name.endswith("_s") and isinstance(value, int | float):
        return f"{words[:-2]} {duration(float(value))}"
    if name == "bytes" and isinstance(value, int):
        return size(value)
    if name == "version":
        return f"v{value}"
    return f"{words} {value:.3g}" if isinstance(value, float) else f"{words} {value}"
