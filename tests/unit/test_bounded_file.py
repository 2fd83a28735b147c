"""Every small file that is read whole: what is endless, or no file, is refused with one sentence and costs nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import trainer.__main__ as trainer_main
from console.connect import channel, ssh
from console.connect.target import ConnectionFileRun
from console.export.source import Directory
from console.importing import files
from console.importing.import_run import read as read_log
from console.importing.rows import LogImportError
from console.parity import rules as parity_rules
from console.recorded.compaction.compact import check
from console.recorded.frames import frames
from console.sentinels import rules as sentinel_rules
from console.settings import file as settings_file
from console.tui.command.history import History
from driftline import bounded_file, config, keys, rundir, toml_file
from driftline.bounded_file import UnfitFileError
from driftline.rundir import Connection, RunDir, RunError
from engine.actor.launch import stop_ids
from engine.types import EngineError
from trainer.checkpoint import STATE_FILE, restore
from trainer.errors import TrainerError

pytestmark = pytest.mark.timeout(60)

MOST_MEMORY = 50 << 20
MODEL = torch.nn.Linear(1, 1)
OPTIMIZER = torch.optim.SGD(MODEL.parameters())  # here: torch loads much for the first one


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(path.parent)  # the address of a socket is at most 107 bytes long
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "endless": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a regular file"),
    "fifo": (os.mkfifo, "it is a FIFO, not a regular file"),
    "directory": (lambda path: path.mkdir(), "it is a directory, not a regular file"),
    "socket": (a_socket, "it is a socket, not a regular file"),
    "sparse": (sparse, "more than {limit} bytes"),
}


class Reader(NamedTuple):
    """`read` is called with a run directory, of which the file `name` is unfit; it raises `error`."""

    name: str
    limit: int
    error: type[Exception]
    read: Callable[[RunDir], object]


def restored(path: Path) -> object:
    return restore(path / "checkpoint", MODEL, OPTIMIZER)


KEY = "keys/viewer.key"
READERS = {
    "config": Reader("config.toml", toml_file.LIMIT, config.ConfigError, lambda run: config.load(run.config)),
    "settings": Reader(
        "s.toml", toml_file.LIMIT, settings_file.ConfigError, lambda run: settings_file.read(run.path / "s.toml")
    ),
    "parity rules": Reader(
        "r.toml", toml_file.LIMIT, parity_rules.RulesError, lambda run: parity_rules.load(run.path / "r.toml")
    ),
    "sentinel rules": Reader(
        "r.toml", toml_file.LIMIT, sentinel_rules.RulesError, lambda run: sentinel_rules.load(run.path / "r.toml")
    ),
    "connection": Reader("connection.json", rundir.CONNECTION_BYTES, RunError, lambda run: run.connection()),
    "key": Reader(KEY, keys.KEY_BYTES, RunError, lambda run: keys.load(run, "viewer")),
    "key to revoke": Reader(KEY, keys.KEY_BYTES, RunError, lambda run: keys.revoke(run, "viewer")),
    "key for a connection": Reader(
        KEY, keys.KEY_BYTES, RunError, lambda run: ConnectionFileRun(run.connection_file, run.path / KEY)
    ),
    "grants": Reader("keys/authorized", 1 << 20, RunError, lambda run: keys.read_authorized(run.keys / "authorized")),
    "grants to add to": Reader("keys/authorized", 1 << 20, RunError, lambda run: keys.add(run, "x", "viewer", "x")),
    "checkpoint": Reader(f"checkpoint/{STATE_FILE}", 1 << 20, TrainerError, lambda run: restored(run.path)),
}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = rundir.create(tmp_path / "runs", "demo")
    keys.make_run_keys(run)
    ends = {name: f"tcp://127.0.0.1:{port}" for name, port in (("ingest", 1), ("live", 2), ("rpc", 3))}
    server = keys.load(run, "server").public
    run.write_connection(Connection(run=run.id, server=server, pid=1, started=1.0, **ends))
    (run.path / "checkpoint").mkdir()
    return run


def spoil(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    KINDS[kind][0](path)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_MEMORY


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_small_file_is_refused_in_one_sentence(run: RunDir, reader: str, kind: str) -> None:
    name, limit, error, read = READERS[reader]
    spoil(run.path / name, kind)
    with pytest.raises(error) as refused:
        read(run)
    text = str(refused.value)
    assert KINDS[kind][1].format(limit=limit) in text
    assert str(run.path / name) in text
    assert "\n" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_of_that_kind_ends_the_trainer_with_the_sentence(
    run: RunDir, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run.config, kind)
    assert trainer_main.main(["--run-dir", str(run.path)]) == trainer_main.USAGE
    assert KINDS[kind][1].format(limit=toml_file.LIMIT) in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_file_is_no_condition_its_figure_is_left_out(run: RunDir, kind: str) -> None:
    run.parquet.mkdir()
    spoil(run.config, kind)
    assert Directory(run).config_digest() == ""
    spoil(run.compacted(1), kind)
    (wrong,) = check(run)
    assert KINDS[kind][1].format(limit=rundir.NOTE_BYTES) in wrong
    assert list(frames(run)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_console_with_such_a_history_remembers_for_itself(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "history"
    spoil(path, kind)
    before = os.stat(path)
    history = History(path)
    assert history.lines == []
    history.add("sync")
    assert history.older("") == "sync"
    assert (os.stat(path).st_mode, os.stat(path).st_size) == (before.st_mode, before.st_size)


LOGS = (
    "log.jsonl",
    "log.csv",
    "run.wandb",
    "events.out.tfevents.1",
    "trainer_state.json",
    "train.log",
    "log.txt",
    "log",
)


@pytest.mark.parametrize("kind", ["endless", "fifo", "sparse"])
@pytest.mark.parametrize("name", LOGS)
def test_a_log_of_that_kind_is_no_log(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    spoil(path, kind)
    with pytest.raises(LogImportError) as refused:
        read_log(path)
    assert str(refused.value) == f"{path}: " + (
        "not a regular file" if kind != "sparse" else f"cannot be read: more than {files.LARGEST} bytes"
    )
    with pytest.raises(LogImportError):
        read_log(tmp_path)


def test_a_log_without_the_end_of_a_line_is_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.touch()
    os.truncate(path, 3 * files.LONGEST // 2)
    with path.open("ab") as file:
        file.write(b'\n{"step": 1, "reward": 2}\n')
    log = read_log(path)
    assert [row.step for row in log.rows] == [1]
    assert log.damaged == 3 * files.LONGEST // 2 + 1


def test_a_model_with_an_endless_configuration_is_refused(tmp_path: Path) -> None:
    sparse(tmp_path / "config.json")
    with pytest.raises(EngineError, match=r"config\.json: cannot be read: more than \d+ bytes"):
        stop_ids(tmp_path)


def test_the_limit_itself_is_allowed_and_line_ends_are_alike(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a\r\nb\rc")
    assert bounded_file.read(path, 6) == b"a\r\nb\rc"
    assert bounded_file.read_text(path, 6) == "a\nb\nc"
    with pytest.raises(UnfitFileError, match="more than 5 bytes"):
        bounded_file.read(path, 5)
    assert os.stat("/proc/self/status").st_size == 0
    with pytest.raises(UnfitFileError, match="more than 5 bytes"):
        bounded_file.read(Path("/proc/self/status"), 5)


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import os, sys\n{code}"]


@pytest.mark.parametrize("stream", [1, 2])
def test_a_command_that_prints_without_end_is_killed_at_the_limit(stream: int) -> None:
    done = channel.run(python(f"while True: os.write({stream}, bytes(4096))"), limit=10_000, seconds=30.0)
    assert len((done.stdout, done.stderr)[stream - 1]) == 10_001
    assert done.returncode < 0


def test_a_command_that_ends_is_returned_whole() -> None:
    done = channel.run(python("os.write(1, bytes(9)); os.write(2, b'w'); sys.exit(3)"), limit=9, seconds=30.0)
    assert (done.stdout, done.stderr, done.returncode) == (bytes(9), b"w", 3)


@pytest.mark.parametrize("code", ["sys.stdin.read(); os.pause()", "os.close(1); os.close(2); os.pause()"])
def test_a_command_that_does_not_end_is_killed(code: str) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        channel.run(python(f"import signal\n{code.replace('os.pause', 'signal.pause')}"), limit=9, seconds=0.5)


@pytest.mark.parametrize("kind", ["fifo", "directory", "endless", "sparse"])
def test_a_file_of_another_machine_is_read_to_its_limit(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "connection.json"
    spoil(path, kind)
    remote = ssh.read_file(ssh.parse("ssh://box/r"), tmp_path / "c", str(path))[-1]
    done = channel.run(["sh", "-c", remote], limit=1000, seconds=30.0)
    match kind:
        case "fifo":
            assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
        case "directory":
            assert b"Is a directory" in done.stderr
        case _:
            assert len(done.stdout) == 1001
