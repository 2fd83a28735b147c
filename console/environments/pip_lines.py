"""What pip has come to, from the lines that it prints. Pure."""

from __future__ import annotations

import re
from typing import Final

_TAKEN: Final = re.compile(r"^(?:Collecting|Processing) (\S+)")
_FETCHED: Final = re.compile(r"Downloading (\S+) \(([\d.]+) (kB|MB|GB)\)")
_BYTES: Final = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


class PipLines:
    """Counts what pip has taken, and keeps its last words for the case that it fails."""

    KEPT: Final = 12

    def __init__(self, packages: int) -> None:
        self._packages = packages
        self._taken = 0
        self._fetched = 0.0
        self._installing = False
        self._words: list[str] = []

    def read(self, line: str) -> None:
        """Take in one line."""
        text = line.strip()
        if _TAKEN.match(text):
            self._taken += 1
        elif found := _FETCHED.search(text):
            self._fetched += float(found[2]) * _BYTES[found[3]]
        elif text.startswith("Installing collected packages"):
            self._installing = True
        if text and not text.startswith("WARNING: Location"):
            self._words = [*self._words, text][-self.KEPT :]

    @property
    def progress(self) -> str:
        """How far it is, in a few words; "" before pip has said anything."""
        if not self._taken:
            return ""
        if self._installing:
            return "unpacking"
        return f"package {self._taken} of {self._packages}, {self._fetched / 1e9:.1f} GB"

    @property
    def last_words(self) -> list[str]:
        """The last lines, of errors only where there were any."""
        errors = [line for line in self._words if line.startswith("ERROR")]
        return errors or self._words[-4:]

    @property
    def failure(self) -> str:
        """Why pip failed, as a clause with what to do, where it is a cause that is known; else its last line."""
        text = "\n".join(self._words)
        if "No matching distribution found" in text and "torch==" in text:
            return 'pip finds no such torch; TORCH_INDEX names PyTorch\'s own CPU wheel index (README, "Install")'
        if "No space left" in text:
            return "the disk is full; DRIFTLINE_ENVIRONMENTS names a folder on a larger one"
        if "Connection" in text or "Temporary failure in name resolution" in text or "timed out" in text:
            return "the package index cannot be reached"
        return self.last_words[-1].removeprefix("ERROR: ") if self.last_words else "it said nothing"
