"""The passive diagnosis under 10^6 token pairs a second, in one thread: share of a core for following, and what one
diagnosis takes. Frames are decoded already: the console decodes them for its token store anyway.

Below `FOLLOWING` of a core for the stream; a diagnosis a second (a console asks for fewer) below `ASKING`.
"""

from __future__ import annotations

import time
from typing import Final

from console.diagnosis.facts import Facts
from console.diagnosis.watch import Watch
from console.store.tokens.frames import decode_lean
from tests.bench.bench_tokens import SHAPES, frames

RATE: Final = 1_000_000
FOLLOWING: Final = 0.05
ASKING: Final = 0.25
TOKENS: Final = 2_000_000


def main() -> int:
    """Print both for frames of three sizes; 1 where one is missed."""
    missed = False
    for sequences, length in SHAPES:
        ready = [decode_lean(body) for body in frames(sequences, length)]
        each = sequences * length
        watch = Watch()
        count = TOKENS // each
        began = time.process_time()
        for i in range(count):
            watch.feed(ready[i % len(ready)])
        share = (time.process_time() - began) / (count * each / RATE)
        began = time.process_time()
        asked = 5
        for _ in range(asked):
            watch.diagnosis(Facts(temperature=0.7, dtype="bfloat16"))
        seconds = (time.process_time() - began) / asked
        missed |= share > FOLLOWING or seconds > ASKING
        print(
            f"frames of {sequences} x {length}: following 10^6 tokens/s takes {share:.1%} of a core "
            f"(wanted: {FOLLOWING:.0%} at most); a diagnosis {seconds * 1e3:.0f} ms "
            f"(wanted: {ASKING * 1e3:.0f} at most)"
        )
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
