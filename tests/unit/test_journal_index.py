"""Sidecars and retention: a restart that reads little, and never believes a sidecar that does not fit."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from pathlib import Path

import msgspec
import pytest

import driftline.journal.journal as journal_module
from driftline.frames import Metrics, Tokens, encode
from driftline.hub.retention import RetentionPolicy
from driftline.journal import index as sidecar
from driftline.journal.disk import Disk
from driftline.journal.journal import Journal, JournalError, Record, read, record_decoder, record_encoder, segments
from driftline.rundir import RunDir
from tests.unit.hubs import PATIENCE

TOKENS = encode(Tokens(1, 1, 1.0, 0, b"", b"", b"", b"", b"", b""))


class Sum:
    """The smallest memory: which numbers it has been given."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.loaded = 0

    def restore(self, record: Record) -> None:
        self.seen.append(record.seq)

    def save(self) -> bytes:
        return msgspec.msgpack.encode(self.seen)

    def load(self, saved: bytes) -> None:
        self.seen = msgspec.msgpack.decode(saved, type=list[int])
        self.loaded += 1


def write(journal: Journal, memory: Sum | None, count: int, every: int = 3) -> None:
    for seq in range(journal.head + 1, journal.head + count + 1):
        body = encode(Metrics(seq, 1, 1.0, {"a": 1.0 * seq})) if seq % every else TOKENS
        record = Record(seq, float(seq), "trainer", msgspec.Raw(body), 7, seq)
        journal.append(record_encoder.encode(record), seq, bool(seq % every))
        if memory is not None:
            memory.seen.append(seq)


def opened(folder: Path) -> tuple[Journal, Sum]:
    memory = Sum()
    return Journal(folder, state=memory), memory


def paged(journal: Journal, start: int = 1, tokens: bool = True) -> list[int]:
    got, at = [], start
    while at <= journal.head:
        page, at = journal.page(at, 50, 1 << 20, tokens)
        got += [record_decoder.decode(body).seq for body in page]
    return got


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 2000)


@pytest.mark.usefixtures("small")
def test_a_restart_reads_the_last_segment_only(tmp_path: Path) -> None:
    journal, memory = opened(tmp_path)
    write(journal, memory, 300)
    os.close(journal._open.fd)  # as a kill would leave it
    count = len(segments(tmp_path))
    assert count > 5
    again, known = opened(tmp_path)
    assert known.loaded == 1
    assert again.scanned == segments(tmp_path)[count - 1].stat().st_size
    assert known.seen == list(range(1, 301))
    assert (again.head, again.epoch) == (300, count + 1)
    assert paged(again) == list(range(1, 301))
    assert paged(again, tokens=False) == [n for n in range(1, 301) if n % 3]
    write(again, known, 10)
    again.close()
    third, known = opened(tmp_path)
    assert third.scanned == 0, "after an end in good order there is nothing to read"
    assert known.seen == list(range(1, 311))
    third.close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(12))
def test_sidecars_that_are_wrong_or_gone_are_made_again(tmp_path: Path, seed: int) -> None:
    """Whatever happens to them: the same numbers, the same memory, the same pages."""
    dice = random.Random(seed)
    journal, memory = opened(tmp_path)
    write(journal, memory, 300)
    os.close(journal._open.fd)
    sidecars = sorted([*tmp_path.glob(f"*{sidecar.INDEX}"), *tmp_path.glob(f"*{sidecar.CHECKPOINT}")])
    others = [path.read_bytes() for path in sidecars]
    for path in dice.sample(sidecars, dice.randrange(1, len(sidecars) + 1)):
        data = bytearray(path.read_bytes())
        match dice.randrange(5):
            case 0:
                path.unlink()
            case 1:
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            case 2:
                del data[dice.randrange(len(data)) :]
            case 3:
                data = bytearray(dice.choice(others))
            case _:
                data = bytearray(dice.randbytes(len(data)))
        if path.exists():
            path.write_bytes(data)
    again, known = opened(tmp_path)
    assert known.seen == list(range(1, 301))
    assert again.head == 300
    assert paged(again) == list(range(1, 301))
    again.close()
    third, _ = opened(tmp_path)
    assert third.scanned == 0, "made again"
    third.close()


