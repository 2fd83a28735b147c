"""Every key of the live screen, pressed in a headless terminal; and what each state of a run looks like in words."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from textual.pilot import Pilot

from console.connect.source import Link
from console.settings.keys import KEYS
from console.tui.app import ConsoleApp
from console.tui.chart.line_chart import LineChart
from console.tui.command.table import COMMANDS
from console.tui.dialogs.help import HelpScreen
from console.tui.dialogs.list_dialog import ListDialog
from console.tui.present import live_lines
from console.tui.screens.live.panes import EventLog, FixPanel
from console.tui.screens.live.screen import LiveScreen
from driftline.frames import Event, Metrics
from driftline.rundir import create
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.synthetic import START, FakeSource, engines, fix_state, metrics, run_state


def live(pilot: Pilot[None]) -> LiveScreen:
    assert isinstance(pilot.app, ConsoleApp)
    return pilot.app.live


async def test_all_panes_show_the_run(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        text = screen_text(pilot)
        for words in (
            "demo-7f3a",
            "step 74/90",
            "v36",
            "2/2 engines",
            "LIVE 0.3s",
            "RW",
            "clip fraction",
            "gspo",
            "KL old‖new (k3)",
            "entropy",
            "exact",
            "reward",
            "mismatch mean|Δlogp|",
            "log ╮",
            "lag 1.",
            "tok/s 1.9k",
            "● processed logprobs   on 2/2",
            "– async scheduling off not available on cpu",
            "○ in-flight keep",
            "engine-0 v41 run 16",
            "engine-1 v40",
            "12:13:20 sync v35",
        ):
            assert words in text, words


async def test_a_run_that_reports_only_the_kl_to_its_reference_shows_that(running: Running):
    source = FakeSource()
    source.feed([Metrics(step, step, START + step, {"policy/kl_ref": 0.1 * step}) for step in range(1, 4)])
    async with running(source, (120, 40)) as pilot:
        assert "KL to the reference 0.3" in screen_text(pilot)
        source.feed([Metrics(4, 4, START + 4, {"policy/kl_new_old": 0.02})])
        await settle(pilot)
        assert "KL old‖new (k3) 0.02" in screen_text(pilot)


async def test_an_empty_run_says_what_it_waits_for(running: Running):
    source = FakeSource()
    async with running(source) as pilot:
        text = screen_text(pilot)
        assert text.count("waiting for the first") == 1, "said once"
        assert " lag tok/s ─" in text
        assert "no engine has reported yet" in text
        assert "nothing has happened yet" in text
        source.feed([run_state(0, "starting", detail="loading weights"), *engines(phase="starting", detail="vLLM")])
        await settle(pilot)
        text = screen_text(pilot)
        assert text.count("loading weights") == 1
        assert "STARTING" in text
        assert "engine-0 v41 starting vLLM" in text


async def test_new_frames_show_without_a_key(running: Running):
    source = source_with(10, 10**9)
    async with running(source) as pilot:
        assert "step 10/90" in screen_text(pilot)
        source.feed([metrics(11), run_state(11)])
        async with asyncio.timeout(10):
            while "step 11/90" not in screen_text(pilot):
                await pilot.pause(0.02)


@pytest.mark.parametrize(
    ("link", "word"),
    [
        (Link(True, 0.3), "LIVE 0.3s"),
        (Link(False, 0.3), "CONNECTING"),
        (Link(True, 7.0), "STALE 7s"),
        (Link(True, 70.0), "LOST 70s"),
        (Link(True, 0.1, behind=120_000), "LOADING 120k"),
    ],
)
async def test_the_header_says_how_fresh_the_screen_is(running: Running, link: Link, word: str):
    source = source_with()
    source.state = link
    async with running(source) as pilot:
        assert word in screen_text(pilot).splitlines()[0]


async def test_the_lag_is_in_the_header_of_a_small_terminal(running: Running):
    async with running(source_with(), (80, 24)) as pilot:
        head = screen_text(pilot).splitlines()[0]
        assert re.search(r"step 74/90 +v36 +lag \d\.\d+ +R ", head), head
        assert "2/2 engines" in head


DROPPED = Event(
    START, "warn", "probe.dropped", "trainer dropped", data={"producer": "trainer", "dropped": 312, "total": 512}
)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("link", "words"),
    [
        (Link(True, 8.0), "!! HUB STALE  silent for 8 s: figures may be old, no acting until it speaks"),
        (Link(True, 42.0), "!! HUB LOST  silent for 42 s: old figures, no acting; reconnecting by itself"),
        (
            Link(True, 5.0, gone=True),
            "!! HUB LOST  its process has ended: old figures, no acting; reconnecting by itself",
        ),
        (
            Link(True, 9.0, way="Broken pipe; retrying in 4 s"),
            "!! TUNNEL LOST  Broken pipe; retrying in 4 s; the run goes on",
        ),
        (Link(True, 0.2, 12_000), "! BEHIND  12,000 frames to come; figures are old until they are here"),
        (
            Link(True, 0.2, degraded="/r/journal: No space left on device"),
            "!! DISK FULL  nothing is recorded, producers hold frames: make room at the hub",
        ),
        (
            Link(True, 0.2, degraded="journal lost: /r/journal was removed or renamed"),
            "!! JOURNAL LOST  nothing is recorded, producers hold frames: /r/journal was re",
        ),
        (
            Link(True, 0.2, degraded="Input/output error"),
            "!! JOURNAL DEGRADED  nothing is recorded, producers hold frames: Input/output error",
        ),
        (
            Link(True, 0.2, trouble="the hub of run x does not know this key: it was revoked, or is another run's"),
            "!! KEY REFUSED  the hub of run x does not know this key: it was revoked, or is",
        ),
    ],
)
async def test_one_banner_says_what_is_wrong_and_what_is_done(
    running: Running, size: tuple[int, int], link: Link, words: str
):
    source = source_with()
    async with running(source, size) as pilot:
        quiet = screen_text(pilot).splitlines()
        assert "clip fraction" in quiet[1], "no room is taken while all is well"
        source.state = link
        await settle(pilot)
        lines = screen_text(pilot).splitlines()
        assert lines[1].strip().startswith(words[: size[0] - 4].strip())
        assert "clip fraction" in lines[2], "the figures stay"
        assert "quit" in lines[-1], "and so do the keys"
        source.state = Link(True, 0.1)
        await settle(pilot)
        assert "clip fraction" in screen_text(pilot).splitlines()[1]


async def test_drops_are_news_for_a_minute_of_the_hubs_clock(running: Running):
    source = source_with()
    source.feed([DROPPED], time=START + 10)
    source.feed([msgspec.structs.replace(DROPPED, data=DROPPED.data | {"dropped": 8, "total": 520})], time=START + 11)
    async with running(source, (120, 40)) as pilot:
        line = screen_text(pilot).splitlines()[1]
        assert "! DROPS  trainer dropped 320 frames lately; figures have gaps" in line
        assert "520 since its start" in line
        source.feed([run_state(75)], time=START + 80)
        await settle(pilot)
        assert "DROPS" not in screen_text(pilot)


async def test_the_worst_comes_first(running: Running):
    source = source_with()
    source.feed([DROPPED])
    source.state = Link(
        True, 20.0, 5000, "silent", "No space left on device", "the ssh process was killed; retrying in 1 s"
    )
    async with running(source) as pilot:
        for word, changes in (
            ("TUNNEL LOST", {"way": ""}),
            ("HUB LOST", {"age": 5.0}),
            ("HUB STALE", {"age": 0.1, "trouble": ""}),
            ("DISK FULL", {"degraded": ""}),
            ("BEHIND", {"behind": 0}),
            ("DROPS", {}),
        ):
            await settle(pilot)
            assert word in screen_text(pilot).splitlines()[1]
            source.state = replace(source.state, **changes)


async def test_trouble_of_the_link_stands_below_the_header(running: Running):
    source = source_with()
    source.state = Link(True, 7.0, trouble="the hub of run x is silent")
    async with running(source, (120, 40)) as pilot:
        assert "the hub of run x is silent" in screen_text(pilot).splitlines()[1]


@pytest.mark.parametrize(
    ("status", "word"), [("finished", "the run has finished"), ("failed", "the run has failed: oom")]
)
async def test_the_end_of_a_run_is_not_a_lost_link(running: Running, status: str, word: str):
    source = source_with()
    source.feed([run_state(74, status, detail="oom" if status == "failed" else "")])  # type: ignore[arg-type]
    source.state = Link(True, 20.0, trouble="the hub of run x is silent")
    async with running(source) as pilot:
        lines = screen_text(pilot).splitlines()
        assert "ENDED" in lines[0]
        assert status.upper() in lines[0]
        assert word in lines[1]


async def test_a_synthetic_run_is_labelled_and_a_real_one_is_not(running: Running):
    source = source_with()
    async with running(source, (60, 15)) as pilot:
        assert "SYNTHETIC" not in screen_text(pilot)
        source.feed([run_state(74, synthetic=True)])
        await settle(pilot)
        assert "SYNTHETIC" in screen_text(pilot).splitlines()[0]


# -- the view


async def test_freeze_stops_the_view_and_not_the_model(running: Running):
    source = source_with(10, 10**9)
    async with running(source) as pilot:
        before = (await press(pilot, "space")).splitlines()
        assert "FROZEN" in before[0]
        source.feed([metrics(step) for step in range(11, 60)])
        await settle(pilot)
        assert screen_text(pilot).splitlines()[1:-1] == before[1:-1]
        assert pilot.app.model.metrics.last_step() == 59  # type: ignore[attr-defined]
        after = await press(pilot, "space")
        assert "LIVE" in after.splitlines()[0]
        assert after.splitlines()[1:-1] != before[1:-1]


async def test_zoom_pan_follow_and_back_move_all_charts(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        screen = live(pilot)
        assert screen_text(pilot).count(" 80 ─╯") + screen_text(pilot).count(" 80 ╯") == 6
        text = await press(pilot, "plus")
        assert screen.view.x.mode == "follow"
        assert text.count(" follow ") >= 6
        await press(pilot, "left_square_bracket")
        assert screen.view.x.mode == "fixed"
        low = screen.view.x.low
        await press(pilot, "right_square_bracket")
        assert screen.view.x.low > low
        await press(pilot, "minus", "minus")
        await press(pilot, "f")
        assert screen.view.x.mode == "follow"
        await press(pilot, "0")
        assert screen.view.x.mode == "all"
        await press(pilot, "plus", "escape")
        assert screen.view.x.mode == "all"


async def test_log_axis_is_of_the_focused_chart(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        assert screen_text(pilot).count(" log ╮") == 1
        assert (await press(pilot, "y")).count(" log ╮") == 2
        assert (await press(pilot, "y")).count(" log ╮") == 1
        pilot.app.set_focus(pilot.app.screen.query_one(EventLog))
        assert "focus a chart first" in await press(pilot, "y")


async def test_smoothing_cycles(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        for weight in ("0.6", "0.9", "0.99"):
            text = await press(pilot, "s")
            assert text.count(f" ema {weight} ") == 6
            assert f"moving average of weight {weight}" in text
        text = await press(pilot, "s")
        assert "smoothing off" in text
        assert "ema" not in text


async def test_the_crosshair_is_linked_and_moves(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        assert (await press(pilot, "c")).count(" step 74 ") >= 6
        text = await press(pilot, "left", "left", "h")
        assert live(pilot).view.cursor is not None
        assert text.count(f" step {live(pilot).view.cursor} ") >= 6
        assert live(pilot).view.cursor < 74
        await press(pilot, "right", "l", "right", "right", "right")
        assert live(pilot).view.cursor == 74
        await press(pilot, "escape")
        assert live(pilot).view.cursor is None


async def test_arrows_and_letters_move_the_focus_by_place(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        focused = [pilot.app.focused.id]
        for key in ("right", "l", "left", "h", "down", "j", "k", "up", "k"):
            await pilot.press(key)
            focused.append(pilot.app.focused.id)
        assert focused == ["clip", "kl", "entropy", "kl", "clip", "reward", "fixes", "reward", "clip", "clip"]
        await pilot.press("tab")
        assert pilot.app.focused.id == "kl"
        await pilot.press("shift+tab")
        assert pilot.app.focused.id == "clip"


async def test_the_fix_panel_hands_arrows_on_at_its_ends(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        panel = pilot.app.screen.query_one(FixPanel)
        pilot.app.set_focus(panel)
        await pilot.press("down", "down")
        assert panel.cursor == 2
        await pilot.press("up", "up", "up")
        assert panel.cursor == 0
        assert isinstance(pilot.app.focused, LineChart)


@pytest.mark.parametrize("pane", ["mismatch", "fixes", "engines", "events"])
async def test_enter_enlarges_any_pane_and_escape_brings_it_back(running: Running, pane: str):
    async with running(source_with()) as pilot:
        widget = pilot.app.screen.query_one(f"#{pane}")
        pilot.app.set_focus(widget)
        before = widget.size
        await press(pilot, "enter")
        assert widget.size == (80, 22)
        text = await press(pilot, "escape")
        assert widget.size == before
        assert text.count("╮") == 9


async def test_events_scroll_and_stay_where_they_were_read(running: Running):
    source = source_with()
    async with running(source) as pilot:
        log = pilot.app.screen.query_one(EventLog)
        pilot.app.set_focus(log)
        await press(pilot, "up", "up")
        assert "2 newer below" in screen_text(pilot)
        shown = log._cells.chars[1].tobytes()
        source.feed([Event(START, "error", "k", "boom", 75)])
        await settle(pilot)
        assert log.back == 3
        assert log._cells.chars[1].tobytes() == shown
        await press(pilot, "down", "down", "down")
        assert "boom" in screen_text(pilot)


async def test_syncs_after_every_step_do_not_push_other_events_out(running: Running):
    source = source_with()
    async with running(source) as pilot:
        log = pilot.app.screen.query_one(EventLog)
        source.feed([Event(START, "info", "mark", "look here", 75)])
        for version in range(100, 130):
            source.feed([Event(START, "info", "sync.done", f"v{version}", 75, {"by": "trainer"})])
        await settle(pilot)
        assert [logged.event.text for logged in log.events][-2:] == ["look here", "v129"]
        assert "look here" in screen_text(pilot)
        source.feed([Event(START, "info", "sync.done", "by hand", 75, {"by": "operator local"})])
        source.feed([Event(START, "info", "sync.done", "v130", 75, {"by": "trainer"})])
        await settle(pilot)
        assert [logged.event.text for logged in log.events][-4:] == ["look here", "v129", "by hand", "v130"]


async def test_help_is_the_table_of_keys(running: Running):
    async with running(source_with(), (120, 150)) as pilot:
        text = await press(pilot, "question_mark")
        assert isinstance(pilot.app.screen, HelpScreen)
        for key in KEYS:
            if key.where in ("everywhere", "screens", "live"):
                assert key.shown in text
                assert key.description in text
        for command in COMMANDS:
            assert command.shown in text
            assert command.summary in text
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, LiveScreen)


async def test_help_scrolls_where_it_does_not_fit(running: Running):
    async with running(source_with()) as pilot:
        assert "published alarm limit" not in await press(pilot, "question_mark")
        text = await press(pilot, *["pagedown"] * 6)
        assert "published alarm limit" in text
        assert "Capitals" in await press(pilot, *["pageup"] * 6)
        assert "Capitals" not in await press(pilot, "down")


async def test_help_finds(running: Running):
    async with running(source_with()) as pilot:
        text = await press(pilot, "question_mark", "slash", *"zoom q")
        assert "help /zoom q" in text, "letters are letters while something is looked for"
        text = await press(pilot, "backspace", "backspace", "enter")
        assert "zoom in, all charts" in text
        assert "freeze the view" not in text
        assert "freeze the view" in await press(pilot, "escape", "pagedown", "pageup") + await press(pilot, "pagedown")
        assert isinstance(pilot.app.screen, HelpScreen)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, LiveScreen)


@pytest.mark.parametrize("end", [0.0, math.nan])
async def test_a_mismatch_that_has_gone_to_zero_is_followed(running: Running, end: float):
    source = FakeSource()
    values = [0.1] * 60 + [end] * 60
    source.feed([Metrics(i, 1, START + i, {"mismatch/abs_diff_mean": one}) for i, one in enumerate(values)])
    async with running(source) as pilot:
        await press(pilot, "plus", "plus", "f")
        assert " follow " in screen_text(pilot)
        assert pilot.app.is_running


async def test_one_shows_the_live_screen_and_a_dialog_keeps_its_keys(running: Running):
    async with running(source_with()) as pilot:
        await press(pilot, "1")
        assert isinstance(pilot.app.screen, LiveScreen)
        await press(pilot, "F", "1", "q", "question_mark", "S")
        assert isinstance(pilot.app.screen, ListDialog)
        assert pilot.app.screen.heading == "which fix"


async def test_export_writes_into_the_run_directory(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[Path] = []
    monkeypatch.setattr("console.export.export", lambda run, out, table, steps: written.append(out))
    run = create(tmp_path, "demo")
    async with running(source_with(), run=run) as pilot:
        await pilot.press("e")
        async with asyncio.timeout(20):
            while "exported to" not in screen_text(pilot):
                await pilot.pause(0.02)
        assert written == [run.snapshots / "metrics-step74.parquet"]


async def test_export_that_fails_says_why(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(run: object, out: object, table: str, steps: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("console.export.export", full)
    async with running(source_with(), run=create(tmp_path, "demo")) as pilot:
        await pilot.press("e")
        async with asyncio.timeout(20):
            while "export failed: no space left" not in screen_text(pilot):
                await pilot.pause(0.02)


async def test_q_leaves_with_zero_and_touches_nothing(running: Running):
    source = source_with()
    async with running(source) as pilot:
        await pilot.press("q")
        await pilot.pause()
        assert pilot.app.return_code == 0
    assert source.sent == []


# -- sizes


@pytest.mark.parametrize("size", [(60, 15), (61, 19), (79, 20), (80, 24), (81, 29), (120, 40), (200, 60), (300, 100)])
async def test_panes_fill_the_terminal_and_keep_their_content(running: Running, size: tuple[int, int]):
    async with running(source_with(), size) as pilot:
        text = screen_text(pilot)
        lines = text.splitlines()
        assert len(lines) == size[1]
        words_of_panes = ("clip ", "0.0302", "processed logprobs", "fp32 lm_head", "engine-0", "engine-1", "sync")
        for words in (*words_of_panes, "q quit"):
            assert words in text, words
        for chart in pilot.app.screen.query(LineChart):
            assert chart.size.height >= 4


@pytest.mark.parametrize("size", [(59, 15), (60, 14), (20, 5), (1, 1)])
async def test_a_terminal_that_is_too_small_says_so(running: Running, size: tuple[int, int]):
    async with running(source_with(), size) as pilot:
        if size[0] >= 20:
            assert "needs 60x15" in screen_text(pilot)
            assert f"has {size[0]}x{size[1]}" in screen_text(pilot)
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "clip fraction" in screen_text(pilot)


async def test_a_storm_of_resizes_is_survived(running: Running):
    async with running(source_with()) as pilot:
        for width, height in [(200, 60), (1, 1), (61, 15), (300, 20), (20, 5), (60, 60), (80, 24)] * 3:
            await pilot.resize_terminal(width, height)
        await settle(pilot)
        assert "clip fraction" in screen_text(pilot)


@pytest.mark.parametrize(
    "hostile", ["[red]x[/]", "[@click=app.leave]x[/]", "\x1b[31m\x07x", "\u202ex\u2066", "a\nb\tc", "[/"]
)
async def test_text_from_the_wire_is_neither_markup_nor_control(running: Running, hostile: str):
    source = source_with(operator=True)
    source.run = hostile
    source.feed([Event(START, "warn", hostile, hostile, 3)])
    source.feed([run_state(74, objective=hostile, model=hostile, detail=hostile)])
    source.feed(engines(detail=hostile, backend=hostile))
    source.feed([fix_state("fp32-lm-head", "off", ("off", "off"), detail=hostile)])
    async with running(source, (200, 60)) as pilot:
        text = screen_text(pilot)
        assert all(char == "\n" or char.isprintable() for char in text)
        if hostile.isascii() and hostile.isprintable():
            assert hostile in text


async def test_a_thin_update_sends_few_cells(running: Running):
    source = source_with(62, 10**9)
    async with running(source, (140, 40)) as pilot:
        chart = pilot.app.screen.query_one("#reward", LineChart)
        sent: list[int] = []
        original = chart.repaint

        def counting() -> int:
            sent.append(original())
            return sent[-1]

        chart.repaint = counting  # type: ignore[method-assign]
        for step in range(63, 73):
            source.feed([metrics(step)])
            await settle(pilot)
        assert len(sent) == 10
        assert max(sent) < chart.size.area / 10


@pytest.mark.parametrize("width", range(8, 90, 3))
def test_a_figure_of_an_engine_is_whole_or_absent(width: int):
    engine = engines()[0]
    whole = "".join(text for text, _ in live_lines.engine_line(engine, 1000))
    line = "".join(text for text, _ in live_lines.engine_line(engine, width))
    assert whole.startswith(line)
    assert line == whole or whole[len(line)] == " "
    least = f"{engine.engine} v{engine.version}"
    assert line == least or len(line) <= width
    assert not line.endswith((" run", " wait", " kv", " hit", " tok/s", " preempted"))


async def test_a_correction_of_the_objective_is_marked_on_the_charts(running: Running):
    source = source_with()
    source.feed([run_state(75, correction="off"), run_state(76, correction="off")])
    async with running(source, (200, 60)) as pilot:
        assert "correction" not in screen_text(pilot)
        source.feed([run_state(77, correction="tis", correction_requested="tis", correction_since=20)])
        await settle(pilot)
        text = screen_text(pilot)
        assert "┊correction tis" in text
        assert "┊processed-logprobs on +2" in text, "beside those of fixes"
