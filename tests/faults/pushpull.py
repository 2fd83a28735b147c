"""The way not to do it: PUSH to PULL, a journal behind it, no acknowledgement.

`python -m tests.faults.pushpull PORT FILE` is here to show that the harness of faults 1 and 2 can fail: the same
stops and kills lose frames of this one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import zmq


def main(port: str, file: str) -> None:
    """Write every message's number to the file at once, unbuffered."""
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.rcvhwm = 1000
    socket.bind(f"tcp://127.0.0.1:{port}")
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    Path(f"{file}.{os.getpid()}").touch()
    while True:
        os.write(fd, socket.recv())


if __name__ == "__main__":
    main(*sys.argv[1:])