@pytest.mark.usefixtures("small")
def test_a_sidecar_does_not_stand_for_a_segment_that_has_lost_its_end(tmp_path: Path) -> None:
    journal, memory = opened(tmp_path)
    write(journal, memory, 100)
    journal.close()
    last = segments(tmp_path)[-1]
    left = max(s.seq for s in read(tmp_path)) - 1
    os.truncate(last, last.stat().st_size - 3)
    again, known = opened(tmp_path)
    assert known.seen == list(range(1, left + 1))
    assert again.head == left
    assert (last.with_name(f"{last.name}.torn")).exists()
    again.close()


@pytest.mark.usefixtures("small")
def test_a_wrong_index_found_while_paging_is_made_again(tmp_path: Path) -> None:
    journal, memory = opened(tmp_path)
    write(journal, memory, 100)
    journal.close()
    again, _ = opened(tmp_path)
    path = segments(tmp_path)[0].with_suffix(sidecar.INDEX)
    data = bytearray(path.read_bytes())
    data[50] ^= 4  # the body: only the head is looked at when the journal is opened
    path.write_bytes(data)
    assert paged(again) == list(range(1, 101))
    assert sidecar.load_index(segments(tmp_path)[0]) is not None
    again.close()


def test_segments_are_closed_by_number_and_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_RECORDS", 10)
    journal, memory = opened(tmp_path)
    write(journal, memory, 35)
    assert len(segments(tmp_path)) == 4
    journal._until = time.monotonic()
    write(journal, memory, 1)
    assert len(segments(tmp_path)) == 5
    journal._until = 0.0
    assert paged(journal) == list(range(1, 37))
    journal.close()


@pytest.mark.usefixtures("small")
def test_paging_holds_few_segments_open(tmp_path: Path) -> None:
    journal, memory = opened(tmp_path)
    write(journal, memory, 1000)
    before = len(os.listdir("/proc/self/fd"))
    assert paged(journal) == list(range(1, 1001))
    assert len(segments(tmp_path)) > 3 * sidecar.OPEN_SEGMENTS
    assert len(os.listdir("/proc/self/fd")) <= before + sidecar.OPEN_SEGMENTS
    journal.close()
    assert len(os.listdir("/proc/self/fd")) < before


