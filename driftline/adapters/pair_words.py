"""What a framework's token pairs are: which of its logprobs, at which temperature, how old. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

from driftline.catalog.naming import STALE
from driftline.pairs.pairs import UNKNOWN, Pairs

TrainerLogprob = Literal["old", "proximal", "current"]
"""Which of a trainer's logprobs stands beside the engine's: `old` is under the weights that sampled the token,
`proximal` under those at the start of the step, `current` under those in the loss, as they move within the step."""

WORDS: Final[dict[TrainerLogprob, str]] = {
    "old": "old: under the weights that sampled the token",
    "proximal": "proximal: under the weights at the start of the step",
    "current": "current: under the weights in the loss, as they move within the step",
}
DRIFT: Final = "with drift"
NO_TEMPERATURE: Final = "no temperature"


def label(pairs: Pairs, version: int, logprob: TrainerLogprob, temperature: float | None) -> str:
    """By which other rule than the catalogue's the numbers of `mismatch/*` are; "" by none."""
    parts = []
    if logprob != "old":
        known = pairs.version[pairs.version != UNKNOWN]
        if known.size < len(pairs) or version < 0:
            parts.append(STALE["if async"])
        elif (known < version).any():
            parts.append(STALE["always"])
    if logprob == "current":
        parts.append(DRIFT)
    if temperature is None:
        parts.append(NO_TEMPERATURE)
    return ", ".join(parts)


def sentence(logprob: TrainerLogprob, temperature: float | None) -> str:
    """What the pairs are, for people."""
    applied = (
        f"the sampling temperature of {temperature:g} is applied on the trainer's side"
        if temperature is not None
        else "no temperature is applied on the trainer's side: at a sampling temperature other than 1 the difference "
        "between temperatures is in the numbers"
    )
    return f"the trainer's logprob is the {WORDS[logprob]}; {applied}"


class LeftOut:
    """Counts by reason what was no pair, and says so when a count begins and whenever it has grown tenfold."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._said: dict[str, int] = {}

    def add(self, pairs: Pairs) -> list[str]:
        """Count what these leave out; returns what there is to say now."""
        self._counts.update(pairs.left_out)
        due = [one for one, count in self._counts.items() if count and count >= 10 * self._said.get(one, 0)]
        return self._say(due)

    def rest(self) -> list[str]:
        """What has grown since it was said."""
        return self._say([one for one, count in self._counts.items() if self._said.get(one) != count])

    def _say(self, reasons: list[str]) -> list[str]:
        self._said |= {one: self._counts[one] for one in reasons}
        return [f"left out so far: {self._counts[one]} {one}" for one in reasons]
