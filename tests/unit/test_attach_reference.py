"""`driftline attach --reference`: a name that leads nowhere is one sentence before any screen opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.cli.main import main
from console.errors import NO_RUN


@pytest.mark.parametrize(
    ("name", "words"),
    [("nope", "no run 'nope': neither a run directory nor an id"), ("no.parquet", "no.parquet: there is no such file")],
)
def test_an_unknown_reference_is_said_at_once(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path))
    assert main(["attach", "--reference", name]) == NO_RUN
    assert words in capsys.readouterr().err
