"""The real console on a real terminal, before a real hub: what a person at a keyboard, and tmux, do to it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from console.tui.terminal.driver import InputDecoder
from driftline.rundir import RunDir, list_runs
from tests import terminals

LIMIT = 60.0
"""Seconds for anything to appear; generous, because the machine may be busy."""

X10 = b"\x1b[M\x20\xa0\x30"
_ESCAPES = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|.)")


class Terminal:
    """A process on a pty of its own, as its controlling terminal."""

    def __init__(self, command: list[str], environment: dict[str, str], size: tuple[int, int] = (80, 24)) -> None:
        self.raw = b""
        self._seen = 0
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
        self._before = ""
        self.pid, self.fd, self.modes = terminals.fork(command, environment, size)

    def _read(self, seconds: float) -> bool:
        """Take what the process wrote; False once it has closed its side."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        data, open_ = b"", True
        while open_:  # all there is: a pty gives 4 KiB at a time, and looking at the screen costs more than reading
            try:
                part = os.read(self.fd, 65536)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                part = b""
            data += part
            open_ = bool(part)
            if len(data) >= 1 << 20 or not select.select([self.fd], [], [], 0)[0]:
                break
        self.raw += data
        self._stream.feed(data)
        return open_

    def text(self) -> str:
        """Everything written since the last `expect`, without escape sequences."""
        return _ESCAPES.sub(b"", self.raw[self._seen :]).decode("utf-8", "replace")

    def expect(self, *texts: str) -> None:
        """Wait until all of these come up, in any order, after what was expected before.

        The console sends only the cells that change: a word may be new on the screen without ever being sent whole.
        """
        deadline = time.monotonic() + LIMIT
        while missing := [text for text in texts if not self._new(text)]:
            assert time.monotonic() < deadline, f"no {missing} in {self.screen()}"
            assert self._read(0.2), f"ended before {missing}: {self.text()[-3000:]}"
        self._seen, self._before = len(self.raw), self.screen()

    def until(self, condition: Callable[[str], bool]) -> None:
        """Wait until what the terminal shows is so."""
        deadline = time.monotonic() + LIMIT
        while not condition(self.screen()):
            assert time.monotonic() < deadline, self.screen()
            assert self._read(0.2), f"ended: {self.text()[-3000:]}"

    def screen(self) -> str:
        """What the terminal shows, line by line."""
        return "\n".join(self._screen.display)

    def _new(self, text: str) -> bool:
        return text in self.text() or (text not in self._before and text in self.screen())

    def expect_bytes(self, data: bytes, start: int) -> None:
        deadline = time.monotonic() + LIMIT
        while data not in self.raw[start:]:
            assert time.monotonic() < deadline, f"no {data!r}"
            assert self._read(0.2), f"ended before {data!r}"

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def resize(self, columns: int, rows: int) -> None:
        self._screen.resize(rows, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self) -> int:
        """Exit code, after everything was read; negative for a signal."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            self._read(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                while select.select([self.fd], [], [], 0)[0] and self._read(0):
                    pass
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"did not end: {self.text()[-2000:]}")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


def environment(runs: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM", "TMUX")}
    return kept | {"DRIFTLINE_RUNS": str(runs), "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDir]:
    """A live run: a real hub, real frames through a real probe, made-up numbers."""
    runs = tmp_path_factory.mktemp("runs")
    log = (runs.parent / "simulate.log").open("w")
    command = [sys.executable, "-m", "console.cli", "simulate", "--steps", "0", "--rate", "10"]
    process = subprocess.Popen(command, env=environment(runs), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + LIMIT
        while not any(run.live() and run.connection_file.exists() for run in list_runs(runs)):
            assert process.poll() is None, (runs.parent / "simulate.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield list_runs(runs)[0]
        assert process.poll() is None, "the run has outlived every console"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


@pytest.fixture
def console(simulated: RunDir) -> Iterator[Terminal]:
    command = [sys.executable, "-m", "console.cli", "attach", simulated.id, "--operate"]
    terminal = Terminal(command, environment(simulated.path.parent))
    try:
        yield terminal
    finally:
        terminal.close()


def test_a_session_from_start_to_quit(console: Terminal):
    console.expect("clip fraction", "SYNTHETIC", "LIVE", "RW")
    assert b"\x1b[?1000h" not in console.raw, "the mouse is the terminal's"

    console.press(b"S")
    console.expect("sync weights now")
    console.press(b"\x1b[C\r")
    console.expect("2 engines at v")
    console.press(b"\x1b")
    console.expect("clip fraction")

    start = len(console.raw)
    console.press(X10 + b"?")
    console.expect("Capitals act on the run")
    assert b"\x1b[?1000l" in console.raw[start:], "the terminal is ordered to stop"
    console.press(b"\xff\xfe\xc3" + X10[:4])
    console.press(X10[4:] + b"\x1b")
    console.expect("clip fraction")

    start = len(console.raw)
    console.resize(120, 40)
    console.expect_bytes(b"\x1b[40;", start)
    console.resize(20, 5)
    console.expect("20x5")
    console.resize(80, 24)
    console.expect("clip fraction")

    console.press(b"q")
    assert console.wait() == 0
    end = console.raw[-400:]
    assert b"\x1b[?1049l" in end
    assert end.rindex(b"\x1b[?25h") > end.rindex(b"\x1b[?1049l"), "the cursor is back"
    assert b"Traceback" not in console.raw
    assert termios.tcgetattr(console.fd)[3] == console.modes[3], "echo and line mode are back"


def test_ctrl_c_leaves_too(console: Terminal):
    console.expect("LIVE")
    console.press(b"\x03")
    assert console.wait() == 0


def test_sigkill_and_hangup_change_nothing_in_the_run(simulated: RunDir, console: Terminal):
    console.expect("LIVE")
    os.kill(console.pid, signal.SIGKILL)
    assert console.wait() == -signal.SIGKILL
    assert simulated.live()


_CRASH = """
import sys
from tests.tui.synthetic import FakeSource
from console.tui.app import ConsoleApp

