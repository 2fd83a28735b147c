"""Small files read whole, whatever stands at their path: at most so many bytes, from a regular file, without waiting.

A path that was mistyped, or a link that someone else can set, may lead to a device without an end, a FIFO without a
writer, or a file of gigabytes. None of them may hold a process up or fill its memory.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

_PART: Final = 1 << 20
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnfitFileError(OSError):
    """Not a regular file, or larger than the limit; `strerror` is the reason as a clause."""


def read(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises OSError, without having read more than that."""
    with open_regular(path, limit) as file:
        data = file.read(limit + 1)
    if len(data) > limit:  # it has grown since, or does not say its size, as in /proc
        raise _too_large(path, limit)
    return data


def open_regular(path: Path, limit: int) -> BinaryIO:
    """A regular file of at most `limit` bytes, to be read in parts. Raises OSError.

    It may grow while it is read, and the files of /proc do not say their size: the reader counts for itself.
    """
    _check(path, os.stat(path), limit)  # before it is opened: a device may act on that
    # Not blocking: what was a file a moment ago may be a FIFO now.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(fd), limit)
    except OSError:
        os.close(fd)
        raise
    return os.fdopen(fd, "rb")


def copy(path: Path, to: Path, limit: int) -> None:
    """Copy a regular file of at most `limit` bytes to a new one. Raises OSError."""
    with open_regular(path, limit) as file, to.open("xb") as new:
        copied = 0
        while part := file.read(_PART):
            copied += len(part)
            if copied > limit:
                raise _too_large(path, limit)
            new.write(part)


def read_text(path: Path, limit: int, *, encoding: str = "utf-8", errors: str = "strict") -> str:
    """The same as text, every line ended with a newline alone. Raises OSError, UnicodeDecodeError."""
    text = read(path, limit).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check(path: Path, status: os.stat_result, limit: int) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise UnfitFileError(errno.EINVAL, f"it is {_KINDS.get(kind, 'something else')}, not a regular file", str(path))
    if status.st_size > limit:
        raise _too_large(path, limit)


def _too_large(path: Path, limit: int) -> UnfitFileError:
    return UnfitFileError(errno.EFBIG, f"more than {limit} bytes", str(path))
