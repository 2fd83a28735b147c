"""The parity screen: the reference chosen, the verdict as steps come, its chart, and what there is without one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from console.tui import judging
from console.tui.app import ConsoleApp
from console.tui.screens.parity import ParityScreen
from console.tui.screens.picker import RunPicker
from console.tui.views.parity_panes import Limits, VerdictTable
from console.tui.widgets.line_chart import LineChart
from driftline.rundir import RunDir
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.parity_runs import curves, fed, reference
from tests.tui.synthetic import FakeSource


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
        text = await press(pilot, "5")
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
        await press(pilot, "5")
        text = await judged(pilot)
        assert "PASS" in text
        assert text.count(" pass ") == 5
        assert "healthy-0001, healthy-0002, healthy-0003; spread over seeds measured" in text
        assert "FAIL" not in text.replace("backend FAILS", "")


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_a_wrong_backend_fails_with_step_and_cause(running: Running, folder: Path, size: tuple[int, int]):
    source = fed(FakeSource(), broken_from=50)
    async with running(source, size, reference=seeds(folder, 1, 2, 3)) as pilot:
        await press(pilot, "5")
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
        await press(pilot, "5")
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
        await press(pilot, "5")
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
        await press(pilot, "5")
        await judged(pilot)
        for _ in range(5):
            await settle(pilot)
    assert threads
    assert threading.main_thread() not in threads
    assert len(threads) == 1, "nothing has come since"


async def test_a_reference_is_picked_on_the_screen(running: Running, folder: Path):
    async with running(fed(FakeSource()), run=RunDir(folder / "demo-7f3a")) as pilot:
        text = await press(pilot, "5", "r")
        assert isinstance(pilot.app.screen, RunPicker)
        assert "demo-7f3a  " not in text.partition("reference:")[2], "the run itself is no choice"
        first = pilot.app.screen.runs[0]
        await press(pilot, "enter")
        await judged(pilot)
        assert app_of(pilot).showing.judging.chosen.names == (str(first.path),)
        assert "one run: spread over seeds assumed" in screen_text(pilot)
        # Several are marked; and none takes it away again.
        await press(pilot, "r", "up", "down", "down", "space", "enter")
        await until(pilot, lambda: app_of(pilot).showing.judging.chosen.state == "ready")
        assert len(app_of(pilot).showing.judging.chosen.names) == 2
        text = await press(pilot, "r", "up", "enter")
        assert "no reference run" in text


async def test_a_reference_that_cannot_be_read_is_said(running: Running, tmp_path: Path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    async with running(fed(FakeSource()), (200, 60), reference=(str(broken),)) as pilot:
        await press(pilot, "5")
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


async def test_limits_scroll_and_enlarge(running: Running):
    async with running(source_with()) as pilot:
        await press(pilot, "5", "tab")
        limits = pilot.app.screen.query_one(Limits)
        assert pilot.app.focused is limits
        await press(pilot, "enter")
        assert limits.size.height == 22
        assert await press(pilot, "escape")
        assert limits.size.height < 22


async def test_the_log_axis_needs_a_chart(running: Running):
    async with running(source_with()) as pilot:
        assert "no chart without a reference" in (await press(pilot, "5", "y")).splitlines()[-1]
