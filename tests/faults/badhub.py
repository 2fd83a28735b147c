"""A hub whose disk and clock fail on demand: `python -m tests.faults.badhub FLAGS RUN_DIR`.

While FLAGS/sync exists every sync fails, while FLAGS/write does every write, while FLAGS/short does every write after
half of its bytes. While FLAGS/hang exists the hub's loop hangs at its next write, and only its sockets' threads go on.
While FLAGS/clock exists the wall clock is ahead by the seconds in it.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from unittest.mock import patch

from driftline.hub.__main__ import main
from driftline.journal.disk import Disk


class FaultyDisk(Disk):
    """Obeys the files in a folder."""

    def __init__(self, flags: Path) -> None:
        self.flags = flags

    def write_at(self, fd: int, data: bytes, at: int) -> str:
        while (self.flags / "hang").exists():
            time.sleep(0.01)
        if (self.flags / "write").exists():
            return os.strerror(errno.EIO)
        if (self.flags / "short").exists():
            os.pwrite(fd, data[: len(data) // 2], at)
            os.ftruncate(fd, at)
            return "the disk took only a part of a record"
        return super().write_at(fd, data, at)

    def sync(self, fd: int) -> None:
        if (self.flags / "sync").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)


class JumpingClock:
    """The wall clock, moved by the seconds in a file while there is one."""

    def __init__(self, file: Path) -> None:
        self._file, self._time = file, time.time

    def __call__(self) -> float:
        try:
            return self._time() + float(self._file.read_text())
        except (FileNotFoundError, ValueError):  # none, or one that is being written
            return self._time()


if __name__ == "__main__":
    flags = Path(sys.argv[1])
    with patch.object(time, "time", JumpingClock(flags / "clock")):
        sys.exit(main(sys.argv[2:], FaultyDisk(flags)))
