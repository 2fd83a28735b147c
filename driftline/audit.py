"""The audit log: commands with their issuers and results, and refusals; beside the journal, in `audit.log`.

One JSON object a line, in the order of `n`; `prev` is the SHA-256 of the line before (of nothing, for the first), so
that a line changed, removed or put in later breaks the chain at that place. (Lines cut off at the end leave a chain
that holds: compare its last `command`s with the journal's.) A command's intent is on the disk before the command is
delivered. It never contains a secret: keys appear by their public half.

A file of more than AUDIT_BYTES becomes `audit.log.1`, in the place of the one before it, and a new one goes on with the
numbers and the chain: the newest AUDIT_BYTES of entries are always there.

    kind                text
    hub.started         the epoch
    hub.audit_restored  the file was taken away under the hub, and was written again from what the hub had open
    hub.audit_rotated   the lines before this one are in `audit.log.1`, or in a file that was dropped since
    command.intent      a command was accepted; `data` has verb, arguments, generation and deadline
    command.result      its end: applied, failed, refused or expired
    writer.taken|released|expired|revoked    a session of `who` took the lease (from `former`), released it, let it
                      expire, or lost it with its key
    refused.*           role, rate, held, malformed, unfit, key, banned, frame (its key does not cover it), name (in use
                      by another key): what was refused, and `count` of it
    key.added|removed|changed    the table of grants was edited
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from driftline import bounded_file
from driftline.frames import DECODE_ERRORS
from driftline.journal.disk import DISK, Disk, replace, sync_path
from driftline.journal.rescue import same_file

MOST_BYTES: Final = 1 << 30
"""Of a log that is read: some million commands."""
INTENT: Final = "command.intent"
RESULT: Final = "command.result"
ROTATED: Final = "hub.audit_rotated"
AUDIT_BYTES: Final = 8 * 1024 * 1024
"""Size of a file at which the next one begins: some 30,000 entries."""
_FIRST: Final = hashlib.sha256(b"").hexdigest()


class AuditError(OSError):
    """The audit log cannot be written; the message is a clause that says why."""


class Entry(msgspec.Struct, frozen=True):
    """One event of the audit log. `time` is Unix seconds, `who` the role and name of a key, or a producer."""

    kind: str
    time: float
    who: str = ""
    command: str = ""
    text: str = ""
    data: dict[str, str | int | float] = {}


class Line(Entry, frozen=True, kw_only=True):
    """An entry with its number and the digest of the line before it."""

    n: int
    prev: str


class Verdict(msgspec.Struct, frozen=True):
    """Result of `verify`. `error` is "" for a chain that holds; `torn` counts bytes after the last whole line."""

    lines: int
    last: str
    error: str = ""
    torn: int = 0


_encode: Final = msgspec.json.Encoder().encode
_decoder: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)


class AuditLog:
    """The only writer of the log, in the hub's process. `append` only writes; `sync` (any thread) makes it durable."""

    def __init__(self, path: Path, disk: Disk = DISK, limit: int = AUDIT_BYTES) -> None:
        self.path = path
        self._disk, self._limit = disk, limit
        self._retired = -1
        """Descriptor of the file before this one, which the syncing thread may still be at."""
        self.damage = ""
        self._open: set[str] = set()
        self._synced, self._sync_failed = 0, False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self._size, self._n, self._last = self._load()
            if not self._size and self._n:  # a crash between the two names
                self._append(Entry(ROTATED, time.time(), text=f"the lines before are in {former(path).name}"))
        except AuditError:
            raise
        except OSError as error:
            raise AuditError(f"{path}: {error.strerror or error}") from error

    def append(self, entry: Entry) -> None:
        """Write one entry, whole or not at all. Raises AuditError.

        A command has one intent and one result, however often it was sent or answered.
        """
        if entry.kind == INTENT and entry.command in self._open:
            return
        if entry.kind == RESULT and entry.command not in self._open:
            return
        if self._size >= self._limit:
            self._rotate(entry.time)
        self._append(entry)

    def _append(self, entry: Entry) -> None:
        line = _encode(Line(**msgspec.structs.asdict(entry), n=self._n + 1, prev=self._last))
        self._write(line + b"\n")
        self._n, self._last, self._size = self._n + 1, _digest(line), self._size + len(line) + 1
        self._count(entry)

    def sync(self) -> None:
        """Force what was written to the disk. Raises AuditError."""
        fd, size = self._fd, self._size
        try:
            if self._sync_failed:
                self._disk.rewrite(fd, self._synced, size)
            self._disk.sync(fd)
        except OSError as error:
            self._sync_failed = True
            raise AuditError(f"{self.path}: {error.strerror or error}") from error
        if fd == self._fd:
            self._synced, self._sync_failed = size, False

    def _rotate(self, now: float) -> None:
        """Begin the next file. Raises AuditError, and then the old one is still the one being written."""
        try:
            self.sync()
            if not same_file(self.path, self._fd):  # taken away: first it is put back
                return
            temporary = self.path.with_name(f".{self.path.name}.next")
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            # The new file has a line before it has its name: no reader finds one without a beginning.
            old, size = self._fd, self._size
            self._fd, self._size = fd, 0
            try:
                self._append(Entry(ROTATED, now, text=f"the lines before are in {former(self.path).name}"))
                self._disk.sync(fd)
                os.replace(self.path, former(self.path))
                os.replace(temporary, self.path)
                sync_path(self.path.parent)
            except OSError:
                self._fd, self._size = old, size
                os.close(fd)
                raise
        except AuditError:
            raise
        except OSError as error:
            raise AuditError(f"{self.path}: {error.strerror or error}") from error
        if self._retired >= 0:
            os.close(self._retired)
        self._retired, self._synced, self._sync_failed = old, self._size, False

    def restore_file(self) -> bool:
        """Where the file was taken away, put it back with everything that was written; whether that was so.

        A file in its place is written over only if it is an older copy. Raises AuditError, and then all is as before.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                if same_file(self.path, self._fd):
                    return False
            data = os.pread(self._fd, self._size, 0)
            there = bounded_file.read(self.path, MOST_BYTES) if self.path.exists() else b""
            if not data.startswith(there):
                raise AuditError(f"{self.path}: another audit log is in its place")
            replace(self.path, data)
            old, self._fd = self._fd, os.open(self.path, os.O_RDWR)
        except AuditError:
            raise
        except OSError as error:
            raise AuditError(f"{self.path}: {error.strerror or error}") from error
        self._synced, self._sync_failed = 0, False
        os.close(old)
        return True

    @property
    def count(self) -> int:
        """Number of the newest entry."""
        return self._n

    @property
    def open(self) -> set[str]:
        """Commands whose intent is here and whose result is not."""
        return set(self._open)

    def close(self) -> None:
        """Sync and close."""
        try:
            self.sync()
        finally:
            os.close(self._fd)
            if self._retired >= 0:
                os.close(self._retired)

    def _count(self, entry: Entry) -> None:
        if entry.kind == INTENT:
            self._open.add(entry.command)
        elif entry.kind == RESULT:
            self._open.discard(entry.command)

    def _load(self) -> tuple[int, int, str]:
        """Size, number and digest of the last whole line; an end that a crash tore off is moved aside."""
        verdict = verify(self.path)
        self.damage = verdict.error
        data = bounded_file.read(self.path, MOST_BYTES)
        whole = data[: len(data) - verdict.torn]
        if verdict.torn:
            with self.path.with_name(f"{self.path.name}.torn").open("ab") as side:
                side.write(data[len(whole) :])
                side.flush()
                os.fsync(side.fileno())
            os.ftruncate(self._fd, len(whole))
        number, last = 0, _FIRST
        for raw in [*_lines(former(self.path)), *whole.splitlines()]:
            last = _digest(raw)
            with contextlib.suppress(*DECODE_ERRORS):
                line = _decoder.decode(raw)
                number = line.n
                self._count(line)
        return len(whole), number, last

    def _write(self, data: bytes) -> None:
        if reason := self._disk.write_at(self._fd, data, self._size):
            raise AuditError(f"{self.path}: {reason}")


def former(path: Path) -> Path:
    """Where the file before an audit log is, if there is one."""
    return path.with_name(f"{path.name}.1")


def verify(path: Path) -> Verdict:
    """Check the whole chain, that of the file before this one included. Raises AuditError for a file that cannot be
    read."""
    data = _bytes(path)
    whole, newline, torn = data.rpartition(b"\n")
    raws = [*_lines(former(path)), *(whole.split(b"\n") if newline else [])]
    last, number = _FIRST, 0
    for count, raw in enumerate(raws, 1):
        try:
            line = _decoder.decode(raw)
        except DECODE_ERRORS:
            return Verdict(count - 1, last, f"line {count} is not an audit line", len(torn))
        if count == 1 and line.kind == ROTATED:  # what it follows was dropped
            last, number = line.prev, line.n - 1
        if line.prev != last:
            return Verdict(count - 1, last, f"line {count} does not follow line {count - 1}", len(torn))
        if line.n != number + 1:
            return Verdict(count - 1, last, f"line {count} says it is number {line.n}", len(torn))
        last, number = _digest(raw), line.n
    return Verdict(len(raws), last, "", len(torn))


def entries(path: Path) -> list[Line]:
    """All lines that can be read, in order, with those of the file before this one. Raises AuditError for a file that
    cannot be read."""
    found = []
    for raw in [*_lines(former(path)), *_bytes(path).splitlines()]:
        with contextlib.suppress(*DECODE_ERRORS):
            found.append(_decoder.decode(raw))
    return found


def _bytes(path: Path) -> bytes:
    try:
        return bounded_file.read(path, MOST_BYTES)
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}") from error


def _lines(path: Path) -> list[bytes]:
    """Lines of a file that need not be there."""
    return _bytes(path).splitlines() if path.exists() else []


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
