"""Every entry of the table of bindings, on every screen where it is bound, in every state of a run.

No key may raise, whatever there is to show. And no key may be dead: somewhere it changes what is on screen, or is
answered in the footer. Whether it does the right thing is the business of the tests of each screen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from console.replay.source import Recording
from console.sentinels.notify import Alerts
from console.sentinels.rules import load
from console.settings.keys import KEYS, TABS, Key
from console.tui.app import ConsoleApp
from console.tui.control.exports import Exports
from console.tui.dialogs.dialog import Dialog
from console.tui.open_replay import ReplayWatch
from console.tui.screens.base.run_screen import RunScreen
from console.tui.watch.guard import guards
from driftline import rundir
from driftline.frames import encode
from driftline.journal.journal import Journal, Record, record_encoder
from driftline.rundir import RunDir
from tests.tui import sync_runs
from tests.tui.conftest import make_app
from tests.tui.quick import app_of, drawn, tap, up_to_date
from tests.tui.synthetic import FakeSource, history, run_state, token_frame

SCREENS = [tab.id for tab in TABS]
RULES = guards(load(), Alerts())
NOT_HERE = {"quit"}
"""Ends the app; tests/tui/test_live.py."""
MAY_BE_DEAD = {f"screens.{way}" for way in ("left", "right", "next", "previous")}
"""A screen of one pane, or of panes below each other, has nowhere to go."""


def live() -> FakeSource:
    """A run with something of everything: syncs, one that failed, tokens, engines over time, alarms, events."""
    source = sync_runs.failed()
    source.feed([token_frame(step) for step in range(60, 75)])
    return source


def stale() -> FakeSource:
    source = live()
    source.state = Link(True, 42.0, way="the ssh process was killed; retrying in 4 s")
    return source


def finished() -> FakeSource:
    source = live()
    source.feed([run_state(74, "finished")])
    source.state = Link(False, 8.0)
    return source


def read_only() -> FakeSource:
    source = live()
    source.operator = False
    return source


STATES: dict[str, Callable[[], FakeSource]] = {
    "empty": FakeSource,
    "live": live,
    "stale": stale,
    "finished": finished,
    "read-only": read_only,
}


class Still(ConsoleApp):
    """Counts its answers."""

    said = 0

    def say(self, *args: Any, **kwargs: Any) -> None:
        self.said += 1
        super().say(*args, **kwargs)


@pytest.fixture(autouse=True)
def no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is written: that is a process of its own (tests/tui/test_evidence.py)."""
    monkeypatch.setattr(Exports, "_write_evidence", lambda self, run: None)


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """The recorded run, for its own directory and for a replay."""
    made = rundir.create(tmp_path, "demo-7f3a")
    journal = Journal(made.journal)
    for frame in [*history(40, fixed_from=25), *(token_frame(step) for step in range(30, 41)), *sync_runs.sync(12)]:
        seq = journal.head + 1
        record = Record(seq, 1_700_000_000 + seq / 10, "trainer", msgspec.Raw(encode(frame)), 1, seq)
        journal.append(record_encoder.encode(record), seq, True)
    journal.close()
    return made


def bound(ident: str) -> Iterator[Key]:
    """What can be pressed on a screen."""
    return (key for key in KEYS if key.where in ("screens", ident, "everywhere", "replay") and key.id not in NOT_HERE)


def picture(app: Still) -> object:
    """All that an operator sees, colours included, and how often he was answered."""
    focused = app.focused.id if app.focused is not None else ""
    return type(app.screen).__name__, focused, app.screen._compositor.render_strips(), app.said


async def leave_dialogs(pilot: Pilot[None], ident: str) -> None:
    """Back to the screen, with nothing open on it."""
    app = app_of(pilot)
    for _ in range(8):
        if isinstance(app.screen, RunScreen) and app.screen.ident == ident and not _typing(app):
            return
        if isinstance(app.screen, Dialog) or _typing(app):
            await tap(pilot, "escape")
        else:
            app.action_screen(ident)  # type: ignore[arg-type]
            await drawn(pilot)
    raise AssertionError(f"not back on {ident} but on {app.screen}, focus {app.focused}")


def _typing(app: ConsoleApp) -> bool:
    """Whether letters go into a line."""
    return app.focused is not None and type(app.focused).__name__ in ("CommandLine", "FilterLine")


