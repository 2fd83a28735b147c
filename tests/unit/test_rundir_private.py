"""What a run makes is private whatever the umask; a filesystem without locks is named with what to do."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from console.cli.main import main
from driftline import keys, rundir
from driftline.hub import run_lock
from driftline.hub.__main__ import main as hub_main


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077, 0o277, 0o777])
def test_everything_that_is_made_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        run = rundir.create(tmp_path / "deep" / "runs", "demo")
        keys.make_run_keys(run)
    finally:
        os.umask(old)
    made = [tmp_path / "deep", tmp_path / "deep" / "runs", run.path, *(p for p in run.path.iterdir() if p.is_dir())]
    assert {str(path): mode(path) for path in made} == {str(path): 0o700 for path in made}
    assert {mode(path) for path in run.keys.glob("*.key")} == {0o600}


def test_a_folder_of_runs_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    root.chmod(0o750)
    rundir.create(root, "demo")
    assert mode(root) == 0o750


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    for root in (tmp_path / "runs", tmp_path / "runs" / "mine"):
        with pytest.raises(rundir.RunError, match="cannot make the run directory: Not a directory"):
            rundir.create(root, "demo")


def test_a_hub_makes_its_folders_private_too(tmp_path: Path) -> None:
    """Started by itself, as `python -m driftline.hub`; it stops at an address that is none."""
    path = tmp_path / "runs" / "mine"
    command = [sys.executable, "-m", "driftline.hub", str(path), "--bind", "0.0.0.0"]
    assert subprocess.run(command, capture_output=True, check=False, umask=0).returncode == 2
    assert (mode(path), mode(path.parent)) == (0o700, 0o700)


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses locks, as on a network disk whose lock service does not answer."""

    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_every_sentence_names_the_path_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    run = rundir.create(root, "demo")
    run.lock.touch()
    todo = (
        "cannot be locked: No locks available; its filesystem gives no locks: "
        "put runs on a disk of this machine, with DRIFTLINE_RUNS=/a/local/folder"
    )
    with pytest.raises(rundir.RunError) as refused:
        run_lock.take(run)
    assert str(refused.value) == f"{run.lock}: {todo}"
    with pytest.raises(rundir.RunError) as refused:
        keys.add(run, "bob", "viewer", "bob")
    assert str(refused.value) == f"{run.keys}: {todo}"

    assert hub_main([str(run.path)]) == 1
    assert capsys.readouterr().err == f"driftline hub: {run.lock}: {todo}\n"

    monkeypatch.setenv(rundir.RUNS_VARIABLE, str(root))
    monkeypatch.delenv(rundir.RUN_VARIABLE, raising=False)
    for verb in (["status"], ["tail"], ["status", "--run", run.id], ["compact", "--run", run.id]):
        assert main(verb) != 0
        assert f"{run.lock}: {todo}" in capsys.readouterr().err, verb
    assert main(["list"]) == 0
    found = capsys.readouterr()
    assert f"{run.id}  ?" in found.out
    assert f"{run.lock}: {todo}" in found.err
