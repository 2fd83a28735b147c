"""What the console needs of Textual's and Rich's internals: each fails when they change."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import pkgutil
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cached_cell_len, cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual.app import App, ComposeResult
from textual.drivers.headless_driver import HeadlessDriver
from textual.geometry import Region
from textual.screen import Screen
from textual.widgets import Static

import console.tui
from console.tui.terminal import textual_patches as patches
from console.tui.terminal.compositor import TightCompositor, TightUpdate
from console.tui.terminal.driver import ConsoleDriver, InputDecoder

FOLDER = Path(console.tui.__file__).parent
PATCHES = FOLDER / "terminal" / "textual_patches.py"


class OneScreen(patches.PatchedScreen):
    def __init__(self) -> None:
        super().__init__(TightCompositor())

    def compose(self) -> ComposeResult:
        yield Static("one", id="one")


class OneApp(App[None]):
    def on_mount(self) -> None:
        self.push_screen(OneScreen())


async def test_frames_come_from_our_compositor(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = TightUpdate.render_segments
    monkeypatch.setattr(TightUpdate, "render_segments", lambda self, on: made.append(self) or real(self, on))
    app = OneApp()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.pause()
        app.console._color_system = ColorSystem.TRUECOLOR
        app.screen.query_one(Static).update("two")
        await pilot.pause()
        assert patches.painted_text(app).split() == ["two"]
        update = app.screen._compositor.render_update(full=False)
        assert update is None or isinstance(update, TightUpdate)
        assert isinstance(app.screen._compositor, TightCompositor)


async def test_no_frame_is_composed_while_drawing_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    app = OneApp()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.pause()
        composed = []
        monkeypatch.setattr(Screen, "_compositor_refresh", lambda self: composed.append(self))
        with app.batch_update():
            app.screen._compositor_refresh()
            assert composed == []
        app.screen._compositor_refresh()
        assert composed


async def test_no_color_keeps_the_colours_that_an_operator_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = OneApp()
    greys = [one for one in app._filters if isinstance(one, patches.Monochrome | patches.NoColor)]
    assert greys, "Textual turns NO_COLOR into a filter"
    patches.keep_own_colours(app)
    assert [one for one in app._filters if isinstance(one, patches.Monochrome | patches.NoColor)] == []


async def test_escape_sequences_reach_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    app = OneApp()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.pause()
        monkeypatch.setattr(HeadlessDriver, "write", lambda self, data: written.append(data))
        monkeypatch.setattr(HeadlessDriver, "flush", lambda self: written.append("flushed"))
        patches.write_now(app, "\a")
        assert written == ["\a", "flushed"]


def test_the_input_thread_looks_its_decoder_up_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = inspect.getmodule(patches.LinuxDriver)
    assert module is not None
    monkeypatch.setattr(module, "getincrementaldecoder", module.getincrementaldecoder)
    assert "getincrementaldecoder" in patches.LinuxDriver.run_input_thread.__code__.co_names
    patches.replace_decoder(InputDecoder)
    assert module.getincrementaldecoder("utf-8")().decode(b"\xff") == "\ufffd"


def test_the_driver_writes_to_the_file_that_was_put_around_its_own() -> None:
    driver = object.__new__(patches.LinuxDriver)
    driver._file = io.TextIOWrapper(io.BytesIO())
    own = driver._file
    output = patches.replace_stderr(driver, lambda file: file)
    assert output is own is driver._file
    assert "_file" in patches.LinuxDriver.start_application_mode.__code__.co_names, "where its writing thread begins"
    assert issubclass(ConsoleDriver, patches.LinuxDriver)


def test_the_driver_knows_whether_the_mouse_was_asked_for() -> None:
    driver = object.__new__(patches.LinuxDriver)
    for asked in (True, False):
        driver._mouse = asked
        assert patches.sends_mouse_reports(driver) is asked
    assert "_mouse" in patches.LinuxDriver._enable_mouse_support.__code__.co_names


def test_rich_gives_attributes_and_colour_systems() -> None:
    style = Style(bold=True, underline=True, color="red")
    assert patches.attribute_codes(style, ColorSystem.TRUECOLOR) == "1;4"
    assert patches.color_system(Console(color_system="256", force_terminal=True)) is ColorSystem.EIGHT_BIT
    assert patches.color_system(Console(color_system=None)) is None


def test_nothing_else_reaches_into_textual() -> None:
    found = []
    for path in sorted(FOLDER.rglob("*.py")):
        if path == PATCHES:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = _private_names(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and re.match(r"(textual|rich)(\.\w+)*\._", f"{node.module}."):
                found.append(f"{path.name}: from {node.module}")
            elif isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and node.attr not in own:
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    # `_app` is the application in Textual's drivers, handed to ours when they are made.
    assert [one for one in found if not one.endswith((": os._exit", ": self._app"))] == []


def test_no_class_of_the_console_takes_a_private_name_of_textuals() -> None:
    """By accident it would change what Textual does, or be changed by it."""
    taken = []
    for module in pkgutil.walk_packages(console.tui.__path__, "console.tui."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(kind) and kind.__module__ == module.name and kind is not patches.PatchedScreen:
                bases = [base for base in kind.__mro__ if base.__module__.startswith("textual.")]
                theirs = {one for base in bases for one in _names_of(base)}
                taken += [f"{module.name}.{name}.{one}" for one in _names_of(kind) & theirs]
    assert taken == []


@cache
def _names_of(kind: type[Any]) -> set[str]:
    return _private_names(ast.parse(textwrap.dedent(inspect.getsource(kind))))


def _private_names(tree: ast.AST) -> set[str]:
    """Names with one underscore that are defined in a piece of source, or given to `self`."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return {name for name in names if re.match(r"_[a-z]", name)}


def test_what_was_computed_of_drawn_figures_is_forgotten() -> None:
    caches = (Region.intersection, Region.overlaps, Region.translate, cached_cell_len)
    one, other = Region(0, 0, 7, 3), Region(2, 1, 9, 9)
    one.intersection(other), one.overlaps(other), one.translate((3, 4)), cell_len("0.1234")
    assert all(cached.cache_info().currsize for cached in caches)
    assert sum(cached.cache_info().maxsize or 10**9 for cached in caches) == 6144 + 4096, "what they may come to"
    patches.empty_caches()
    assert not any(cached.cache_info().currsize for cached in caches)
