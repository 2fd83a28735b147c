"""Fault 24: text that attacks the terminal and the console, in every field that a producer can fill.

The corpus goes through a real hub, as a producer would send it, into the real console on a terminal, into the
headless verbs on a terminal, and into the app's own test terminal, where every cell is clicked.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from textual.app import App, ComposeResult
from textual.events import MouseDown, MouseMove, MouseUp, Paste
from textual.pilot import Pilot
from textual.widgets import Static

from console.sentinels.notify import Alerts
from console.sentinels.rules import load
from console.settings.keys import TABS
from console.tui.app import ConsoleApp
from console.tui.watch.guard import guards
from driftline.frames import (
    Ack,
    Command,
    Effect,
    EngineFix,
    EngineState,
    Event,
    FixState,
    Frame,
    Measure,
    Metrics,
    RunState,
    Span,
    Stamped,
    Tokens,
    encode,
)
from driftline.journal.journal import read
from driftline.producer.probe import Probe
from tests.faults.corpus import CORPUS
from tests.faults.scale import FULL, scaled
from tests.tui.conftest import make_app, screen_text
from tests.tui.quick import drawn, tap, up_to_date
from tests.tui.synthetic import FakeSource
from tests.tui.test_pty import Terminal, environment
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(300)

_PLACE = "PLACEHOLDER"
_SURROGATE = b"\xed\xa0\x80"
"""A lone surrogate as it would be in UTF-8, which no encoder writes and no decoder takes."""

# What our own screens send: text attributes, cursor moves, and switches that are compared with a harmless session.
_CSI = re.compile(rb"\x1b\[([0-9;:<>=?]*)([ -/]*[@-~])")
_OTHER = re.compile(rb"\x1b(?!\[)(.)", re.DOTALL)
_FORBIDDEN = re.compile("[\x80-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\ud800-\udfff]")
_STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f]")
_CONTROLS = re.compile(rb"[\x00-\x06\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")


def frames(text: str, step: int) -> list[Frame]:
    """The text in every field of every kind of frame that a producer fills."""
    now = time.time()
    blob, worse = b"\0\0\0\0", np.asarray([-1.0 - step], "<f4").tobytes()  # the newest is the worst, and on top
    measure = Measure(text, 0.5, 0.1, -0.5, -0.3, 10, 10)
    change = (("processed-logprobs", "off", "on"), (text, text, text))
    return [
        RunState(text, "paused", step, 90, 1, now, text, text, 0.5, detail=text, paused_by=text, config_digest=text),
        EngineState(f"engine-{text}", "running", 1, now, node=text, backend=text, vllm=text, detail=text),
        EngineState("engine-0", "dead", 1, now, node=text, backend=text, vllm=text, detail=text),
        FixState("processed-logprobs", "on", 1, text, now, "live", (EngineFix(text, "on", "live", detail=text),), text),
        FixState("inflight-keep", text, 1, text, now, "live", (EngineFix(text, text, "live", detail=text),), text),
        FixState("async-scheduling-off", "off", 1, text, now, "not_available", (), text),
        Effect("e", change, step, 1, now, text, measures=(measure,), detail=text),
        Metrics(step, 1, now, {"reward/mean": 0.5, text: 1.0}, {"policy/clip_fraction": text, text: text}),
        Span(text, text, text, now, 0.1, 1, 2, step, detail=text, result=text),
        Span(f"sync {text}", f"engine-{text}", "load", now, 0.1, 1, 2, step, detail=text, result=text),
        Span(f"sync {text}", "engine-0", "verify", now, 0.1, 1, 2, step, ok=False, detail=text, result=text),
        Tokens(step, 1, now, 1, blob, blob, blob, blob, blob, worse, (text,), (text,), (0.0,), (text,)),
        Event(now, "error", text, text, step, {"producer": text, text: text}),
        Event(now, "warn", "probe.dropped", text, step, {"producer": text, "dropped": 5, "total": 5}),
        Event(now, "info", "mark", f"round {step} {text}", step),
    ]


def test_the_corpus_has_two_hundred_strings() -> None:
    assert len(set(CORPUS)) >= 200


# -- in the app's own test terminal: every cell clicked, every action counted


class Counting(ConsoleApp):
    """Counts what a click of injected markup would start."""

    fired = 0

    def action_fired(self, *_: object) -> None:
        self.fired += 1


def feed(source: FakeSource, text: str, step: int) -> None:
    """As the hub would publish it: a string that cannot be encoded is put in as raw bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        for frame in frames(_PLACE, step):
            body = encode(frame).replace(_PLACE.encode(), (_SURROGATE * 4)[: len(_PLACE)])
            with source._lock:
                source._seq += 1
                source._queue.append(Stamped(source._seq, 1.0, "trainer", msgspec.Raw(body)))
                if isinstance(frame, Tokens):
                    source._token_queue.append(source._queue[-1])
        return
    source.feed(frames(text, step), producer=text[:64])


