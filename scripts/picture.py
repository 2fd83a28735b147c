"""Draw the console as it looked over a recorded run: `python scripts/picture.py RUN OUT.svg [--step N]`.

The real app over the run's own journal, up to the given step; nothing in the picture is made up.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from console.tui.app import ConsoleApp
from console.tui.source import Link, SourceError
from driftline import rundir
from driftline.frames import Metrics, Stamped, Verb
from driftline.journal import read


class Recorded:
    """Implements `console.tui.source.Source` over the frames of a journal."""

    operator = True

    def __init__(self, run: str, frames: list[Stamped]) -> None:
        self.run = run
        self._frames = frames

    def wait(self, timeout: float) -> bool:
        return bool(self._frames)

    def drain(self, limit: int) -> list[Stamped]:
        taken, self._frames = self._frames[:limit], self._frames[limit:]
        return taken

    @property
    def empty(self) -> bool:
        """True once the app has taken everything."""
        return not self._frames

    def link(self) -> Link:
        return Link(heard=True, age=0.1)

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        raise SourceError("a picture takes no commands")

    def close(self) -> None:
        """Nothing is open."""


def frames_until(run: rundir.RunDir, step: int | None) -> list[Stamped]:
    """The run's frames up to and with the metrics of `step`."""
    frames = []
    for stamped in read(run.journal):
        frames.append(stamped)
        frame = stamped.frame()
        if step is not None and isinstance(frame, Metrics) and frame.step >= step:
            break
    return frames


async def draw(run: rundir.RunDir, out: Path, step: int | None, size: tuple[int, int]) -> None:
    """Write the picture."""
    frames = frames_until(run, step)
    source = Recorded(run.id, frames)
    app = ConsoleApp(source, sixteen=False)
    async with app.run_test(size=size) as pilot:
        while not source.empty or app.model.head < frames[-1].seq:
            await pilot.pause(0.05)
        app.refresh_view()
        await pilot.pause(0.5)
        out.write_text(app.export_screenshot(title="driftline"), encoding="utf-8")


def main() -> None:
    """Parse the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--step", type=int)
    parser.add_argument("--size", default="120x40", type=lambda text: tuple(map(int, text.split("x"))))
    args = parser.parse_args()
    asyncio.run(draw(rundir.find(args.run), args.out, args.step, args.size))


if __name__ == "__main__":
    main()
