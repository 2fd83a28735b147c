"""What is sent for a change, taken by a small terminal: its screen is the app's screen, to the colour of each cell."""

from __future__ import annotations

import asyncio
import gc
import re
from typing import cast

import pytest
from rich.cells import cell_len
from textual.drivers.headless_driver import HeadlessDriver
from textual.strip import Strip

from console.tui.app import ConsoleApp
from console.tui.paint.cells import Cells
from console.tui.paint.theme import LOOKS, Ink, palette
from driftline.frames import Event
from tests.tui.conftest import Running, source_with
from tests.tui.synthetic import START, FakeSource, engines, metrics, run_state

Cell = tuple[str, tuple[str, ...]]
_SEQUENCE = re.compile(
    r"\x1b\[(?P<codes>[0-9;?]*)(?P<kind>[A-Za-z])|(?P<other>\x1b\][^\x07]*\x07)|(?P<text>[^\x1b])", re.DOTALL
)


class Terminal:
    """Rows of characters with their colours; understands what the app sends and refuses anything else."""

    def __init__(self, width: int, height: int) -> None:
        self.cells: list[list[Cell]] = [[(" ", ())] * width for _ in range(height)]
        self.x = self.y = 0
        self.style: dict[str, str] = {}

    def feed(self, data: str) -> None:
        for match in _SEQUENCE.finditer(data):
            if match["text"] is not None:
                self._put(match["text"])
            elif match["kind"] == "H":
                row, column = match["codes"].split(";")
                self.y, self.x = int(row) - 1, int(column) - 1
            elif match["kind"] == "m":
                self._colour(match["codes"])
            else:
                assert match["other"] or match["kind"] in "hlqu", match[0]

    def _put(self, char: str) -> None:
        if char == "\n":
            self.y += 1
            return
        if self.y < len(self.cells) and self.x < len(self.cells[0]):
            style = tuple(f"{key}={value}" for key, value in sorted(self.style.items()))
            self.cells[self.y][self.x] = (char, style)
            for extra in range(1, cell_len(char)):
                self.cells[self.y][self.x + extra] = ("", style)
        self.x += cell_len(char)

    def _colour(self, codes: str) -> None:
        rest = codes.split(";") if codes else ["0"]
        while rest:
            code = rest.pop(0)
            if code in ("38", "48"):
                count = 4 if rest[0] == "2" else 2
                self.style["fg" if code == "38" else "bg"] = ";".join(rest[:count])
                del rest[:count]
            elif code == "0":
                self.style.clear()
            elif code in ("39", "49"):
                self.style.pop("fg" if code == "39" else "bg", None)
            elif int(code) >= 30:
                number = int(code)
                self.style["fg" if number // 10 in (3, 9) else "bg"] = code
            else:
                self.style[code] = "on"


class Recorder(HeadlessDriver):
    """Keeps what a terminal would be sent."""

    sent: list[str]

    @property
    def is_headless(self) -> bool:
        return False

    def write(self, data: str) -> None:
        self.sent.append(data)


async def painted(app: ConsoleApp) -> None:
    """Wait until two refreshes in a row have sent nothing: what a change brings about may take more than one."""
    quiet = 0
    while quiet < 2:
        before = len(Recorder.sent)
        done = asyncio.Event()
        app.call_after_refresh(done.set)
        await done.wait()
        quiet = quiet + 1 if len(Recorder.sent) == before else 0


@pytest.mark.parametrize("system", ["truecolor", "256", "standard"])
async def test_small_updates_leave_the_screen_that_a_full_one_would(system: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("textual.constants.COLOR_SYSTEM", system)
    # A Rich style keeps the codes of the first colour system that it was rendered for; a console has but one.
    for style in {style for name in LOOKS for style in palette(name)}:
        if style is not None:
            style._ansi = None
    Recorder.sent = []
    source = source_with(60, 45)
    app = ConsoleApp(source, fps=100.0, clock=lambda: 0.0, sixteen=system == "standard")
    app.driver_class = Recorder
    size = (120, 40)
    running = asyncio.create_task(app.run_async(size=size, mouse=False))
    small = Terminal(*size)
    async with asyncio.timeout(120):
        while not app.live.is_mounted or app.model.head < source.head:
            await asyncio.sleep(0.01)
        for turn in range(12):
            await change(app, source, turn)
            app.refresh_view()
            await painted(app)
            data, Recorder.sent = "".join(Recorder.sent), []
            small.feed(data)
            # The whole screen again, as Textual alone would send it.
            whole = Terminal(*size)
            app.screen._compositor._dirty_regions.clear()
            whole.feed(app.screen._compositor.render_update(full=True).render_segments(app.console))
            assert ["".join(c for c, _ in row) for row in small.cells] == [
                "".join(c for c, _ in row) for row in whole.cells
            ], turn
            for y, (one, other) in enumerate(zip(small.cells, whole.cells, strict=True)):
                # A blank shows no foreground: of it only the background counts.
                assert [visible(cell) for cell in one] == [visible(cell) for cell in other], (turn, y)
        app.exit()
        await running


def visible(cell: Cell) -> Cell:
    return cell if cell[0].strip() else (cell[0], tuple(part for part in cell[1] if part.startswith("bg")))


async def change(app: ConsoleApp, source: FakeSource, turn: int) -> None:
    step = 61 + turn
    wide = "漢字" * (turn % 3) + "ab" * (turn % 2) + "字" * (turn % 4)
    source.feed([metrics(step), run_state(step), *engines(running=turn), Event(START, "warn", "note", wide, step)])
    while app.model.head < source.head:
        await asyncio.sleep(0.005)
    action = {3: app.live.action_crosshair, 5: app.live.action_smooth, 7: app.live.action_follow}.get(turn)
    if action is not None:
        action()


@pytest.mark.parametrize(
    ("before", "after"), [("漢字x", "漢子x"), ("漢字", "ab字"), ("a漢", "漢a"), ("ab漢", "a漢 "), ("漢字", "漢ab")]
)
def test_a_wide_character_is_sent_whole(before: str, after: str):
    grids = []
    for text in (before, after):
        grids.append(Cells(12, 1))
        grids[-1].text(0, 2, text, Ink.TEXT)
    old, new = grids
    codes = new.chars[0].tolist()
    for region in new.changed(old):
        assert codes[region.x] != 0, "begins with the second half"
        assert region.right == 12 or codes[region.right] != 0, "ends with the first half"


def test_what_is_far_apart_is_sent_apart():
    old, new = Cells(100, 2), Cells(100, 2)
    for column in (3, 5, 60, 99):
        new.text(1, column, "x", Ink.TEXT)
    assert [(region.x, region.right) for region in new.changed(old)] == [(3, 6), (60, 61), (99, 100)]


async def test_rows_that_were_drawn_are_freed_without_the_collector(running: Running) -> None:
    source = source_with(60, 45)

    def rows() -> int:
        return sum(isinstance(one, Strip) for one in gc.get_objects())

    async with running(source, size=(120, 40)) as pilot:
        app = cast("ConsoleApp", pilot.app)

        async def draw(turns: range) -> None:
            for turn in turns:
                await change(app, source, turn)
                app.refresh_view()
                await pilot.pause()

        gc.disable()
        try:
            await draw(range(100, 110))
            gc.collect()
            before = rows()
            await draw(range(110, 170))
            grown = rows() - before
        finally:
            gc.enable()
    # It was several for each drawing: each row drawn whole held itself.
    assert grown < 60
