"""A process on a terminal of its own, which it can touch only once the terminal's size and modes are known."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests import signals


class Forked(NamedTuple):
    """The process, the terminal's other side, and its modes before the process had it."""

    pid: int
    fd: int
    modes: list[Any]


def fork(
    command: Sequence[str], environment: Mapping[str, str], size: tuple[int, int] = (80, 24), folder: Path | None = None
) -> Forked:
    """Start a command with a terminal of so many columns and rows as its controlling one, in this folder."""
    read, write = os.pipe()
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.close(write)
            os.read(read, 1)
            signals.restore_defaults()
            if folder is not None:
                os.chdir(folder)
            os.execve(command[0], list(command), dict(environment))
        finally:
            os._exit(127)
    os.close(read)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    modes = termios.tcgetattr(fd)
    os.write(write, b".")
    os.close(write)
    return Forked(pid, fd, modes)
