"""Faults 1 and 12, the disk's part: a restart over a large journal, and disks that fail or are full."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from driftline import wire
from driftline.client import Client, ClientError, Feed, attach
from driftline.frames import Command, Metrics, encode
from driftline.hub.core import Core
from driftline.journal.journal import Damage, Journal, Record, read, record_encoder, segments
from driftline.keys import load, new_pair
from driftline.producer.probe import Probe
from tests.faults.scale import FULL, scaled
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(900)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def test_f01_the_first_frame_after_a_restart_does_not_wait_for_the_journal(hub: Hub, tmp_path: Path) -> None:
    """Killed again and again over a journal of up to a GiB, whose last segment the new hub has to read."""
    assert hub.stop() == 0
    size, kills = scaled(0.02, 1.0), scaled(3, 20)
    core = Core(hub.run.id, 1)
    journal = Journal(hub.run.journal, state=core)
    body = msgspec.Raw(encode(Metrics(1, 1, 1.0, {f"m/{i}": i / 3 for i in range(30)})))
    seq, written = journal.head, 0
    while written < size * 2**30:
        seq += 1
        record = Record(seq, 1.0, "trainer", body, 7, seq)
        data = record_encoder.encode(record)
        journal.append(data, seq, True)
        core.restore(record)
        written += len(data)
    os.close(journal._open.fd)  # as a kill leaves it
    empty = Hub(tmp_path)
    took: dict[str, list[float]] = {"large": [], "empty": []}
    cpu: dict[str, list[float]] = {"large": [], "empty": []}
    hubs = {"large": hub, "empty": empty}
    try:
        for one in hubs.values():
            one.start()
        probes = {which: Probe("trainer", one.run) for which, one in hubs.items()}
        for step in range(kills):
            for which, one in hubs.items():
                probe = probes[which]
                one.kill()
                probe.emit({"a": 1.0}, step=step)
                sent = probe.stats.acked
                start = time.perf_counter()
                one.start()
                until(lambda p=probe, s=sent: p.stats.acked > s, "the frame emitted while the hub was away")
                took[which].append(time.perf_counter() - start)
                assert one.process is not None
                times = psutil.Process(one.process.pid).cpu_times()
                cpu[which].append(times.user + times.system)
        for probe in probes.values():
            probe.close(0.1)
    finally:
        empty.end()
    number = len(segments(hub.run.journal))
    print(f"f01: journal of {written / 2**30:.2f} GiB in {number} segments, and an empty one:")
    for which in hubs:
        p50, p99 = statistics.median(took[which]), percentile(took[which], 0.99)
        print(
            f"f01: {which}: from the start of the hub's process to the first frame in the journal p50 {p50:.2f} s, p99 "
            f"{p99:.2f} s; CPU time of it p50 {statistics.median(cpu[which]):.2f} s, max {max(cpu[which]):.2f} s"
        )
    # Whatever else the machine does costs both alike; the CPU time is what it would take on one that is idle.
    assert statistics.median(took["large"]) <= 2 * statistics.median(took["empty"])
    assert not FULL or max(cpu["large"]) <= 1.0
    log = hub.log.read_text()
    assert f"head {seq}," in log
    read_at_start = [int(line.split(" bytes of the journal")[0].rpartition(" ")[2]) for line in log.splitlines()[1:]]
    assert max(read_at_start) <= 64 * 2**20 + 2**20, "no more than a segment"


class Faulty:
    """A hub on a disk that obeys flags."""

    def __init__(self, folder: Path) -> None:
        self.flags = folder / "flags"
        self.flags.mkdir()
        self.hub = Hub(folder)
        command = [sys.executable, "-m", "tests.faults.badhub", str(self.flags), str(self.hub.run.path)]
        self.hub.popen = lambda *options: subprocess.Popen(  # type: ignore[method-assign]
            [*command, *options], stderr=subprocess.DEVNULL, text=True
        )
        self.hub.start()

    def set(self, flag: str, on: bool) -> None:
        (self.flags / flag).touch() if on else (self.flags / flag).unlink()


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    faulty = Faulty(tmp_path)
    yield faulty
    faulty.hub.end()


def test_f10_a_hub_whose_loop_hangs_is_called_stale_and_lets_no_client_in(faulty: Faulty) -> None:
    """Its I/O thread goes on: connections stand, heartbeats of the transport are answered, and mean nothing."""
    run = faulty.hub.run
    with Probe("trainer", run) as probe, Feed(*attach(run, "viewer")) as feed:
        until(lambda: probe.connected and feed.status.connected, "both")
        faulty.set("hang", True)
        start = time.monotonic()
        probe.emit({"a": 1.0}, step=1)
        until(lambda: feed.status.stale and "silent" in feed.status.error, "the feed to say so")
        print(f"f10: stale after {time.monotonic() - start:.1f} s")
        for keys in (load(run, "viewer"), new_pair()):
            with Client(run.connection(), keys) as client, pytest.raises(ClientError, match="does not answer"):
                client.ping(0.5)
        faulty.set("hang", False)
        until(lambda: feed.status.connected and not feed.status.error, "the feed to recover")
        assert probe.flush(PATIENCE)
        assert [s.frame().step for s in read(run.journal) if s.producer == "trainer"] == [1]


@pytest.mark.parametrize("how", ["write", "short", "sync"])
def test_f12_errors_of_the_disk_are_reported_at_once_and_acknowledge_nothing(faulty: Faulty, how: str) -> None:
    """EIO from write, writes cut short, EIO from fdatasync; each comes and goes."""
    rounds, frames, run = scaled(2, 20), 50, faulty.hub.run
    reported: list[float] = []
    taken: dict[bool, list[float]] = {False: [], True: []}
    commands: list[str] = []
    with (
        Probe("trainer", run, on_command=lambda c: (commands.append(c.id), probe.ack(c.id, "applied"))[0]) as probe,
        Feed(*attach(run, "operator")) as feed,
        Client(*attach(run, "operator")) as client,
    ):
        step = 0

        def emit(failing: bool) -> None:
            nonlocal step
            for _ in range(frames):
                start = time.perf_counter()
                probe.emit({"a": 1.0}, step=step)
                taken[failing].append(time.perf_counter() - start)
                step += 1

        for _ in range(rounds):
            emit(False)
            assert probe.flush(PATIENCE)
            before = probe.stats.acked
            faulty.set(how, True)
            start = time.monotonic()
            emit(True)
            until(lambda: feed.status.degraded, "the feed to report it")
            reported.append(time.monotonic() - start)
            with pytest.raises(ClientError):
                client._ask(wire.CommandReply, _mark, 0.3)
            if how == "sync":
                assert not commands, "no command goes out that is not on the disk"
            else:
                assert probe.stats.acked == before, "nothing is acknowledged that is not written"
            damage = Damage()
            assert sum(1 for _ in read(run.journal, damage=damage)) >= probe.stats.acked
            assert damage.bytes == 0
            faulty.set(how, False)
            assert probe.flush(PATIENCE)
            until(lambda: not feed.status.degraded, "the all-clear")
            commands.clear()
        assert client.wait(client.command("mark", {"text": "x"}), PATIENCE).state == "applied"
        assert probe.stats.dropped == 0
    damage = Damage()
    steps = [f.step for s in read(run.journal, damage=damage) if isinstance(f := s.frame(), Metrics)]
    assert steps == list(range(step))
    assert (damage.bytes, damage.torn) == (0, 0)
    calm, failing = (statistics.median(taken[key]) for key in (False, True))
    print(
        f"f12 {how}: errors reported after at most {max(reported):.2f} s; emit p50 {calm * 1e6:.1f} us before, "
        f"{failing * 1e6:.1f} us while it fails"
    )
    assert max(reported) < scaled(PATIENCE, 1.0)


def _mark(number: int) -> wire.CommandRequest:
    command = Command(f"{number:032x}", "mark", {"text": "x"}, -1, time.time() + 0.2)
    return wire.CommandRequest(number, command)


def _namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return subprocess.run(probe, capture_output=True, timeout=30).returncode == 0


@pytest.mark.skipif(not _namespaces(), reason="a file system of a few MB needs a mount in a user namespace")
def test_f12_a_file_system_that_is_really_full(tmp_path: Path) -> None:
    """A tmpfs of 2 MB under the journal, filled by the run itself; then by another program, which makes room again."""
    hub = Hub(tmp_path)
    run = hub.run
    script = f"mount -t tmpfs -o size=2m tmpfs {run.journal} && exec {sys.executable} -m driftline.hub {run.path}"
    hub.popen = lambda *options: subprocess.Popen(  # type: ignore[method-assign]
        ["unshare", "-rm", "sh", "-c", script], stderr=subprocess.DEVNULL, text=True
    )
    hub.start()
    try:
        assert hub.process is not None
        there = Path(f"/proc/{hub.process.pid}/root{run.journal}")
        with Probe("trainer", run) as probe, Feed(*attach(run, "operator")) as feed:
            filler = there / "filler"
            filler.write_bytes(b"x" * 1_500_000)
            for step in range(3000):
                probe.emit({f"m/{i}": 1.0 for i in range(30)}, step=step)
            until(lambda: feed.status.degraded, "the feed to report it")
            assert "No space left" in feed.status.degraded or "only a part" in feed.status.degraded
            until(lambda: not probe.flush(0.3), "acks to stop")
            assert probe.stats.acked <= sum(1 for _ in read(there)) < 3000
            filler.unlink()
            until(lambda: not feed.status.degraded, "the all-clear")
            until(lambda: probe.stats.acked > 2000 or feed.status.degraded, "more frames")
            damage = Damage()
            steps = [s.frame().step for s in read(there, damage=damage)]
            assert steps == list(range(len(steps)))
            assert damage.bytes == 0
            print(f"f12 tmpfs: {len(steps)} records, {damage}")
    finally:
        hub.end()
