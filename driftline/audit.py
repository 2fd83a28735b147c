"""The audit log: commands with their issuers and results, and refusals; beside the journal, in `audit.log`.

One JSON object a line, in the order of `n`; `prev` is the SHA-256 of the line before (of nothing, for the first), so
that a line changed, removed or put in later breaks the chain at that place. (Lines cut off at the end leave a chain
that holds: compare its last `command`s with the journal's.) A command's intent is on the disk before the command is
delivered. It never contains a secret: keys appear by their public half.

    kind                text
    hub.started         the epoch
    hub.audit_restored  the file was taken away under the hub, and was written again from what the hub had open
    command.intent      a command was accepted; `data` has verb, arguments, generation and deadline
    command.result      its end: applied, failed, refused or expired
    writer.taken|released|expired|revoked    a session of `who` took the lease (from `former`), released it, let it
                      expire, or lost it with its key
    refused.*           role, rate, held, malformed, unfit, key, banned: what was refused, and `count` of it
    key.added|removed|changed    the table of grants was edited
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

from driftline import bounded_file
from driftline.frames import DECODE_ERRORS
from driftline.journal.disk import DISK, Disk, replace
from driftline.journal.rescue import same_file

MOST_BYTES: Final = 1 << 30
"""Of a log that is read: some million commands."""
INTENT: Final = "command.intent"
RESULT: Final = "command.result"
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

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        self.path = path
        self._disk = disk
        self.damage = ""
        self._open: set[str] = set()
        self._synced, self._sync_failed = 0, False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self._size, self._n, self._last = self._load()
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
        line = _encode(Line(**msgspec.structs.asdict(entry), n=self._n + 1, prev=self._last))
        self._write(line + b"\n")
        self._n, self._last, self._size = self._n + 1, _digest(line), self._size + len(line) + 1
        self._count(entry)

    def sync(self) -> None:
        """Force what was written to the disk. Raises AuditError."""
        size = self._size
        try:
            if self._sync_failed:
                self._disk.rewrite(self._fd, self._synced, size)
            self._disk.sync(self._fd)
        except OSError as error:
            self._sync_failed = True
            raise AuditError(f"{self.path}: {error.strerror or error}") from error
        self._synced, self._sync_failed = size, False

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
    def size(self) -> int:
        """Bytes written."""
        return self._size

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
        for raw in whole.splitlines():
            last = _digest(raw)
            with contextlib.suppress(*DECODE_ERRORS):
                line = _decoder.decode(raw)
                number = line.n
                self._count(line)
        return len(whole), number, last

    def _write(self, data: bytes) -> None:
        if reason := self._disk.write_at(self._fd, data, self._size):
            raise AuditError(f"{self.path}: {reason}")


def verify(path: Path) -> Verdict:
    """Check the whole chain. Raises AuditError for a file that cannot be read."""
    try:
        data = bounded_file.read(path, MOST_BYTES)
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}") from error
    whole, newline, torn = data.rpartition(b"\n")
    last, count = _FIRST, 0
    for count, raw in enumerate(whole.split(b"\n") if newline else [], 1):
        try:
            line = _decoder.decode(raw)
        except DECODE_ERRORS:
            return Verdict(count - 1, last, f"line {count} is not an audit line", len(torn))
        if line.prev != last:
            return Verdict(count - 1, last, f"line {count} does not follow line {count - 1}", len(torn))
        if line.n != count:
            return Verdict(count - 1, last, f"line {count} says it is number {line.n}", len(torn))
        last = _digest(raw)
    return Verdict(count, last, "", len(torn))


def entries(path: Path) -> list[Line]:
    """All lines that can be read, in order. Raises AuditError for a file that cannot be read."""
    try:
        raws = bounded_file.read(path, MOST_BYTES).splitlines()
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}") from error
    found = []
    for raw in raws:
        with contextlib.suppress(*DECODE_ERRORS):
            found.append(_decoder.decode(raw))
    return found


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