async def press_everything(pilot: Pilot[None], ident: str, *, thorough: bool) -> set[str]:
    """Press every key of a screen, thorough: twice and those for other screens too; the entries that did something."""
    app = pilot.app
    assert isinstance(app, Still)
    await leave_dialogs(pilot, ident)
    await up_to_date(pilot)
    entries = [entry for entry in bound(ident) if thorough or entry.id not in SCREENS]
    alive = {entry for entry in entries if await does_something(pilot, ident, entry, 2 if thorough else 1)}
    for entry in entries if thorough else ():
        if entry not in alive:  # what goes down does nothing at the bottom, what goes back only where one is deep in
            app.current.enlarge(app.current.focused)
            await tap(pilot, "up")
            if await does_something(pilot, ident, entry, 1):
                alive.add(entry)
    return {f"{entry.where}.{entry.id}" for entry in alive}


async def does_something(pilot: Pilot[None], ident: str, entry: Key, times: int) -> bool:
    """Press each key of an entry; most that switch something are back where they were the second time."""
    app = pilot.app
    assert isinstance(app, Still)
    if entry.id == "down":
        await tap(pilot, "up")  # a list that follows its newest line stands at its end
    before, found = picture(app), False
    for key in entry.keys * times:
        await tap(pilot, key)
        await asked_of_the_reader(pilot, entry)
        assert app.is_running, (entry, key)
        if (after := picture(app)) != before:
            found = True
            await leave_dialogs(pilot, ident)
            after = picture(app)
        before = after
    return found


async def asked_of_the_reader(pilot: Pilot[None], entry: Key) -> None:
    """Wait for a recording to be at the step that it was asked for."""
    watch = app_of(pilot).showing
    if entry.where != "replay" or not isinstance(watch, ReplayWatch):
        return
    for _ in range(2000):
        if watch.recording._target is None:
            break
        await pilot.pause(0.005)
    with watch.lock:
        pass  # what is being put in its place is there
    await drawn(pilot)


@asynccontextmanager
async def opened(app: ConsoleApp, size: tuple[int, int]) -> AsyncIterator[Pilot[None]]:
    app.__class__ = Still
    async with app.run_test(size=size) as pilot:
        for _ in range(2000):
            if app.live.ready:
                break
            await pilot.pause(0.005)
        yield pilot
        assert app.return_code in (None, 0)


async def with_keys(ident: str, run_dir: RunDir, state: str, size: tuple[int, int]) -> set[str]:
    """The entries that did something on one screen in one state."""
    source = STATES[state]()
    more = [(live(), None)] if state == "live" else []
    app = make_app(source, run=run_dir, guards=RULES, more=more)
    async with opened(app, size) as pilot:
        alive = await press_everything(pilot, ident, thorough=state == "live")
        sent = len(source.sent)
    assert sent == 0, "no key alone acts on the run"
    return alive


async def in_a_replay(ident: str, run_dir: RunDir) -> set[str]:
    watch = ReplayWatch(Recording(run_dir, start=20))
    app = ConsoleApp(watch.source, watch=watch, fps=10.0, clock=lambda: 0.0, sixteen=False)
    async with opened(app, (80, 24)) as pilot:
        for _ in range(2000):
            if watch.recording.timeline is not None and watch.model.step == 20:
                break
            await pilot.pause(0.005)
        return await press_everything(pilot, ident, thorough=False)


@pytest.mark.parametrize("ident", SCREENS)
def test_no_key_raises_and_none_is_dead(ident: str, run_dir: RunDir) -> None:
    async def all_states() -> set[str]:
        alive: set[str] = set()
        for state in STATES:
            alive |= await with_keys(ident, run_dir, state, (80, 24))
        return alive | await in_a_replay(ident, run_dir)

    alive = asyncio.run(all_states())
    every = {f"{key.where}.{key.id}" for key in bound(ident)} - {f"everywhere.{ident}"}
    assert every - alive - MAY_BE_DEAD == set(), "keys of the table that do nothing and say nothing"


DIALOGS = ("F", "A", "S", "P", "question_mark", "exclamation_mark", "w", "ctrl+p", "colon")


def test_no_key_of_a_dialog_raises(run_dir: RunDir) -> None:
    """And escape leads out of each, however deep the key has led."""
    places = ("dialog", "align", "alarms", "runs", "help")
    keys = dict.fromkeys(key for entry in KEYS if entry.where in places for key in entry.keys)

    async def session() -> None:
        app = make_app(live(), run=run_dir, guards=RULES, more=[(live(), None)])
        async with opened(app, (80, 24)) as pilot:
            await up_to_date(pilot)
            for opener in DIALOGS:
                for key in keys:
                    await tap(pilot, opener)
                    await tap(pilot, key)
                    assert app.is_running, (opener, key)
                    await leave_dialogs(pilot, app.current.ident)

    asyncio.run(session())
