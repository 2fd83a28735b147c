"""Draw a screen of the console over a recorded run: `python scripts/picture.py RUN OUT.svg [--step N] [--screen ID]`.

The real app over the run's own journal, as of the given step; nothing in the picture is made up.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from console.cli.verbs.replay import recorded_run
from console.errors import CommandError
from console.settings.keys import TABS
from console.tui.pictures import PicturesError, pictures
from driftline.rundir import RunError


def main() -> None:
    """Parse the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="id or path of a run directory")
    parser.add_argument("out", type=Path, help="the SVG file")
    parser.add_argument("--step", type=int, help="as the console showed it after this step (default: the last)")
    parser.add_argument("--screen", choices=[tab.id for tab in TABS], default=TABS[0].id, help="default %(default)s")
    parser.add_argument("--size", type=_size, default=(120, 40), help="COLUMNSxROWS (default 120x40)")
    args = parser.parse_args()
    try:
        (picture,) = pictures(recorded_run(args.run, "picture"), args.step, args.size, (args.screen,))
        if picture.problem:
            raise CommandError(f"the {picture.screen} screen was not drawn: {picture.problem}")
        args.out.write_text(picture.svg, encoding="utf-8")
    except (CommandError, PicturesError, RunError, OSError) as error:
        sys.exit(f"picture: {error}")


def _size(text: str) -> tuple[int, int]:
    columns, x, rows = text.partition("x")
    if not (x and columns.isdecimal() and rows.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{text}' is not COLUMNSxROWS, for example 120x40")
    return int(columns), int(rows)


if __name__ == "__main__":
    main()
