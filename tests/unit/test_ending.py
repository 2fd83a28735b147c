"""The end of a process by a signal: in order where the main thread heeds it, forced and without a trace where not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from console.process import ending
from tests import signals
from tests.unit.hubs import PATIENCE, until

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HELD = {
    "one long call": "hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)",
    "an exception that is swallowed": "while True:\n  try: time.sleep(60)\n  except BaseException: pass",
    "a thread that is waited for": "threading.Thread(target=time.sleep, args=(60,)).start(); time.sleep(60)",
    "an import": "import slow",
}
"""What does not let go of the main thread, or of the process, when a signal comes."""
CODE = """
import hashlib, os, sys, threading, time
from pathlib import Path
from console.process import ending
folder = Path(sys.argv[1])

class Slow:
    def find_spec(name, path=None, target=None):
        while name == "slow":
            time.sleep(0.1)

def fill():
    for at in range(10**9):
        try:
            (folder / f"{at % 50}").write_text("part of a table")
            (folder / "below").mkdir(exist_ok=True)
        except FileNotFoundError:
            return
        time.sleep(0.001)

sys.meta_path.insert(0, Slow)
ending.install()
part = folder.with_suffix(".part")
try:
    with ending.temporary(folder), ending.temporary(part), ending.restored(lambda: os.write(1, b"!")):
        folder.mkdir()
        part.touch()
        (folder / "link").symlink_to("/")
        threading.Thread(target=fill, daemon=True).start()
        print("begun", flush=True)
        {held}
except ending.SignalledError as signalled:
    sys.exit(signalled.exit_code)
"""


def start(tmp_path: Path, held: str, *, ignored: bool = False) -> subprocess.Popen[str]:
    def prepare() -> None:
        signals.restore_defaults()
        if ignored:
            for number in NUMBERS:
                signal.signal(number, signal.SIG_IGN)

    code = CODE.replace("{held}", held.replace("\n", "\n        "))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(tmp_path / "made")], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, preexec_fn=prepare,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
@pytest.mark.parametrize("held", HELD)
def test_whatever_holds_it_the_process_ends_and_leaves_nothing(
    tmp_path: Path, held: str, number: signal.Signals
) -> None:
    process = start(tmp_path, HELD[held])
    try:
        until(lambda: (tmp_path / "made" / "below").is_dir(), "files that are being made")
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + number
        assert said in ("!", ""), "what it had changed is put right"
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()


def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """As `nohup` leaves SIGHUP, and a shell SIGINT for a job in the background."""
    process = start(tmp_path, "sys.stdin.readline(); time.sleep(2 * ending.LIMIT_SECONDS)", ignored=True)
    try:
        for number in NUMBERS:
            process.send_signal(number)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_what_is_unfinished_stays_only_if_it_comes_to_its_end(tmp_path: Path) -> None:
    for name, wrong in (("whole", False), ("half", True)):
        path = tmp_path / name
        path.mkdir()
        with pytest.raises(ValueError, match="broken") if wrong else ending.unfinished(path):
            if wrong:
                with ending.unfinished(path):
                    (path / "file").touch()
                    raise ValueError("broken")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
