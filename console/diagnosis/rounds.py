"""The newest active round of a run beside the run as it is now: whether what it has measured still holds. Pure.

A round speaks of the weights and the settings that it was made under. Weights move on, so it counts for some versions
only; a fix that is switched, a sync by hand, or a mismatch that is no longer the same ends it at once: a fault that
comes later must not be covered by a round that has found nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from console.diagnosis import active
from console.store.model import RunModel
from console.store.rounds import Round
from driftline.text import plural

FRESH: Final = 32
"""Versions for which a round counts. Passive instruments look at about as many: some ten steps of a small run."""
MOVED: Final = 2.0
"""The mismatch is another one where its mean is off by this factor; that of a round's few tokens lies within it."""
_LOOKED: Final = 5
"""Newest steps that the mismatch is averaged over."""
_ENOUGH: Final = 3
MISMATCH: Final = "mismatch/abs_diff_mean"


@dataclass(frozen=True)
class Standing:
    """`made`: the newest round with figures; `age` how many versions the weights have moved on since. `newest`: the one
    that was asked for last, which may wait, be under way, or have failed. `outdated` says why what was measured holds
    no longer, as a clause, "" where it does."""

    made: Round | None = None
    newest: Round | None = None
    age: int = 0
    outdated: str = ""

    @property
    def counts(self) -> bool:
        """Whether the answer is to be that of the round."""
        return self.made is not None and not self.outdated

    @property
    def under_way(self) -> Round | None:
        """The round that waits or is being made."""
        return self.newest if self.newest is not None and not self.newest.over else None

    @property
    def failed(self) -> Round | None:
        """The last one, where it came to nothing."""
        return self.newest if self.newest is not None and self.newest.over and not self.newest.figures else None

    @property
    def name(self) -> str:
        """The round with its version and age."""
        return named(self.made, version_of(self.made) + self.age) if self.made is not None else ""


def named(made: Round, newest: int) -> str:
    """A round with its version and age, where `newest` is the run's: `active round of version 41, 3 versions ago`."""
    age = max(newest - version_of(made), 0)
    ago = "the newest" if age == 0 else f"{plural(age, 'version')} ago"
    return f"active round of version {version_of(made)}, {ago}"


def version_of(made: Round) -> int:
    """The version of the weights that a round was made under, -1 where it does not say."""
    versions = [active.number_of(made.figures, f"{one}.version") for one in active.engines(made.figures)]
    known = [value for value in (active.number_of(made.figures, "version"), *versions) if math.isfinite(value)]
    return int(known[0]) if known else -1


def standing(model: RunModel) -> Standing:
    """How the newest round of a run stands."""
    rounds = model.rounds
    made, newest = rounds.made, rounds.newest
    if made is None:
        return Standing(None, newest)
    version = model.run.version if model.run is not None else -1
    age = max(version - version_of(made), 0)
    return Standing(made, newest, age, _outdated(made, age, model))


def _outdated(made: Round, age: int, model: RunModel) -> str:
    if made.changed:
        return f"{made.changed} came after it"
    if age > FRESH:
        return "the weights have moved on"
    return _moved(made, model)


def _moved(made: Round, model: RunModel) -> str:
    """Whether the mismatch since the round is another one than it has measured."""
    total = active.number_of(made.figures, "total")
    if MISMATCH not in model.metrics or not math.isfinite(total):
        return ""
    points = model.metrics.points(MISMATCH)
    since = points.values[-_LOOKED:][points.steps[-_LOOKED:] > made.step + 1]
    if since.size < _ENOUGH:
        return ""
    now = float(since.mean())
    if now > MOVED * total + active.FLOOR:
        return "the mismatch has grown since"
    return "the mismatch has fallen since" if now < total / MOVED - active.FLOOR else ""
