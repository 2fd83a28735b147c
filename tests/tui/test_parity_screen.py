"""The parity screen: the reference chosen, the verdict as steps come, its chart, and what there is without one."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from console.parity.judge import compare
from console.parity.rules import load as load_rules
from console.parity.runs import open_run
from console.tui.app import ConsoleApp
from console.tui.chart.line_chart import LineChart
from console.tui.command.command import GrammarError, Known
from console.tui.command.grammar import complete, parse
from console.tui.dialogs.picker import RunPicker
from console.tui.screens.parity.panes import Limits, VerdictTable
from console.tui.screens.parity.screen import ParityScreen
from console.tui.screens.parity.view import Limited, limit_line
from console.tui.watch import judging
from driftline.catalog.metrics import BY_NAME
from driftline.rundir import RunDir
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.parity_runs import curves, fed, reference, repaired
from tests.tui.synthetic import FakeSource, run_state


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "PAUSE", 0.0)
    monkeypatch.setattr(judging, "SHARE", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one healthy configuration, and the folder of the run itself."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (1, 2, 3):
        reference(root, seed)
    (root / "demo-7f3a" / "journal").mkdir(parents=True)
    return root


def seeds(folder: Path, *numbers: int) -> tuple[str, ...]:
    return tuple(str(folder / f"healthy-{number:04d}") for number in numbers)


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            break
        await pilot.pause(0.01)
    assert true()
    await settle(pilot)


def app_of(pilot: Pilot[None]) -> ConsoleApp:
    assert isinstance(pilot.app, ConsoleApp)
    return pilot.app


async def judged(pilot: Pilot[None], step: int = 90) -> str:
    """The screen once there is a verdict as of a step."""

    def there() -> bool:
        verdict = app_of(pilot).showing.judging.verdict
        return verdict is not None and verdict.step == step

    await until(pilot, there)
    return screen_text(pilot)


async def test_without_a_reference_it_says_how_to_choose_one_and_what_limits_say(running: Running):
    async with running(source_with(40, 10**9)) as pilot:
        text = await press(pilot, "5", "v")
        assert isinstance(pilot.app.screen, ParityScreen)
        assert "no reference run" in text
        assert "r chooses a reference run" in text
        assert "attach --reference RUN" in text
        assert "backend by published limits: FAILS, mismatch/abs_diff_mean is .4" in text
        assert "ALARM" in text
        assert "2 of 2 beyond" in text
        assert not pilot.app.screen.query_one(LineChart).display


async def test_a_healthy_run_passes(running: Running, folder: Path):
    async with running(fed(FakeSource()), (120, 40), reference=seeds(folder, 1, 2, 3)) as pilot:
        await press(pilot, "5", "v")
        text = await judged(pilot)
        assert "PASS" in text
        assert text.count(" pass ") == 5
        assert "healthy-0001, healthy-0002, healthy-0003; spread over seeds measured" in text
        assert "FAIL" not in text.replace("backend FAILS", "")


async def test_a_correction_that_may_have_brought_the_run_home_is_named(running: Running, folder: Path):
    source = fed(FakeSource())
    source.feed([run_state(60, correction="off"), run_state(61, correction="tis", correction_since=61)])
    async with running(source, (120, 40), reference=seeds(folder, 1, 2, 3)) as pilot:
        await press(pilot, "5", "v")
        assert "the objective corrected by tis" in await judged(pilot)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_a_wrong_backend_fails_with_step_and_cause(running: Running, folder: Path, size: tuple[int, int]):
    source = fed(FakeSource(), broken_from=50)
    async with running(source, size, reference=seeds(folder, 1, 2, 3)) as pilot:
        await press(pilot, "5", "v")
        text = await judged(pilot)
        assert "FAIL: " in text
        assert "mismatch: processed-logprobs, prefix-cache-off, fp32-lm-head" in text
        table = pilot.app.screen.query_one(VerdictTable)
        await press(pilot, "down", "down", "down", "down")
        assert table.judged is not None
        assert table.judged.metric == "mismatch/abs_diff_mean"
        first = table.judged.first
        assert first is not None
        assert 45 <= first <= 60
        assert f" {first} " in screen_text(pilot)


async def test_the_chart_shows_the_chosen_metric_before_its_band(running: Running, folder: Path):
    source = fed(FakeSource(), broken_from=50)
    async with running(source, (120, 40), reference=seeds(folder, 1, 2, 3)) as pilot:
        await press(pilot, "5", "v")
        await judged(pilot)
        chart = pilot.app.screen.query_one(LineChart)
        assert chart.data.title.startswith("clip fraction")
        assert len(chart.data.bands) == 1
        assert [line.short for line in chart.data.lines] == ["ref", "now", "mean"]
        assert any(mark.text == "out of the band" for mark in chart.data.marks)
        assert chart.view.log
        await press(pilot, "y")
        assert not chart.view.log
        await press(pilot, "down", "down", "down")
        assert chart.data.title.startswith("reward")
        await press(pilot, "up")
        assert chart.data.title.startswith("entropy")


async def test_the_verdict_follows_the_run(running: Running, folder: Path):
    source = fed(FakeSource(), broken_from=50, until=40)
    async with running(source, (120, 40), reference=seeds(folder, 1, 2, 3)) as pilot:
        await press(pilot, "5", "v")
        assert "PASS" in await judged(pilot, 40)
        source.feed(curves(9, broken_from=50)[40:])
        await settle(pilot)
        assert "FAIL: " in await judged(pilot, 90)


async def test_judging_is_not_done_on_the_screens_thread(
    running: Running, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    threads: list[threading.Thread] = []
    before = judging.Judging.judge

    def judge(self: judging.Judging, run: object) -> None:
        threads.append(threading.current_thread())
        before(self, run)  # type: ignore[arg-type]

    monkeypatch.setattr(judging.Judging, "judge", judge)
    async with running(fed(FakeSource()), reference=seeds(folder, 1)) as pilot:
        await press(pilot, "5", "v")
        await judged(pilot)
        for _ in range(5):
            await settle(pilot)
    assert threads
    assert threading.main_thread() not in threads
    assert len(threads) == 1, "nothing has come since"


async def test_a_reference_is_picked_on_the_screen(running: Running, folder: Path):
    async with running(fed(FakeSource()), run=RunDir(folder / "demo-7f3a")) as pilot:
        await press(pilot, "5", "r")
        text = await listed(pilot)
        assert isinstance(pilot.app.screen, RunPicker)
        assert "demo-7f3a  " not in text.partition("reference:")[2], "the run itself is no choice"
        first = pilot.app.screen.runs[0]
        await press(pilot, "enter")
        await judged(pilot)
        assert app_of(pilot).showing.judging.chosen.names == (str(first.path),)
        assert "one run: spread over seeds assumed" in screen_text(pilot)
        # Several are marked; and none takes it away again.
        await press(pilot, "r")
        await listed(pilot)
        await press(pilot, "up", "down", "down", "space", "enter")
        await until(pilot, lambda: app_of(pilot).showing.judging.chosen.state == "ready")
        assert len(app_of(pilot).showing.judging.chosen.names) == 2
        await press(pilot, "r")
        await listed(pilot)
        assert "no reference run" in await press(pilot, "up", "enter")


async def listed(pilot: Pilot[None]) -> str:
    """The picker once its folder is read."""
    await until(pilot, lambda: isinstance(pilot.app.screen, RunPicker) and pilot.app.screen.listed is not None)
    return screen_text(pilot)


async def test_a_slow_folder_of_runs_holds_up_nothing(running: Running, folder: Path, monkeypatch: pytest.MonkeyPatch):
    read = threading.Event()
    threads: list[threading.Thread] = []

    def slow(root: Path) -> list[RunDir]:
        threads.append(threading.current_thread())
        assert read.wait(60)
        return [RunDir(folder / "healthy-0001")]

    monkeypatch.setattr("console.tui.dialogs.picker.list_runs", slow)
    async with running(fed(FakeSource()), run=RunDir(folder / "demo-7f3a")) as pilot:
        try:
            assert f"reading {folder}" in await press(pilot, "5", "r")
            await press(pilot, "enter")
            assert isinstance(pilot.app.screen, RunPicker), "what enter is meant for is not there yet"
        finally:
            read.set()
        assert "healthy-0001" in await listed(pilot)
        assert threads != [threading.main_thread()]


async def test_a_reference_that_cannot_be_read_is_said(running: Running, tmp_path: Path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    async with running(fed(FakeSource()), (200, 60), reference=(str(broken),)) as pilot:
        await press(pilot, "5", "v")
        await until(pilot, lambda: app_of(pilot).showing.judging.chosen.state == "failed")
        text = screen_text(pilot)
        assert "not a Parquet file" in text
        assert "r chooses another" in text


async def test_a_choice_that_was_overtaken_is_void(folder: Path):
    one = judging.Judging(None)
    stale = one.choose(seeds(folder, 1))
    fresh = one.choose(seeds(folder, 2))
    one.load(stale)
    assert one.chosen.state == "loading"
    one.load(fresh)
    assert [run.id for run in one.chosen.runs] == ["healthy-0002"]


@pytest.mark.parametrize(("numbers", "lines", "bands"), [((1,), 1, 0), ((1, 2), 0, 1)])
async def test_the_reference_stands_behind_the_live_charts(
    running: Running, folder: Path, numbers: tuple[int, ...], lines: int, bands: int
):
    async with running(fed(FakeSource()), (120, 40), reference=seeds(folder, *numbers)) as pilot:
        await until(pilot, lambda: app_of(pilot).showing.judging.chosen.state == "ready")
        chart = app_of(pilot).live.query_one("#entropy", LineChart)
        assert sum(line.reference for line in chart.data.lines) == lines
        assert len(chart.data.bands) == bands


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_run_that_was_repaired_is_judged_on_the_steps_after(
    running: Running, folder: Path, size: tuple[int, int]
):
    names = seeds(folder, 1, 2, 3)
    async with running(repaired(), size, reference=names) as pilot:
        await press(pilot, "5", "v")
        text = await judged(pilot)
        assert "FAIL: " in text
        assert "s from step 51" in text, "what the key would do"
        assert "judging from step 51 on" in await press(pilot, "s")
        text = await judged_from(pilot, 51)
        assert "PASS" in text
        assert "from step 51 on" in text
        assert "from step 51, after a switch, to step 90" in text
        # The same words and the same code as `driftline compare --from`.
        references = [open_run(name) for name in names]
        verdict = app_of(pilot).showing.judging.verdict
        assert verdict is not None
        expected = compare(references, verdict.comparison.run, load_rules(), start=51)
        assert [one.verdict for one in verdict.comparison.metrics] == [one.verdict for one in expected.metrics]
        assert verdict.comparison.home == expected.home
        chart = pilot.app.screen.query_one(LineChart)
        assert any(mark.text == "judged from here" and mark.step == 51 for mark in chart.data.marks)
        assert int(chart.data.bands[0].low.steps[0]) > 51, "the band is that of the steps that are judged"
        assert "judging the whole run" in await press(pilot, "s")
        assert "FAIL: " in await judged_from(pilot, None)


async def judged_from(pilot: Pilot[None], start: int | None) -> str:
    def there() -> bool:
        verdict = app_of(pilot).showing.judging.verdict
        return verdict is not None and verdict.comparison.start == start

    await until(pilot, there)
    return screen_text(pilot)


async def test_the_command_line_judges_from_any_step(running: Running, folder: Path):
    async with running(repaired(), (120, 40), reference=seeds(folder, 1)) as pilot:
        await press(pilot, "colon", *"judge", "space", *"from", "space", *"20", "enter")
        assert isinstance(pilot.app.screen, ParityScreen), "from any screen"
        assert "from step 20 on" in await judged_from(pilot, 20)
        await press(pilot, "colon", *"judge", "space", *"from", "space", *"switch", "enter")
        await judged_from(pilot, 51)
        await press(pilot, "colon", *"judge", "space", *"all", "enter")
        await judged_from(pilot, None)


@pytest.mark.parametrize(
    ("line", "known", "said"),
    [
        ("judge", Known(), ":judge needs all, or from STEP"),
        ("judge from", Known(), "no fix has been switched"),
        ("judge from switch", Known(), "no fix has been switched"),
        ("judge from 91", Known(step=90), "step 91 has not been; the newest is 90"),
        ("judge from x", Known(), "'x' is no step"),
        ("judge maybe", Known(), "unknown way to judge 'maybe'; one of: from, all"),
        ("judge all 3", Known(), "'3' is too many"),
    ],
)
def test_a_judge_that_cannot_be_says_why(line: str, known: Known, said: str):
    with pytest.raises(GrammarError, match=re.escape(said)):
        parse(line, known)


def test_the_steps_after_switches_are_completed():
    known = Known(step=90, switches=(21, 51))
    assert complete("judge ", 6, known).candidates == ("from", "all")
    assert complete("judge from ", 11, known).candidates == ("switch", "51", "21")
    for line in ("judge from", "judge from switch"):
        request = parse(line, known)
        assert request is not None
        assert (request.command.name, request.args) == ("judge", 51), "the newest"


async def test_without_a_switch_the_key_says_what_else_there_is(running: Running, folder: Path):
    async with running(fed(FakeSource()), (120, 40), reference=seeds(folder, 1)) as pilot:
        await press(pilot, "5", "v")
        await judged(pilot)
        assert ":judge from STEP" in (await press(pilot, "s")).splitlines()[-1]


async def test_the_chart_is_zoomed_and_panned_with_the_keys_of_live(running: Running, folder: Path):
    async with running(fed(FakeSource()), (120, 40), reference=seeds(folder, 1)) as pilot:
        await press(pilot, "5", "v")
        await judged(pilot)
        chart = pilot.app.screen.query_one(LineChart)
        whole = chart.view.domain(chart.extent)
        await press(pilot, "plus")
        near = chart.view.domain(chart.extent)
        assert near[1] - near[0] == pytest.approx((whole[1] - whole[0]) / 2)
        await press(pilot, "left_square_bracket")
        assert chart.view.domain(chart.extent)[0] < near[0]
        await press(pilot, "down")
        assert chart.view.x.mode == "fixed", "another metric is looked at in the same window"
        await press(pilot, "f")
        assert chart.view.x.mode == "follow"
        await press(pilot, "minus", "minus")
        assert chart.view.x.mode == "all"
        await press(pilot, "plus", "c", "tab", "left")
        assert chart.view.cursor is not None
        assert chart.view.cursor < 90
        await press(pilot, "escape")
        assert chart.view.cursor is None
        await press(pilot, "escape")
        assert chart.view.x.mode == "all"
        await press(pilot, "plus", "0")
        assert chart.view.x.mode == "all"


async def test_limits_scroll_and_enlarge(running: Running):
    async with running(source_with()) as pilot:
        await press(pilot, "5", "v", "tab")
        limits = pilot.app.screen.query_one("#limits", Limits)
        assert pilot.app.focused is limits
        await press(pilot, "enter")
        assert limits.size.height == 22
        assert await press(pilot, "escape")
        assert limits.size.height < 22


def test_limits_of_both_sides_are_both_shown():
    line = limit_line(Limited(BY_NAME["mismatch/ratio_mean"], 3e-7, "alarm"), 80)
    assert "warn 0.95-1.05, alarm 0.5-2" in "".join(part for part, _ in line)


def test_two_limits_are_two_numbers():
    metric = BY_NAME["mismatch/mult_prob_error"]
    line = limit_line(Limited(metric, 1.041, "warn"), 80)
    text = "".join(part for part, _ in line)
    assert " 1.04 " in text
    assert "warn 1.03, alarm 1.05" in text


async def test_the_log_axis_needs_a_chart(running: Running):
    async with running(source_with()) as pilot:
        assert "no chart without a reference" in (await press(pilot, "5", "v", "y")).splitlines()[-1]
