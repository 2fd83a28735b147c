"""Alarms on screen: counted in the header, shown in the footer, listed under `!`, jumped to, seen; and the bell."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from console.sentinels import load
from console.sentinels.notify import Alerts
from console.sentinels.rules import Rules
from console.settings.keys import KEYS
from console.tui.app import ConsoleApp
from console.tui.chart.line_chart import LineChart
from console.tui.dialogs.alarms import AlarmsScreen
from console.tui.watch.guard import guards
from driftline.frames import Frame, Metrics
from driftline.producer.probe import Probe
from tests.tui.conftest import Running, make_app, press, screen_text, settle
from tests.tui.screen_compare import Compare
from tests.tui.synthetic import START, FakeSource, engines, run_state
from tests.tui.test_pty import Terminal
from tests.unit.hubs import Hub
from tests.unit.hubs import until as until_true

QUIET, BAD = 0.01, 0.2


def reported(first: int, *values: float) -> list[Frame]:
    """Steps from `first` on, of a mismatch."""
    return [Metrics(first + i, 1, START + first + i, {"mismatch/abs_diff_mean": v}) for i, v in enumerate(values)]


def source_of(*values: float) -> FakeSource:
    source = FakeSource()
    steps = reported(1, *values)
    source.feed([*steps, run_state(len(values)), *engines()])
    return source


def app_of(pilot: Pilot[None]) -> ConsoleApp:
    assert isinstance(pilot.app, ConsoleApp)
    return pilot.app


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> str:
    """Wait until the reader's thread has looked."""
    async with asyncio.timeout(20):
        while not condition():
            await pilot.pause(0.02)
    await settle(pilot)
    return screen_text(pilot)


async def alarmed(pilot: Pilot[None], count: int = 1) -> str:
    guard = app_of(pilot).showing.guard
    assert guard is not None

    def there() -> bool:
        # In 60 columns the newest alarm takes the place of their number for a while.
        shown = f"{count} alarm" in header(pilot) or (pilot.app.size.width < 80 and " at step " in header(pilot))
        return len(guard.sentinels.standing) == count and shown

    return await until(pilot, there)


def header(pilot: Pilot[None]) -> str:
    return screen_text(pilot).splitlines()[0]


RULES = guards(load(), Alerts())


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_header_counts_alarms_with_a_sign_and_names_the_newest_for_a_while(
    running: Running, size: tuple[int, int]
):
    async with running(source_of(*[QUIET] * 20, *[BAD] * 3), size, guards=RULES) as pilot:
        text = await alarmed(pilot)
        assert "!! 1 alarm " in text.splitlines()[0], "not by colour alone"
        whole = "mismatch-limit at step 21: mismatch mean|Δlogp| 0.2, above"
        assert (whole if size[0] > 80 else "mismatch-limit at step 21: ") in text.splitlines()[0]
        assert "demo-7f3a" in text.splitlines()[0], "and still says which run it is"
        assert "LIVE" in text.splitlines()[0]
        assert text.splitlines()[-1].strip().endswith("? help  q quit"), "the keys stay where they are"
        app_of(pilot).alarms.news.clear()
        await settle(pilot)
        text = screen_text(pilot)
        assert "mismatch-limit" not in text.splitlines()[0]
        assert "!! 1 alarm " in text.splitlines()[0]
        assert " lag " in text.splitlines()[0] or " engines " in text.splitlines()[0]


async def test_without_alarms_no_room_is_taken(running: Running):
    async with running(source_of(*[QUIET] * 20), guards=RULES) as pilot:
        assert "alarm" not in screen_text(pilot)
        text = await press(pilot, "exclamation_mark")
        assert f"none; {len(list(load()))} rules are watching" in text


async def test_without_sentinels_the_key_says_so(running: Running):
    async with running(source_of(*[BAD] * 3)) as pilot:
        assert "no sentinels are watching this run" in await press(pilot, "exclamation_mark")


