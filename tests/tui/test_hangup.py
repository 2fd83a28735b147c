"""How the console ends when no user pressed q: signals, a terminal that is gone or stuck, and crashes inside.

The app runs as a process on a pty over a source of its own: whatever happens, that process ends, with a code that
says so, and where there is still a terminal it is as it was before.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tui.test_pty import LIMIT, Terminal, environment

ROOT = str(Path(__file__).parents[2])

_SESSION = """
import sys
from tests.tui.synthetic import FakeSource, history
from console.tui.app import ConsoleApp
from console.tui.screens.live.screen import LiveScreen
from console.tui.screens.base.bars import FooterBar

source = FakeSource()
source.feed(history(40))

{before}
app = ConsoleApp(source)
app.run(mouse=False)
sys.exit(app.return_code or 0)
"""


def session(tmp_path: Path, before: str = "", environ: dict[str, str] | None = None) -> Terminal:
    """The app over a source of its own; `before` is done before it is made."""
    command = [sys.executable, "-c", _SESSION.format(before=before)]
    return Terminal(command, environment(tmp_path) | {"PYTHONPATH": ROOT} | (environ or {}))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(*args: object, **kwargs: object) -> Terminal:
        made.append(session(tmp_path, *args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for one in made:
        one.close()


def assert_restored(terminal: Terminal) -> None:
    """The shell's screen, its cursor, its modes; nothing switched on that is not switched off again."""
    raw = terminal.raw
    for mode in (b"1000", b"1002", b"1003", b"1004", b"1006", b"1049", b"2004", b"2048"):
        assert raw.rfind(b"\x1b[?" + mode + b"h") <= raw.rfind(b"\x1b[?" + mode + b"l"), mode
    assert raw.rfind(b"\x1b[?25l") < raw.rfind(b"\x1b[?25h"), "the cursor is back"
    assert raw.rfind(b"\x1b[?7l") < raw.rfind(b"\x1b[?7h"), "long lines wrap again"
    assert raw.rfind(b"\x1b[>") < raw.rfind(b"\x1b[<u"), "keys are reported as before"
    assert termios.tcgetattr(terminal.fd)[:4] == terminal.modes[:4], "echo and line mode are back"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=["hup", "term", "int"])
def test_a_signal_ends_it_with_the_terminal_as_it_was(make: Callable[..., Terminal], number: int) -> None:
    terminal = make()
    terminal.expect("clip fraction")
    os.kill(terminal.pid, number)
    assert terminal.wait() == 128 + number
    assert_restored(terminal)
    assert b"Traceback" not in terminal.raw


def wait_for_end(terminal: Terminal) -> int:
    """Exit code of a process whose terminal is gone."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        pid, status = os.waitpid(terminal.pid, os.WNOHANG)
        if pid:
            terminal.pid = 0
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    raise AssertionError("it goes on without a terminal")


@pytest.mark.parametrize("nohup", [False, True], ids=["hangup", "nohup"])
def test_it_ends_with_its_terminal(tmp_path: Path, nohup: bool) -> None:
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" if nohup else ""
    terminal = session(tmp_path, before)
    terminal.expect("clip fraction")
    os.close(terminal.fd)  # as when the window or the ssh connection goes
    try:
        assert wait_for_end(terminal) == 128 + signal.SIGHUP
    finally:
        if terminal.pid:
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)


def test_a_terminal_that_takes_nothing_does_not_hold_it(make: Callable[..., Terminal]) -> None:
    """Ctrl-S in a terminal emulator, a stalled link: nothing is read any more, and the app waits to write."""
    terminal = make("ConsoleApp.on_idle = lambda self: self._driver and self._driver.write(' ' * 4096)")
    terminal._read(LIMIT)
    deadline = time.monotonic() + LIMIT
    while True:  # until it hangs in a write: no more of it comes to be read, and its CPU time stands still
        before = _cpu(terminal.pid)
        time.sleep(0.5)
        if before > 0.3 and _cpu(terminal.pid) == before:
            break
        assert time.monotonic() < deadline, "it never got stuck: the test says nothing"
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.wait() == 128 + signal.SIGTERM
    assert termios.tcgetattr(terminal.fd)[:4] == terminal.modes[:4]


def test_what_hangs_with_the_terminal_put_right_does_not_hold_it(make: Callable[..., Terminal]) -> None:
    """A screen or a connection that never closes, seconds after the shell has its terminal again."""
    terminal = make("import asyncio\nConsoleApp._close_all = lambda self: asyncio.sleep(3600)")
    terminal.expect("clip fraction")
    os.kill(terminal.pid, signal.SIGHUP)
    assert terminal.wait() == 128 + signal.SIGHUP
    assert_restored(terminal)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_CRASHES = {
    "a key": "boom",
    "a widget": "lambda self: setattr(FooterBar, 'paint', boom) or self.say('painted anew')",
    "a thread": "lambda self: self.run_worker(boom, thread=True)",
    "drawing": "lambda self: setattr(LiveScreen, 'draw', boom) or self.app.refresh_view()",
}
"""What the key s does then."""


@pytest.mark.parametrize("where", _CRASHES)
def test_a_crash_inside_ends_it_with_a_code_and_the_terminal_as_it_was(
    make: Callable[..., Terminal], where: str
) -> None:
    boom = "def boom(*args, **kwargs):\n    raise RuntimeError('broken inside')\n\n"
    terminal = make(f"{boom}LiveScreen.action_smooth = {_CRASHES[where]}")
    terminal.expect("clip fraction")
    terminal.press(b"s")
    assert terminal.wait() == 1
    assert_restored(terminal)
    after = terminal.raw[terminal.raw.rindex(b"\x1b[?1049l") :]
    assert b"broken inside" in after, "it is shown on the shell's screen"


@pytest.mark.slow
def test_a_storm_of_resizes_on_a_real_terminal(make: Callable[..., Terminal]) -> None:
    """200 in two seconds, down to a terminal of nothing, as a window that is dragged by its corner."""
    terminal = make()
    terminal.expect("clip fraction")
    sizes = [(80, 24), (120, 40), (20, 5), (1, 1), (200, 60), (60, 15), (59, 14), (80, 3), (300, 80)]
    for i in range(200):
        terminal.resize(*sizes[i % len(sizes)])
        terminal._read(0.01)
    terminal.resize(20, 5)
    terminal.expect("needs 60x15")
    start = len(terminal.raw)
    terminal.resize(120, 40)
    terminal.expect_bytes(b"\x1b[40;", start)
    terminal.expect("clip fraction")
    terminal.press(b"q")
    assert terminal.wait() == 0
    assert b"Traceback" not in terminal.raw
    assert_restored(terminal)
