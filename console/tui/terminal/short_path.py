"""Paths for a footer of 80 cells: as short as a shell here would take them."""

from __future__ import annotations

from pathlib import Path


def short_path(path: Path | str) -> str:
    """Below the working directory relative to it, below the home directory with a tilde, else whole."""
    path = Path(path)
    for base, prefix in ((Path.cwd, ""), (Path.home, "~/")):
        try:
            return f"{prefix}{path.relative_to(base())}"
        except (ValueError, OSError, RuntimeError):
            continue  # elsewhere; or the working directory is gone, or there is no home
    return str(path)
