"""What a console that was killed leaves in the temporary folder is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.connect import tunnel
from tests.unit.hubs import PATIENCE

HOLDER = """
import sys, time
from console.connect import tunnel
folder, _ = tunnel._folder()
(folder / "log").write_text("words")
print(folder, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Not pytest's own folder, which is longer than the address of a socket may be."""
    with tempfile.TemporaryDirectory(prefix="dl-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield Path(folder)


def age(path: Path) -> Path:
    past = time.time() - 2 * tunnel.YOUNG_SECONDS
    os.utime(path, (past, past), follow_symlinks=False)
    return path


@pytest.mark.parametrize("name", ["x" * 80, "with%h", "with:colon"])
def test_a_folder_that_no_socket_can_have_is_not_used(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert tunnel.base() == str(temporary)
    (temporary / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary / name))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert tunnel.base() == "/tmp"


def test_only_the_folders_of_dead_consoles_go(temporary: Path) -> None:
    console = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        assert console.stdout is not None
        held = age(Path(console.stdout.readline().strip()))
        assert held.parent == temporary
        assert held.stat().st_mode & 0o777 == 0o700
        elsewhere = temporary / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "file").write_text("mine")
        (temporary / "driftline-ssh-link").symlink_to(elsewhere)
        others = {"driftline-bench-12345678", "driftline-abc"}
        for name in others:
            (temporary / name).mkdir()
        (temporary / "driftline-ssh-file").write_text("x")
        (temporary / "driftline-ssh-dead5678").mkdir()
        for path in temporary.glob("driftline-*"):
            age(path)
        (temporary / "driftline-ssh-young123").mkdir()

        tunnel.sweep()
        stay = {held.name, *others, "driftline-ssh-link", "driftline-ssh-file", "driftline-ssh-young123"}
        assert {path.name for path in temporary.glob("driftline-*")} == stay, "only the one that no process holds goes"
        assert (held / "log").read_text() == "words"
        assert (elsewhere / "file").read_text() == "mine"

        console.send_signal(signal.SIGKILL)
        console.wait(PATIENCE)
        tunnel.sweep()
        assert not held.exists()
    finally:
        console.kill()
        console.wait(PATIENCE)
