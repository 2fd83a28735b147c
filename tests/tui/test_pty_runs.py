"""Two live runs in one console on a real terminal: listed, changed, drawn over one another, and acted on apart."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from driftline.frames import Command, RunState
from driftline.journal.journal import read
from driftline.producer.probe import Probe
from tests.tui.synthetic import history
from tests.tui.test_pty import Terminal, environment
from tests.unit.hubs import PATIENCE, Hub, until


@dataclass
class Live:
    """A run whose trainer has reported so many steps, and is still there."""

    hub: Hub
    probe: Probe

    @property
    def id(self) -> str:
        return self.hub.run.id

    def commands(self) -> list[str]:
        frames = [stamped.frame() for stamped in read(self.hub.run.journal)]
        return [frame.verb for frame in frames if isinstance(frame, Command)]

    def close(self) -> None:
        self.probe.close(1.0)
        self.hub.end()


def live(root: Path, steps: int, fixed_from: int) -> Live:
    hub = Hub(root)
    hub.start()
    probe = Probe("trainer", hub.run)
    for frame in history(steps, fixed_from=fixed_from):
        probe.send(replace(frame, run=hub.run.id) if isinstance(frame, RunState) else frame)
    assert probe.flush(PATIENCE)
    return Live(hub, probe)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Live, Live]]:
    made: list[Live] = []
    try:
        made += [live(tmp_path, 40, 10**9)]
        made += [live(tmp_path, 60, 20)]
        yield made[0], made[1]
    finally:
        for one in made:
            one.close()


@pytest.fixture
def terminal(two: tuple[Live, Live], tmp_path: Path) -> Iterator[Terminal]:
    command = [sys.executable, "-m", "console.cli", "attach", *(one.id for one in two), "--operate"]
    terminal = Terminal(command, environment(tmp_path), (120, 40))
    try:
        yield terminal
        terminal.press(b"q")
        assert terminal.wait() == 0
        assert b"Traceback" not in terminal.raw
    finally:
        terminal.close()


def header(screen: str) -> str:
    return screen.splitlines()[0]


def show_other(terminal: Terminal, run: Live) -> None:
    """Choose the second of the list that is open."""
    terminal.press(b"j\r")
    terminal.until(lambda shown: run.id in header(shown) and "watched runs" not in shown)


def close(terminal: Terminal, dialog: str) -> None:
    """Waited for: an escape and the next key in one go would be another key."""
    terminal.press(b"\x1b")
    terminal.until(lambda shown: dialog not in shown)


def test_two_runs_are_listed_changed_and_drawn_over_one_another(two: tuple[Live, Live], terminal: Terminal) -> None:
    broken, mended = two
    terminal.until(lambda shown: broken.id in header(shown) and "step 40/90" in header(shown))
    terminal.press(b"w")
    terminal.until(lambda shown: all(text in shown for text in ("watched runs", mended.id, "40/90", "60/90")))
    (row,) = [line for line in terminal.screen().splitlines() if mended.id in line]
    assert "running" in row
    assert "60/90" in row

    show_other(terminal, mended)
    terminal.until(lambda shown: "step 60/90" in header(shown))
    assert broken.id not in terminal.screen()

    terminal.press(b"o")
    terminal.until(lambda shown: broken.id in shown)
    assert mended.id in header(terminal.screen()), "the run on show stays"
    terminal.press(b"o")
    terminal.until(lambda shown: broken.id not in shown)


def test_a_command_goes_to_the_run_on_show(two: tuple[Live, Live], terminal: Terminal) -> None:
    broken, mended = two
    terminal.until(lambda shown: "LIVE" in header(shown))
    terminal.press(b"w")
    terminal.until(lambda shown: "watched runs" in shown and "60/90" in shown)
    show_other(terminal, mended)
    terminal.until(lambda shown: "LIVE" in header(shown))
    terminal.press(b"S")
    terminal.until(lambda shown: "sync weights now" in shown)
    terminal.press(b"\x1b[C\r")
    until(mended.commands, "the command in the journal of the run on show")
    assert (mended.commands(), broken.commands()) == (["sync"], [])
    close(terminal, "sync weights now")


def test_a_run_that_ends_is_shown_in_the_list_while_the_other_goes_on(
    two: tuple[Live, Live], terminal: Terminal
) -> None:
    broken, mended = two
    terminal.until(lambda shown: "LIVE" in header(shown))
    mended.hub.kill()
    terminal.press(b"w")
    terminal.until(lambda shown: any(mended.id in line and "LOST" in line for line in shown.splitlines()))
    assert any(broken.id in line and "LIVE" in line for line in terminal.screen().splitlines())
    close(terminal, "watched runs")
