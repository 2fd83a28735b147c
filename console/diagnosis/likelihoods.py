"""How probable each outcome of an instrument is under each cause: a table that was counted, not guessed.

`likelihoods.json` is written by `python -m tests.diagnosis calibrate` from simulated runs, in which each cause acts on the
logits, weights or reports of a small transformer (docs/diagnosis.md). Counts are smoothed: an outcome that was never seen
keeps a probability of some hundredths.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import msgspec

from console.diagnosis.model import Likelihoods

_FILE: Final = Path(__file__).with_name("likelihoods.json")


class Calibrated(msgspec.Struct, frozen=True):
    """`table` is P(outcome | cause) by cause, instrument, outcome; `runs` how many parts of runs each cause was counted
    over; `temper` the exponent that makes the probabilities of the ranked list come true as often as they say, since
    instruments are not independent of each other."""

    table: dict[str, dict[str, dict[str, float]]]
    runs: dict[str, int]
    temper: float = 0.6


@functools.cache
def calibrated() -> Calibrated:
    """The table that ships with the package."""
    return msgspec.json.decode(_FILE.read_bytes(), type=Calibrated)


def merged(first: Likelihoods, more: Likelihoods) -> Likelihoods:
    """Both tables; `more` adds instruments to causes, or replaces them."""
    return {cause: {**first.get(cause, {}), **more.get(cause, {})} for cause in {*first, *more}}
