"""Appending to a file so that a full disk leaves either the whole of a record or nothing of it."""

from __future__ import annotations

import contextlib
import os


def put(fd: int, data: bytes, at: int) -> str:
    """Write `data` at offset `at`, the end of the file; returns "", or why it could not be written.

    A short write is no error to the system; half a record must not stay before the next one.
    """
    try:
        if os.pwrite(fd, data, at) == len(data):
            return ""
        reason = "the disk took only a part of a record"
    except OSError as error:
        reason = error.strerror or str(error)
    with contextlib.suppress(OSError):
        os.ftruncate(fd, at)
    return reason
