"""One command to its end, with a limit on its output and its time, for what another machine sends."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence

_BLOCK = 1 << 16


def run(command: Sequence[str], *, limit: int, seconds: float) -> subprocess.CompletedProcess[bytes]:
    """Run a command without input; once either stream is longer than `limit` bytes, the command is killed.

    A stream comes back with at most `limit` + 1 bytes. Raises subprocess.TimeoutExpired after `seconds`, OSError.
    """
    until = time.monotonic() + seconds
    with (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child,
        selectors.DefaultSelector() as selector,
    ):
        try:
            assert child.stdout is not None, "a pipe"
            assert child.stderr is not None, "a pipe"
            streams = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
            for stream in streams:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map() and all(len(data) <= limit for data in streams.values()):
                ready = selector.select(max(0.0, until - time.monotonic()))
                if not ready:
                    raise subprocess.TimeoutExpired(command, seconds)
                for key, _ in ready:
                    data = streams[key.fd]
                    block = os.read(key.fd, min(_BLOCK, limit + 1 - len(data)))
                    data += block
                    if not block:
                        selector.unregister(key.fd)
            if not selector.get_map():
                child.wait(max(0.0, until - time.monotonic()))
        finally:
            if child.poll() is None:
                child.kill()
    out, errors = streams.values()
    return subprocess.CompletedProcess(command, child.returncode, bytes(out), bytes(errors))
