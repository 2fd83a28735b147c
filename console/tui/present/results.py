"""The result of a command, from the data of its last acknowledgement, in words that fit a dialog.

Keys are flat: `version`, and `engine-0.pause_s` for what one engine says. Seconds are written as durations and bytes
with their unit; zero, empty and technical values (digests, ids) are left to the screens and the journal.
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
        lines.setdefault(subject, []).append(_phrase(name, value))
    return [f"{subject}  {', '.join(parts)}" if subject else ", ".join(parts) for subject, parts in lines.items()]


def _phrase(name: str, value: Value) -> str:
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
