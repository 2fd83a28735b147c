"""Lines typed into the command line before, kept for the next console: bounded, and for its owner only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from console.tui.paint.clean_text import clean
from driftline import bounded_file

KEPT: Final = 500
"""Lines kept, the newest."""
_BYTES: Final = 8 << 20
"""Most bytes of the file: twice the lines, each of some thousand characters."""


def default_path(environ: Mapping[str, str]) -> Path | None:
    """$XDG_STATE_HOME/driftline/history, by default under ~/.local/state; None for a user who has no home."""
    state = environ.get("XDG_STATE_HOME") or ""
    # The specification has relative paths ignored.
    base = Path(state if os.path.isabs(state) else os.path.expanduser("~/.local/state"))
    return base / "driftline" / "history" if base.is_absolute() else None


class History:
    """The lines, oldest first. Without a path they are forgotten with the console."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.lines: list[str] = self._load()
        self._at = len(self.lines)
        self._draft = ""

    def _load(self) -> list[str]:
        if self._path is None:
            return []
        try:
            text = bounded_file.read_text(self._path, _BYTES, errors="replace")
        except bounded_file.UnfitFileError:
            self._path = None  # nor written to: that would wait for the other end of a FIFO
            return []
        except OSError:
            return []  # the first time, or a home that cannot be read: a console without memory
        return [line for line in (clean(line).strip() for line in text.splitlines()) if line][-KEPT:]

    def add(self, line: str) -> None:
        """Remember a line, unless it repeats the last one; the next `older` starts from it."""
        line = clean(line).strip()
        if line and (not self.lines or self.lines[-1] != line):
            self.lines = [*self.lines, line][-KEPT:]
            self._save(line)
        self.rewind()

    def rewind(self) -> None:
        """Start from the newest again."""
        self._at, self._draft = len(self.lines), ""

    def older(self, draft: str) -> str:
        """The line before; `draft` is what is being typed, and is what comes after the newest."""
        if self._at == len(self.lines):
            self._draft = draft
        self._at = max(self._at - 1, 0)
        return self.lines[self._at] if self.lines else draft

    def newer(self) -> str:
        """The line after, at last what was being typed."""
        self._at = min(self._at + 1, len(self.lines))
        return self.lines[self._at] if self._at < len(self.lines) else self._draft

    def _save(self, line: str) -> None:
        """Append, so that two consoles keep both their lines; written anew only when the file has grown too long."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with open(descriptor, "a", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(line + "\n")
            self._trim()
        except OSError:
            self._path = None  # a full disk or a read-only home: the line was carried out, which is what counts

    def _trim(self) -> None:
        path = self._path
        assert path is not None, "called with a path only"
        lines = bounded_file.read_text(path, _BYTES, errors="replace").splitlines()
        if len(lines) <= 2 * KEPT:
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines[-KEPT:]) + "\n")
        os.replace(temporary, path)
