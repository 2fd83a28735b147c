"""A run on another machine, which is this one behind a real sshd: reached, cut off, reached again, nothing missed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from console.connect.target import SshRun
from console.errors import FAILED, NO_RUN, USAGE, CommandError
from driftline.client import Client, Feed
from driftline.frames import Metrics
from driftline.keys import add, load, revoke
from driftline.producer.probe import Probe
from driftline.rundir import list_runs
from tests.e2e.sshd import Sshd
from tests.tui.test_pty import Terminal, environment
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    sshd = Sshd(tmp_path_factory.mktemp("ssh") / "d")
    sshd.start()
    yield sshd
    sshd.stop()


@pytest.fixture
def far(sshd: Sshd, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshRun]:
    """The hub's run as a console of another machine reaches it."""
    monkeypatch.setenv("PATH", sshd.path)
    there = far_run(sshd, hub)
    yield there
    there.close()


def far_run(sshd: Sshd, hub: Hub) -> SshRun:
    return SshRun(sshd.url(hub.run.path), key=None, connection=None)


def ssh_children(pid: int) -> list[psutil.Process]:
    try:
        family = psutil.Process(pid).children(recursive=True)
        return [child for child in family if child.name() == "ssh" and child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def driftline(sshd: Sshd, *args: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "console.cli", *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"PATH": sshd.path},
        stdin=subprocess.DEVNULL,
    )


def test_a_run_far_away_is_read_through_one_connection(far: SshRun, hub: Hub) -> None:
    near = far.connection()
    assert near.live.startswith("ipc://"), "no port of this machine is opened"
    assert near.run == hub.run.id == far.id
    assert far.live()
    assert far.credentials("viewer") == load(hub.run, "viewer")
    with Client(near, far.credentials("operator")) as client:
        assert client.snapshot().role == "operator"
    folder = Path(near.live.removeprefix("ipc://")).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.rglob("*.key")), "keys stay in memory"
    assert len(ssh_children(os.getpid())) == 1
    far.close()
    assert not folder.exists()
    assert ssh_children(os.getpid()) == []