@pytest.mark.usefixtures("small")
def test_retention_takes_whole_old_segments_and_nothing_else(tmp_path: Path) -> None:
    journal, memory = opened(tmp_path)
    write(journal, memory, 500)
    size = sum(path.stat().st_size for path in segments(tmp_path))
    assert journal.expired(0, float("-inf"), lambda _: False) == [], "no limit is set"
    assert journal.expired(size, float("-inf"), lambda _: False) == []
    limits = RetentionPolicy(gb=float("inf"), hours=float("inf"))  # as TOML may say it
    assert limits.expired(journal, RunDir(tmp_path), journal.now) == []
    gone = journal.expired(size // 2, float("-inf"), lambda _: False)
    journal.delete(gone)
    left = segments(tmp_path)
    assert gone == sorted(gone)
    assert not set(gone) & set(left)
    assert not any(path.with_suffix(sidecar.INDEX).exists() for path in gone)
    assert sum(path.stat().st_size for path in left) <= size // 2
    first = journal.first
    assert 1 < first <= 500
    assert paged(journal) == list(range(first, 501))
    assert journal.page(1, 3, 1 << 20, True)[1] == first + 3, "from before the start: from the start"
    journal.close()
    again, known = opened(tmp_path)
    assert known.seen == list(range(1, 501)), "what the deleted ones added up to is still known"
    assert again.first == first
    write(again, known, 1)
    assert [s.seq for s in read(tmp_path)] == list(range(first, 502))
    assert again.expired(1, float("-inf"), lambda _: False)[-1] < segments(tmp_path)[-1], "never the open one"
    again.close()


@pytest.mark.usefixtures("small")
def test_a_kill_after_retention_took_all_that_was_closed_loses_no_memory(tmp_path: Path) -> None:
    journal, memory = opened(tmp_path)
    write(journal, memory, 100)
    journal.close()
    for _ in range(3):  # killed each time, with nothing written since
        journal, memory = opened(tmp_path)
        journal.delete(journal.expired(1, float("inf"), lambda _: False))
        assert len(segments(tmp_path)) == 1, "the open one alone"
        assert memory.seen == list(range(1, 101)), "from the checkpoint of a segment that has gone"
        assert journal.head == 100
    write(journal, memory, 5)
    journal, memory = opened(tmp_path)
    assert memory.seen == list(range(1, 106))
    assert paged(journal) == list(range(101, 106))
    journal.close()


@pytest.mark.usefixtures("small")
def test_a_checkpoint_without_its_segment_stands_for_older_segments_only(tmp_path: Path) -> None:
    """An operator has emptied the folder by hand and left sidecars: a new journal's segments are read all the same."""
    journal, memory = opened(tmp_path)
    write(journal, memory, 300)
    journal.close()
    for path in segments(tmp_path):
        path.unlink()
    journal, memory = opened(tmp_path)
    assert (journal.head, memory.loaded) == (0, 0)
    write(journal, memory, 10)  # killed
    journal, memory = opened(tmp_path)
    assert memory.seen == list(range(1, 11))
    journal.close()


@pytest.mark.usefixtures("small")
def test_retention_by_age_and_what_is_spared(tmp_path: Path) -> None:
    journal, memory = opened(tmp_path)
    write(journal, memory, 300)
    journal.close()
    paths = segments(tmp_path)
    for path in paths[:4]:
        os.utime(path, (1000.0, 1000.0))
    journal, _ = opened(tmp_path)
    third = int(paths[2].stem)
    assert journal.expired(0, 2000.0, lambda number: number == third) == paths[:2], "and nothing after what is spared"
    assert journal.expired(0, 2000.0, lambda _: False) == paths[2:4]
    journal.close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("jump", [1e8, -1e8])
def test_a_wall_clock_that_jumps_makes_no_segment_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Set right by three years while the run goes on; what is kept for an hour must not go for that."""
    run, keep = RunDir(tmp_path), RetentionPolicy(hours=1.0)
    journal, memory = opened(run.journal)
    write(journal, memory, 100)
    wall = time.time
    monkeypatch.setattr(journal_module.time, "time", lambda: wall() + jump)
    write(journal, memory, 100)
    assert len(segments(run.journal)) > 3
    assert keep.expired(journal, run, journal.now) == []
    monkeypatch.undo()
    assert keep.expired(journal, run, journal.now + 3601), "but an hour does"
    journal.close()


class FailingDisk(Disk):
    """Fails when ordered to; a failed sync loses what was not on the disk, as the kernel's page cache does."""

    def __init__(self) -> None:
        self.failing = False
        self.synced = b""
        self.again_from: list[tuple[int, int]] = []

    def sync(self, fd: int) -> None:
        if self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)

    def rewrite(self, fd: int, start: int, end: int) -> None:
        self.again_from.append((start, end))
        super().rewrite(fd, start, end)


def test_what_a_failed_sync_may_have_lost_is_written_again(tmp_path: Path) -> None:
    """The kernel reports a write error once and then takes the pages for clean."""
    disk = FailingDisk()
    journal = Journal(tmp_path, disk=disk)
    write(journal, None, 10)
    journal.sync()
    start = journal._open.size
    write(journal, None, 10)
    disk.failing = True
    for _ in range(2):
        with pytest.raises(JournalError, match=r"000001\.rlj: Input/output error"):
            journal.sync()
    write(journal, None, 10)
    disk.failing = False
    journal.sync()
    assert disk.again_from[-1] == (start, journal._open.size)
    disk.again_from.clear()
    journal.sync()
    assert not disk.again_from
    journal.close()
    assert [s.seq for s in read(tmp_path)] == list(range(1, 31))


