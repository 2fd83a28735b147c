"""Pictures of what no screen's own tests take: dialogs, a recording, looks, the smallest terminal, states everywhere.

`pytest tests/tui/test_snap_rest.py --snapshot-update` takes them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from console.replay.source import Recording
from console.settings.keys import TABS
from console.tui.app import ConsoleApp
from console.tui.open_replay import ReplayWatch
from console.tui.paint.theme import LOOKS
from driftline.frames import Event, Frame, Metrics, encode
from driftline.journal.journal import Journal, Record, record_encoder
from driftline.rundir import RunDir
from tests.tui import sync_runs
from tests.tui.conftest import Running, make_app, screen_text
from tests.tui.quick import app_of, drawn, tap, up_to_date
from tests.tui.screen_compare import Compare
from tests.tui.synthetic import START, FakeSource, engines, fix_state, history, run_state, token_frame
from tests.tui.test_snapshots import SIZES, read_only

EVERY_SIZE = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
EVERY_SCREEN = pytest.mark.parametrize("tab", TABS, ids=lambda tab: tab.id)


def full() -> FakeSource:
    """A run with something on every screen."""
    source = sync_runs.failed()
    source.feed([token_frame(step) for step in range(60, 75)])
    source.feed([fix_state("processed-logprobs", "on", ("on", "on"), version=20, step=45)])
    return source


def finished() -> FakeSource:
    source = full()
    source.feed([run_state(74, "finished")])
    source.state = Link(False, 8.0)
    return source


def lost() -> FakeSource:
    source = full()
    source.state = Link(True, 42.0, way="the ssh process was killed; retrying in 4 s")
    return source


def empty() -> FakeSource:
    return FakeSource()


def loading() -> FakeSource:
    source = full()
    source.state = Link(True, 0.2, 12_000)
    return source


def stale() -> FakeSource:
    source = full()
    source.state = Link(True, 8.0, trouble="the hub of run demo-7f3a is silent at tcp://127.0.0.1:5555.")
    return source


def keys(*pressed: str) -> Callable[[Pilot[None]], Any]:
    async def press(pilot: Pilot[None]) -> None:
        await up_to_date(pilot)
        for key in pressed:
            await tap(pilot, key)
            if app_of(pilot).current.ident in ("tokens", "parity"):  # pairs are asked for when they are looked at
                for _ in range(1000):
                    if app_of(pilot).showing.tokens_asked:
                        break
                    await pilot.pause(0.005)
            await up_to_date(pilot)

    return press


# -- states of a run, on the screens whose own tests do not take them


@EVERY_SCREEN
@pytest.mark.parametrize("state", [finished, lost, read_only], ids=lambda state: state.__name__)
def test_state_of_the_run(screen_compare: Compare, tab: Any, state: Callable[[], FakeSource]) -> None:
    assert screen_compare(make_app(state()), terminal_size=(80, 24), run_before=keys(tab.key))


@pytest.mark.parametrize("tab", ["3", "6", "7"], ids=["sync", "engines", "events"])
@pytest.mark.parametrize("size", SIZES[1:], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", [empty, loading, stale], ids=lambda state: state.__name__)
def test_state_with_room(
    screen_compare: Compare, tab: str, state: Callable[[], FakeSource], size: tuple[int, int]
) -> None:
    assert screen_compare(make_app(state()), terminal_size=size, run_before=keys(tab))


# -- the smallest terminal that is drawn on, and smaller ones


@EVERY_SCREEN
def test_the_smallest(screen_compare: Compare, tab: Any) -> None:
    assert screen_compare(make_app(full()), terminal_size=(60, 15), run_before=keys(tab.key))


@pytest.mark.slow
async def test_too_small_and_back_on_every_screen(running: Running) -> None:
    async with running(full(), (80, 24)) as pilot:
        for tab in TABS:
            await tap(pilot, tab.key)
            await up_to_date(pilot)
            before = screen_text(pilot)
            for size in ((20, 5), (59, 24), (80, 14), (1, 1), (11, 2)):
                await pilot.resize_terminal(*size)
                await drawn(pilot)
                text = screen_text(pilot)
                if size[0] >= 11:
                    assert "needs 60x15" in text, (tab.id, size)
                assert len(text.split()) <= 4, "and nothing else"
                for key in ("enter", "j", "slash", "colon", "escape", "tab"):
                    await tap(pilot, key)
                await tap(pilot, "escape")
            await pilot.resize_terminal(80, 24)
            await drawn(pilot)
            await drawn(pilot)
            # The keys above may have moved a cursor or the focus; the screen is whole.
            after = screen_text(pilot)
            assert after.splitlines()[0] == before.splitlines()[0], tab.id
            assert len(after.strip()) > len(before.strip()) * 0.6, tab.id


# -- dialogs


@EVERY_SIZE
@pytest.mark.parametrize(
    "pressed",
    [
        ("question_mark",),
        ("2", "question_mark"),
        ("ctrl+p",),
        ("ctrl+p", "s", "y", "n"),
        ("colon",),
        ("colon", *"fix", "space", "tab"),
        ("colon", *"goto", "space", *"many", "enter"),
        ("w",),
        ("F", "enter"),
    ],
    ids=["help", "help-tokens", "palette", "palette-found", "command", "completion", "wrong", "runs", "confirm"],
)
def test_dialog(screen_compare: Compare, pressed: tuple[str, ...], size: tuple[int, int]) -> None:
    app = make_app(full(), more=[(lost(), None)])
    assert screen_compare(app, terminal_size=size, run_before=keys(*pressed))


@pytest.mark.parametrize(
    "pressed", [("question_mark",), ("ctrl+p",), ("w",), ("F", "enter")], ids=["help", "palette", "runs", "confirm"]
)
def test_dialog_in_sixteen_colours(screen_compare: Compare, pressed: tuple[str, ...]) -> None:
    app = make_app(full(), sixteen=True, more=[(lost(), None)])
    assert screen_compare(app, terminal_size=(120, 40), run_before=keys(*pressed))


# -- looks


@pytest.mark.parametrize("look", LOOKS)
def test_look(screen_compare: Compare, look: str) -> None:
    assert screen_compare(make_app(full(), theme=look), terminal_size=(120, 40), run_before=keys())


# -- a recording


def recorded() -> list[Frame]:
    """A run in the order in which it happened: tokens, syncs and engines at their steps."""
    frames: list[Frame] = []
    for frame in history(40, fixed_from=25):
        frames.append(frame)
        if isinstance(frame, Metrics) and frame.step >= 20:
            frames += [
                token_frame(frame.step),
                *engines(),
                *(sync_runs.sync(frame.step // 2) if frame.step % 2 else ()),
            ]
        if isinstance(frame, Metrics) and frame.step == 22:
            frames.append(Event(START, "info", "mark", "look here", 22))
    return frames


@pytest.fixture
def recording(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "demo-7f3a")
    made.journal.mkdir(parents=True)
    journal = Journal(made.journal)
    for frame in recorded():
        seq = journal.head + 1
        record = Record(seq, START + seq / 10, "trainer", msgspec.Raw(encode(frame)), 1, seq)
        journal.append(record_encoder.encode(record), seq, True)
    journal.close()
    return made


def replayed(run: RunDir, *pressed: str, sixteen: bool = False) -> tuple[ConsoleApp, Callable[[Pilot[None]], Any]]:
    watch = ReplayWatch(Recording(run, start=30, clock=lambda: 0.0))

    async def press(pilot: Pilot[None]) -> None:
        for _ in range(2000):
            if watch.recording.timeline is not None and watch.model.step == 30 and app_of(pilot).live.ready:
                break
            await pilot.pause(0.005)
        assert watch.model.step == 30
        await drawn(pilot)
        for key in pressed:
            await tap(pilot, key)
        for _ in range(1000):
            if app_of(pilot).current.ident != "tokens" or (watch.tokens_asked and len(watch.tokens)):
                break
            await pilot.pause(0.005)
        await drawn(pilot)

    return ConsoleApp(watch.source, watch=watch, fps=10.0, clock=lambda: 0.0, sixteen=sixteen), press


@EVERY_SIZE
def test_replay(screen_compare: Compare, recording: RunDir, size: tuple[int, int]) -> None:
    app, before = replayed(recording)
    assert screen_compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize("tab", TABS[1:], ids=lambda tab: tab.id)
def test_replay_on_every_screen(screen_compare: Compare, recording: RunDir, tab: Any) -> None:
    app, before = replayed(recording, tab.key)
    assert screen_compare(app, terminal_size=(80, 24), run_before=before)


def test_replay_in_sixteen_colours(screen_compare: Compare, recording: RunDir) -> None:
    app, before = replayed(recording, sixteen=True)
    assert screen_compare(app, terminal_size=(120, 40), run_before=before)
