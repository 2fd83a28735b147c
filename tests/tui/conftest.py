"""A clock and a zone that stand still, and an app that has shown what it was fed."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from textual.pilot import Pilot

from console.tui.app import ConsoleApp
from console.tui.watch.diagnosing import Diagnosing
from tests.tui import settled
from tests.tui.screen_compare import screen_compare as screen_compare
from tests.tui.synthetic import FakeSource, history


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the coroutine tests of this folder; a plugin for these lines is not worth its pins."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True)
def settled_pilots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pause and key of a pilot waits for work done, not for an idle process."""
    for module in ("textual.pilot", "textual.app"):
        monkeypatch.setattr(f"{module}.wait_for_idle", settled.handled)


@pytest.fixture(autouse=True)
def no_diagnosis(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No cause is looked for but where a test is about that: how sure one is changes with what was counted for it."""
    if request.node.get_closest_marker("diagnosis") is None:
        monkeypatch.setattr(Diagnosing, "due", lambda _self, _model: False)


@pytest.fixture(autouse=True)
def fixed_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def make_app(source: FakeSource, **options: object) -> ConsoleApp:
    """An app of true colours whose notices never time out."""
    return ConsoleApp(source, **({"fps": 10.0, "clock": lambda: 0.0, "sixteen": False} | options))  # type: ignore[arg-type]


async def settle(pilot: Pilot[None]) -> None:
    """Wait until everything that was fed is in the model and on the screen."""
    app = pilot.app
    assert isinstance(app, ConsoleApp)
    source = app.source
    assert isinstance(source, FakeSource)
    for _ in range(1000):
        if app.model.head == source.head and app.live.ready:
            break
        await pilot.pause(0.01)
    assert app.model.head == source.head
    await pilot.pause()
    app.refresh_view()
    await pilot.pause()


Running = Callable[..., AbstractAsyncContextManager[Pilot[None]]]


@pytest.fixture
def running() -> Running:
    """`async with running(source, size=(80, 24)) as pilot`: the app in a headless terminal, settled."""

    @asynccontextmanager
    async def run(
        source: FakeSource, size: tuple[int, int] = (80, 24), **options: object
    ) -> AsyncIterator[Pilot[None]]:
        app = make_app(source, **options)
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            yield pilot

    return run


def screen_text(pilot: Pilot[None]) -> str:
    """What the terminal shows, line by line."""
    lines = pilot.app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in lines)


def source_with(steps: int = 74, fixed_from: int = 45, *, operator: bool = True) -> FakeSource:
    source = FakeSource(operator=operator)
    source.feed(history(steps, fixed_from=fixed_from))
    return source


async def press(pilot: Pilot[None], *keys: str) -> str:
    await pilot.press(*keys)
    await settle(pilot)
    return screen_text(pilot)
