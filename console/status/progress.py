"""Progress of a long wait: one line that is redrawn on a terminal, plain lines where there is none."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Final, TextIO

from driftline.text import sanitize

SECONDS: Final = re.compile(r" \(\d+ s\)$")
SPIN: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """Show what is being waited for. `update` is cheap and may be called at any rate."""

    def __init__(self, stream: TextIO | None = None, *, plain: bool = True) -> None:
        """`plain`: also print lines where there is no terminal. Default stream: stderr, so that stdout stays data."""
        self._plain = plain
        self._out = stream or sys.stderr
        self._live = self._out.isatty() and os.environ.get("TERM", "") != "dumb"
        self._text = ""
        self._since = time.monotonic()
        self._turn = 0
        self._drawn = False

    def update(self, text: str) -> None:
        """Show `text` and the seconds since it was first shown. Without a terminal a repeated text is not printed."""
        text = sanitize(text)
        if self._live:
            # The line counts the seconds itself; a count within the text must not restart it.
            text = SECONDS.sub("", text)
        if text != self._text:
            self._text, self._since = text, time.monotonic()
            if self._plain and not self._live:
                print(f"  {text}", file=self._out, flush=True)
        if self._live:
            self._draw()

    def _draw(self) -> None:
        self._turn += 1
        width = _width(self._out)
        line = f"{SPIN[self._turn // 2 % len(SPIN)]} {self._text}  {time.monotonic() - self._since:.0f} s"
        # \r and erase-to-end instead of a cursor address: right in every terminal, tmux and over SSH.
        self._out.write(f"\r{line[: width - 1]}\x1b[K")
        self._out.flush()
        self._drawn = True

    def done(self, text: str = "") -> None:
        """Remove the live line; print `text`, if any, in its place."""
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._drawn = False
        if text:
            print(f"  {sanitize(text)}", file=self._out)
        self._out.flush()
        self._text = ""


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 80
