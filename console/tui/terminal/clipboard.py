"""Copying what is on screen: to the terminal's clipboard (OSC 52) and, because no terminal says whether it took it,
to a file as well.

The text may hold what a model wrote, and may be pasted into a shell: it goes out as printable lines only, and into
the escape sequence as base64, so that nothing in it can end the sequence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from textual.app import App

from console.tui.paint.clean_text import clean
from console.tui.terminal.short_path import short_path

CLIPBOARD_BYTES: Final = 74_000
"""Bytes that xterm accepts in one OSC 52, before base64; more is left to the file."""


def printable(text: str) -> str:
    """The lines of a text without anything invisible; a tab or a carriage return becomes a space."""
    return "\n".join(clean(line) for line in text.split("\n"))


def copy_text(app: App[None], text: str, what: str, folder: Path | None, name: str = "copied.txt") -> str:
    """Copy `text`, and write it to `folder`/`name`, for its owner only; returns the sentence for the operator.

    `what` names it there. `folder` is None where the run's directory is not on this machine. Raises OSError when the
    file cannot be written; the clipboard has it then all the same.
    """
    text = printable(text)
    fits = len(text.encode("utf-8", "replace")) <= CLIPBOARD_BYTES
    if fits:
        app.copy_to_clipboard(text)
    took = f"{what} copied (OSC 52; tmux: set-clipboard on)" if fits else f"{what} is too long for the clipboard"
    if folder is None:
        return took if fits else f"{took}, and the run's directory is not on this machine: nothing was copied"
    path = folder / name
    temporary = folder / f".{name}.{os.getpid()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return f"{took}; also in {short_path(path)}"
