"""The disk as the hub uses it: appending whole or not at all, forcing to disk, and little files that appear whole.

Journal and audit log take a `Disk`, so that a test can give them one that fails as real ones do.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_COPY: Final = 1024 * 1024


class Disk:
    """The real disk."""

    def write_at(self, fd: int, data: bytes, at: int) -> str:
        """Write `data` at offset `at`, the end of the file; returns "", or why it could not be written.

        A short write is not an error to the system; half a record must not stay before the next one.
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

    def sync(self, fd: int) -> None:
        """Force a file's data to the disk. Raises OSError."""
        os.fdatasync(fd)

    def rewrite(self, fd: int, start: int, end: int) -> None:
        """Write what is at [start, end) once more, in place. Raises OSError.

        After a failed sync the kernel takes the pages for clean: another sync would succeed without writing them.
        """
        while start < end:
            data = os.pread(fd, min(_COPY, end - start), start)
            if not data:
                return
            start += os.pwrite(fd, data, start)


def replace(path: Path, data: bytes) -> None:
    """Give `path` this content, mode 0600, whole or not at all; not forced to the disk. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        try:
            written = os.write(fd, data)
        finally:
            os.close(fd)
        if written != len(data):
            raise OSError(f"the disk took {written} of {len(data)} bytes")
        os.rename(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def move_aside(path: Path, end: int) -> None:
    """Cut a file off at `end`; what was behind is appended to `<name>.torn`, on the disk first. Raises OSError."""
    fd = os.open(path, os.O_RDWR)
    try:
        torn = os.pread(fd, os.fstat(fd).st_size - end, end)
        with path.with_name(f"{path.name}.torn").open("ab") as file:
            file.write(torn)
            file.flush()
            os.fsync(file.fileno())
        os.ftruncate(fd, end)
    finally:
        os.close(fd)


def sync_path(path: Path) -> None:
    """Force a file or a folder to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


DISK: Final = Disk()
