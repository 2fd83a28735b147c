"""scripts/picture.py: the picture of the README, from a recording."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from driftline import rundir
from driftline.frames import encode
from driftline.journal.journal import Journal, Record, record_encoder
from driftline.rundir import RunDir
from tests.tui.synthetic import history

SCRIPT = Path(__file__).parents[2] / "scripts" / "picture.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    made = rundir.create(tmp_path_factory.mktemp("picture"), "demo-7f3a")
    journal = Journal(made.journal)
    for frame in history(40, fixed_from=25):
        seq = journal.head + 1
        record = Record(seq, 1_700_000_000.0 + seq, "trainer", msgspec.Raw(encode(frame)), 1, seq)
        journal.append(record_encoder.encode(record), seq, True)
    journal.close()
    return made


# A process of its own: what draws goes on behind the picture that was asked for until it ends.
def picture(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *args], capture_output=True, text=True, timeout=120)


def words(svg: Path) -> str:
    return svg.read_text(encoding="utf-8").replace("&#160;", " ")


def test_a_screen_as_of_a_step(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "live.svg"
    done = picture(str(run.path), str(out), "--step", "30")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    drawn = words(out)
    assert all(word in drawn for word in ("clip fraction", "mismatch", "processed logprobs", "REPLAY", run.id))
    assert ">30<" in drawn or "30/90" in drawn
    assert "40/90" not in drawn


def test_another_screen_in_another_size(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "events.svg"
    assert picture(str(run.path), str(out), "--screen", "events", "--size", "80x24").returncode == 0
    assert "fix.applied" in words(out)
    assert "clip fraction" not in words(out)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("no-such-run", "x.svg"), "picture: no run 'no-such-run'"),
        (("RUN", "x.svg", "--size", "big"), "'big' is not COLUMNSxROWS, for example 120x40"),
    ],
)
def test_what_cannot_be_drawn_is_said(run: RunDir, args: tuple[str, ...], said: str) -> None:
    done = picture(*(str(run.path) if arg == "RUN" else arg for arg in args))
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
