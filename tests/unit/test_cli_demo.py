"""The demonstration's operator and its verdict, on frames written by hand."""

from __future__ import annotations

import pytest

from console.demo.operator import Operator
from console.demo.report import DemoReport, table, verdict
from console.errors import CommandError
from driftline.frames import Ack, EngineFix, FixState, Frame, How, Metrics


def metrics(step: int, reward: float, mismatch: float) -> Metrics:
    return Metrics(step, step, 1.0, {"reward/mean": reward, "mismatch/abs_diff_mean": mismatch, "entropy": 1.0})


def fix(name: str, value: str = "off", how: How = "live", requested: str | None = None) -> FixState:
    return FixState(name, requested or value, 0, "config", 1.0, how, (EngineFix("engine-0", value, how),), "so it is")


class Play:
    """An operator whose commands are written down instead of sent."""

    def __init__(self, switch_at: int = 5) -> None:
        self.report = DemoReport()
        self.given: list[tuple[str, dict[str, str]]] = []
        self.said: list[str] = []
        self.operator = Operator(self.report, self._give, switch_at, self.said.append)

    def _give(self, verb: str, values: dict[str, str]) -> str:
        self.given.append((verb, values))
        return f"c{len(self.given)}"

    def take(self, *frames: Frame) -> None:
        for frame in frames:
            self.report.add_frame(frame)
            self.operator.handle_frame(frame)


def test_defaults_then_every_available_fix_then_one_sync() -> None:
    play = Play()
    play.take(fix("a"), fix("b", "on"), fix("c", how="engine_restart"), fix("d", how="not_available"))
    play.take(fix("e", how="next_sync"), *(metrics(step, 0.3, 0.1) for step in range(1, 5)))
    assert play.given == []
    play.take(metrics(5, 0.3, 0.1))
    assert play.given == [("fix.set", {"fix": "a", "value": "on"}), ("fix.set", {"fix": "e", "value": "on"})]
    assert play.report.switched == 5
    play.take(Ack("c1", "accepted", 1.0), Ack("c1", "applied", 1.0), metrics(6, 0.3, 0.1))
    assert len(play.given) == 2, "the sync waits for every fix"
    play.take(Ack("c2", "applied", 1.0), metrics(7, 0.3, 0.1))
    assert play.given[2:] == [("sync", {})]
    assert not play.operator.done
    play.take(Ack("c3", "applied", 1.0))
    assert play.operator.done
    play.take(*(metrics(step, 0.3, 0.1) for step in range(8, 20)))
    assert len(play.given) == 3
    assert any("fix c: not available in a live run here: so it is" in text for text in play.said)


@pytest.mark.parametrize("state", ["failed", "refused", "expired"])
def test_a_command_that_does_not_succeed_ends_the_demonstration(state: str) -> None:
    play = Play()
    play.take(fix("a"), metrics(5, 0.3, 0.1))
    with pytest.raises(CommandError, match=f"fix a on: {state}: why"):
        play.take(Ack("c1", state, 1.0, "why"))  # type: ignore[arg-type]


def test_a_run_without_anything_to_switch_is_no_demonstration() -> None:
    play = Play()
    play.take(fix("a", "on"))
    with pytest.raises(CommandError, match="no fix to switch on"):
        play.take(metrics(5, 0.3, 0.1))


def make_report(before: tuple[float, float], after: tuple[float, float]) -> DemoReport:
    report = DemoReport()
    for step in range(1, 46):
        report.add_frame(metrics(step, *before))
    report.switched = 45
    for step in range(46, 91):
        report.add_frame(metrics(step, *after))
    return report


@pytest.mark.parametrize(
    ("after", "home"),
    [
        ((0.55, 0.001), True),
        ((0.41, 0.0101), True),
        ((0.39, 0.001), False),
        ((0.55, 0.02), False),
        ((float("nan"), 0.001), False),
        ((0.55, float("nan")), False),
        ((0.55, 0.0), True),
    ],
)
def test_the_verdict(after: tuple[float, float], home: bool) -> None:
    judged = verdict(make_report((0.2, 0.15), after))
    assert judged is not None
    assert judged.passed is home


def test_no_verdict_without_a_switch_or_too_soon_after_it() -> None:
    report = make_report((0.2, 0.15), (0.5, 0.001))
    report.switched = None
    assert verdict(report) is None
    report.switched = 85
    assert verdict(report) is None


def test_a_switch_by_hand_is_noticed() -> None:
    report = DemoReport()
    report.add_frame(fix("a"))
    for step in range(1, 31):
        report.add_frame(metrics(step, 0.2, 0.15))
    report.add_frame(fix("a", "off", requested="on"))
    assert report.switched == 30
    report.add_frame(fix("b", "off", requested="on"))
    assert report.switched == 30


def test_the_table_has_means_of_ten_steps() -> None:
    report = make_report((0.2, 0.15), (0.55, 0.001))
    report.steps[1]["reward/mean"] = 1.2
    rows = {text[:22].strip(): text[22:].split() for text in table(report)}
    assert rows["reward"] == [".3", ".2", ".55"]
    assert rows["mismatch mean|Δlogp|"] == [".15", ".15", ".001"]
    assert rows["clip fraction"] == ["-", "-", "-"]