def armed(pilot: Pilot[None]) -> int:
    """Cells of the screen that would start something when clicked: Textual finds that in a cell's style."""
    strips = pilot.app.screen._compositor.render_strips()
    return sum(s.cell_length for strip in strips for s in strip if s.style is not None and "@click" in s.style.meta)


async def click_about(pilot: Pilot[None]) -> None:
    """Clicks all over the screen, for what `armed` might not see."""
    size, driver = pilot.app.size, pilot.app._driver
    assert driver is not None
    for y in range(0, size.height, 4):
        for x in range(10, size.width, scaled(30, 16)):
            for kind, button in ((MouseMove, 0), (MouseDown, 1), (MouseUp, 1)):
                driver.send_message(kind(None, x, y, 0, 0, button, False, False, False, x, y))
    await pilot.pause(0)


class Careless(App[None]):
    """What the corpus does to who hands a model's words to Textual as they are."""

    fired = 0

    def compose(self) -> ComposeResult:
        yield Static(f"[@click=app.fired]{'x' * 40}[/]")

    def action_fired(self, *_: object) -> None:
        self.fired += 1


def test_the_clicks_would_fire_in_a_careless_app() -> None:
    async def session() -> None:
        app = Careless()
        async with app.run_test(size=(80, 24)) as pilot:
            assert armed(pilot) == 40
            await click_about(pilot)
            assert app.fired > 0

    asyncio.run(session())


def assert_harmless(pilot: Pilot[None], what: str) -> None:
    """Nothing on screen steers a terminal, or would do anything when clicked."""
    shown = screen_text(pilot)
    assert not _FORBIDDEN.search(shown), what
    assert not _STEERING.search(shown), what
    assert armed(pilot) == 0, what


async def sweep(pilot: Pilot[None], text: str) -> None:
    """Look at every screen, the alarms, and every line that one types into, with the text pasted there."""
    app = pilot.app
    assert isinstance(app, ConsoleApp)
    for tab in TABS:
        app.action_screen(tab.id)
        await up_to_date(pilot)
        assert_harmless(pilot, f"{tab.id}: {text[:80]!a}")
    for key in ("exclamation_mark", "w", "question_mark"):
        await tap(pilot, key)
        assert_harmless(pilot, f"{key}: {text[:80]!a}")
        await tap(pilot, "escape")
    for place, key in (("live", "colon"), ("live", "ctrl+p"), ("tokens", "slash"), ("events", "slash")):
        app.action_screen(place)  # type: ignore[arg-type]
        await drawn(pilot)
        await tap(pilot, key)
        target = app.focused or app.screen
        target.post_message(Paste(text))
        await drawn(pilot)
        assert_harmless(pilot, f"{place} {key}: {text[:80]!a}")
        if key != "ctrl+p":  # there enter would do what fits
            await tap(pilot, "enter")
            assert_harmless(pilot, f"{place} {key}, entered: {text[:80]!a}")
        await tap(pilot, "escape")


