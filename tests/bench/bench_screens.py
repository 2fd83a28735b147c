"""From the command line to a run on the screen: `driftline replay` and `attach` against `wandb leet run`, same numbers.

What is attached to is a live hub that has the whole run in its journal and sends it.

Each is a new process on a terminal of 120x40, files in the disk's cache. Printed are the seconds to the first paint
(ours: the panes, leet's: the first chart's title), to the first curve, and to the whole run: ours the header's newest
step with curves, leet's "Finished", which it says when it has read the log to its end (its summary then has the newest
step). leet draws while it reads; ours draws once all is read, so our first curve is of the whole run.

What a process writes is taken off its terminal as it comes, with the time, and put on a screen of pyte's afterwards:
no process waits for that screen. Medians, in turns, because the machine is shared. leet is in an environment of its
own (see `bench_open`); its home and all its files are in a folder that goes, and it is offline.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import queue
import signal
import statistics
import struct
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pyte

from tests.bench import journals
from tests.bench.bench_open import PYTHON, STEPS, WANTED_SECONDS, WRITE_OTHERS
from tests.bench.child import measure
from tests.tui.test_pty import environment
from tests.unit.hubs import Hub

SIZE: Final = (120, 40)
SAME: Final = min(100_000, STEPS)
"""Steps at which leet is asked too: it takes W&B half a minute to write them."""
TURNS: Final = 5
SAME_TURNS: Final = 3
"""Of leet at 10^5 steps, which takes half a minute each."""
WANTED_FASTER: Final = ("first paint", "whole run")
"""Not the first curve: leet's is of what it has read by then, ours of the whole run."""
LIMIT: Final = 300.0

Marks = Mapping[str, Callable[[str], bool]]


def curve(screen: str) -> bool:
    """Whether a curve is drawn: both use braille."""
    return any("\u2800" < letter <= "\u28ff" for letter in screen)


OURS: Final = {"first paint": lambda screen: "clip fraction" in screen, "first curve": curve}
LEETS: Final = {
    "first paint": lambda screen: "async/" in screen,
    "first curve": curve,
    "whole run": lambda screen: "State: Finished" in screen,
}


def ours(steps: int) -> Marks:
    """What a replay of so many steps shows in the end."""
    return OURS | {"whole run": lambda screen: f"step {steps - 1}" in screen and curve(screen)}


def shown(command: list[str], env: dict[str, str], folder: Path, marks: Marks) -> dict[str, float]:
    """Seconds from the start of a command to the first screen on which each mark is."""
    begin = time.perf_counter()
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.chdir(folder)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
            os.execve(command[0], command, env)
        finally:
            os._exit(127)
    written: queue.Queue[tuple[float, bytes]] = queue.Queue()
    taker = threading.Thread(target=_take, args=(fd, begin, written), daemon=True)
    taker.start()
    screen = pyte.Screen(*SIZE)
    stream = pyte.ByteStream(screen)
    found: dict[str, float] = {}
    try:
        while missing := [name for name in marks if name not in found]:
            try:
                when, data = written.get(timeout=max(0.0, begin + LIMIT - time.perf_counter()))
            except queue.Empty:
                data = b""
            if not data:
                shows = "\n".join(screen.display)
                raise RuntimeError(f"{' '.join(command)}: never showed {', '.join(missing)}; at the end:\n{shows}")
            stream.feed(data)
            shows = "\n".join(screen.display)
            found |= {name: when for name in missing if marks[name](shows)}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # it leads a session of its own, and leet starts a second process
        os.waitpid(pid, 0)
        taker.join(LIMIT)
        os.close(fd)
    return found


def _take(fd: int, begin: float, written: queue.Queue[tuple[float, bytes]]) -> None:
    while True:
        try:
            data = os.read(fd, 1 << 16)
        except OSError:
            data = b""  # what the kernel says when the other side has gone
        written.put((time.perf_counter() - begin, data))
        if not data:
            return


def say(name: str, turns: list[dict[str, float]]) -> dict[str, float]:
    """Print the medians of some turns; and return them."""
    medians = {mark: statistics.median(turn[mark] for turn in turns) for mark in turns[0]}
    listed = ", ".join(f"{mark} {seconds:.2f} s" for mark, seconds in medians.items())
    print(f"  {name}: {listed} (whole run {min(turn['whole run'] for turn in turns):.2f} s at best)", flush=True)
    return medians


def main() -> int:
    """Print what each takes; 1 where a wanted figure is missed."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        root = Path(folder)
        run = journals.metrics_run(root, STEPS)
        command = driftline("replay", run.path)
        turns = [shown(command, environment(root), root, ours(STEPS)) for _ in range(TURNS + 1)][1:]
        paint = say(f"driftline replay, {STEPS:.0e} steps", turns)["first paint"]
    missed = paint > WANTED_SECONDS
    print(f"    wanted: first paint in {WANTED_SECONDS} s")
    if not PYTHON.exists():
        print(f"  wandb leet: not measured: there is no {PYTHON}")
        return int(missed)
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        root = Path(folder)
        run = journals.metrics_run(root, SAME)
        names = ",".join(journals.NAMES)
        measure(WRITE_OTHERS, root, str(SAME), names, python=str(PYTHON.absolute()), runs=1)
        (log,) = root.glob("wandb/offline-run-*")
        home = environment(root) | {"HOME": str(root), "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
        leet = [str(PYTHON.absolute().with_name("wandb")), "leet", "run", str(log)]
        mine, live, theirs = [], [], []
        hub = Hub(root, run=run)
        try:
            for _ in range(SAME_TURNS):
                mine.append(shown(driftline("replay", run.path), environment(root), root, ours(SAME)))
                hub.start()
                live.append(shown(driftline("attach", run.path), environment(root), root, ours(SAME)))
                hub.stop()
                theirs.append(shown(leet, home, root, LEETS))
        finally:
            hub.end()
        other = say(f"wandb leet run, {SAME:.0e} steps", theirs)
        for verb, turns in (("replay", mine), ("attach", live)):
            one = say(f"driftline {verb}, {SAME:.0e} steps", turns)
            for mark in one:
                wanted = " (wanted: more than 1)" if mark in WANTED_FASTER else ""
                print(f"    {mark}: leet takes {other[mark] / one[mark]:.2f} times as long{wanted}")
                missed |= mark in WANTED_FASTER and other[mark] <= one[mark]
    return int(missed)


def driftline(verb: str, path: Path) -> list[str]:
    """The command that opens a run."""
    return [sys.executable, "-m", "console.cli", verb, str(path)]


if __name__ == "__main__":
    raise SystemExit(main())
