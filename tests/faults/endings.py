"""Verbs as processes that are stopped at a chosen moment: in an import, at work, waiting, asking."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from tests import signals
from tests.tui.test_pty import Terminal
from tests.unit.hubs import PATIENCE, until

Phase = Literal["importing", "busy", "waiting", "asked"]

_CHILD = """
import importlib, os, sys, time
from pathlib import Path
phase, mark = sys.argv.pop(1), Path(sys.argv.pop(1))

class Slow:
    def find_spec(name, path=None, target=None):
        if name.startswith("console.cli.verbs."):
            mark.touch()
            end = time.monotonic() + 60
            while time.monotonic() < end:
                sum(range(1000))

class Module:
    def __init__(self, module): self._module = module
    def __getattr__(self, name):
        verb = getattr(self._module, name)
        def begun(args):
            mark.touch()
            return verb(args)
        return begun

if phase == "importing":
    sys.meta_path.insert(0, Slow)
else:
    real = importlib.import_module
    def importing(name, package=None):
        module = real(name, package)
        return Module(module) if name.startswith("console.cli.verbs.") else module
    importlib.import_module = importing
from console.cli import entry
sys.exit(entry.main())
"""
ROOT = Path(__file__).parents[2]


class Verb:
    """One verb at work in `folder`; `terminal`: on a terminal of its own. Ended by `close` however a test ends."""

    def __init__(self, folder: Path, runs: Path, phase: Phase, *words: str, terminal: bool = False) -> None:
        self._mark = folder.parent / f"{folder.name}.begun"
        self._mark.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-c", _CHILD, phase, str(self._mark), *words]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        environment = kept | {
            "DRIFTLINE_RUNS": str(runs), "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1",
            "XDG_STATE_HOME": str(folder.parent),
        }  # fmt: skip
        self.terminal: Terminal | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder.parent / f"{folder.name}.log"
        if terminal:
            here = os.getcwd()
            os.chdir(folder)
            try:
                self.terminal = Terminal(command, environment)
            finally:
                os.chdir(here)
            self.pid = self.terminal.pid
            return
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=signals.restore_defaults,
            )  # fmt: skip
        self.pid = self.process.pid

    @property
    def said(self) -> str:
        """What it has printed."""
        return self.terminal.text() if self.terminal is not None else self._log.read_text()

    def begun(self, then: float, words: str) -> None:
        """Wait until it is where it is to be stopped: `then` seconds after its beginning, with `words` printed."""

        def there() -> bool:
            if self.terminal is not None:
                self.terminal._read(0)
            assert self._mark.exists() or self._running(), self.said
            return self._mark.exists() and words in self.said

        until(there, f"the verb, and {words!r}: {self.said[-500:]}", 2 * PATIENCE)
        deadline = time.monotonic() + then
        while (left := deadline - time.monotonic()) > 0:
            if self.terminal is not None:
                self.terminal._read(left)
            else:
                time.sleep(left)
        assert self._running(), f"ended before it could be stopped: {self.said[-500:]}"

    def _running(self) -> bool:
        if self.process is not None:
            return self.process.poll() is None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def stop(self, number: int) -> tuple[int, float]:
        """Send a signal; the exit code as a shell has it, and the seconds until the end."""
        began = time.monotonic()
        os.kill(self.pid, number)
        code = self.terminal.wait() if self.terminal is not None else self._wait()
        return code if code >= 0 else 128 - code, time.monotonic() - began

    def _wait(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"did not end: {self.said[-2000:]}") from error

    def close(self) -> None:
        if self.terminal is not None:
            self.terminal.close()
        elif self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
