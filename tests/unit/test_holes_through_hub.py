"""Holes of a journal as those hear of them who see no file of it, and those who were there before the hole was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from console.cli.main import main
from console.connect.live_source import LiveSource
from console.connect.target import find_target
from console.status.link_health import banner
from driftline import wire
from driftline.client import Client, attach
from driftline.consumer.feed import next_beacon
from driftline.frames import Metrics
from driftline.hub.hole_watch import LISTED, HoleWatch
from driftline.journal.journal import segments
from driftline.keys import make_run_keys
from driftline.rundir import RunDir, create
from tests.unit.hubs import PATIENCE, Hub, until
from tests.unit.runs import journal

GAP = "the journal has a hole: segment 000002 is missing (frames 21 to 40)"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A live hub on a journal of three segments with 20 steps each, and one of its own."""
    one = Hub(tmp_path / "runs")
    make_run_keys(one.run)
    for life in range(3):
        journal(one.run, (Metrics(step, step, 1.0, {"reward/mean": 0.5}) for step in range(20 * life, 20 * life + 20)))
    one.start()
    yield one
    one.end()


def remote(hub: Hub, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """The run as one of another machine: its connection file and a key."""
    folder.mkdir()
    shutil.copy(hub.run.connection_file, folder / "connection.json")
    shutil.copy(hub.run.keys / "viewer.key", folder / "viewer.key")
    monkeypatch.setenv("DRIFTLINE_KEY", str(folder / "viewer.key"))
    return str(folder / "connection.json")


def test_a_console_hears_of_a_hole_that_comes_while_it_is_attached_and_of_its_end(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = find_target(remote(hub, monkeypatch, tmp_path / "elsewhere"))
    assert elsewhere.directory is None
    sources = [LiveSource(target, operate=False) for target in (find_target(str(hub.run.path)), elsewhere)]
    try:
        until(lambda: all(source.link().heard for source in sources), "both consoles to be attached")
        assert [source.link().missing for source in sources] == ["", ""]
        second = segments(hub.run.journal)[1]
        kept = shutil.move(second, tmp_path / second.name)
        until(lambda: [source.link().missing for source in sources] == [GAP, GAP], "both to say so")
        shown = banner(None, sources[1].link(), [], None)
        assert shown is not None
        assert (shown.word, GAP in shown.text) == ("JOURNAL HOLE", True)
        hub.stop()
        assert [source.link().missing for source in sources] == [GAP, GAP], "what was last heard stands"
        hub.start()
        until(lambda: all(source.link().age < 1.0 for source in sources[:1]), "the hub is heard again")
        until(lambda: sources[0].link().missing == GAP, "the next hub says it, too")
        shutil.move(kept, second)
        until(lambda: sources[0].link().missing == "", "the end of the hole")
    finally:
        for source in sources:
            source.close()
    assert hub.log.read_text().count(GAP) == 2, "each hub logs it once"


@pytest.mark.parametrize(
    "words",
    [
        ("export", "--out", "t.parquet"), ("query", "SELECT count(*) AS n FROM metrics", "--out", "t.parquet"),
        ("tail", "--seconds", "0.5"), ("watch", "--once"), ("status",),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_verbs_on_a_run_of_another_machine_say_the_hole(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    words: tuple[str, ...],
) -> None:  # fmt: skip
    name = remote(hub, monkeypatch, tmp_path / "elsewhere")
    segments(hub.run.journal)[1].unlink()
    with Client(*attach(hub.run, "viewer")) as client:
        until(lambda: client.snapshot().missing == (GAP,), "the hub to see it")
    monkeypatch.chdir(tmp_path)
    main([*words, *([name] if words[0] == "watch" else ["--run", name])])
    printed = capsys.readouterr()
    if words[0] == "status":
        assert f"JOURNAL HOLE: all figures have it: {GAP}" in printed.out
    else:
        assert printed.err.splitlines().count(f"driftline: {GAP}") == 1
    if "--out" in words:
        assert json.loads(pl.read_parquet_metadata(tmp_path / "t.parquet")["driftline.missing"]) == [GAP]


def test_the_folder_is_looked_through_only_when_it_has_changed(tmp_path: Path) -> None:
    run = create(tmp_path, "run")
    for life in range(3):
        journal(run, [Metrics(life, life, 1.0, {"reward/mean": 0.5})])
    watch = HoleWatch(run)
    assert not watch.changed()
    with segments(run.journal)[2].open("ab") as file:
        file.write(b"x")  # as a hub does all the time
    assert not watch.changed()
    segments(run.journal)[1].unlink()
    assert watch.changed()
    watch.look()
    assert watch.missing == ("the journal has a hole: segment 000002 is missing (frames 2 to 2)",)
    assert not watch.changed()
    shutil.move(run.journal, tmp_path / "away")
    assert not watch.changed(), "that the journal is lost is reported as such"


def test_many_holes_are_counted(tmp_path: Path) -> None:
    run = create(tmp_path, "run")
    for life in range(2 * LISTED + 6):
        journal(run, [Metrics(life, life, 1.0, {"reward/mean": 0.5})])
    for path in segments(run.journal)[1:-1:2]:
        path.unlink()
    missing = HoleWatch(run).missing
    assert len(missing) == LISTED + 1
    assert missing[-1] == "and 2 more"


def test_a_hub_of_before_says_nothing_of_holes() -> None:
    """Its beacon and its snapshot end where those of this version go on."""
    beacon = wire.beacon_decoder.decode(wire.pack((1, 2, 2, 0, 3.0, "", "")))
    assert beacon.missing is None
    assert wire.reply_decoder.decode(wire.pack(("snapshot", 1, "run", 1, 2, 3.0, "viewer", ()))).missing == ()


def test_a_beacon_says_it(hub: Hub) -> None:
    run: RunDir = hub.run
    beacon = next_beacon(*attach(run, "viewer"), PATIENCE)
    assert beacon is not None
    assert beacon.missing == ""
