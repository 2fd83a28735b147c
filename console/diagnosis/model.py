"""What a diagnosis is made of, as frozen values: causes, readings, evidence, the ranked list, the attribution.

Pure. d is the engine's logprob minus the trainer's of one sampled token, in nats; |d| its size. How it is used:

    watch = Watch()                                  # console.diagnosis.watch: streams, constant memory
    watch.feed(frame)                                # each `driftline.frames.Tokens`, in order
    found = watch.diagnosis(facts_of(model))         # console.diagnosis.facts: from a `RunModel`; a `Diagnosis`
    found = watch.diagnosis(facts, extra=readings)   # with what active instruments have read, and an attribution

- A screen shows `Diagnosis.sentence` and `certainty`, `ranked[0].supporting` with three of `profiles`, `attribution` as
  one bar, `actions` as keys, `ruled_out`, and `normal` as the answer to "is this normal?".
- An active instrument makes a `Reading`: which of its `Instrument.outcomes` was seen. It states how probable each
  outcome is under each cause as `Likelihoods`; both are handed to `console.diagnosis.infer.diagnose`.
- A cause is known by its `name` everywhere: in JSON, in tests that inject it, in likelihoods. Names do not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec

Layer = Literal["semantics", "inference path", "weight update", "numerics", "staleness", "data"]
LAYERS: Final[tuple[Layer, ...]] = (
    "semantics",
    "inference path",
    "weight update",
    "numerics",
    "staleness",
    "data",
)
"""In the order in which they are repaired; shares of an attribution stand in it too."""

Onset = Literal["step 0", "update", "frozen weights", "wake", "any"]
"""When a cause shows first: before any update; only after a real update; also while weights are frozen; after a wake or
restart; at any time."""

Verdict = Literal["normal", "cause", "unknown", "not enough data"]
"""Nothing wrong beyond the numeric floor; one or more causes named; something wrong that no known cause explains; too
few tokens to say."""

NONE: Final = "none"
"""Name of the hypothesis that nothing is wrong beyond the numeric floor."""
UNKNOWN: Final = "unknown"
"""Name of the hypothesis that something is wrong which no cause of the catalogue explains."""


class Action(msgspec.Struct, frozen=True):
    """What to do about a cause. `text` says it for people, always.

    kind "fix": switch `fix` (an id of `driftline.catalog.fixes`) to `value`; "sync": send the weights again; "reset":
    empty the prefix cache; "setting": change `setting` of the trainer's or the engine's configuration, which Driftline
    cannot do by itself; "text": nothing but the text.
    """

    kind: Literal["fix", "sync", "reset", "setting", "text"]
    text: str
    fix: str = ""
    value: str = ""
    setting: str = ""


class Prediction(msgspec.Struct, frozen=True):
    """What a cause predicts on one instrument, in words."""

    instrument: str
    text: str


class Cause(msgspec.Struct, frozen=True):
    """A cause of a difference between engine and trainer.

    `passive`: whether passive instruments can name it; where not, `unseen` says why and `alike` which causes look the
    same to them. `number` is its row in the table of docs/diagnosis.md, `source` where it was seen.
    """

    name: str
    title: str
    layer: Layer
    onset: Onset
    predicts: tuple[Prediction, ...]
    refuted_by: str
    action: Action
    source: str
    number: int
    passive: bool = True
    alike: tuple[str, ...] = ()
    unseen: str = ""


class Instrument(msgspec.Struct, frozen=True):
    """One measurement and the outcomes that it can have; `question` is what it answers.

    `cost` of an active one says beforehand what a reading takes, as a clause; "" for passive ones.
    """

    name: str
    question: str
    outcomes: tuple[str, ...]
    active: bool = False
    cost: str = ""


class Reading(msgspec.Struct, frozen=True):
    """What an instrument has read: one of its outcomes. `value` is the figure it was decided by, with `unit`.

    `text` is a whole clause with the figure in it. `where` names what it was found at ("engine-1", "positions below
    8"), "" for everywhere.
    """

    instrument: str
    outcome: str
    value: float
    text: str
    unit: str = ""
    where: str = ""


Likelihoods = Mapping[str, Mapping[str, Mapping[str, float]]]
"""P(outcome | cause) by cause, instrument, outcome. An instrument that a cause does not name says nothing about it."""
NO_LIKELIHOODS: Final[Likelihoods] = MappingProxyType({})


class Evidence(msgspec.Struct, frozen=True):
    """One reading as evidence. `llr` in nats: ln P(reading | this cause) - ln P(reading | the others on average).

    Above 0 it speaks for the cause, below 0 against it.
    """

    instrument: str
    figure: float
    text: str
    llr: float
    unit: str = ""


class Ranked(msgspec.Struct, frozen=True):
    """A hypothesis with its probability among all of them; evidence is sorted, the strongest first.

    `cause` is None for the two that are not causes: `name` is then NONE or UNKNOWN. `where` says which engine, layer
    or positions; `since` is the version of the weights from which it shows, -1 where that was not seen.
    """

    name: str
    cause: Cause | None
    probability: float
    supporting: tuple[Evidence, ...] = ()
    opposing: tuple[Evidence, ...] = ()
    where: str = ""
    since: int = -1


class RuledOut(msgspec.Struct, frozen=True):
    """A cause that the evidence excludes, and by which reading."""

    name: str
    title: str
    how: str
    probability: float


class Normal(msgspec.Struct, frozen=True):
    """What is normal on this stack: mean |d| up to `floor` nats. `seen` is the run's; `source` where the floor is
    from."""

    floor: float
    seen: float
    text: str
    source: str

    @property
    def is_normal(self) -> bool:
        """Whether what was seen is at or below the floor; False where nothing was seen."""
        return math.isfinite(self.seen) and self.seen <= self.floor


class Share(msgspec.Struct, frozen=True):
    """The part of the mean |d| that one layer accounts for, in nats, with its 95 % interval."""

    layer: Layer
    nats: float
    low: float
    high: float


class Attribution(msgspec.Struct, frozen=True):
    """How much of the mismatch each layer accounts for. `nats` of the shares sum to `total` exactly.

    `total` is the mean |d| in nats over `tokens`. `method` says how it was measured; `note` what may be wrong with it.
    """

    total: float
    shares: tuple[Share, ...]
    method: Literal["passive", "active"]
    tokens: int
    note: str = ""

    def fraction(self, layer: Layer) -> float:
        """The layer's part of the whole, 0 to 1; 0 where there is no mismatch."""
        if not self.total:
            return 0.0
        return sum(share.nats for share in self.shares if share.layer == layer) / self.total


class Profile(msgspec.Struct, frozen=True):
    """A small picture: `values` (mean |d|, or what `unit` says) over `labels`; NaN where nothing was seen."""

    instrument: str
    title: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    unit: str = "nats"


class Diagnosis(msgspec.Struct, frozen=True):
    """The answer. `sentence` is for people and stands by itself; `certainty` is the probability that it is right.

    `named` are the names of the causes found, the larger first: one, or more where they act at once; empty unless the
    verdict is "cause". `ranked` holds every hypothesis that is not ruled out, NONE and UNKNOWN among them. `missing`
    are clauses about what was not recorded and would decide more. `seen` is the share of the tokens that was looked at
    in detail, 0 to 1.
    """

    verdict: Verdict
    sentence: str
    certainty: float
    named: tuple[str, ...] = ()
    ranked: tuple[Ranked, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    normal: Normal | None = None
    missing: tuple[str, ...] = ()
    attribution: Attribution | None = None
    profiles: tuple[Profile, ...] = ()
    readings: tuple[Reading, ...] = ()
    actions: tuple[Action, ...] = ()
    tokens: int = 0
    steps: int = 0
    seen: float = 1.0
