"""Pictures of the cause in every state, and of the alignment; --snapshot-update takes them anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from console.diagnosis import looks
from console.diagnosis.facts import Facts
from console.diagnosis.model import Diagnosis
from console.tui.app import ConsoleApp
from driftline.frames import AckState, Command
from tests.tui import diagnoses
from tests.tui.conftest import make_app, settle
from tests.tui.screen_compare import Compare
from tests.tui.synthetic import FakeSource, fix_state, metrics, run_state
from tests.tui.test_snapshots import defaults, empty, fixed, keys

SIZES = [(60, 15), (80, 24), (120, 40)]
STATES = [
    diagnoses.cause, diagnoses.two_causes, diagnoses.one_engine, diagnoses.setting, diagnoses.healthy,
    diagnoses.not_known, diagnoses.parts_missing, diagnoses.too_few, diagnoses.guess,
]  # fmt: skip


def diagnosed(
    found: Diagnosis | None, *pressed: str, by_round: bool = False
) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Keys on the cause screen once a diagnosis was made."""

    async def ready(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await pilot.press("5")
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        for _ in range(2000):
            if app.showing.tokens_asked:
                break
            await pilot.pause(0.01)
        app.showing.diagnosing.found = found
        app.showing.diagnosing.by_round = app.model.rounds.made if by_round else None
        await settle(pilot)
        await keys(*pressed)(pilot)
        app.notice.clear()
        await settle(pilot)

    return ready


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_state(screen_compare: Compare, state: Callable[[], Diagnosis], size: tuple[int, int]):
    assert screen_compare(make_app(defaults()), terminal_size=size, run_before=diagnosed(state()))


def refused() -> FakeSource:
    source = defaults()
    source.no_tokens = "this key may not read tokens"
    return source


def recorded() -> FakeSource:
    source = FakeSource(operator=False)
    source.feed([metrics(step) for step in range(1, 30)])
    source.feed([run_state(30, "finished")])
    source.state = Link(True, 0.0, replay="PAUSED")
    return source


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", [empty, defaults, refused, recorded], ids=lambda state: state.__name__)
def test_without_token_pairs(screen_compare: Compare, state: Callable[[], FakeSource], size: tuple[int, int]):
    assert screen_compare(make_app(state()), terminal_size=size, run_before=diagnosed(None))


# -- active rounds


def asked_for(*states: tuple[AckState, str]) -> FakeSource:
    """A run in which another console has asked for a round, of which this was said."""
    source = defaults()
    source.feed([Command("r1", "diagnose", {"tokens": "96"}, issuer="operator bo")])
    for state, detail in states:
        source.ack("r1", state, detail)
    return source


def answered(version: int, newest: int) -> FakeSource:
    """A round of one version, and the version that the weights are at now."""
    source = asked_for(("accepted", ""), ("accepted", diagnoses.COST), ("accepted", "under way"))
    source.ack("r1", "applied", data=diagnoses.figures(version))
    source.feed([run_state(40, version=newest)])
    return source


def waits() -> FakeSource:
    return asked_for(("accepted", ""), ("accepted", diagnoses.COST))


def under_way() -> FakeSource:
    return asked_for(("accepted", ""), ("accepted", diagnoses.COST), ("accepted", "under way"))


def round_failed() -> FakeSource:
    return asked_for(("failed", "nothing to probe: engine-1: version 12 is not kept any more (trainer.keep_versions)"))


def measured() -> FakeSource:
    return answered(40, 43)


def outdated() -> FakeSource:
    return answered(40, 90)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    "state", [waits, under_way, round_failed, measured, outdated], ids=lambda state: state.__name__
)
def test_a_round(screen_compare: Compare, state: Callable[[], FakeSource], size: tuple[int, int]):
    found = diagnoses.two_causes()
    if state is measured:
        found = looks.combined(found, Facts(dtype="float32", fixes={}), diagnoses.figures(40))
    ready = diagnosed(found, by_round=state is measured)
    assert screen_compare(make_app(state()), terminal_size=size, run_before=ready)


def test_a_round_without_an_answer_by_token_pairs(screen_compare: Compare):
    assert screen_compare(make_app(under_way()), terminal_size=(80, 24), run_before=diagnosed(None))


def test_a_round_is_asked_for(screen_compare: Compare):
    ready = diagnosed(diagnoses.two_causes(), "D")
    assert screen_compare(make_app(defaults()), terminal_size=(80, 24), run_before=ready)


@pytest.mark.parametrize("marker", ["block", "ascii"])
def test_other_characters(screen_compare: Compare, marker: str):
    app = make_app(defaults(), marker=marker)
    assert screen_compare(app, terminal_size=(80, 24), run_before=diagnosed(diagnoses.two_causes()))


def test_a_picture_enlarged(screen_compare: Compare):
    ready = diagnosed(diagnoses.cause(), "tab", "tab", "enter")
    assert screen_compare(make_app(defaults()), terminal_size=(80, 24), run_before=ready)


def test_what_a_console_may_not_do_is_said(screen_compare: Compare):
    source = defaults()
    source.operator = False
    assert screen_compare(make_app(source), terminal_size=(80, 24), run_before=diagnosed(diagnoses.two_causes()))


# -- the alignment


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("source", "found"),
    [(defaults, diagnoses.two_causes), (defaults, None), (fixed, diagnoses.healthy), (defaults, diagnoses.setting)],
    ids=["two_causes", "reference_set", "nothing", "a_setting"],
)
def test_the_question(
    screen_compare: Compare,
    source: Callable[[], FakeSource],
    found: Callable[[], Diagnosis] | None,
    size: tuple[int, int],
):
    ready = diagnosed(found() if found is not None else None, "A", "right")
    assert screen_compare(make_app(source()), terminal_size=size, run_before=ready)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_row_left_out(screen_compare: Compare, size: tuple[int, int]):
    ready = diagnosed(diagnoses.two_causes(), "A", "down", "down", "space")
    assert screen_compare(make_app(defaults()), terminal_size=size, run_before=ready)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("stage", ["under_way", "failed", "home"])
def test_the_way(screen_compare: Compare, stage: str, size: tuple[int, int]):
    source = defaults()

    async def on_its_way(pilot: Pilot[None]) -> None:
        await diagnosed(diagnoses.cause(), "A", "right", "enter")(pilot)
        await sent(pilot, source, 2)
        source.feed([fix_state("processed-logprobs", "on", ("on", "off"), version=20)])
        source.ack("c2", "accepted")
        if stage == "failed":
            source.ack("c2", "failed", "engine-1 died")
        if stage == "home":
            source.feed([fix_state("processed-logprobs", "on", ("on", "on"), version=20, step=40)])
            source.ack("c2", "applied", "on 2/2 engines")
            await settle(pilot)
            source.feed([metrics(step, fixed_from=41) for step in range(41, 60)])
        await settle(pilot)

    assert screen_compare(make_app(source), terminal_size=size, run_before=on_its_way)


async def sent(pilot: Pilot[None], source: FakeSource, count: int) -> None:
    """Wait until so many commands were sent."""
    for _ in range(2000):
        if len(source.sent) >= count:
            break
        await pilot.pause(0.005)
    assert len(source.sent) >= count
    await settle(pilot)


def test_snapshots_have_no_path_in_them():
    folder = Path(__file__).with_name("__snapshots__") / "test_snap_cause"
    assert not [one.name for one in folder.glob("*") if "/tmp/" in one.read_text(encoding="utf-8")]