def test_a_sidecar_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 2000)
    journal, memory = opened(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("driftline.journal.disk.replace", full)
        write(journal, memory, 100)
        assert journal.expired(1, float("-inf"), lambda _: False) == [], "no checkpoint stands for it"
        assert paged(journal) == list(range(1, 101))
        journal.close()
    again, known = opened(tmp_path)
    assert known.seen == list(range(1, 101))
    again.close()


class StuckDisk(FailingDisk):
    """Its syncs wait until they are let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.go.set()
        self.stuck = threading.Event()

    def sync(self, fd: int) -> None:
        if not self.go.is_set():
            self.stuck.set()
        assert self.go.wait(PATIENCE)
        super().sync(fd)


def in_thread(journal: Journal, failures: list[JournalError]) -> threading.Thread:
    def sync() -> None:
        try:
            journal.sync()
        except JournalError as error:
            failures.append(error)

    thread = threading.Thread(target=sync)
    thread.start()
    return thread


@pytest.mark.usefixtures("small")
def test_a_writer_that_is_deferred_does_not_wait_for_a_disk_that_is_stuck(tmp_path: Path) -> None:
    disk, memory = StuckDisk(), Sum()
    journal = Journal(tmp_path, state=memory, disk=disk)
    journal.deferred = True
    failures: list[JournalError] = []
    write(journal, memory, 5)
    disk.go.clear()
    thread = in_thread(journal, failures)
    assert disk.stuck.wait(PATIENCE), "the other thread is at the disk"
    while len(segments(tmp_path)) < 3:
        write(journal, memory, 1)
    written = journal.head
    assert paged(journal) == list(range(1, written + 1)), "and what was left can be read meanwhile"
    assert not list(tmp_path.glob(f"*{sidecar.INDEX}")), "nothing stands for what is not on the disk"
    assert not list(tmp_path.glob(f"*{sidecar.CHECKPOINT}"))
    assert thread.is_alive()
    disk.go.set()
    thread.join(PATIENCE)
    journal.sync()
    assert not failures
    assert [path.stem for path in sorted(tmp_path.glob(f"*{sidecar.INDEX}"))] == ["000001", "000002"]
    before = len(os.listdir("/proc/self/fd"))
    write(journal, memory, 100)
    journal.sync()
    assert len(os.listdir("/proc/self/fd")) <= before + sidecar.OPEN_SEGMENTS, "what was left is closed"
    os.close(journal._open.fd)  # as a kill leaves it
    again, known = opened(tmp_path)
    assert known.seen == list(range(1, journal.head + 1))
    assert again.scanned == segments(tmp_path)[-2].stat().st_size, "of the segments only the last"
    again.close()


@pytest.mark.usefixtures("small")
def test_a_disk_that_does_not_sync_what_was_left_is_not_left_more_and_more(tmp_path: Path) -> None:
    disk, memory = FailingDisk(), Sum()
    journal = Journal(tmp_path, state=memory, disk=disk)
    journal.deferred = True
    disk.failing = True
    with pytest.raises(JournalError, match=r"000001\.rlj: Input/output error"):
        write(journal, memory, 1000)
    held = journal.head
    assert len(segments(tmp_path)) == journal_module._LEFT_KEPT + 1
    assert held == memory.seen[-1]
    with pytest.raises(JournalError, match=r"000001\.rlj: Input/output error"):
        journal.sync()
    disk.failing = False
    journal.sync()
    assert disk.again_from[0] == (0, segments(tmp_path)[0].stat().st_size), "what the failed sync may have lost"
    write(journal, memory, 10)
    journal.close()
    assert [s.seq for s in read(tmp_path)] == list(range(1, held + 11))
    again, known = opened(tmp_path)
    assert known.seen == list(range(1, held + 11))
    assert again.scanned == 0
    again.close()


@pytest.mark.usefixtures("small")
def test_a_kill_before_what_was_left_is_closed_costs_nothing_but_reading(tmp_path: Path) -> None:
    journal, memory = opened(tmp_path)
    write(journal, memory, 100)
    journal.deferred = True
    while len(journal._left) < 2:
        write(journal, memory, 1)
    for one in [*journal._left, journal._open]:
        os.close(one.fd)
    again, known = opened(tmp_path)
    assert known.seen == memory.seen
    assert paged(again) == memory.seen
    again.close()


@pytest.mark.usefixtures("small")
def test_a_writer_and_a_syncer_at_once(tmp_path: Path) -> None:
    """What a sync has claimed is on the disk was written before it, wherever the segments end."""
    journal, memory = opened(tmp_path)
    journal.deferred = True
    ended = threading.Event()
    failures: list[JournalError] = []

    def sync() -> None:
        while not ended.is_set():
            try:
                journal.sync()
            except JournalError as error:
                failures.append(error)

    threads = [threading.Thread(target=sync) for _ in range(2)]
    for thread in threads:
        thread.start()
    write(journal, memory, 3000)
    ended.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures
    journal.close()
    again, known = opened(tmp_path)
    assert (known.seen, again.scanned) == (list(range(1, 3001)), 0)
    assert paged(again) == known.seen
    again.close()
