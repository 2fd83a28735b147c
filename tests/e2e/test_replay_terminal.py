"""A recording on a real terminal: opened from the command line, stepped, left; and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from console.tui.terminal import splash
from driftline import rundir
from driftline.frames import encode
from driftline.journal.journal import Journal, Record, record_encoder
from driftline.rundir import RunDir
from tests.tui.synthetic import history
from tests.tui.test_pty import Terminal, environment


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = rundir.create(tmp_path, "demo-7f3a")
    journal = Journal(made.journal)
    for frame in history(40, fixed_from=25):
        seq = journal.head + 1
        record = Record(seq, 1_700_000_000.0 + seq, "trainer", msgspec.Raw(encode(frame)), 1, seq)
        journal.append(record_encoder.encode(record), seq, True)
    journal.close()
    return made


def test_a_recording_on_a_terminal(run: RunDir) -> None:
    terminal = Terminal([sys.executable, "-m", "console.cli", "replay", run.id], environment(run.path.parent))
    try:
        terminal.expect("step 40/40", "REPLAY", "clip fraction")
        first = terminal.raw.find(b"opening " + run.id.encode())
        assert 0 <= first < terminal.raw.find(b"clip fraction"), "it says at once what it opens"
        terminal.press(b",")
        terminal.expect("step 39/40")
        terminal.press(b"S")
        terminal.expect("this is a recording")
        terminal.press(b"q")
        assert terminal.wait() == 0
        assert terminal.raw.rfind(b"\x1b[?1049l") > terminal.raw.rfind(b"\x1b[?1049h"), "the shell's screen is back"
        assert terminal.raw.rfind(b"\x1b[?25h") > terminal.raw.rfind(b"\x1b[?25l"), "and its cursor"
    finally:
        terminal.close()


def test_what_cannot_be_opened_is_said_on_the_shells_screen(tmp_path: Path) -> None:
    empty = rundir.create(tmp_path, "empty")
    terminal = Terminal([sys.executable, "-m", "console.cli", "replay", str(empty.path)], environment(tmp_path))
    try:
        assert terminal.wait() == 3
        last = terminal.raw.rfind(splash.LEAVE.encode())
        assert last >= 0
        assert b"nothing is recorded" in terminal.raw[last:]
    finally:
        terminal.close()