@pytest.mark.parametrize("size", [(80, 24), (60, 15), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_list_names_rule_step_value_since_and_state(running: Running, size: tuple[int, int]):
    values = [*[BAD] * 3, *[QUIET] * 10, *[0.3] * 3]
    async with running(source_of(*values), size, guards=RULES) as pilot:
        await alarmed(pilot)
        text = await press(pilot, "exclamation_mark")
        first, second = (line for line in text.splitlines() if re.search(r"mismatch-limit +\d", line))
        assert re.search(r"!! mismatch-limit +14 +0\.3 +raised +12:1", first)
        assert re.search(r"mismatch-limit +1 +0\.2 +over +12:1", second)
        assert size[0] < 80 or ("raised  12:13:34 " in first and "over    12:13:21 " in second)
        assert "mismatch-limit at step 14: mismatch mean|Δlogp|" in text, "the whole sentence of the chosen one"
        text = await press(pilot, "down")
        assert "back at 0.01 at step 8" in " ".join(text.replace("│", " ").split())
        text = await press(pilot, "escape")
        assert not isinstance(pilot.app.screen, AlarmsScreen)


async def test_enter_goes_to_the_step_on_the_charts(running: Running):
    values = [QUIET] * 400 + [BAD] * 3 + [QUIET] * 400
    async with running(source_of(*values, *[BAD] * 3), (120, 40), guards=RULES) as pilot:
        await alarmed(pilot)
        await press(pilot, "exclamation_mark", "down")
        text = await press(pilot, "enter")
        live = app_of(pilot).live
        assert app_of(pilot).screen is live
        assert live.view.cursor == 401
        low, high = live.view.domain(live.extent)
        assert low < 401 < high
        assert high - low <= 120, "and what was around it, not the whole run"
        assert " step 401 " in text
        await press(pilot, "escape", "escape")
        assert live.view.x.mode == "all"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_chart_of_the_metric_has_a_sign_and_the_crosshair_names_the_rule(
    running: Running, size: tuple[int, int]
):
    values = [*[QUIET] * 60, *[BAD] * 5, *[QUIET] * 35]
    async with running(source_of(*values), size, guards=RULES) as pilot:
        app = app_of(pilot)
        guard = app.showing.guard
        assert guard is not None
        await until(pilot, lambda: bool(guard.sentinels.history))
        chart = app.live.query_one("#mismatch", LineChart)
        assert [(mark.step, mark.kind, mark.text) for mark in chart.data.marks] == [(61, "error", "mismatch-limit")]
        assert not app.live.query_one("#clip", LineChart).data.marks
        app.live.goto(61)
        await settle(pilot)
        edge = screen_text(pilot).splitlines()[chart.region.bottom - 1]
        assert " step 61  ! mismatch-" in edge, edge


async def test_enter_on_an_alarm_of_an_engine_goes_there(running: Running):
    source = source_of(QUIET)
    source.feed(engines(phase="dead", detail="killed"))
    async with running(source, (120, 40), guards=RULES) as pilot:
        await alarmed(pilot, 2)
        text = await press(pilot, "exclamation_mark")
        assert "engine-1 is dead: killed" in text
        text = await press(pilot, "enter")
        assert not isinstance(pilot.app.screen, AlarmsScreen)
        assert "engine-stalled" in text.splitlines()[-1]
        assert "dead" in text


async def test_acknowledging_one_and_all(running: Running):
    source = source_of(*[BAD] * 3)
    source.feed(engines(phase="dead"))
    async with running(source, (120, 40), guards=RULES) as pilot:
        await alarmed(pilot, 3)
        text = await press(pilot, "exclamation_mark", "a")
        assert len(re.findall(r" seen +\d", text)) == 1
        await press(pilot, "escape")
        assert "!! 3 alarms" in header(pilot)
        text = await press(pilot, "exclamation_mark", "asterisk")
        assert len(re.findall(r" seen +\d", text)) == 3
        await press(pilot, "escape")
        assert "3 alarms" in header(pilot)
        assert "!" not in header(pilot), "all were seen"


async def test_a_cleared_alarm_leaves_the_header(running: Running):
    source = source_of(*[BAD] * 3)
    async with running(source, guards=RULES) as pilot:
        await alarmed(pilot)
        source.feed(reported(4, *[QUIET] * 6))
        await until(pilot, lambda: "alarm" not in header(pilot))


async def test_the_cursor_stays_with_its_alarm_while_others_come(running: Running):
    source = source_of(*[BAD] * 3)
    async with running(source, (120, 40), guards=RULES) as pilot:
        await alarmed(pilot)
        await press(pilot, "exclamation_mark", "down")
        source.feed(engines(phase="dead"))
        guard = app_of(pilot).showing.guard
        await until(pilot, lambda: len(guard.sentinels.standing) == 3)  # type: ignore[union-attr]
        screen = pilot.app.screen
        assert isinstance(screen, AlarmsScreen)
        assert screen.chosen is not None
        assert screen.chosen.rule == "mismatch-limit"
        assert screen.items()[0].rule == "engine-stalled", "listed before it"


async def test_a_long_list_scrolls_in_a_small_terminal(running: Running):
    source = source_of(*([BAD] * 3 + [QUIET] * 6) * 40)
    async with running(source, (80, 24), guards=RULES) as pilot:
        guard = app_of(pilot).showing.guard
        await until(pilot, lambda: len(guard.sentinels.history) == 40)  # type: ignore[union-attr]
        text = await press(pilot, "exclamation_mark")
        assert re.search(r"mismatch-limit +352 ", text)
        text = await press(pilot, *["down"] * 39)
        assert re.search(r"mismatch-limit +1 ", text)
        assert "mismatch-limit at step 1:" in text
        assert re.search(r"mismatch-limit +352 ", await press(pilot, "down")), "round"


async def test_history_that_comes_in_tells_only_of_what_stands(running: Running, monkeypatch: pytest.MonkeyPatch):
    wrote = heard(monkeypatch)
    source = source_of(*([BAD] * 3 + [QUIET] * 6) * 200, *[BAD] * 3)
    async with running(source, guards=guards(load(), Alerts(bell=True, notify=True))) as pilot:
        await alarmed(pilot)
        await until(pilot, lambda: any("\x1b]9;" in one for one in wrote))
        (text,) = (one for one in wrote if "\x1b]9;" in one)
        assert text.startswith("\a\x1b]9;driftline demo-7f3a: mismatch-limit at step 1801: ")


def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written to the terminal beside the screens."""
    from textual.drivers.headless_driver import HeadlessDriver

    wrote: list[str] = []
    monkeypatch.setattr(HeadlessDriver, "write", lambda _self, data: wrote.append(data))
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return wrote


async def test_the_bell_rings_once_an_episode_and_only_when_asked_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
):
    for alerts, count in ((Alerts(), 0), (Alerts(bell=True), 1)):
        wrote = heard(monkeypatch)
        source = source_of(*[QUIET] * 5)
        async with running(source, guards=guards(load(), alerts)) as pilot:
            source.feed(reported(6, *[BAD] * 3))
            await alarmed(pilot)
            source.feed(reported(9, *[BAD] * 9))
            await settle(pilot)
            app_of(pilot).on_tick()
            assert wrote.count("\a") == count


async def test_a_command_that_fails_is_reported_in_the_header(running: Running):
    alerts = Alerts(command=("/nowhere/at-all",))
    async with running(source_of(*[BAD] * 3), (120, 40), guards=guards(load(), alerts)) as pilot:
        await until(pilot, lambda: "/nowhere/at-all: no such file or directory" in header(pilot))
        app_of(pilot).showing.close()


async def test_a_stale_feed_is_an_alarm_and_none_of_engines(running: Running):
    source = source_of(*[QUIET] * 5)
    async with running(source, (120, 40), guards=RULES) as pilot:
        source.state = Link(True, 20.0)
        text = await alarmed(pilot)
        assert "feed-stale" in text.splitlines()[0]


async def test_each_run_that_is_watched_has_its_own(running: Running):
    async with running(source_of(*[BAD] * 3), guards=RULES) as pilot:
        await alarmed(pilot)
        app = app_of(pilot)
        other = app.watching(FakeSource(run="other"), None)
        assert other.guard is not None
        assert other.guard is not app.showing.guard
        assert other.guard.sentinels.standing == []


def test_the_keys_are_in_the_table():
    keys = {key.id: key for key in KEYS}
    assert (keys["alarms"].where, keys["alarms"].shown) == ("everywhere", "!")
    assert not keys["alarms"].acts_on_run
    assert not any(keys[key].shown.isupper() for key in ("seen", "seen_all")), "capitals act on the run"


def test_rules_that_are_off_watch_nothing():
    assert guards(Rules({}), Alerts())("r").sentinels.standing == []


def test_bell_notification_and_command_on_a_real_terminal(tmp_path: Path):
    """The whole way: a hub, the console on a pty, and what the terminal and the command are given."""
    hub = Hub(tmp_path / "runs")
    hub.start()
    probe = Probe("trainer", hub.run)
    for frame in [*reported(1, *[QUIET] * 10), run_state(10)]:
        probe.send(frame)
    out = tmp_path / "out"
    script = "import os, sys; open(sys.argv[1], 'w').write(os.environ['DRIFTLINE_ALARM_STEP'] + ' ' + sys.argv[2])"
    (tmp_path / "alarm.py").write_text(script)
    clean = {k: v for k, v in os.environ.items() if k not in ("TMUX", "NO_COLOR") and not k.startswith("DRIFTLINE_")}
    command = f"{sys.executable} {tmp_path / 'alarm.py'} {out}"
    terminal = Terminal(
        [sys.executable, "-P", "-m", "console.cli", "attach", str(hub.run.path), "--bell", "--notify",
         "--on-alarm", command],
        clean | {"TERM": "xterm-256color"}, (100, 30),
    )  # fmt: skip
    try:
        terminal.expect("step 10")
        start = len(terminal.raw)
        assert b"\x1b]9;" not in terminal.raw
        for frame in reported(11, *[BAD] * 3):
            probe.send(frame)
        sentence = "mismatch-limit at step 11: mismatch mean|Δlogp| 0.2, above its limit 0.05"
        terminal.expect_bytes(f"\a\x1b]9;driftline {hub.run.id}: {sentence}\a".encode(), start)
        terminal.expect("1 alarm")
        until_true(out.exists, "the command")
        until_true(lambda: out.read_text() == f"11 {sentence}", "its words")
        terminal.press(b"q")
        assert terminal.wait() == 0
    finally:
        terminal.close()
        probe.close(1.0)
        hub.end()


def storied() -> FakeSource:
    """Two episodes that are over, one that stands, and an engine that is dead."""
    source = source_of(*[QUIET] * 20, *[BAD] * 3, *[QUIET] * 10, *[0.4] * 3, *[QUIET] * 10, *[0.06] * 3)
    source.feed(engines(1, phase="dead", detail="killed by signal 9"))
    return source


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_list_looks_as_it_did(screen_compare: Compare, size: tuple[int, int]):
    async def look(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await alarmed(pilot, 2)
        await press(pilot, "exclamation_mark", "down")

    assert screen_compare(make_app(storied(), guards=RULES), terminal_size=size, run_before=look)
