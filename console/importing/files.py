"""Files of logs, bounded before their bytes are read: no device or FIFO, at most LARGEST bytes, no endless line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from console.importing.rows import LogImportError
from driftline import bounded_file

LARGEST: Final = 1 << 29
"""Most bytes of a log. The scalars of a run of a million steps have a tenth of that; a reader holds them all."""
LONGEST: Final = 1 << 24
"""Most bytes of a line."""


def read(path: Path) -> bytes:
    """The whole of a log. Raises OSError."""
    return bounded_file.read(path, LARGEST)


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a log, each with its end; of a longer one than LONGEST the parts. Raises OSError, LogImportError."""
    with bounded_file.open_regular(path, LARGEST) as file:
        total = 0
        while line := file.readline(LONGEST):
            total += len(line)
            if total > LARGEST:
                raise LogImportError(f"{path}: cannot be read: more than {LARGEST} bytes")
            yield line


def text_lines(path: Path, encoding: str = "utf-8", longest: int = LONGEST) -> Iterator[str]:
    """The same as text, with the ends that it has; what is no text is replaced. Raises OSError, LogImportError."""
    with io.TextIOWrapper(
        bounded_file.open_regular(path, LARGEST), encoding=encoding, errors="replace", newline=""
    ) as file:
        total = 0
        while line := file.readline(longest):
            total += len(line)
            if total > LARGEST:
                raise LogImportError(f"{path}: cannot be read: more than {LARGEST} bytes")
            yield line
