"""Textual's Linux driver, made to survive what terminals send after tmux and editors have been at them.

A re-attached tmux or a reloaded editor terminal may report the mouse in the old X10 coding without having been asked
for it: three raw bytes that need not be UTF-8. Textual 8.2.8 decodes its input strictly and dies of them
(Textualize/textual issue 6668). Here such reports are taken out before decoding, other broken bytes are replaced,
and the terminal is asked to stop. How it ends by a signal or with its terminal is in `console.tui.terminal.hangup`.
"""

from __future__ import annotations

import asyncio
import codecs
import errno
import signal
from collections.abc import Callable
from typing import Any, Final

from console.tui.terminal import splash
from console.tui.terminal.hangup import DisconnectSafeFile, Hangup
from console.tui.terminal.textual_patches import LinuxDriver, replace_decoder, replace_stderr, sends_mouse_reports

_X10: Final = b"\x1b[M"
_PAYLOAD: Final = 3
_MOUSE_OFF: Final = "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l"


class InputDecoder:
    """Bytes of a terminal to text: X10 mouse reports are dropped, what is not UTF-8 becomes U+FFFD.

    No bytes at all, which is how a terminal that is gone reads, call `on_end` each time.
    """

    def __init__(self, on_x10: Callable[[], None] | None = None, on_end: Callable[[], None] | None = None) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = b""
        self._on_x10 = on_x10
        self._on_end = on_end

    def decode(self, data: bytes, final: bool = False) -> str:
        """Text of the next bytes; the beginning of a mouse report is kept until its end comes."""
        if not data and not final and self._on_end is not None:
            self._on_end()
        data = self._rest + data
        self._rest = b""
        kept = []
        while (start := data.find(_X10)) >= 0:
            kept.append(data[:start])
            stop = start + len(_X10) + _PAYLOAD
            if len(data) < stop and not final:
                self._rest, data = data[start:], b""
                break
            data = data[stop:]
            if self._on_x10 is not None:
                self._on_x10()
        kept.append(data)
        return self._utf8.decode(b"".join(kept), final)


class ConsoleDriver(LinuxDriver):
    """The driver of the console."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stderr = replace_stderr(self, DisconnectSafeFile)
        self._hangup: Hangup | None = None

    def run_input_thread(self) -> None:
        replace_decoder(lambda: InputDecoder(self._silence_mouse, self._gone))
        try:
            super().run_input_thread()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._gone()

    def start_application_mode(self) -> None:
        if splash.take_over():
            # Back to the shell's screen for the moment in which Textual leaves it again: what a terminal remembers of
            # it is then right.
            self._stderr.write(splash.LEAVE)
            self._stderr.flush()
        self._running_loop = asyncio.get_running_loop()
        self._hangup = Hangup(self._end, self.fileno)
        self._hangup.start()
        super().start_application_mode()  # type: ignore[no-untyped-call]  # Textual has not typed it

    def stop_application_mode(self) -> None:
        # tmux 3.3a leaves rows of the alternate screen on the shell's after a resize; blank ones do no harm.
        self.write("\x1b[2J\x1b[H")
        super().stop_application_mode()
        if self._hangup is not None:
            self._hangup.stop()

    def _gone(self) -> None:
        """The terminal is gone, and no signal has said so (nohup): no key can leave the console any more."""
        self.exit_event.set()
        if self._hangup is not None:
            self._hangup.end(128 + signal.SIGHUP)

    def _end(self, code: int) -> None:
        self._running_loop.call_soon_threadsafe(lambda: self._app.exit(return_code=code))

    def _silence_mouse(self) -> None:
        if not sends_mouse_reports(self):
            self.write(_MOUSE_OFF)
            self.flush()
