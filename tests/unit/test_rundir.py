"""Run directories: made private, found by id, path or liveness."""

import errno
import fcntl
import os
import re
from pathlib import Path

import pytest

from driftline import rundir


def test_a_new_run_is_private_and_complete(tmp_path: Path):
    run = rundir.create(tmp_path / "runs", "demo")
    assert run.id.startswith("demo-")
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert run.keys.stat().st_mode & 0o777 == 0o700
    assert run.journal.is_dir()


def test_live_follows_the_lock_and_not_the_file(tmp_path: Path):
    run = rundir.create(tmp_path, "demo")
    assert not run.live()
    fd = os.open(run.lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        assert not run.live()
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert run.live()
        assert rundir.find(None, tmp_path).path == run.path
    finally:
        os.close(fd)
    assert not run.live()


def test_no_live_run_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(rundir.RUN_VARIABLE, raising=False)
    with pytest.raises(rundir.RunError, match=r"no live run in .*; start one with: driftline run"):
        rundir.find(None, tmp_path)


def test_find_by_id_and_path_and_not_by_accident(tmp_path: Path):
    run = rundir.create(tmp_path, "demo")
    assert rundir.find(run.id, tmp_path).path == run.path
    assert rundir.find(str(run.path), tmp_path).path == run.path
    with pytest.raises(rundir.RunError, match="no run 'other'"):
        rundir.find("other", tmp_path)
    (tmp_path / "plain").mkdir()
    with pytest.raises(rundir.RunError):
        rundir.find("plain", tmp_path)


def test_what_cannot_be_looked_at_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As root everything can be: the folder of another user's is one whose every question the system refuses."""
    mine, theirs = rundir.create(tmp_path, "mine"), rundir.create(tmp_path, "theirs")
    stat = os.stat

    def refusing(path, *args, **options):
        if isinstance(path, str | os.PathLike) and Path(path).is_relative_to(theirs.path / "journal"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr("os.stat", refusing)
    assert rundir.list_runs(tmp_path) == [mine]
    with pytest.raises(rundir.RunError, match=rf"run '{theirs.id}' cannot be looked at: permission denied"):
        rundir.find(theirs.id, tmp_path)


def test_a_name_that_is_too_long_and_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(rundir.RunError, match=r"^run 'a{200}' cannot be looked at: file name too long$"):
        rundir.find("a" * 5000, tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.delenv(rundir.RUNS_VARIABLE, raising=False)
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(rundir.RunError, match="is the current folder gone"):
        rundir.runs_root()


def test_the_connection_file_is_private_and_comes_back(tmp_path: Path):
    run = rundir.create(tmp_path, "demo")
    connection = rundir.Connection(
        run=run.id, ingest="tcp://127.0.0.1:1", live="tcp://127.0.0.1:2", rpc="tcp://127.0.0.1:3",
        server="k" * 40, pid=1, started=2.0,
    )  # fmt: skip
    run.write_connection(connection)
    assert run.connection_file.stat().st_mode & 0o777 == 0o600
    assert run.connection() == connection
    run.connection_file.write_text("{")
    with pytest.raises(rundir.RunError, match="not a connection file"):
        run.connection()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"server": "short"}, "server: not a public key"),
        ({"server": "k" * 39 + '"'}, "server: not a public key"),
        ({"live": "127.0.0.1:2"}, "live: '127.0.0.1:2' is neither tcp://HOST:PORT nor ipc://PATH"),
        ({"rpc": "tcp://127.0.0.1"}, "rpc: 'tcp://127.0.0.1' is neither"),
    ],
)
def test_what_no_client_could_connect_to_is_refused_where_it_is_read(
    tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    run = rundir.create(tmp_path, "demo")
    good = {"run": run.id, "ingest": "", "live": "tcp://[::1]:2", "rpc": "ipc:///tmp/x", "server": "k" * 40}
    run.write_connection(rundir.Connection(**good | wrong, pid=1, started=2.0))
    with pytest.raises(rundir.RunError, match=re.escape(said)):
        run.connection()
