"""One OpenSSH connection to a run's machine, kept alive: files are read and the hub is forwarded through it.

The operator authenticates once: one process of OpenSSH owns the connection, everything else is a channel of it. The
hub's endpoints appear as Unix sockets in a private folder, so that no port has to be guessed and no other user of this
machine can reach them; the traffic is encrypted and authenticated by the hub's own keys as well. When the connection
dies it is made again with growing pauses, without questions, because by then a screen may own the terminal.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import math
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from console.connect import channel, ssh
from console.connect.ssh import Address, AddressError, last_words
from console.process import die_with_parent, ending
from driftline.rundir import CONNECTION_BYTES, Connection
from driftline.text import sanitize

PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before each attempt to connect again; the last one for ever."""
STEADY_SECONDS: Final = 20.0
"""A connection that lasted this long makes the next pause short again."""
SILENT_START: Final = 60.0
"""Seconds for a connection that asks nothing; with questions there is no limit."""
CHANNEL_SECONDS: Final = 20.0
MAX_FILE: Final = CONNECTION_BYTES
PREFIX: Final = "driftline-ssh-"
YOUNG_SECONDS: Final = 60.0
"""A folder changed more recently than this may still be in the making."""
_LOG_BYTES: Final = 1 << 16
"""Of the end of what OpenSSH has printed: its last words are in it."""
_TICK: Final = 0.02
_SOCKET_PATH: Final = 103
"""Bytes that the address of a Unix socket may have everywhere (macOS; Linux has four more)."""
_LONGEST: Final = f"/{PREFIX}12345678/control.1234567890123456"
"""Longest path below the folder of temporary files: OpenSSH binds its socket under a longer name first."""
_PLAIN: Final = re.compile(r"[^%:$]+")
"""Paths that OpenSSH takes as they are: it expands % and $ in a path, and splits it at colons."""


class TunnelError(RuntimeError):
    """The other machine could not be reached or a request on it failed; the message is a clause for the operator."""


