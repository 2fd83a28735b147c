"""Waits for the lock of a supervisor, then becomes the supervisor: the spare one of a run that is kept.

Run by path: `python -I -S standby.py LOCK COMMAND...`. It costs an interpreter without site-packages (some 10 MB) and
no time. The lock is free when its holder has ended, however that was; the command takes this process's place, with the
lock's descriptor as its last argument.
"""

from __future__ import annotations

import fcntl
import os
import sys


def main(arguments: list[str]) -> None:
    """Wait for the lock, and replace this process by the command."""
    lock, *command = arguments
    fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.set_inheritable(fd, True)
    os.execv(command[0], [*command, str(fd)])


if __name__ == "__main__":
    main(sys.argv[1:])
