"""The token store and its screen's drawing under 10^6 token pairs a second, in one thread: time used / time available.

Frames are encoded as the hub sends them, with the text of every token. Each tick of a quarter of a second takes in what
came meanwhile and draws all panes of a 140x40 screen anew: ranking, text, histogram, positions, sequences. Below one, a
console keeps up; what is left is for everything else. `SECONDS=60` makes it longer; `bench_feed` has sockets and keys.
"""

from __future__ import annotations

import os
import time
from typing import Final

import numpy as np

from console.store.filter_grammar import Filter
from console.store.tokens.filter import TOKENS
from console.store.tokens.frames import decode_lean
from console.store.tokens.ring import MEMORY_BOUND, TokenStore
from console.store.tokens.survey import survey
from console.tui.paint.cells import Cells
from console.tui.paint.glyphs import GLYPHS
from console.tui.screens.tokens import view as views
from console.tui.screens.tokens.charts import draw_histogram, draw_positions
from console.tui.screens.tokens.context import context
from driftline.frames import Tokens, encode

RATE: Final = 1_000_000
TICK: Final = 0.25
SECONDS: Final = float(os.environ.get("SECONDS", "5"))
SHAPES: Final = ((32, 128), (16, 512), (16, 16))
"""Sequences of a frame and tokens of each; the last are frames as small as those of the demonstration."""
FILTERS: Final = ("", "|d|>0.05 engine=engine-0", "text=t42")
WANTED: Final = 1.0


def frames(sequences: int, length: int, count: int = 8) -> list[bytes]:
    """Encoded frames."""
    rng = np.random.default_rng(0)
    n = sequences * length
    seq, position = np.repeat(np.arange(sequences), length), np.tile(np.arange(length), sequences)
    made = []
    for step in range(count):
        rollout = -rng.exponential(0.5, n)
        whole = (rng.integers(0, 50_000, n), seq, position, np.full(n, step))
        blobs = [np.asarray(part, "<i4").tobytes() for part in whole]
        blobs += [np.asarray(part, "<f4").tobytes() for part in (rollout, rollout + rng.normal(0, 0.02, n))]
        made.append(
            encode(
                Tokens(
                    step, step, 0.0, n, *blobs,
                    tuple(f"engine-{i % 2}" for i in range(sequences)), tuple(f"prompt {i}" for i in range(sequences)),
                    tuple(0.5 for _ in range(sequences)), tuple(f" t{i % 977}" for i in range(n)),
                )
            )
        )  # fmt: skip
    return made


def draw(store: TokenStore, wanted: Filter) -> None:
    """All that the screen shows, short of the terminal."""
    glyphs = GLYPHS["braille"]
    found = survey(store, wanted)
    columns, wide = views.fitted(views.WORST_COLUMNS, 82), views.fitted(views.OUTLIER_COLUMNS, 136)
    for row in found.worst[:14].tolist():
        token = store.token(row)
        assert token is not None
        views.worst_line(token, columns, glyphs)
    for number in found.outliers[:9].tolist():
        sequence = store.sequence(number)
        assert sequence is not None
        views.outlier_line(store, sequence, wide, glyphs)
    if len(found.worst):
        token = store.token(int(found.worst[0]))
        assert token is not None
        context(store, token, glyphs, 136, 8)
    cells = Cells(56, 14)
    draw_histogram(cells, (0, 0, 56, 7), found.histogram, glyphs)
    draw_positions(cells, (7, 0, 56, 7), found.positions, glyphs)


def main() -> int:
    """Print the figures; 0 when they are as wanted."""
    missed = 0
    for sequences, length in SHAPES:
        bodies = frames(sequences, length)
        tokens = sequences * length
        for text in FILTERS:
            wanted = TOKENS.parse(text)
            store = TokenStore()
            sent, taking, drawing, slowest = 0, 0.0, 0.0, 0.0
            for tick in range(1, round(SECONDS / TICK) + 1):
                begin = time.perf_counter()
                while sent * tokens < tick * TICK * RATE:
                    store.apply(sent + 1, decode_lean(bodies[sent % len(bodies)]))
                    sent += 1
                taken = time.perf_counter()
                draw(store, wanted)
                drawn = time.perf_counter()
                taking, drawing, slowest = taking + taken - begin, drawing + drawn - taken, max(slowest, drawn - taken)
            ratio = (taking + drawing) / SECONDS
            good = ratio < WANTED and store.taken == sent * tokens and store.nbytes < MEMORY_BOUND
            missed += not good
            print(
                f"  {tokens:>5} tokens a frame, filter {text or 'none':<26} used {ratio:.2f} of the time (taking in "
                f"{taking / SECONDS:.2f}, drawing {drawing / SECONDS:.2f}, slowest {slowest * 1e3:.0f} ms), "
                f"{store.nbytes / 1e6:.0f} MB{'' if good else '  MISSED'}"
            )
    wanted_mb = MEMORY_BOUND / 1e6
    print(f"  wanted at {RATE:,} token pairs/s: below {WANTED} of the time, nothing lost, below {wanted_mb:.0f} MB")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