@pytest.mark.timeout(1200 if FULL else 300)
def test_f24_nothing_fires_and_nothing_breaks_in_the_app() -> None:
    async def session() -> None:
        source = FakeSource(run="[@click=app.fired]run[/]\x1b[31m\u202e\udcff")
        app = make_app(source, guards=guards(load(), Alerts()))
        app.__class__ = Counting
        assert isinstance(app, Counting)
        async with app.run_test(size=(140, 60)) as pilot:
            await up_to_date(pilot)
            for step, text in enumerate(CORPUS):
                feed(source, text.replace("app.exit", "app.fired"), step)
                if step % scaled(40, 3) and step != len(CORPUS) - 1:
                    continue  # short: so many at a time, of which the events and the tokens show the newest
                await sweep(pilot, text.replace("app.exit", "app.fired"))
                if step % scaled(120, 30) == 0:
                    for tab in TABS:
                        app.action_screen(tab.id)
                        await drawn(pilot)
                        await click_about(pilot)
                        await drawn(pilot)
            assert app.fired == 0
            assert app.is_running
            assert app.model.damaged > 0, "what cannot be text is counted"
            assert app.showing.guard is not None
            assert app.showing.guard.sentinels.standing, "there were alarms to look at"
            # In a dialog too: what a command's acknowledgement says.
            source.feed([RunState("r", "running", 500, 900, 1, 1.0)])
            app.action_screen("live")
            await up_to_date(pilot)
            for text in CORPUS[:: scaled(40, 1)]:
                for key in ("S", "right", "enter"):
                    await tap(pilot, key)
                for _ in range(1000):
                    if commands := [life.command.id for life in list(app.model.commands.values()) if not life.done]:
                        break
                    await pilot.pause(0.001)
                try:
                    source.feed([Ack(commands[-1], "failed", 1.0, text, {"result": text})])
                except ValueError:
                    source.feed([Ack(commands[-1], "failed", 1.0, "half a pair")])
                await up_to_date(pilot)
                assert_harmless(pilot, f"dialog: {text[:80]!a}")
                await tap(pilot, "escape")
            assert app.fired == 0
            assert source.sent == [("sync", {}, -1)] * len(source.sent), "what was confirmed, and nothing else"
            assert app.return_code in (None, 0)

    asyncio.run(session())


# -- through a real hub, on a real terminal


@pytest.fixture
def hostile(tmp_path: Path) -> Hub:
    """A run whose very name is hostile."""
    hub = Hub(tmp_path)
    path = tmp_path / "[@click=app.exit]run\x1b]0;owned\x07\u202e\x9b2J"
    hub.run.path.rename(path)
    hub.run = msgspec.structs.replace(hub.run, path=path)
    hub.log = hub.run.logs / "hub.log"
    return hub


def kinds(raw: bytes) -> set[bytes]:
    """The kinds of escape sequences in what a terminal was sent, numbers of attributes and places left out."""
    found = {b"ESC " + match[1] for match in _OTHER.finditer(raw)}
    for match in _CSI.finditer(raw):
        parameters = b"" if match[2] in (b"m", b"H") else match[1]
        found.add(parameters + match[2])
    return found


def console(hub: Hub, texts: list[str]) -> tuple[bytes, int]:
    """A session that has seen all texts on all screens, copied some, clicked about, and was left with q.

    What the terminal got, and the exit code.
    """
    command = [sys.executable, "-m", "console.cli", "attach", str(hub.run.path), "--operate"]
    terminal = Terminal(command, environment(hub.run.path.parent), (160, 50))
    probe = Probe("trainer", hub.run)
    try:
        terminal.expect("clip fraction")
        for step, text in enumerate(texts):
            for frame in frames(text, step):
                probe.send(frame)
            if step % scaled(20, 5) == 0 or step == len(texts) - 1:
                assert probe.flush(PATIENCE)
                terminal.expect(f"step {step}/90")
                for row in range(2, 50, 6):
                    terminal.press(f"\x1b[<0;{10 + row};{row}M\x1b[<0;{10 + row};{row}m".encode())
            if step % scaled(160, 20) == scaled(159, 19) or step == len(texts) - 1:
                look_at_every_screen(terminal)
        terminal.press(b"q")
        code = terminal.wait() or 0  # only then all of it has been read
        return terminal.raw, code
    finally:
        probe.close(1.0)
        terminal.close()


