"""The end of a verb by SIGINT, SIGTERM or SIGHUP: in order where that is possible, and soon in any case.

A handler of Python runs in the main thread, between two of its instructions: within one long call of Polars that is
many seconds later. What the signal itself writes into a pipe is read by a thread at once. That thread gives the verb
LIMIT_SECONDS to end in order; then it removes what was registered as temporary and ends the process. It needs the
interpreter's lock, which Polars, NumPy's large operations, zlib and every system call give away.

An exception during an import is a page of traceback, and in the initialisation of an extension module a crash (numpy
dies of a segfault). There the signal is recorded, and raised once the import is complete.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

CAUGHT: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LIMIT_SECONDS: Final = 0.6
"""From the signal to the forced end: well within the two seconds that are promised, on a slow machine too."""
_AGAIN_SECONDS: Final = 0.05
_IMPORT: Final = "<frozen importlib._bootstrap>"


class SignalledError(KeyboardInterrupt):
    """A signal came; `exit_code` is 128 + its number, as a shell reports it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class _Ending:
    """The signals that came since `install`, and what has to be done before the process may end by them."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.deferred = 0
        """Parts of the program on the stack in which nothing may be raised."""
        self.unlimited = 0
        """Parts of the program on the stack that take the signals themselves."""
        self.before: dict[int, object] = {}
        self._raised = False

    def install(self, *, limited: bool) -> None:
        """Take the signals that have their default action; one that was ignored (nohup) stays ignored."""
        for number in CAUGHT:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                self.before[number] = signal.signal(number, self._handle)
        if not limited:
            return
        end, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(end,), name="ending", daemon=True).start()

    def remove(self) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal has returned

    def raise_recorded(self) -> None:
        """Raise SignalledError if a signal came while nothing could be raised."""
        if self.number is not None and not self._raised:
            self._raised = True
            raise SignalledError(self.number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._raised:
            return
        if self.number is None:
            self.number = number
        if not self.deferred and not _importing(frame):
            self.raise_recorded()

    def _watch(self, fd: int) -> None:
        """A thread's: nothing, until a signal has come."""
        while True:
            mine = [number for number in os.read(fd, 64) if number in self.before]
            if mine and not self.unlimited:
                self._limit(mine[0])

    def _limit(self, number: int) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(_AGAIN_SECONDS)
            if not self._raised and self.number is not None and not self.unlimited:
                # It came during an import: the handler looks again whether that is complete.
                signal.pthread_kill(threading.main_thread().ident or 0, number)
        self._force(number)

    def _force(self, number: int) -> None:
        # Twice: another thread may be about to make what it has registered.
        for _ in range(2):
            for path in list(_temporaries):
                remove(path)
            time.sleep(0.01)
        for restore in _restores:
            restore()
        os._exit(128 + number)


_ending: _Ending | None = None
_temporaries: set[Path] = set()
_restores: list[Callable[[], None]] = []


def install() -> None:
    """Have signals end this process, from now to its end, within LIMIT_SECONDS. For entry points."""
    _install(limited=True)


def _install(*, limited: bool) -> None:
    global _ending
    if _ending is None and threading.current_thread() is threading.main_thread():
        _ending = _Ending()
        _ending.install(limited=limited)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Have signals raise SignalledError while entered, unless `install` has been called before.

    Without a limit: whose process it is may have other things to end.
    """
    global _ending
    before = _ending
    _install(limited=False)
    try:
        yield
    finally:
        if before is None and _ending is not None:
            _ending.remove()
            _ending = None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Nothing is raised inside; SignalledError at its end if a signal came. The limit stands all the same."""
    if _ending is None:
        yield
        return
    _ending.deferred += 1
    try:
        yield
    finally:
        _ending.deferred -= 1
    _ending.raise_recorded()


def suspend() -> None:
    """Signals are another's matter from now on, which also has to see to it that they end the process."""
    if _ending is not None:
        _ending.unlimited += 1


def resume() -> None:
    """The end of what `suspend` began."""
    if _ending is not None:
        _ending.unlimited -= 1


def exit_code() -> int | None:
    """128 + the number of the signal that came, None if none has."""
    return None if _ending is None or _ending.number is None else 128 + _ending.number


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[None]:
    """A file or folder that is to be gone at the end of the block, or of the process if a signal ends that before."""
    _temporaries.add(path)
    try:
        yield
    finally:
        remove(path)
        _temporaries.discard(path)


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[None]:
    """A file or folder that stays if the block ends well, and else is gone, as what is `temporary`."""
    _temporaries.add(path)
    try:
        yield
    except BaseException:
        remove(path)
        raise
    finally:
        _temporaries.discard(path)


@contextlib.contextmanager
def restored(restore: Callable[[], None]) -> Iterator[None]:
    """`restore` is called, from another thread, if a signal ends the process before the block does so in order."""
    _restores.append(restore)
    try:
        yield
    finally:
        _restores.remove(restore)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    # By hand: the thread that calls this at the end must not wait for an import of shutil that the signal has stopped.
    with contextlib.suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
            return
        # Under another name first: who still writes into it finds it gone, and what is emptied stays empty.
        path = path.rename(path.with_name(f"{path.name}.gone"))
        for folder, below, names in os.walk(path, topdown=False):
            for name in names:
                os.unlink(os.path.join(folder, name))
            for one in (os.path.join(folder, name) for name in below):
                (os.unlink if os.path.islink(one) else os.rmdir)(one)
        path.rmdir()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False
