"""How probable each outcome of an instrument is under each cause: a table that was counted, not guessed.

`likelihoods.json` is written by `python -m tests.diagnosis calibrate` from simulated runs, in which each cause acts
on the logits, weights or reports of a small transformer (docs/diagnosis.md). Counts are smoothed: an outcome that
was never seen keeps a probability of some hundredths.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import msgspec

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


def _of_fix(share: float) -> dict[str, float]:
    return {"repaired": 0.12, "not repaired": share, "not reported": 0.88 - share}


_USUAL: Final = {"repaired": 0.35, "not repaired": 0.35, "not reported": 0.3}
_STATE_USUAL: Final[dict[str, dict[str, float]]] = {
    "processed-logprobs": _USUAL,
    "prefix-cache-off": _USUAL,
    "fp32-lm-head": _USUAL,
    "inflight-keep": {"waits": 0.35, "kept": 0.35, "not reported": 0.3},
    "temperature": {"one": 0.35, "another": 0.35, "not reported": 0.3},
    "versions": {"newest": 0.68, "behind": 0.02, "not reported": 0.3},
    "digests": {"alike": 0.69, "differ": 0.01, "not reported": 0.3},
    "resets": {"freed": 0.65, "not freed": 0.05, "not reported": 0.3},
}
_DIFFER: Final = {"alike": 0.55, "differ": 0.15, "not reported": 0.3}
_STATE_OWN: Final[dict[str, dict[str, dict[str, float]]]] = {
    "raw-logprobs": {
        "processed-logprobs": _of_fix(0.6),
        "temperature": {"one": 0.002, "another": 0.6, "not reported": 0.398},
    },
    "stale-prefix-cache": {
        "prefix-cache-off": _of_fix(0.6),
        "resets": {"freed": 0.45, "not freed": 0.25, "not reported": 0.3},
    },
    "in-flight-kv": {"inflight-keep": {"waits": 0.15, "kept": 0.5, "not reported": 0.35}},
    "head-bf16": {"fp32-lm-head": _of_fix(0.6)},
    "missed-sync": {"versions": {"newest": 0.55, "behind": 0.15, "not reported": 0.3}, "digests": _DIFFER},
    "layer-not-loaded": {"versions": {"newest": 0.64, "behind": 0.06, "not reported": 0.3}, "digests": _DIFFER},
    "layers-swapped": {"digests": _DIFFER},
}


def of_state(cause: str) -> dict[str, dict[str, float]]:
    """Likelihoods of what a run reports of itself. Stated, not counted: a fix that is read back as on leaves its cause
    one chance in eight; that it is off makes the cause possible, no more. Digests that differ are fifteen times as
    probable where one engine has other weights; digests alike are nearly as probable as else, since a digest may be of
    what was sent."""
    return {**_STATE_USUAL, **_STATE_OWN.get(cause, {})}
