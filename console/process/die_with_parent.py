"""Run a command that gets a signal when its parent dies, however the parent dies.

Run by path, not as a module, so that it costs an interpreter start without site-packages (about 10 ms):
`python -I -S die_with_parent.py PARENT_PID SIGNAL COMMAND...`. The command replaces this process, so the process id
that the parent knows is the command's. Linux only; elsewhere the command just runs, and only the parent's own clean-up
ends it. The kernel ties the signal to the parent's *thread*: the parent must start its children from a thread that
lives as long as it does.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the command; return only if the parent is gone already."""
    parent, signal_number, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        # The parent may have died before the call above; then no signal would ever come.
        if os.getppid() != int(parent):
            return
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
