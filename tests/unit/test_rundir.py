"""Run directories: made private, found by id, path or liveness."""

import fcntl
import os
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
