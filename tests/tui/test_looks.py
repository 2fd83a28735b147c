"""Every look on every kind of terminal: the console starts in it, and shows the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.tui.paint.theme import LOOKS
from tests.tui.conftest import Running, screen_text, source_with
from tests.tui.test_hangup import session


@pytest.mark.parametrize("sixteen", [False, True], ids=["true-colour", "sixteen"])
@pytest.mark.parametrize("look", LOOKS)
async def test_every_look_starts(running: Running, look: str, sixteen: bool) -> None:
    async with running(source_with(), theme=look, sixteen=sixteen) as pilot:
        assert "clip fraction" in screen_text(pilot)
        await pilot.press("S")
        await pilot.pause()
        assert "sync weights" in screen_text(pilot)


@pytest.mark.parametrize("term", ["xterm", "linux", "screen", "tmux-256color", "vt100", "dumb"])
def test_it_starts_on_every_kind_of_terminal(tmp_path: Path, term: str) -> None:
    terminal = session(tmp_path, environ={"TERM": term})
    try:
        terminal.expect("clip fraction")
        terminal.press(b"q")
        assert terminal.wait() == 0
        assert b"Traceback" not in terminal.raw
    finally:
        terminal.close()
