"""The folder of evidence: whole or not there, true to the run, and safe to open."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import polars as pl
import pytest

from console.cli.main import main
from console.evidence.bundle import TABLES, EvidenceError, bundle
from console.evidence.summary import markdown, safe
from console.settings.keys import TABS
from console.store.load import load
from console.tui import pictures as pictures_module
from console.tui.screens.sync.screen import SyncScreen
from driftline import rundir
from driftline.frames import Event, encode
from driftline.journal.journal import Journal, Record, record_encoder
from driftline.rundir import RunDir
from tests.faults.corpus import CORPUS
from tests.tui.conftest import make_app, press, settle, source_with
from tests.tui.synthetic import history


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    made = rundir.create(tmp_path_factory.mktemp("evidence"), "demo-7f3a")
    journal = Journal(made.journal)
    for frame in [*history(40, fixed_from=25), Event(1.0, "error", "trainer.nan", "a | pipe and <b>", 30)]:
        seq = journal.head + 1
        record = Record(seq, 1_700_000_000.0 + seq, "trainer", msgspec.Raw(encode(frame)), 1, seq)
        journal.append(record_encoder.encode(record), seq, True)
    journal.close()
    made.config.write_text("[run]\n", encoding="utf-8")
    return made


def test_the_folder_has_everything(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "evidence"
    assert main(["evidence", str(run.path), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert (printed.out.strip(), printed.err) == (str(out), ""), "no progress where there is no terminal"
    manifest = json.loads((out / "manifest.json").read_text())
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == found - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert found >= {"summary.md", "config.toml", *(f"tables/{table}.parquet" for table in TABLES)}
    for tab in TABS:
        svg = (out / "screens" / f"{tab.id}.svg").read_text(encoding="utf-8")
        ElementTree.fromstring(svg)
        assert "step" in svg
    metrics = pl.read_parquet(out / "tables/metrics.parquet")
    assert metrics.height == 40
    summary = (out / "summary.md").read_text()
    first = metrics["reward/mean"].head(20).mean()
    assert isinstance(first, float)
    assert f"{first:.2g}".lstrip("0") in summary
    assert "step 25: processed-logprobs on" in summary
    assert r"a \| pipe and \<b\>" in summary
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_is_there_is_not_written_over(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evidence", str(run.path), "--out", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_nothing_is_left_where_it_fails(run: RunDir, tmp_path: Path) -> None:
    def broken(_: RunDir) -> object:
        raise OSError(28, "No space left on device", "screens/live.svg")

    with pytest.raises(EvidenceError, match="No space left on device"):
        bundle(run, tmp_path / "evidence", broken, lambda _: None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["raises", pytest.param("hangs", marks=pytest.mark.slow)])
def test_a_screen_that_fails_is_named_and_the_rest_is_written(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    going = threading.Event()

    def broken(*_: object) -> None:
        while how == "hangs" and not going.wait(0.05):
            pass
        raise RuntimeError("broken\ninside")

    monkeypatch.setattr(SyncScreen, "draw", broken)
    monkeypatch.setattr(pictures_module, "SCREEN_SECONDS", 20.0)
    out = tmp_path / "evidence"
    try:
        assert main(["evidence", str(run.path), "--out", str(out)]) == 1
    finally:
        going.set()
    printed = capsys.readouterr()
    why = "not drawn within 20 s" if how == "hangs" else "RuntimeError: broken inside"
    assert printed.out.strip() == str(out)
    assert printed.err.splitlines()[-1] == f"driftline: the sync screen was not drawn: {why}", "after its traceback"
    drawn = {path.stem for path in (out / "screens").iterdir()}
    assert drawn == {tab.id for tab in TABS} - {"sync"}
    assert "the sync screen was not drawn" in (out / "summary.md").read_text()
    assert set(json.loads((out / "manifest.json").read_text())["files"]) >= {"summary.md", "tables/metrics.parquet"}


def test_an_endless_configuration_is_left_out_and_named(run: RunDir, tmp_path: Path) -> None:
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy" / run.id))
    copy.config.unlink()
    copy.config.symlink_to("/dev/zero")
    made = bundle(copy, tmp_path / "evidence", lambda _: iter(()), lambda _: None)
    assert made.problems == ("config.toml was not copied: it is a device, not a regular file",)
    assert not (made.path / "config.toml").exists()


def test_nothing_recorded_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = rundir.create(tmp_path, "empty")
    assert main(["evidence", str(empty.path)]) == 3
    assert "nothing is recorded" in capsys.readouterr().err


def test_hostile_text_stays_text(run: RunDir) -> None:
    model = load(run).model
    for text in CORPUS:
        line = safe(text)
        assert "\n" not in line
        for special in "<>|`[":
            assert line.count(special) == line.count("\\" + special)
    assert markdown("[x](http://a)", model, 0, []).startswith(r"# Evidence: \[x\](http://a)")


async def test_the_key_without_a_journal_says_where_to_go() -> None:
    app = make_app(source_with(5))
    async with app.run_test(size=(120, 24)) as pilot:
        await settle(pilot)
        assert "in a shell there" in await press(pilot, "b")
