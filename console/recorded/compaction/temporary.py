"""Tables and notes that are being written: under temporary names, and locked, to tell them from what a kill left.

A compaction that is killed cannot remove its files, and another one may be at work beside the next: `driftline compact`
beside a run's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from typing import IO


def create(final: Path) -> tuple[Path, IO[bytes]]:
    """A new file of mode 0600 beside `final`, locked until it is closed. Raises OSError."""
    while True:
        path = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
        file = open(path, "xb")  # noqa: SIM115  the caller closes it
        os.fchmod(file.fileno(), 0o600)
        # Where a filesystem gives no locks, nothing is taken away either.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # taken for a leftover before it was locked


def write(final: Path, data: bytes) -> None:
    """`data` under the name `final`, forced to the disk before it stands there. Raises OSError."""
    path, file = create(final)
    with file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(path, final)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the temporary files of tables and notes under `folder` that no process writes any more; return them."""
    removed = []
    for path in (*folder.glob("*/.*.parquet.*"), *folder.glob(".*.json.*")):
        # OSError: it is being written (its lock is taken), it is complete now, or there are no locks.
        with contextlib.suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            removed.append(path)
    return removed
