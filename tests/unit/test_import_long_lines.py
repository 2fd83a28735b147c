"""A console log may hold anything between two ends of lines: reading it takes time that is linear in its length."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from console.following.growing_log import GrowingLog
from console.importing import console_logs
from console.importing.import_run import read

REPORT = "{'loss': 0.5, 'step': 3}\n"
WORDS = "a line of plain words without end "
HOSTILE = {
    "metrics of verl": "step:1 - actor/loss:0.5 - reward:1.0 ",
    "braces": "{",
    "metrics of slime": " step 1: {",
    "digits": "1",
    "spaces": " ",
    "carriage returns": "10/20 [x\r",
    "progress": "1/2",
    "dictionaries": "{'loss': 0.1} ",
    "wrapped": "{'a': float32(" + 500 * " ",
    "separators": " -",
    "repeated": " [repeated 2x across cluster",
    "colours": "\x1b[1",
}


def text_of(unit: str, size: int) -> str:
    return REPORT + unit * (size // len(unit)) + "}"


def seconds(path: Path, text: str) -> float:
    path.write_text(text)
    began = time.perf_counter()
    log = read(path)
    taken = time.perf_counter() - began
    assert log.rows
    return taken


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_a_log_without_newlines_takes_a_bounded_multiple_of_ordinary_text(tmp_path: Path, unit: str) -> None:
    # Quadratic searches took 200 to 100,000 times as long at this size.
    size = 60_000
    path = tmp_path / "train.log"
    plain = min(seconds(path, text_of(WORDS, size)) for _ in range(5))
    assert min(seconds(path, text_of(unit, size)) for _ in range(3)) < 40 * plain


@pytest.mark.parametrize("digits", [19, 20, 5000])
def test_a_step_of_many_digits_is_no_step(tmp_path: Path, digits: int) -> None:
    path = tmp_path / "train.log"
    path.write_text(f"step:1 - reward:0.5\nstep:{'1' * digits} - reward:0.5\n{'1' * digits}/2 [x] {{'loss': 1.0}}\n")
    log = read(path)
    assert [row.step for row in log.rows] == [1]


def test_a_line_is_cut_where_it_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_logs, "_LONGEST", 1000)
    path = tmp_path / "train.log"
    path.write_text("x" * 5000 + "\n" + REPORT)
    assert [row.step for row in read(path).rows] == [3]


def test_a_followed_log_that_grows_without_newlines_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text(REPORT + "." * 100_000)
    log = GrowingLog(path)
    assert [frame.step for _, frame in log.poll()] == [3]
    with path.open("a") as file:
        file.write("." * 100_000 + "\n" + REPORT.replace("3", "4"))
    assert [frame.step for _, frame in log.poll()] == [4]
