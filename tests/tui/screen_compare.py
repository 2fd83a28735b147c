"""The fixture that holds a screen against what it showed before: as text, and a few screens as pictures.

Text (`screen_text.py`) is what a review reads; a picture shows what no text does, the look of the whole. Pictures are
taken of one screen of each kind, and of what is about looks: themes, few colours, charts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from textual.pilot import Pilot

from console.tui.app import ConsoleApp
from tests.tui.screen_text import screen_text

PICTURES = frozenset(
    {
        "test_alarms.py::test_the_list_looks_as_it_did[120x40]",
        "test_snap_cause.py::test_state[cause-120x40]",
        "test_snap_cause.py::test_the_question[two_causes-80x24]",
        "test_snap_fixes.py::test_state[normal-120x40]",
        "test_snap_parity.py::test_state[failing-120x40]",
        "test_snap_rest.py::test_dialog[confirm-120x40]",
        "test_snap_rest.py::test_dialog[help-120x40]",
        "test_snap_rest.py::test_dialog[palette-80x24]",
        "test_snap_rest.py::test_look[contrast]",
        "test_snap_rest.py::test_look[dark-16]",
        "test_snap_rest.py::test_look[light]",
        "test_snap_rest.py::test_look[mono]",
        "test_snap_rest.py::test_look[okabe-ito]",
        "test_snap_rest.py::test_replay[120x40]",
        "test_snap_sync.py::test_screen[happened-120x40-engines]",
        "test_snap_sync.py::test_screen[happened-120x40-events]",
        "test_snap_sync.py::test_screen[happened-120x40-sync]",
        "test_snap_tokens.py::test_state[apart-120x40]",
        "test_snapshots.py::test_charts[enlarged-200x60]",
        "test_snapshots.py::test_charts[smooth-crosshair-120x40]",
        "test_snapshots.py::test_markers[block]",
        "test_snapshots.py::test_state[defaults-80x24]",
        "test_snapshots.py::test_state[fixed-120x40]",
    }
)


class ScreenText(SingleFileSnapshotExtension):
    """One text file for each screen."""

    _file_extension = "txt"
    _write_mode = WriteMode.TEXT


class Compare(Protocol):
    """Whether an app looks as it did, in a terminal of that size and after what `run_before` does to it."""

    def __call__(
        self,
        app: ConsoleApp,
        *,
        terminal_size: tuple[int, int],
        run_before: Callable[[Pilot[None]], Awaitable[None]],
    ) -> bool: ...


async def shown(app: ConsoleApp, size: tuple[int, int], before: Callable[[Pilot[None]], Awaitable[None]]) -> str:
    async with app.run_test(size=size, tooltips=True, notifications=True) as pilot:
        await before(pilot)
        await pilot.pause()
        return screen_text(app)


@pytest.fixture
def screen_compare(request: pytest.FixtureRequest, snapshot: SnapshotAssertion) -> Compare:
    if f"{request.path.name}::{request.node.name}" in PICTURES:
        picture: Compare = request.getfixturevalue("snap_compare")
        return picture

    def compare(
        app: ConsoleApp,
        *,
        terminal_size: tuple[int, int],
        run_before: Callable[[Pilot[None]], Awaitable[None]],
    ) -> bool:
        found = asyncio.run(shown(app, terminal_size, run_before))
        assert found == snapshot.use_extension(ScreenText)
        return True

    return compare