def look_at_every_screen(terminal: Terminal) -> None:
    """And copy what is chosen there; the help says that the screen is on show, and that it took the keys before."""
    for tab in [*TABS[1:], TABS[0]]:
        terminal.press(f"{tab.key}Y?".encode())
        terminal.expect(f"On the {tab.word} screen")
        terminal.press(b"\x1b")
        terminal.until(lambda screen, word=tab.word: f"On the {word} screen" not in screen)


def test_f24_no_byte_of_the_corpus_steers_the_terminal(hostile: Hub, tmp_path: Path) -> None:
    harmless = Hub(tmp_path / "harmless")
    try:
        harmless.start()
        quiet, code = console(harmless, [f"text {i}" for i in range(3)])
        assert code == 0
    finally:
        harmless.end()
    hostile.start()
    try:
        raw, code = console(hostile, CORPUS)
        assert code == 0, raw[-2000:]
        assert kinds(raw) <= kinds(quiet), "escape sequences that a harmless session does not have"
        assert b"Traceback" not in raw
        plain = re.sub(rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)", b"", raw)
        assert not _CONTROLS.search(plain)
        assert not _FORBIDDEN.search(plain.decode("utf-8", "surrogateescape"))
        commands = [s for s in read(hostile.run.journal) if isinstance(_frame(s), Command)]
        assert commands == [], "nothing was done to the run"
        headless(hostile)
    finally:
        hostile.end()


def _frame(stamped: Stamped) -> object:
    try:
        return stamped.frame()
    except ValueError:
        return None


def headless(hub: Hub) -> None:
    """The verbs without a screen, on a terminal, over the same run."""
    path = str(hub.run.path)
    for verb in (
        ["status", "--run", path],
        ["fix", "list", "--run", path],
        ["tail", "--run", path, "--seconds", "1"],
        ["list"],
        ["doctor", path],
        ["keys", "list", "--run", path],
        ["status", "--run", f"{path}/ghost\x1b]0;owned\x07"],
    ):
        terminal = Terminal([sys.executable, "-m", "console.cli", *verb], environment(hub.run.path.parent))
        try:
            terminal.wait()
            assert terminal.raw, verb
            assert b"\x1b" not in terminal.raw, (verb, terminal.raw[:500])
            assert not _CONTROLS.search(terminal.raw), verb
            assert not _FORBIDDEN.search(terminal.raw.decode("utf-8", "surrogateescape")), verb
            assert b"Traceback" not in terminal.raw, verb
        finally:
            terminal.close()


def test_f24_what_a_hub_says_of_itself_is_cleaned_too(tmp_path: Path) -> None:
    """A connection file brought from elsewhere may have been written by anybody."""
    hub = Hub(tmp_path)
    hub.start()
    try:
        brought = tmp_path / "connection.json"
        evil = msgspec.structs.replace(hub.run.connection(), run="[@click=app.exit]\x1b]0;owned\x07\u202e")
        brought.write_bytes(msgspec.json.encode(evil))
        hub.end()
        key = str(hub.run.keys / "viewer.key")
        command = [sys.executable, "-m", "console.cli", "status", "--run", str(brought), "--key", key]
        terminal = Terminal(command, environment(tmp_path))
        try:
            assert terminal.wait() == 3
            assert b"\x1b" not in terminal.raw
            assert b"is not live" in terminal.raw
        finally:
            terminal.close()
        until(lambda: not hub.run.live(), "the hub to be gone")
    finally:
        hub.end()
