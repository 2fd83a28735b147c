"""Verbs as processes that are stopped at a chosen moment: in an import, at work, waiting, asking."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tests import signals
from tests.tui.test_pty import Terminal
from tests.unit.hubs import PATIENCE

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
            "XDG_STATE_HOME": str(folder.parent), "DRIFTLINE_ENVIRONMENTS": str(folder.parent / "environments"),
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

    def there(self, words: str) -> bool:
        """Whether it has begun and printed `words`."""
        running = self.runs()
        assert self._mark.exists() or running, self.said
        return self._mark.exists() and words in self.said

    def runs(self) -> bool:
        """Whether it has not ended; what a terminal has to show is taken."""
        if self.terminal is not None:
            self.terminal._read(0)
        if self.process is not None:
            return self.process.poll() is None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def code(self) -> int:
        """The exit code, as a shell has it, of a verb that has ended."""
        code = self.terminal.wait() if self.terminal is not None else self.process.wait()  # type: ignore[union-attr]
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        if self.terminal is not None:
            self.terminal.close()
        elif self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def stopped(verbs: Sequence[tuple[Verb, int]], then: float, words: str) -> list[tuple[int, float]]:
    """Send each verb its signal `then` seconds after it has begun and printed `words`, side by side.

    The exit code of each as a shell has it, and the seconds from the signal to the end. Raises AssertionError.
    """
    deadline = time.monotonic() + 3 * PATIENCE
    begun: dict[Verb, float] = {}
    sent: dict[Verb, float] = {}
    ended: dict[Verb, tuple[int, float]] = {}
    while len(ended) < len(verbs):
        for verb, number in verbs:
            now = time.monotonic()
            assert now < deadline or verb in ended, (
                f"waited for its beginning, {words!r} or its end: {verb.said[-2000:]}"
            )
            if verb in ended:
                continue
            if verb in sent:
                if not verb.runs():
                    ended[verb] = verb.code(), now - sent[verb]
            elif verb not in begun:
                if verb.there(words):
                    begun[verb] = now
            elif now >= begun[verb] + then:
                assert verb.runs(), f"ended before it could be stopped: {verb.said[-500:]}"
                sent[verb] = time.monotonic()
                os.kill(verb.pid, number)
            else:
                verb.runs()
        time.sleep(0.005)
    return [ended[verb] for verb, _ in verbs]
