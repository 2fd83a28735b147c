"""Files of the journal are taken away under a live hub: it acknowledges nothing, and goes on where they are back."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from console.cli.main import main
from driftline.audit import entries, verify
from driftline.client import Client, Feed, RefusedError, attach
from driftline.frames import Event, Metrics
from driftline.journal.journal import Journal, JournalError, read, segments
from driftline.journal.records import Record, record_encoder
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(120)

FRAMES = 60


@pytest.fixture
def probe(hub: Hub) -> Iterator[Probe]:
    probe = Probe("trainer", hub.run)
    yield probe
    probe.close(0.1)


@pytest.fixture
def feed(hub: Hub) -> Iterator[Feed]:
    with Feed(*attach(hub.run, "viewer")) as feed:
        yield feed


def emit(probe: Probe, first: int) -> None:
    for step in range(first, first + FRAMES):
        probe.emit({"a": float(step)}, step=step)


def steps(run: RunDir) -> list[int]:
    return [frame.step for s in read(run.journal) if isinstance(frame := s.frame(), Metrics)]


def events(run: RunDir) -> list[Event]:
    frames = [s.frame() for s in read(run.journal)]
    return [frame for frame in frames if isinstance(frame, Event) and frame.kind == "journal.lost"]


def answer(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(list(arguments))
    return code, out.getvalue()


def processor_seconds(hub: Hub) -> float:
    assert hub.process is not None
    used = psutil.Process(hub.process.pid).cpu_times()
    return float(used.user + used.system)


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("take_away", [remove, rename])
def test_a_journal_taken_away_is_noticed_and_goes_on_where_a_new_directory_is(
    hub: Hub, probe: Probe, feed: Feed, take_away: Callable[[Path], None]
) -> None:
    emit(probe, 0)
    assert probe.flush(PATIENCE)
    take_away(hub.run.journal)
    until(lambda: feed.status.degraded, "the feed to report it")
    assert feed.status.degraded == f"journal lost: {hub.run.journal} was removed or renamed"
    acked = probe.stats.acked
    began, used = time.monotonic(), processor_seconds(hub)
    emit(probe, FRAMES)
    assert not probe.flush(1.0)
    assert probe.stats.acked == acked, "nothing is acknowledged"
    share = (processor_seconds(hub) - used) / (time.monotonic() - began)
    assert share < 0.25, "what cannot be written is not sent again and again without a pause"
    with Client(*attach(hub.run, "operator")) as client, pytest.raises(RefusedError, match="journal lost"):
        client.command("mark", {"text": "x"})

    _, line = answer("status", "--run", str(hub.run.path))
    assert line.rstrip().endswith("JOURNAL LOST")
    _, text = answer("status", "--json", "--run", str(hub.run.path))
    trouble = json.loads(text)["trouble"]
    assert trouble["word"] == "JOURNAL LOST"
    assert str(hub.run.journal) in trouble["text"]
    code, text = answer("doctor", "--json", str(hub.run.path))
    (found,) = [check for check in json.loads(text)["checks"] if check["check"] == "hub"]
    assert (code, found["verdict"]) == (1, "fail")
    assert "journal lost" in found["text"]
    assert "put the directory back" in found["todo"]

    hub.run.journal.mkdir(mode=0o700)
    assert probe.flush(PATIENCE)
    until(lambda: not feed.status.degraded, "the all-clear")
    assert steps(hub.run) == list(range(2 * FRAMES)), "what the descriptors still had is there, and what came after"
    (event,) = events(hub.run)
    assert event.data == {"gone": 0}
    assert "no acknowledged frame is gone" in event.text
    seen: list[int] = []

    def followed() -> bool:
        seen.extend(s.seq for s in feed.drain())
        return len(seen) > 2 * FRAMES

    until(followed, "a console to have everything")
    assert seen == list(range(1, 2 * FRAMES + 2))
    assert feed.status.rewinds == 0

    hub.kill()
    hub.start()
    emit(probe, 2 * FRAMES)
    assert probe.flush(PATIENCE)
    assert steps(hub.run) == list(range(3 * FRAMES)), "the next hub goes on from there"


def test_a_directory_put_back_goes_on_as_if_it_had_not_been_away(hub: Hub, probe: Probe, feed: Feed) -> None:
    emit(probe, 0)
    assert probe.flush(PATIENCE)
    away = hub.run.path / "away"
    hub.run.journal.rename(away)
    until(lambda: feed.status.degraded, "the feed to report it")
    emit(probe, FRAMES)
    assert not probe.flush(0.5)
    before = segments(away)
    away.rename(hub.run.journal)
    assert probe.flush(PATIENCE)
    assert steps(hub.run) == list(range(2 * FRAMES))
    assert [path.name for path in segments(hub.run.journal)] == [path.name for path in before]
    assert "the same files are back" in events(hub.run)[0].text


def test_a_directory_replaced_by_an_empty_one_says_how_many_frames_are_gone(hub: Hub, probe: Probe) -> None:
    """Closed segments are not open any more: they are what can be gone. What they added up to is known all the same."""
    emit(probe, 0)
    assert probe.flush(PATIENCE)
    hub.stop()
    hub.start()
    emit(probe, FRAMES)
    assert probe.flush(PATIENCE)
    hub.run.journal.rename(hub.run.path / "away")
    hub.run.journal.mkdir(mode=0o700)
    emit(probe, 2 * FRAMES)
    until(lambda: events(hub.run), "the event")
    assert probe.flush(PATIENCE)
    (event,) = events(hub.run)
    assert (event.level, event.data) == ("error", {"gone": FRAMES})
    assert f"{FRAMES} acknowledged frames are gone" in event.text
    assert steps(hub.run) == list(range(FRAMES, 3 * FRAMES))
    head = [s.seq for s in read(hub.run.journal)][-1]
    assert head == 3 * FRAMES + 1, "no number is given twice"
    hub.kill()
    hub.start()
    probe.emit({"a": 1.0}, step=999)
    assert probe.flush(PATIENCE)
    assert [s.seq for s in read(hub.run.journal)][-1] == head + 1


def test_a_copy_in_the_place_of_the_directory_gets_only_what_it_lacks(hub: Hub, probe: Probe) -> None:
    emit(probe, 0)
    assert probe.flush(PATIENCE)
    copy = hub.run.path / "copy"
    shutil.copytree(hub.run.journal, copy)
    emit(probe, FRAMES)
    assert probe.flush(PATIENCE)
    hub.run.journal.rename(hub.run.path / "away")
    copy.rename(hub.run.journal)
    until(lambda: events(hub.run), "the event")
    emit(probe, 2 * FRAMES)
    assert probe.flush(PATIENCE)
    assert steps(hub.run) == list(range(3 * FRAMES)), "each once"
    assert events(hub.run)[0].data == {"gone": 0}


def test_the_open_segment_alone_is_removed_or_replaced(hub: Hub, probe: Probe) -> None:
    for life, harm in enumerate((Path.unlink, lambda path: path.with_suffix(".old").rename(path.with_suffix(".x")))):
        emit(probe, life * FRAMES)
        assert probe.flush(PATIENCE)
        segment = segments(hub.run.journal)[-1]
        if life:
            shutil.copy(segment, segment.with_suffix(".old"))
            segment.unlink()
        harm(segment)
        until(lambda life=life: len(events(hub.run)) == life + 1, "the event")
    assert steps(hub.run) == list(range(2 * FRAMES))


def test_a_renamed_run_directory_is_noticed_and_goes_on_when_it_is_back(hub: Hub, probe: Probe, feed: Feed) -> None:
    emit(probe, 0)
    assert probe.flush(PATIENCE)
    away = hub.run.path.with_name("moved")
    hub.run.path.rename(away)
    until(lambda: feed.status.degraded, "the feed to report it")
    emit(probe, FRAMES)
    assert not probe.flush(0.5)
    assert RunDir(away).live()
    _, line = answer("status", "--run", str(away))
    assert line.rstrip().endswith("JOURNAL LOST")
    away.rename(hub.run.path)
    assert probe.flush(PATIENCE)
    assert steps(hub.run) == list(range(2 * FRAMES))


def test_a_run_directory_replaced_by_a_copy_has_its_hub_again(hub: Hub, probe: Probe) -> None:
    """Also its lock: a second hub on the same run would write into the same journal."""
    emit(probe, 0)
    assert probe.flush(PATIENCE)
    away = hub.run.path.with_name("moved")
    shutil.copytree(hub.run.path, copy := hub.run.path.with_name("copy"))
    hub.run.path.rename(away)
    copy.rename(hub.run.path)
    until(lambda: events(hub.run), "the event")
    assert hub.run.live()
    assert not RunDir(away).live()
    emit(probe, FRAMES)
    assert probe.flush(PATIENCE)
    assert steps(hub.run) == list(range(2 * FRAMES))


@pytest.mark.parametrize("way", ["removed", "an older copy", "another log"])
def test_the_audit_log_is_put_back_with_all_its_lines(hub: Hub, tmp_path: Path, way: str) -> None:
    path = hub.run.audit
    older, before = path.read_bytes(), b""
    with Client(*attach(hub.run, "operator")) as client:
        client.command("mark", {"text": "x"})
        until(lambda: any(line.kind == "command.intent" for line in entries(path)), "the command's intent")
        before = path.read_bytes()
        path.unlink()
        if way != "removed":
            path.write_bytes(older if way == "an older copy" else b"something else\n")
        if way == "another log":
            until(lambda: "another audit log is in its place" in hub.log.read_text(), "a line in the hub's log")
            path.unlink()
        until(lambda: path.exists() and any(line.kind == "hub.audit_restored" for line in entries(path)), "the log")
        client.command("mark", {"text": "y"})
    until(lambda: sum(line.kind == "command.intent" for line in entries(path)) == 2, "the next command")
    assert path.read_bytes().startswith(before)
    assert verify(path).error == ""


def test_another_journal_in_its_place_is_left_alone(hub: Hub, probe: Probe, feed: Feed, tmp_path: Path) -> None:
    emit(probe, 0)
    assert probe.flush(PATIENCE)
    other = tmp_path / "other"
    journal = Journal(other)
    for seq in range(1, 500):
        body = record_encoder.encode(Record(seq, 0.0, "x", b"\x92\xa1m\x01"))
        journal.append(body, seq, plain=True)
    journal.close()
    hub.run.journal.rename(away := hub.run.path / "away")
    other.rename(hub.run.journal)
    until(lambda: "records up to 499" in feed.status.degraded, "the reason")
    emit(probe, FRAMES)
    assert not probe.flush(0.5)
    hub.run.journal.rename(other)
    away.rename(hub.run.journal)
    assert probe.flush(PATIENCE)
    assert steps(hub.run) == list(range(2 * FRAMES))


def test_a_read_only_directory_is_noticed(hub: Hub, probe: Probe, feed: Feed) -> None:
    emit(probe, 0)
    assert probe.flush(PATIENCE)
    hub.run.journal.chmod(0o500)
    if os.access(hub.run.journal, os.W_OK):
        pytest.skip("this user may write into a read-only directory, as root may")
    try:
        until(lambda: feed.status.degraded, "the feed to report it")
        assert feed.status.degraded == f"journal lost: {hub.run.journal} is read-only"
        emit(probe, FRAMES)
        assert not probe.flush(0.5)
    finally:
        hub.run.journal.chmod(0o700)
    assert probe.flush(PATIENCE)
    assert steps(hub.run) == list(range(2 * FRAMES))


def test_a_lost_journal_takes_nothing_and_counts_what_only_it_has(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for seq in range(1, 11):
        journal.append(record_encoder.encode(Record(seq, 0.0, "x", b"\x92\xa1m\x01")), seq, plain=True)
    assert journal.check()
    shutil.rmtree(journal.folder)
    assert not journal.check()
    assert journal.unsafe == 10
    for refused in (lambda: journal.append(b"x", 11, plain=True), journal.sync, journal.resume):
        with pytest.raises(JournalError, match=r"journal lost: .* was removed or renamed"):
            refused()
    journal.folder.mkdir()
    assert journal.resume() == 0
    assert journal.check()
    assert len(journal.page(1, 100, 10**6, tokens=True)[0]) == 10
    journal.close()
