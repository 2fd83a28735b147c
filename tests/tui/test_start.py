"""The console's start on a real terminal: what is found wrong once the first frame is there ends it properly."""

from __future__ import annotations

import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from console.tui.app import ConsoleApp
from tests.tui.conftest import Running, source_with
from tests.tui.test_pty import Terminal, environment
from tests.unit.hubs import Hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    made.start()
    yield made
    made.end()


@pytest.mark.parametrize(
    ("wrong", "code", "sentence"),
    [("rules", 2, "own.toml"), ("key", 3, "not a key file of this project")],
)
def test_what_is_wrong_is_reported_on_the_shells_screen(hub: Hub, wrong: str, code: int, sentence: str) -> None:
    rules = hub.run.path / "own.toml"
    rules.write_text("[nothing" if wrong == "rules" else "")
    if wrong == "key":
        (hub.run.keys / "viewer.key").write_text("no key")
    command = [sys.executable, "-m", "console.cli", "attach", str(hub.run.path), "--rules", str(rules)]
    terminal = Terminal(command, environment(hub.run.path.parent), (80, 24))
    try:
        assert terminal.wait() == code
        after = terminal.raw.rpartition(b"\x1b[?1049l")[2].decode()
        assert sentence in after, "on the shell's own screen, below the command"
        assert "Traceback" not in after
        assert len(after.strip().splitlines()) == 1
        assert termios.tcgetattr(terminal.fd) == terminal.modes
    finally:
        terminal.close()


def test_a_start_leaves_garbage_collection_on_and_the_environment_as_it_was() -> None:
    code = (
        "import gc, os; before = dict(os.environ); from console.process import fast_start as quick\n"
        "quick.begin(); assert not gc.isenabled() and dict(os.environ) == before\n"
        "quick.settle(); assert gc.isenabled() and gc.get_freeze_count() > 0\n"
        "import numpy, threading; print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["1"], "numpy has started no threads"


_CIRCLES = """
import gc
from collections import deque
from console.process import fast_start
class Circle:
    alive = most = 0
    def __init__(self):
        self.own, self.more = self, [[] for _ in range(8)]
        Circle.alive += 1
        Circle.most = max(Circle.most, Circle.alive)
    def __del__(self):
        Circle.alive -= 1
def most():
    '''Circles at a time; each is on show while five hundred more come: it has been seen before it is garbage.'''
    gc.collect()
    Circle.most, shown = 0, deque(maxlen=500)
    for _ in range(30_000):
        shown.append(Circle())
    return Circle.most
own = gc.get_threshold()
fast_start.begin()
fast_start.settle()
print(most())
gc.set_threshold(*own)
print(most())
"""


def test_garbage_of_a_running_console_stays_small() -> None:
    done = subprocess.run([sys.executable, "-c", _CIRCLES], capture_output=True, text=True, timeout=120, check=True)
    here, usual = map(int, done.stdout.split())
    assert 500 <= here < usual / 2


async def test_a_screen_whose_panes_are_going_with_the_app_is_left_alone(running: Running) -> None:
    """A q or ctrl-C in the first moment: the screen is still notified that it is on, while its panes are taken away."""
    async with running(source_with(4)) as pilot:
        app = cast("ConsoleApp", pilot.app)
        assert app.live.ready
        app.exit()
        assert not app.live.ready
        await app.live.query_one("#panes").remove()
        app.live.on_screen_resume()