class Tunnel:
    """The connection to one machine. Opens on construction. Raises TunnelError; `close` ends every process of it."""

    def __init__(self, address: Address, *, prompts: bool, ssh_program: str | None = None) -> None:
        """`prompts`: OpenSSH may ask on the terminal, this once. `ssh_program`: another one than the PATH's."""
        program = ssh_program or shutil.which("ssh")
        if program is None:
            raise TunnelError("there is no 'ssh' on this machine's PATH")
        self.address = address
        self._program = program
        sweep()
        self._folder, self._lock_fd = _folder()
        self._control = self._folder / "control"
        self._prompts = prompts
        self._child: subprocess.Popen[bytes] | None = None
        self._forwarded: Connection | None = None
        self._renew: Callable[[], None] | None = None
        self._lock = threading.Lock()
        """Held while the forwards are changed."""
        self._ending = threading.Event()
        self._attempted = threading.Event()
        self._failure = ""
        self._up = False
        self._retry_at = 0.0
        self.restarts = 0
        """Number of reconnects."""
        self._temporary = contextlib.ExitStack()
        self._temporary.enter_context(ending.temporary(self._folder))
        atexit.register(self.close)
        # All children are started by this thread: the kernel signals them when it ends, so it must outlive them.
        self._thread = threading.Thread(target=self._run, name="tunnel", daemon=True)
        self._thread.start()
        try:
            while not self._attempted.wait(0.1):
                pass
        except BaseException:
            self.close()
            raise
        if not self._up:
            self.close()
            raise TunnelError(self._failure)

    @property
    def up(self) -> bool:
        """True while the connection stands."""
        return self._up

    @property
    def pid(self) -> int | None:
        """Process id of the OpenSSH that owns the connection, None before the first attempt."""
        return self._child.pid if self._child is not None else None

    @property
    def note(self) -> str:
        """A clause for the operator while the connection is down, else ""."""
        if self._up:
            return ""
        left = math.ceil(max(0.0, self._retry_at - time.monotonic()))
        when = f"retrying in {left} s" if left else "connecting again"
        return f"{self._failure}; {when}"

    def read(self, path: str) -> bytes:
        """Content of a small file of the other machine. Raises TunnelError with the error of the command there."""
        done = self._channel(ssh.read_file(self.address, self._control, path))
        if len(done.stdout) > MAX_FILE:
            raise TunnelError(f"{path}: more than {MAX_FILE} bytes")
        if done.returncode == 1 and not done.stderr.strip():
            raise TunnelError(f"{path}: it is a FIFO, not a regular file")
        if done.returncode != 0:
            raise TunnelError(_clean(done.stderr))
        return done.stdout

    def forward(self, connection: Connection) -> Connection:
        """Forward that hub; return the connection with addresses of this machine, the same each time.

        Raises TunnelError.
        """
        with self._lock:
            self._forward(connection)
            self._forwarded = connection
        return replace(
            connection, ingest="", live=f"ipc://{self._folder / 'live'}", rpc=f"ipc://{self._folder / 'rpc'}"
        )

    def on_renewed(self, renew: Callable[[], None]) -> None:
        """Call `renew` on every new connection, before it counts as up, to set its forwards up again."""
        self._renew = renew

    def close(self) -> None:
        """End the connection and every process of it, and remove the folder."""
        atexit.unregister(self.close)
        self._ending.set()
        self._thread.join(timeout=10.0)
        self._temporary.close()
        lock_fd, self._lock_fd = self._lock_fd, -1
        if lock_fd >= 0:
            os.close(lock_fd)

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the thread

    def _run(self) -> None:
        """Connect, watch, connect again, until closed."""
        attempt = 0
        try:
            while not self._ending.is_set():
                since = time.monotonic()
                if self._connect(prompts=self._prompts and self.restarts == 0):
                    self._up = True
                    self._attempted.set()
                    since = time.monotonic()
                    self._watch()
                    self._up = False
                if not self._attempted.is_set():
                    return  # a first attempt that fails is reported to the caller, not repeated
                attempt = 0 if time.monotonic() - since > STEADY_SECONDS else attempt
                pause = PAUSES[min(attempt, len(PAUSES) - 1)]
                self._retry_at = time.monotonic() + pause
                attempt += 1
                self._end_child()
                self._ending.wait(pause)
                self.restarts += 1
        finally:
            self._end_child()
            self._attempted.set()

    def _connect(self, *, prompts: bool) -> bool:
        """Start the process that owns the connection and wait until the connection stands."""
        for stale in ("control", "live", "rpc"):
            (self._folder / stale).unlink(missing_ok=True)
        command = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), str(int(signal.SIGTERM))]
        command += [self._program, *ssh.master(self.address, self._control, prompts=prompts)]
        # A file, not a pipe: it needs no reader, and nothing of it appears on a screen.
        with open(self._folder / "log", "wb") as log:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = math.inf if prompts else time.monotonic() + SILENT_START
        while not self._control.exists():
            if self._child.poll() is not None:
                self._failure = self._reason()
                return False
            if self._ending.wait(_TICK) or time.monotonic() > deadline:
                self._failure = f"{self.address.host} has not accepted the login within {SILENT_START:.0f} s"
                self._end_child()
                return False
        try:
            if self._renew is not None:
                self._renew()
        except TunnelError as error:
            self._failure = str(error)
            self._end_child()
            return False
        return True

    def _watch(self) -> None:
        assert self._child is not None
        while not self._ending.is_set():
            try:
                self._child.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            self._failure = self._reason()
            return

    def _reason(self) -> str:
        with contextlib.suppress(OSError):
            with (self._folder / "log").open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG_BYTES))
                data = log.read(_LOG_BYTES)
            if data.strip():
                return _clean(data)
        code = self._child.returncode if self._child is not None else None
        return "the ssh process was killed" if code is not None and code < 0 else "the ssh connection has ended"

    def _end_child(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(3.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    # -- channels

    def _forward(self, connection: Connection) -> None:
        try:
            if self._forwarded is not None:
                # Fails on a new connection, which has no forwards yet; that is fine.
                self._channel(ssh.forward(self.address, self._control, self._forwarded, self._folder, cancel=True))
            done = self._channel(ssh.forward(self.address, self._control, connection, self._folder))
        except AddressError as error:
            raise TunnelError(str(error)) from error
        if done.returncode != 0:
            raise TunnelError(f"{self.address.host} does not forward the hub: {_clean(done.stderr)}")

    def _channel(self, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
        command = [self._program, *arguments]
        try:
            return channel.run(command, limit=MAX_FILE, seconds=CHANNEL_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TunnelError(f"{self.address.host} did not answer within {CHANNEL_SECONDS:.0f} s") from error


def _folder() -> tuple[Path, int]:
    """A folder of mode 0700 and the descriptor of a lock on it; the lock ends with this process however that ends."""
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base()))
    lock_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(OSError):  # a file system without locks: `sweep` cannot lock, and removes nothing, either
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return path, lock_fd


def base() -> str:
    """The directory of the socket folders: $TMPDIR, or /tmp where that is too long for a socket's address."""
    wanted = tempfile.gettempdir()
    fits = len(os.fsencode(wanted + _LONGEST)) <= _SOCKET_PATH and _PLAIN.fullmatch(wanted)
    return wanted if fits else "/tmp"


def sweep() -> None:
    """Remove the folders that consoles of this user left behind when they were killed."""
    for path in Path(base()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or removed meanwhile
            status = path.lstat()
            young = time.time() - status.st_mtime < YOUNG_SECONDS
            if status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode) and not young:
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    """Remove a folder unless its console lives. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    finally:
        os.close(fd)


def _clean(data: bytes) -> str:
    return sanitize(last_words(data.decode("utf-8", "replace")))[:300]
