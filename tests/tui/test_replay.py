"""A recorded run on the screens: opened, played, sought, and equal to the live one at every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from console.replay.source import Recording
from console.sentinels.notify import Alerts
from console.sentinels.rules import load as load_rules
from console.sentinels.watch import Sentinels
from console.store.model import RunModel
from console.tui.app import ConsoleApp
from console.tui.dialogs.alarms import AlarmsScreen
from console.tui.open_replay import ReplayWatch
from console.tui.screens.events.list import EventList
from console.tui.watch.guard import guards
from driftline import rundir
from driftline.frames import encode
from driftline.journal.journal import Journal, Record, read, record_encoder
from driftline.rundir import RunDir
from tests.tui.conftest import screen_text
from tests.tui.synthetic import history


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    made = rundir.create(tmp_path_factory.mktemp("replay"), "demo-7f3a")
    journal = Journal(made.journal)
    for frame in history(40, fixed_from=25):
        seq = journal.head + 1
        record = Record(seq, 1_700_000_000 + seq / 10, "trainer", msgspec.Raw(encode(frame)), 1, seq)
        journal.append(record_encoder.encode(record), seq, True)
    journal.close()
    return made


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def app_of(run: RunDir, clock: Clock, **options: object) -> tuple[ConsoleApp, ReplayWatch]:
    watch = ReplayWatch(Recording(run, clock=clock, **options))  # type: ignore[arg-type]
    return ConsoleApp(watch.source, watch=watch, fps=20.0, clock=lambda: 0.0, sixteen=False), watch


async def until(pilot: Pilot[None], watch: ReplayWatch, step: int) -> str:
    """Wait until a step is on show."""
    for _ in range(1000):
        if watch.recording.timeline is not None and watch.model.step == step:
            break
        await pilot.pause(0.01)
    assert watch.model.step == step
    await pilot.pause()
    app = pilot.app
    assert isinstance(app, ConsoleApp)
    app.refresh_view()
    await pilot.pause()
    return screen_text(pilot)


def as_of(run: RunDir, step: int) -> RunModel:
    """The model one frame at a time, up to a step."""
    model = RunModel()
    for stamped in read(run.journal):
        ahead = RunModel()
        ahead.step = model.step
        ahead.apply(stamped)
        if ahead.step > step:
            break
        model.apply(stamped)
    return model


async def test_a_recording_opens_at_its_end_and_stands_still(run: RunDir) -> None:
    app, watch = app_of(run, Clock())
    async with app.run_test(size=(120, 40)) as pilot:
        text = await until(pilot, watch, 40)
        assert "step 40/40" in text
        assert "REPLAY" in text
        assert "RO" in text
        assert "LIVE" not in text
        assert not watch.recording.playing
        await pilot.press("S")
        await pilot.pause()
        assert "this is a recording: nothing can be done to it" in screen_text(pilot)
        await pilot.press("q")
    assert app.return_code in (None, 0)


async def test_steps_on_and_back_are_the_run_as_it_was(run: RunDir) -> None:
    app, watch = app_of(run, Clock(), start=10)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, watch, 10)
        for key, step in ((".", 11), (".", 12), (",", 11), (",", 10), (",", 9)):
            await pilot.press({".": "full_stop", ",": "comma"}[key])
            text = await until(pilot, watch, step)
            assert f"step {step}/40" in text
            expected = as_of(run, step)
            assert watch.model.head == expected.head
            assert watch.model.fixes == expected.fixes
            assert list(watch.model.events) == list(expected.events)
            for name in expected.metrics.names():
                assert watch.model.metrics.last(name) == expected.metrics.last(name), name


async def test_it_plays_in_its_own_time_and_stops_at_the_end(run: RunDir) -> None:
    clock = Clock()
    app, watch = app_of(run, clock, start=5, playing=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, watch, 5)
        head = watch.model.head
        clock.now += 1.05  # ten frames a second
        for _ in range(500):
            if watch.model.head == head + 10:
                break
            await pilot.pause(0.01)
        await pilot.pause(0.1)
        assert watch.model.head == head + 10
        await pilot.press("greater_than_sign", "greater_than_sign")
        assert "x4" in screen_text(pilot)
        clock.now += 0.26  # the rest of a tenth, then ten frames of forty a second
        for _ in range(500):
            if watch.model.head >= head + 20:
                break
            await pilot.pause(0.01)
        assert head + 20 <= watch.model.head <= head + 21
        clock.now += 1e6
        for _ in range(3000):  # a wait is cut to five seconds, so the clock has to go on
            clock.now += 10
            if not watch.recording.playing:
                break
            await pilot.pause(0.01)
        assert watch.model.step == 40
        await pilot.press("space")
        await until(pilot, watch, 1)
        assert watch.recording.playing


async def test_the_footer_of_a_recording_has_the_keys_that_play_it(run: RunDir) -> None:
    app, watch = app_of(run, Clock())
    async with app.run_test(size=(80, 24)) as pilot:
        for key in ("1", "4", "7"):
            await pilot.press(key)
            text = await until(pilot, watch, 40)
            footer = text.splitlines()[-1]
            assert "space play  ,. step  <> speed" in footer
            assert "? help" in footer
            assert "F fix" not in footer, "nothing can be done to a recording"


async def typed(pilot: Pilot[None], line: str) -> None:
    await pilot.press("colon", *("space" if char == " " else char for char in line), "enter")


async def test_goto_takes_the_recording_there_on_any_screen(run: RunDir) -> None:
    app, watch = app_of(run, Clock())
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, watch, 40)
        await typed(pilot, "goto 12")
        text = await until(pilot, watch, 12)
        assert "step 12/40" in text
        assert watch.model.head == as_of(run, 12).head
        # Also to what is ahead of what is on show, with other charts in view, and under another screen.
        await pilot.press("plus", "left_square_bracket", "c", "4")
        await typed(pilot, "goto 33")
        await until(pilot, watch, 33)
        assert app.current.ident == "fixes"
        assert app.live.view.x.mode == "all"
        assert app.live.view.cursor is None
        await typed(pilot, "goto 0")
        await until(pilot, watch, 1)
        await typed(pilot, "goto 41")
        await pilot.pause()
        assert "step 41 has not been; the newest is 40" in screen_text(pilot)


async def test_an_event_and_its_recording_are_gone_to(run: RunDir) -> None:
    app, watch = app_of(run, Clock())
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, watch, 40)
        await pilot.press("7")
        await pilot.pause()
        listed = app.screen.query_one(EventList)
        place = next(i for i, row in enumerate(listed.items) if 0 < row.last.step < 40)
        for _ in range(len(listed.items) - 1 - place):
            await pilot.press("up")
        step = listed.items[place].last.step
        await pilot.press("t")
        await until(pilot, watch, step)
        assert app.current.ident == "live"


RULES = """
[rules.too-much-clipping]
kind = "limit"
metric = "policy/clip_fraction"
above = 0.13
hold = 2
level = "error"
source = "a test's"
"""


async def test_the_rules_look_at_what_is_played(run: RunDir, tmp_path: Path) -> None:
    """Alarms are those that the run had by the step on show, whichever way it was come to."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    rules = load_rules(path)
    clock = Clock()
    watch = ReplayWatch(Recording(run, clock=clock), guards(rules, Alerts(bell=True)))
    app = ConsoleApp(watch.source, watch=watch, fps=20.0, clock=lambda: 0.0, sixteen=False)

    def standing() -> set[tuple[str, int]]:
        assert watch.guard is not None
        return {(alarm.rule, alarm.step) for alarm in watch.guard.sentinels.standing}

    def ever() -> set[tuple[str, int]]:
        assert watch.guard is not None
        return standing() | {(alarm.rule, alarm.step) for alarm in watch.guard.sentinels.history}

    def expected(step: int) -> set[tuple[str, int]]:
        one = Sentinels(rules)
        model = as_of(run, step)
        one.update(model, model.last_time or 0.0, watch.source.link())
        return {(alarm.rule, alarm.step) for alarm in [*one.standing, *one.history]}

    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, watch, 40)
        await seen(pilot, lambda: ever() == expected(40))
        own = [step for rule, step in ever() if rule == "too-much-clipping"]
        assert own, "the run clips too much before its fixes"
        assert "too-much-clipping" not in screen_text(pilot), "its past is not shown"
        await typed(pilot, "goto 24")
        await until(pilot, watch, 24)
        await seen(pilot, lambda: ever() == expected(24))
        assert ("too-much-clipping", own[0]) in standing()
        await seen(pilot, lambda: " alarm" in screen_text(pilot).splitlines()[0])
        await pilot.press("exclamation_mark")
        await pilot.pause()
        assert "too-much-clipping" in screen_text(pilot)
        # To where the alarm began.
        while isinstance(app.screen, AlarmsScreen) and getattr(app.screen.chosen, "rule", "") != "too-much-clipping":
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, watch, own[0])
        await seen(pilot, lambda: ever() == expected(own[0]))
        assert ("too-much-clipping", own[0]) not in ever(), "it takes two steps to be raised"
        # What is raised while it is played is shown.
        await pilot.press("space")
        for _ in range(3000):
            clock.now += 0.05
            if ("too-much-clipping", own[0]) in standing():
                break
            await pilot.pause(0.01)
        await seen(pilot, lambda: "too-much-clipping at step" in screen_text(pilot))


async def seen(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            break
        await pilot.pause(0.01)
    assert true()


async def test_the_live_console_says_what_is_played(run: RunDir) -> None:
    from tests.tui.conftest import make_app, press, settle, source_with

    app = make_app(source_with(10))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "only a recording is played" in await press(pilot, "full_stop")


async def test_of_a_live_run_an_event_has_its_step_on_the_charts(run: RunDir) -> None:
    from tests.tui.conftest import make_app, press, settle, source_with

    app = make_app(source_with())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "says nothing of a step" in await press(pilot, "7", "g", "t")
        listed = app.screen.query_one(EventList)
        place = next(i for i, row in enumerate(listed.items) if row.last.step > 0)
        await press(pilot, *["down"] * place, "t")
        assert app.current.ident == "live"
        assert app.live.view.cursor == listed.items[place].last.step


async def test_what_cannot_be_read_is_said(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error", str(tmp_path / "000001.rlj"))

    monkeypatch.setattr("console.replay.source.portions", broken)
    app, _ = app_of(run, Clock())
    async with app.run_test(size=(120, 40)) as pilot:
        for _ in range(1000):
            if "Input/output error" in screen_text(pilot):
                break
            await pilot.pause(0.02)
        assert "Input/output error" in screen_text(pilot)
