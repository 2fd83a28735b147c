"""What plain terminals get to read: numbers, the status line, the lines of tail, JSON, progress."""

from __future__ import annotations

import io
import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.formatting import short, to_json
from console.status.progress import Progress
from console.status.step_lines import HEADER_EVERY, Lines
from console.status.summary import Summary, document, line, summarise
from driftline.frames import Ack, Command, EngineState, Event, Frame, Lease, Metrics, RunState, Stamped, encode


def state(status: str = "running", **fields: object) -> RunState:
    base = RunState("demo-7f3a", "running", 812, 900, 41, 1.0)
    return msgspec.structs.replace(base, status=status, **fields)


def engine(name: str, phase: str = "running") -> EngineState:
    return EngineState(name, phase, 41, 1.0)  # type: ignore[arg-type]


NUMBERS = Metrics(
    812,
    41,
    1.0,
    {
        "reward/mean": 0.43,
        "policy/kl_new_old": 0.02,
        "policy/entropy": 1.9,
        "mismatch/abs_diff_mean": 0.038,
        "async/version_lag_mean": 1.2,
    },
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (-0.0, "0"),
        (0.43, ".43"),
        (-0.038, "-.038"),
        (0.00061, "6e-4"),
        (1.94, "1.9"),
        (19.4, "19"),
        (812.0, "812"),
        (1940.0, "1.94k"),
        (2.5e7, "25M"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_short_numbers(value: float | None, text: str) -> None:
    assert short(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e11, max_value=1e11))
def test_short_numbers_are_short_and_near(value: float) -> None:
    text = short(value)
    assert len(text) <= 8
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    back = float(text.rstrip("kMG")) * units.get(text[-1], 1.0)
    # One digit below a thousandth, two or three above.
    assert back == pytest.approx(value, rel=0.51 if abs(value) < 1e-3 else 0.06, abs=1e-300)


def test_the_status_line() -> None:
    summary = summarise([NUMBERS, state(), engine("engine-0"), engine("engine-1")])
    expected = "demo-7f3a step 812/900 v41 lag 1.2 R .43 KL .02 H 1.9 mm .038 2/2 engines running"
    assert line("demo-7f3a", summary, live=True) == expected


def test_the_status_line_names_who_holds_the_run() -> None:
    holder = Lease("operator ana", "ana@box:812", 1.0, 121.0)
    summary = summarise([NUMBERS, state(), holder])
    assert line("demo-7f3a", summary, live=True).endswith("running held by ana@box")
    writer = document("demo-7f3a", "runs/demo-7f3a", summary, live=True)["writer"]
    assert writer == {"issuer": "operator ana", "session": "ana@box:812", "since": 1.0, "until": 121.0}
    # No operator holds a run that is over, or that was given back.
    assert document("demo-7f3a", "runs/demo-7f3a", summary, live=False)["writer"] is None
    assert "held" not in line("demo-7f3a", summary, live=False)
    assert "held" not in line("demo-7f3a", summarise([Lease()], summary), live=True)


@pytest.mark.parametrize(
    ("frames", "live", "end"),
    [
        ([], True, "demo-7f3a no trainer yet"),
        ([], False, "demo-7f3a ended"),
        ([state("starting", step=-1, version=0, detail="loading\x1b[2J")], True, "starting (loading[2J)"),
        ([state()], False, "died"),
        ([state("finished")], False, "finished"),
        ([state("failed")], False, "failed"),
        ([state(), engine("a"), engine("b", "dead")], True, "1/2 engines running"),
        ([state("finished"), engine("a"), engine("b", "dead")], False, "2 engines ended, finished"),
        ([state("failed"), engine("a")], True, "1 engine ended, failed"),
        ([state(), engine("a")], False, "1 engine died"),
        ([state("paused"), engine("a", "paused")], True, "1/1 engines paused"),
        ([Metrics(3, 1, 1.0, {"mismatch/abs_diff_mean": 0.4})], True, "demo-7f3a step 3 v1 mm .4! live"),
        ([Metrics(3, 1, 1.0, {"reward": math.nan})], True, "R nan live"),
    ],
)
def test_status_lines_of_other_states(frames: list[Frame], live: bool, end: str) -> None:
    assert line("demo-7f3a", summarise(frames), live=live).endswith(end)


def test_a_synthetic_run_says_so_in_its_status() -> None:
    assert " SYNTHETIC " in line("x", summarise([state(synthetic=True)]), live=True)


def test_a_summary_has_the_newest_step_only() -> None:
    old = Metrics(1, 1, 1.0, {"reward/mean": 0.1, "policy/entropy": 2.0})
    summary = summarise([old, Metrics(2, 2, 2.0, {"reward/mean": 0.2}), Metrics(2, 2, 2.1, {"policy/kl_ref": 0.3})])
    assert summary.metrics == {"reward/mean": 0.2, "policy/kl_ref": 0.3}


def test_json_is_strict_and_hides_no_divergence() -> None:
    summary = summarise([state(), Metrics(812, 41, 1.0, {"reward/mean": math.nan, "policy/grad_norm": math.inf})])
    parsed = json.loads(to_json(document("r", "/r", summary, live=True)), parse_constant=pytest.fail)
    assert parsed["metrics"]["values"] == {"reward/mean": "NaN", "policy/grad_norm": "Infinity"}


def test_json_has_the_documented_keys_also_of_an_empty_run() -> None:
    empty, full = document("r", "/r", Summary(), live=False), document("r", "/r", summarise([state()]), live=True)
    assert list(empty) == list(full)
    assert empty["status"] == "unknown"


def lines_of(frames: list[Frame], **options: bool) -> list[str]:
    lines = Lines(**options)
    found = []
    for seq, frame in enumerate(frames, 1):
        found += list(lines.format(Stamped(seq, 1.0, "trainer", msgspec.Raw(encode(frame))), frame))
    return found


def test_columns_stay_aligned_and_their_heads_come_again() -> None:
    numbers = [msgspec.structs.replace(NUMBERS, step=step) for step in range(1, HEADER_EVERY + 2)]
    found = lines_of(list(numbers))
    heads = [text for text in found if text.startswith("time")]
    assert len(heads) == 2
    assert {len(text) for text in found} == {len(heads[0])}
    assert len(heads[0]) <= 80
    for row in (text for text in found if not text.startswith("time")):
        assert row[: heads[0].index("reward") + len("reward")].split()[-1] == ".43"


def own(step: int, *names: str) -> Metrics:
    return Metrics(step, 1, 1.0, {name: 0.5 for name in names})


def test_steps_without_any_number_of_the_columns_are_listed_with_those_that_they_have() -> None:
    many = own(1, *(f"layer/{at}/\x1b[2Jnorm" for at in range(40)), "x" * 100)
    found = lines_of([many, own(2, "train/my_loss"), own(2, "again"), own(3), own(4, "y" * 100)])
    assert [text[9:].strip() for text in found] == [
        "step 1: layer/0/[2Jnorm .5, layer/1/[2Jnorm .5 and 39 more",
        "step 2: train/my_loss .5",
        f"step 4: {'y' * 40} .5",
    ]
    assert all(len(text) <= 80 for text in found)
    assert lines_of([own(1, "mine")], synthetic=True)[0].startswith("SYNTHETIC")


@pytest.mark.parametrize("first", [0, 1])
def test_a_step_that_comes_in_several_frames_has_its_row_alone(first: int) -> None:
    parts = [[NUMBERS, own(NUMBERS.step, "mine")], [own(NUMBERS.step + 1, "mine")]]
    more = [msgspec.structs.replace(NUMBERS, step=NUMBERS.step + 1), state("finished")]
    parts[1].insert(first, more[0])
    found = lines_of([*parts[0], *parts[1], more[1]])
    assert len(found) == 4, "head, two rows, and the end"
    assert not any("mine" in text for text in found)


def test_a_step_that_gets_no_row_is_listed_once_that_is_known() -> None:
    found = lines_of([NUMBERS, own(NUMBERS.step + 1, "mine")])
    assert len(found) == 2, "its row may come yet"
    after = [own(NUMBERS.step + 1, "mine"), own(NUMBERS.step + 2, "other")]
    assert [text[9:].strip() for text in lines_of([NUMBERS, *after])[2:]] == [
        f"step {NUMBERS.step + 1}: mine .5",
        f"step {NUMBERS.step + 2}: other .5",
    ]
    assert lines_of([NUMBERS, after[0], state("finished")])[2].endswith("mine .5")


def test_alarms_are_marked() -> None:
    wrong = Metrics(1, 1, 1.0, {"mismatch/abs_diff_mean": 0.2, "reward/mean": 0.1})
    assert ".2!" in lines_of([wrong])[-1]


def test_only_news_is_printed() -> None:
    frames: list[Frame] = [state(), state(step=813), engine("e"), engine("e", "syncing"), engine("e"), state("paused")]
    assert [text[9:].strip() for text in lines_of(frames)] == ["run: running", "e: running", "run: paused"]


def test_events_and_commands() -> None:
    found = lines_of(
        [
            Event(1.0, "error", "engine.died", "engine-0\x1b]0;x\x07 is gone"),
            Event(1.0, "info", "sync.done", "v2 on 1 engine"),
            Command("c1", "fix.set", {"fix": "fp32-lm-head", "value": "on"}, issuer="operator ana"),
            Ack("c1", "sent", 1.0),
            Ack("c1", "failed", 1.0, "no engine"),
        ]
    )
    assert [text[9:] for text in found] == [
        "!! engine.died: engine-0]0;x is gone",
        "   command: fix.set fp32-lm-head on by operator ana",
        "!! command: fix.set fp32-lm-head on failed: no engine",
    ]


def test_a_synthetic_feed_is_labelled_in_the_head() -> None:
    assert lines_of([NUMBERS], synthetic=True)[0].startswith("SYNTHETIC")
    assert "SYNTHETIC" in lines_of([state(synthetic=True)])[0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_without_a_terminal_is_plain_lines() -> None:
    out = io.StringIO()
    progress = Progress(out)
    for text in ("loading", "loading", "starting\x1b[2J"):
        progress.update(text)
    progress.done("ready")
    assert out.getvalue() == "  loading\n  starting[2J\n  ready\n"


def test_progress_on_a_terminal_renews_one_line_and_takes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    progress = Progress(out)
    for text in ("loading (0 s)", "loading (5 s)", "x" * 500):
        progress.update(text)
    progress.done()
    drawn = out.getvalue()
    assert "\n" not in drawn
    assert "(5 s)" not in drawn
    assert all(len(part) <= 79 for part in drawn.replace("\x1b[K", "").split("\r"))
    assert drawn.endswith("\r\x1b[K")
