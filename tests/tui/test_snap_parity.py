"""Pictures of the parity screen in every state; `pytest tests/tui/test_snap_parity.py --snapshot-update` anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from console.tui.app import ConsoleApp
from console.tui.dialogs.picker import RunPicker
from driftline.rundir import RunDir
from tests.tui.conftest import make_app, settle
from tests.tui.parity_runs import fed, reference, repaired
from tests.tui.screen_compare import Compare
from tests.tui.synthetic import FakeSource
from tests.tui.test_snapshots import SIZES, defaults, empty, keys


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for seed in (1, 2, 3):
        reference(root, seed)
    return root


def failing() -> FakeSource:
    return fed(FakeSource(), broken_from=50)


def passing() -> FakeSource:
    return fed(FakeSource())


def young() -> FakeSource:
    return fed(FakeSource(), until=12)


def stale() -> FakeSource:
    source = failing()
    source.state = Link(True, 8.0, trouble="the hub of run demo-7f3a is silent at tcp://127.0.0.1:5555.")
    return source


def judged(*pressed: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Keys on the parity screen once there is a verdict; without the note about what was read."""

    async def ready(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await pilot.press("5", "v")
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        for _ in range(2000):
            if app.showing.judging.verdict is not None:
                break
            await pilot.pause(0.01)
        assert app.showing.judging.verdict is not None
        await keys(*pressed)(pilot)
        app.notice.clear()
        await settle(pilot)

    return ready


def held_against(folder: Path, source: FakeSource, **options: object) -> ConsoleApp:
    names = tuple(str(folder / f"healthy-000{seed}") for seed in (1, 2, 3))
    return make_app(source, reference=names, **options)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", [failing, passing, young, stale], ids=lambda state: state.__name__)
def test_state(screen_compare: Compare, folder: Path, state: Callable[[], FakeSource], size: tuple[int, int]):
    assert screen_compare(held_against(folder, state()), terminal_size=size, run_before=judged())


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_after_the_switch(screen_compare: Compare, folder: Path, size: tuple[int, int]):
    async def since(pilot: Pilot[None]) -> None:
        await judged("s")(pilot)
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        while (verdict := app.showing.judging.verdict) is None or verdict.comparison.start is None:
            await pilot.pause(0.01)
            app.refresh_view()
        await settle(pilot)

    assert screen_compare(held_against(folder, repaired()), terminal_size=size, run_before=since)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", [empty, defaults], ids=lambda state: state.__name__)
def test_without_a_reference(screen_compare: Compare, state: Callable[[], FakeSource], size: tuple[int, int]):
    assert screen_compare(make_app(state()), terminal_size=size, run_before=keys("5", "v"))


@pytest.mark.parametrize(
    "pressed", [("down", "down", "down", "down"), ("y",), ("tab", "enter")], ids=["mismatch", "linear", "enlarged"]
)
def test_after_keys(screen_compare: Compare, folder: Path, pressed: tuple[str, ...]):
    assert screen_compare(held_against(folder, failing()), terminal_size=(80, 24), run_before=judged(*pressed))


def test_a_reference_that_is_no_run(screen_compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("broken.parquet").write_bytes(b"no parquet")

    async def failed(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        while app.showing.judging.chosen.state == "loading":
            await pilot.pause(0.01)
        await keys("5", "v")(pilot)

    app = make_app(failing(), reference=("broken.parquet",))
    assert screen_compare(app, terminal_size=(80, 24), run_before=failed)


def test_sixteen_colours(screen_compare: Compare, folder: Path):
    app = held_against(folder, failing(), sixteen=True)
    assert screen_compare(app, terminal_size=(120, 40), run_before=judged())


def test_the_reference_behind_the_live_charts(screen_compare: Compare, folder: Path):
    async def live(pilot: Pilot[None]) -> None:
        await judged("1")(pilot)

    assert screen_compare(held_against(folder, failing()), terminal_size=(120, 40), run_before=live)


def test_the_picker_of_runs(screen_compare: Compare, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("console.tui.dialogs.picker.began", lambda run: "2025-11-23 12:13")
    names = [RunDir(folder / f"healthy-000{seed}") for seed in (1, 2, 3)]
    monkeypatch.setattr("console.tui.dialogs.picker.list_runs", lambda root: names)
    app = make_app(failing(), run=RunDir(folder / "demo-7f3a"))

    async def listed(pilot: Pilot[None]) -> None:
        await keys("5", "r")(pilot)
        screen = pilot.app.screen
        assert isinstance(screen, RunPicker)
        while screen.listed is None:
            await pilot.pause(0.01)
        await keys("space", "down")(pilot)

    assert screen_compare(app, terminal_size=(80, 24), run_before=listed)