class Broken(FakeSource):
    def drain(self, limit):
        raise RuntimeError("broken source")

app = ConsoleApp(Broken())
app.run(mouse=False)
sys.exit(app.return_code or 0)
"""


def test_a_crash_is_reported_and_ends_with_a_code(tmp_path: Path):
    root = str(Path(__file__).parents[2])
    terminal = Terminal([sys.executable, "-c", _CRASH], environment(tmp_path) | {"PYTHONPATH": root})
    try:
        assert terminal.wait() == 1
        text = _ESCAPES.sub(b"", terminal.raw).decode("utf-8", "replace")
        assert "broken source" in text
        assert b"\x1b[?1049l" in terminal.raw
    finally:
        terminal.close()


def test_without_colour_no_colour_is_sent(simulated: RunDir):
    command = [sys.executable, "-m", "console.cli", "attach", simulated.id]
    terminal = Terminal(command, environment(simulated.path.parent) | {"NO_COLOR": "1"})
    try:
        terminal.expect("LIVE", "RO")
        # Textual turns colours to greys; a grey has three equal parts, or is of the grey ramp of 256 colours.
        for part in re.findall(rb"[34]8;2;(\d+;\d+;\d+)", terminal.raw):
            assert len(set(part.split(b";"))) == 1, part
        for part in re.findall(rb"[34]8;5;(\d+)", terminal.raw):
            assert int(part) in {0, 7, 8, 15, 16, 59, 102, 145, 188, 231, *range(232, 256)}, part
        terminal.press(b"q")
        assert terminal.wait() == 0
    finally:
        terminal.close()


@pytest.mark.parametrize("cut", range(len(X10) + 1))
def test_the_decoder_drops_mouse_reports_however_they_are_cut(cut: int):
    calls: list[int] = []
    decoder = InputDecoder(lambda: calls.append(1))
    data = b"a" + X10 + b"b"
    text = decoder.decode(data[: cut + 1]) + decoder.decode(data[cut + 1 :])
    if cut >= 3 or cut == 0:
        assert (text, calls) == ("ab", [1])
    else:
        # Cut inside of ESC [ M the report reaches Textual's parser, which drops it; it only must be text.
        assert text.startswith("a\x1b")
        assert text.endswith("b")


def test_the_decoder_keeps_keys_and_replaces_what_is_not_utf8():
    decoder = InputDecoder()
    assert decoder.decode("é".encode()[:1]) + decoder.decode("é".encode()[1:]) == "é"
    assert decoder.decode(b"\xff") == "\ufffd"
    assert decoder.decode(b"\x1b[A\x1b") == "\x1b[A\x1b"
    assert decoder.decode(b"", final=True) == ""