def test_an_ssh_that_is_killed_costs_a_pause_and_no_number(far: SshRun, hub: Hub) -> None:
    probe = Probe("trainer", hub.run)
    sent = 0

    def emit(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            probe.emit({"reward/mean": 0.5}, step=sent)
            sent += 1

    got: list[int] = []
    with Feed(far.connection(), far.credentials("viewer"), refresh=far.connection) as feed:

        def seen() -> bool:
            got.extend(s.seq for s in feed.drain() if isinstance(s.frame(), Metrics))
            return len(got) >= sent

        emit(200)
        until(seen, "the first frames")
        for _ in range(2):
            first = far.ssh_pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            until(far.note, "the console to notice")
            assert "retrying in" in far.note() or "connecting again" in far.note()
            emit(200)
            until(lambda: not far.note(), "the tunnel to come back")
            assert far.ssh_pid != first
            emit(50)
            until(seen, "everything that was missed")
        assert got == sorted(set(got)), "each number once, in order"
        assert len(got) == sent
        assert feed.status.behind == 0
    probe.close(PATIENCE)


def test_a_hub_that_comes_back_elsewhere_is_forwarded_anew(
    far: SshRun, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.connect.target._REREAD_SECONDS", 0.2)
    with Feed(far.connection(), far.credentials("viewer"), refresh=far.connection) as feed:
        until(lambda: feed.status.connected, "the feed")
        hub.kill()
        old = hub.run.connection()
        # A hub keeps its ports if it can: let it forget them.
        hub.run.connection_file.unlink()
        new = hub.start()
        assert (new.live, new.rpc) != (old.live, old.rpc)
        until(lambda: feed.status.connected and feed.status.epoch == 2, "the feed to follow")
    with Client(far.connection(), far.credentials("viewer")) as client:
        assert client.ping() > 0


def test_every_verb_takes_an_address(sshd: Sshd, hub: Hub, tmp_path: Path) -> None:
    probe = Probe("trainer", hub.run)
    for step in range(20):
        probe.emit({"reward/mean": 0.5}, step=step)
    probe.close(PATIENCE)
    url = sshd.url(hub.run.path)
    done = driftline(sshd, "status", "--run", url, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["run"], document["live"], document["step"]) == (hub.run.id, True, 19)
    assert document["trouble"] is None
    done = driftline(sshd, "fix", "list", "--run", url)
    assert done.returncode == 0
    assert "processed-logprobs" in done.stdout
    done = driftline(sshd, "tail", "--run", url, "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert " 19 " in done.stdout
    done = driftline(sshd, "doctor", url, "--json")
    checks = {check["check"]: check["verdict"] for check in json.loads(done.stdout)["checks"]}
    assert (checks["gate"], checks["clock"], checks["hub"]) == ("ok", "ok", "ok"), done.stdout
    out = tmp_path / "m.csv"
    done = driftline(sshd, "export", "--run", url, "--out", str(out))
    assert done.stdout.startswith(f"{out}: 20 rows, "), done.stderr
    assert len(out.read_text().splitlines()) == 21


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ssh://-oProxyCommand=touch%20pwned/x", "the host may have"),
        ("ssh://-oProxyCommand=touch$IFS.pwned/x", "the host may have"),
        ("ssh://-lroot@host/x", "the user may have"),
        ("ssh://host:22x/x", "the port must be"),
        ("ssh://host/x';touch pwned;'", "the path may have"),
        ("ssh://host", "the path of the run directory is missing"),
    ],
)
def test_an_address_that_is_none_starts_nothing(sshd: Sshd, tmp_path: Path, url: str, said: str) -> None:
    before = set(tmp_path.iterdir())
    done = driftline(sshd, "attach", url)
    assert done.returncode == USAGE
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_what_cannot_be_reached_is_reported_in_a_sentence(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", sshd.path)
    with pytest.raises(CommandError, match="is not there; is this the run's directory") as nothing:
        SshRun(sshd.url(tmp_path / "no run"), key=None, connection=None)
    assert nothing.value.exit_code == NO_RUN
    with pytest.raises(CommandError, match="Connection refused"):
        SshRun(f"ssh://{sshd.user}@127.0.0.1:1/x", key=None, connection=None)
    with pytest.raises(CommandError, match="ermission denied"):
        SshRun(f"ssh://no-such-user@127.0.0.1:{sshd.port}/x", key=None, connection=None)
    assert ssh_children(os.getpid()) == []


def test_a_key_from_elsewhere_and_its_end(sshd: Sshd, hub: Hub, tmp_path: Path) -> None:
    brought = tmp_path / "alice.key"
    brought.write_bytes(add(hub.run, "alice", "viewer", "alice").read_bytes())
    connection = tmp_path / "connection.json"
    connection.write_bytes(hub.run.connection_file.read_bytes())

    def known() -> bool:
        return driftline(sshd, "status", "--run", str(connection), "--key", str(brought)).returncode == 0

    until(known, "the hub to read the new grant")
    url = sshd.url(hub.run.path)
    assert driftline(sshd, "status", "--run", url, "--key", str(brought)).returncode == 0
    assert "needs a key: --key FILE" in driftline(sshd, "status", "--run", str(connection)).stderr
    revoke(hub.run, "alice")
    until(lambda: not known(), "the hub to read that it is revoked")
    for run in (str(connection), url):
        done = driftline(sshd, "status", "--run", run, "--key", str(brought))
        assert done.returncode == 1
        assert done.stderr == (
            f"driftline: the hub of run {hub.run.id} does not know this key: it was revoked, or is another run's\n"
        )


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Path]:
    """A live synthetic run, for what needs curves."""
    command = [sys.executable, "-m", "console.cli", "simulate", "--steps", "0", "--rate", "10"]
    process = subprocess.Popen(
        command, env=environment(tmp_path), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=None
    )
    try:
        until(lambda: any(run.live() and run.connection_file.exists() for run in list_runs(tmp_path)), "the run")
        yield list_runs(tmp_path)[0].path
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_the_console_comes_back_by_itself_and_leaves_nothing(sshd: Sshd, simulated: Path) -> None:
    command = [sys.executable, "-m", "console.cli", "attach", sshd.url(simulated), "--operate"]
    terminal = Terminal(command, environment(simulated.parent) | {"PATH": sshd.path}, (100, 24))
    try:
        terminal.expect("clip fraction", "LIVE", "RW")
        [first] = ssh_children(terminal.pid)
        sshd.stop()
        first.kill()
        terminal.expect("TUNNEL LOST")
        terminal.expect("STALE")
        terminal.press(b"S")
        terminal.expect("refused: the feed is")
        sshd.start()
        terminal.expect("LIVE")
        [second] = ssh_children(terminal.pid)
        assert second.pid != first.pid
        terminal.press(b"S")
        terminal.expect("sync weights now")
        terminal.press(b"\x1b[C\r")
        terminal.expect("2 engines at v")
        terminal.press(b"\x1b")
        terminal.expect("clip fraction")
        terminal.press(b"q")
        assert terminal.wait() == 0
        assert b"Traceback" not in terminal.raw
        until(lambda: not second.is_running() or second.status() == psutil.STATUS_ZOMBIE, "ssh to end")
    finally:
        sshd.start() if not sshd._listens() else None
        terminal.close()


def test_a_question_of_ssh_is_answered_before_the_screen_opens(sshd: Sshd, simulated: Path) -> None:
    path = sshd.locked("open sesame")
    command = [sys.executable, "-m", "console.cli", "attach", sshd.url(simulated)]
    terminal = Terminal(command, environment(simulated.parent) | {"PATH": path})
    try:
        terminal.expect("Enter passphrase for key")
        assert b"\x1b[?1049h" not in terminal.raw, "the screen waits"
        terminal.press(b"open sesame\n")
        terminal.expect("clip fraction", "LIVE")
        assert b"open sesame" not in terminal.raw
        terminal.press(b"q")
        assert terminal.wait() == 0
        assert terminal.raw.count(b"Enter passphrase") == 1, "asked once for everything"
    finally:
        terminal.close()
    # No terminal to ask on: a script, a status bar.
    done = subprocess.run(
        [sys.executable, "-m", "console.cli", "status", "--run", sshd.url(simulated)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "ermission denied" in done.stderr


def test_a_console_that_is_killed_takes_its_ssh_along(sshd: Sshd, simulated: Path) -> None:
    command = [sys.executable, "-m", "console.cli", "attach", sshd.url(simulated)]
    terminal = Terminal(command, environment(simulated.parent) | {"PATH": sshd.path})
    try:
        terminal.expect("LIVE", "RO")
        [child] = ssh_children(terminal.pid)
        os.kill(terminal.pid, signal.SIGKILL)
        assert terminal.wait() == -signal.SIGKILL
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "ssh to end")
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("/dev/zero"), "more than 65536 bytes"),
        (lambda path: path.write_bytes(bytes(70_000)), "more than 65536 bytes"),
        (os.mkfifo, "it is a FIFO, not a regular file"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
    ids=["endless", "large", "fifo", "directory"],
)
@pytest.mark.parametrize("name", ["connection.json", "keys/viewer.key"])
def test_a_file_over_there_that_is_no_small_file_is_refused(
    sshd: Sshd, hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], None], reason: str
) -> None:
    monkeypatch.setenv("PATH", sshd.path)
    path = hub.run.path / name
    content = path.read_bytes()
    path.unlink()
    make(path)
    try:
        with pytest.raises(CommandError) as refused, closing(far_run(sshd, hub)) as there:
            there.credentials("viewer")
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(content)
    assert refused.value.exit_code == FAILED
    assert str(refused.value).endswith(reason)
