"""A journal whose files are taken away under its writer: noticing it, and what can be saved through open descriptors.

A removed file can still be read and written through a descriptor: what is acknowledged into it is gone when the
process ends. So the writer compares what it has open with what stands at its paths (link count, device, inode).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from driftline.journal.disk import Disk
from driftline.journal.index import Index, build_index, read_extent
from driftline.journal.records import HEADER, Damage, first_seq
from driftline.journal.segment import OpenSegment, Segment

_COPY: Final = 1024 * 1024


def open_folder(folder: Path) -> int:
    """A descriptor that keeps a folder's identity. Raises OSError."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def same_file(path: Path, fd: int) -> bool:
    """Whether `path` is the file or folder that is open as `fd`. Raises OSError if there is nothing at `path`."""
    there, mine = os.stat(path), os.fstat(fd)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino) and mine.st_nlink > 0


def absence(folder: Path, folder_fd: int, segment: Path, fd: int) -> str:
    """Why the open segment is not the one that readers and the next hub would find; "" if it is. Five system calls."""
    for path, held, kind in ((folder, folder_fd, "directory"), (segment, fd, "file")):
        try:
            if not same_file(path, held):
                return f"{path} was replaced by another {kind}"
        except (FileNotFoundError, NotADirectoryError):
            return f"{path} was removed or renamed"
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return read_only(folder)


def read_only(folder: Path) -> str:
    """Why no segment can be made in a folder; "" if one can."""
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is read-only"


def usable(folder: Path) -> str:
    """Why a folder cannot hold the journal; "" if it can."""
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            return f"{folder} is not a directory"
    except (FileNotFoundError, NotADirectoryError):
        return f"{folder} was removed or renamed"
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return read_only(folder)


def read_existing(paths: Iterable[Path], ours: dict[int, int]) -> list[Segment]:
    """The segments that are in the folder now.

    `ours` has for each number of a segment of this journal the first sequence number in it. Raises OSError, with a
    sentence, for a segment that is not among them: another journal must not be continued.
    """
    found: list[Segment] = []
    for path in paths:
        first = first_seq(path)
        if first > ours.get(int(path.stem), 0):
            raise OSError(f"{path} belongs to another journal")
        after = found[-1].end - 1 if found else max(first - 1, 0)
        extent = read_extent(path)
        if extent is not None and extent.first > after:
            begin, end = extent.first, extent.end
        else:
            index, _ = build_index(path, after, Damage())
            begin, end = index.first, index.first + len(index)
        status = path.stat()
        found.append(Segment(path, begin, end, status.st_size, status.st_mtime))
    return found


def copy_segment(one: OpenSegment, start: int, new: OpenSegment, disk: Disk) -> None:
    """Copy the records from number `start` on into `new`, which has only its header. Raises OSError."""
    at = max(0, start - one.index.first)
    while at < len(one.index) and one.index.offsets[at] == 0:
        at += 1  # a number of which no record is left
    index = Index(one.index.first + at)
    if at < len(one.index):
        begin = one.index.offsets[at]
        shift = begin - HEADER
        index.offsets.extend(offset and offset - shift for offset in one.index.offsets[at:])
        index.sizes.extend(one.index.sizes[at:])
        index.plain.extend(one.index.plain[at:])
        while begin < one.size:
            data = os.pread(one.fd, min(_COPY, one.size - begin), begin)
            if not data:
                raise OSError(f"{one.path}: the open file has become shorter")
            if reason := disk.write_at(new.fd, data, new.size):
                raise OSError(f"{new.path}: {reason}")
            begin, new.size = begin + len(data), new.size + len(data)
    new.index = index
    new.head, new.saved = one.head, one.saved
