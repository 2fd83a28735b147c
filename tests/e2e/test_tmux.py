"""The console in a real tmux, as operators keep it: a fix switched, every screen, detached, attached again, resized.

tmux is the terminal here and keeps its own picture of it; the client is a pty of the test's. What a pty alone can
show (mouse reports, signals, crashes) is in tests/tui/test_pty.py and tests/tui/test_hangup.py.

GNU screen has a test of its own at the end, inside that tmux: a detach, a smaller terminal, and back.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from console.settings.keys import TABS
from driftline.processes import alive
from driftline.rundir import list_runs
from tests.tui.test_pty import X10, Terminal, environment

LIMIT = 60.0
TMUX = shutil.which("tmux")
SCREEN = shutil.which("screen")

pytestmark = pytest.mark.skipif(TMUX is None, reason="tmux is not installed; .ci/run installs it")

CONFIG = """
set -g status off
set -g default-terminal tmux-256color
set -g escape-time 0
set -g window-size latest
set -g remain-on-exit off
set -g history-limit 500
set -g default-command "exec /bin/sh"
"""


class Tmux:
    """A tmux server on a socket of its own, with one session, and a client of it on a pty now and then."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        assert TMUX is not None
        self.folder = folder
        (folder / "tmux.conf").write_text(CONFIG)
        # A socket's path must be short; tmux makes its folder in TMUX_TMPDIR.
        self._command = [TMUX, "-L", f"driftline-{os.getpid()}", "-f", str(folder / "tmux.conf")]
        self._environ = environ | {"PS1": "SHELL$ ", "ENV": ""}
        self.client: Terminal | None = None
        self.tell("new-session", "-d", "-s", "ops", "-x", "80", "-y", "24")
        self.pid = int(self.tell("display-message", "-p", "#{pid}"))

    def tell(self, *words: str) -> str:
        done = subprocess.run([*self._command, *words], env=self._environ, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"tmux {' '.join(words)}: {done.stderr}"
        return done.stdout

    def attach(self, columns: int, rows: int) -> Terminal:
        self.client = Terminal([*self._command, "attach", "-t", "ops"], self._environ, (columns, rows))
        self.until(lambda _: self.size() == (columns, rows), f"{columns}x{rows}")
        return self.client

    def detach(self) -> None:
        assert self.client is not None
        self.tell("detach-client", "-s", "ops")
        assert self.client.wait() == 0
        self.client.close()
        self.client = None

    def resize(self, columns: int, rows: int) -> None:
        assert self.client is not None
        self.client.resize(columns, rows)
        self.until(lambda _: self.size() == (columns, rows), f"{columns}x{rows}")

    def size(self) -> tuple[int, int]:
        columns, rows = self.tell("display-message", "-p", "-t", "ops", "#{window_width} #{window_height}").split()
        return int(columns), int(rows)

    def flag(self, name: str) -> str:
        return self.tell("display-message", "-p", "-t", "ops", f"#{{{name}}}").strip()

    def press(self, *keys: str) -> None:
        self.tell("send-keys", "-t", "ops", *keys)

    def type_bytes(self, data: bytes) -> None:
        """Raw bytes into the pane, as they come from a terminal; `send-keys` would make characters of them."""
        (self.folder / "bytes").write_bytes(data)
        self.tell("load-buffer", str(self.folder / "bytes"))
        self.tell("paste-buffer", "-d", "-r", "-t", "ops")

    def screen(self) -> str:
        return self.tell("capture-pane", "-p", "-t", "ops")

    def until(self, condition: Callable[[str], object], what: str) -> str:
        deadline = time.monotonic() + LIMIT
        while not condition(shown := self.screen()):
            assert time.monotonic() < deadline, f"waited {LIMIT:.0f} s for: {what}\n{shown}"
            if self.client is not None:
                self.client._read(0.05)  # a client whose output is not read stops tmux in the end
            else:
                time.sleep(0.05)
        return shown

    def shows(self, *texts: str) -> str:
        return self.until(lambda shown: all(text in shown for text in texts), " and ".join(texts))

    def close(self) -> None:
        self.tell("kill-server")
        if self.client is not None:
            self.client.close()


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    runs = tmp_path / "runs"
    runs.mkdir()
    environ = environment(runs) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (tmp_path / "simulate.log").open("w") as log:
        command = [sys.executable, "-m", "console.cli", "simulate", "--steps", "0", "--rate", "4"]
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    server = Tmux(tmp_path, environ)
    try:
        deadline = time.monotonic() + LIMIT
        while not any(run.live() and run.connection_file.exists() for run in list_runs(runs)):
            assert process.poll() is None, (tmp_path / "simulate.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield server
        assert process.poll() is None, "the run has outlived its consoles"
    finally:
        server.close()
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def shape(screen: str) -> list[str]:
    """What a screen looks like but for figures: its words and frames, not its digits and not the dots of charts."""
    plain = re.sub(r"[\u2800-\u28ff┈▲•─╌ ]+", " ", screen)
    return [re.sub(r"[-+]?[\d.:]+[kM%s]?", "0", line).strip() for line in plain.splitlines()]


def test_a_day_in_tmux(tmux: Tmux) -> None:
    tmux.attach(80, 24)
    tmux.press("clear; echo before the console; driftline attach --operate; echo code=$?", "Enter")
    tmux.shows("clip fraction", "LIVE", "RW")

    # A fix, through its dialogs: chosen, confirmed, reported by both engines.
    tmux.until(lambda shown: re.search(r"processed logprobs\s+off\s+0/2", shown), "the fix to be off")
    tmux.press("F")
    tmux.shows("which fix")
    tmux.press("Enter")
    tmux.shows("set processed-logprobs to on", "Cancel")
    tmux.press("Right", "Enter")
    tmux.shows("applied")
    tmux.press("Escape")
    tmux.until(lambda shown: re.search(r"processed logprobs\s+on\s+2/2", shown), "the fix to be on")

    # Every screen by its number, and the first again: no error, one of a kind each.
    seen = set()
    for tab in [*TABS[1:], TABS[0]]:
        before = tmux.screen()
        tmux.press(tab.key)
        tmux.until(lambda shown, before=before: shape(shown)[1:-1] != shape(before)[1:-1], f"the {tab.word} screen")
        seen.add(tuple(shape(tmux.screen())[1:-1]))
    assert len(seen) == len(TABS)
    tmux.shows("clip fraction")

    # Detached and attached again: the same picture, the process has not noticed; a client that attaches sees all.
    tmux.press("Space")
    tmux.shows("FROZEN")
    assert tmux.flag("alternate_on") == "1"
    before = tmux.screen()
    tmux.detach()
    time.sleep(0.5)  # nothing to wait for: it is about what does not happen while no client is attached
    client = tmux.attach(80, 24)
    client.expect("clip fraction", "processed logprobs")
    # The header goes on, as it should: an alarm may have come meanwhile.
    assert shape(tmux.screen())[1:22] == shape(before)[1:22]
    # What a terminal may send on a new attachment: mouse reports in the old coding, which are no UTF-8.
    client.press(X10)
    tmux.type_bytes(X10 + X10[:4])
    tmux.type_bytes(X10[4:])
    tmux.press("Space")
    tmux.shows("LIVE")
    assert tmux.flag("mouse_any_flag") == "0"

    # Resized: as rich as there is room, back to the same.
    tmux.until(lambda shown: "thaw" not in shown, "the notice to be over")
    start = shape(tmux.screen())
    tmux.resize(120, 40)
    large = tmux.until(lambda shown: "clip fraction" in shown and shown.rstrip().count("\n") == 39, "all of 40 rows")
    assert max(map(len, large.splitlines())) >= 115
    tmux.resize(20, 5)
    tmux.shows("needs 60x15", "has 20x5")
    for i in range(60):
        client.resize(20 + i * 3, 5 + i)  # not waited for: tmux passes on what it can
    tmux.resize(80, 24)
    tmux.shows("clip fraction", "processed logprobs")
    names = re.compile(r"clip fraction|KL old|entropy|reward|mismatch|fixes|engines|events")
    # But for the header, where an alarm may have come or gone meanwhile.
    assert [names.findall(line) for line in shape(tmux.screen())[1:]] == [names.findall(line) for line in start[1:]]

    # Left: the shell's screen is back with what was on it, its cursor too, and no program has the mouse.
    tmux.press("q")
    shell = tmux.shows("code=0")
    assert "before the console" in shell
    assert "clip fraction" not in shell
    assert (tmux.flag("alternate_on"), tmux.flag("cursor_flag")) == ("0", "1")
    assert {tmux.flag(f"mouse_{kind}_flag") for kind in ("any", "standard", "button", "sgr")} == {"0"}
    tmux.press("echo still a shell", "Enter")
    tmux.until(lambda shown: shown.count("still a shell") == 2, "what is typed, and its echo")


def test_a_session_that_is_killed_ends_the_console(tmux: Tmux) -> None:
    """tmux kill-window, or a machine that shuts tmux down: SIGHUP, and nothing is left behind."""
    tmux.press("driftline attach; echo code=$?", "Enter")
    tmux.shows("clip fraction", "RO")
    below = psutil.Process(int(tmux.flag("pane_pid"))).children()
    assert below
    tmux.tell("new-window", "-t", "ops")
    tmux.tell("kill-window", "-t", "ops:0")
    deadline = time.monotonic() + LIMIT
    while left := [one for one in below if alive(one)]:
        assert time.monotonic() < deadline, f"goes on without a terminal: {[_doing(one.pid) for one in left]}"
        time.sleep(0.05)


@pytest.mark.skipif(SCREEN is None, reason="GNU screen is not installed; .ci/run installs it")
def test_in_gnu_screen(tmux: Tmux, tmp_path: Path) -> None:
    """The other multiplexer, with its own TERM and 8 or 256 colours: a fix, a detach, a smaller terminal, and left."""
    (tmp_path / "screenrc").write_text("startup_message off\naltscreen on\n")
    (tmp_path / "screens").mkdir(mode=0o700)
    command = f"SCREENDIR={tmp_path}/screens {SCREEN} -c {tmp_path}/screenrc"
    try:
        tmux.attach(100, 30)
        tmux.press(f"{command} -S ops sh -c 'driftline attach --operate; echo code=$?; read gone'", "Enter")
        tmux.shows("clip fraction", "LIVE", "RW")
        tmux.press("F")
        tmux.shows("which fix")
        tmux.press("Enter")
        tmux.shows("set processed-logprobs to on", "Cancel")
        tmux.press("Right", "Enter")
        tmux.shows("applied")
        tmux.press("Escape")
        tmux.press("C-a", "d")
        tmux.shows("detached from")
        tmux.resize(80, 24)
        tmux.press(f"clear; {command} -r ops", "Enter")
        tmux.until(lambda shown: re.search(r"processed logprobs\s+on\s+2/2", shown), "the fix to be on, after a detach")
        tmux.resize(20, 5)
        tmux.shows("needs 60x15")
        tmux.resize(80, 24)
        tmux.shows("clip fraction", "processed logprobs", "q quit")
        tmux.press("q")
        shown = tmux.shows("code=0")
        assert "clip fraction" not in shown
        tmux.press("Enter")
        tmux.shows("screen is terminating")
    finally:
        # One that is detached would outlive the test; where it has ended, this says so and does nothing.
        end = [str(SCREEN), "-c", f"{tmp_path}/screenrc", "-S", "ops", "-X", "quit"]
        subprocess.run(end, env={"SCREENDIR": f"{tmp_path}/screens"}, capture_output=True, timeout=30, check=False)


def _doing(pid: int) -> str:
    """A process, its state, and what each of its threads waits for in the kernel."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        threads = sorted(Path(f"/proc/{pid}/task").iterdir())
        waits = ", ".join(f"{(one / 'comm').read_text().strip()} {(one / 'wchan').read_text()}" for one in threads)
    except OSError as error:
        return f"{pid}: {error}"
    return f"{stat}; {waits}"
