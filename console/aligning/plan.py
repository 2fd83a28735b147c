"""Which fixes and syncs bring the backend home, what each is expected to take away, and in which order. Pure.

    made = plan(fixes, effects, wanted=REFERENCE, trainer=True)
    batches(made)          # commands: each batch is over before the next is sent

The order is by how a fix takes effect. What is live goes first; what takes effect with a weight sync is staged next,
all of it, and one sync carries it: the head changes on both sides at once. What would need a rolling restart throws
rollouts away and is left to the operator.

No gain is made up: it is a layer's share of an attribution, else what was measured when the fix was last switched by
itself, else "not known".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from console.formatting import short
from console.status.fix_effects import MISMATCH, joint
from driftline.catalog.fixes import BY_ID, FIXES
from driftline.frames import Effect, FixState, How, Verb, meets
from driftline.text import plural

Source = Literal["attribution", "measured", ""]

REFERENCE_FIXES: Final[Mapping[str, str]] = {
    "processed-logprobs": "on", "prefix-cache-off": "on", "fp32-lm-head": "on",
}  # fmt: skip
"""The reference set: what configs/reference.toml has on."""
SYNC: Final = "sync"
"""Name of the sync among what can be left out."""
UPDATE: Final = "weight-update path"
"""The catalogue's layer of which a sync by itself takes the share."""
REASON: Final = "no diagnosis: every fix of the reference set that is not in force"


@dataclass(frozen=True)
class Gain:
    """What a fix is expected to take from the mean |difference of logprobs|, in nats, with a 95 % interval.

    `source`: "attribution" (the share of the fix's layer), "measured" (when it was last switched by itself), "" where
    it is not known; the numbers are NaN then.
    """

    nats: float = math.nan
    low: float = math.nan
    high: float = math.nan
    source: Source = ""

    def __str__(self) -> str:
        """`−.11 (.10 to .12)`, `−.11 (.10 to .12) measured`, or `not known`."""
        if not math.isfinite(self.nats):
            return "not known"
        bounds = f" ({short(self.low)} to {short(self.high)})" if math.isfinite(self.low + self.high) else ""
        return f"−{short(max(self.nats, 0.0))}{bounds}{' measured' if self.source == 'measured' else ''}"


UNKNOWN: Final = Gain()


@dataclass(frozen=True)
class Wanted:
    """What is asked for: values by fix, whether weights are to be synced as well, and why, as a clause.

    `named`: the fixes whose cause was named; the others go along because their cause could not be ruled out. None
    without a diagnosis. `shares`: by layer of the catalogue what an attribution gives it of the mismatch, which is
    expected of the named fix of the layer and of no other.
    """

    values: Mapping[str, str]
    sync: bool = False
    why: str = REASON
    shares: Mapping[str, Gain] = field(default_factory=dict)
    named: frozenset[str] | None = None


REFERENCE: Final = Wanted(REFERENCE_FIXES)


@dataclass(frozen=True)
class Setting:
    """One fix: `before` was wanted of it, `effective` is what every engine reports ("mixed", "" where one has not).

    `named`: its cause was named, or no diagnosis was asked; else the cause could not be ruled out. `share` is that of
    its layer where it is named, `alone` what was measured of it; the `gain` follows from these and from what else is
    set.
    """

    fix: str
    value: str
    before: str
    effective: str
    how: How
    generation: int
    gain: Gain = UNKNOWN
    named: bool = True
    share: Gain = UNKNOWN
    alone: Gain = UNKNOWN


@dataclass(frozen=True)
class Skipped:
    """A fix that is asked for and not part of it, and why, as a clause."""

    fix: str
    value: str
    why: str


@dataclass(frozen=True)
class Alignment:
    """Settings in the order in which they are sent, then a sync if there is one. `undoes`: it sets another one back.

    `sync_wanted`: the sync is asked for whatever is set; else it goes with what takes effect with one. `sync_gain`:
    what it is expected to take away by itself.
    """

    settings: tuple[Setting, ...]
    sync: bool
    why: str
    skipped: tuple[Skipped, ...] = ()
    undoes: bool = False
    sync_wanted: bool = False
    sync_gain: Gain = UNKNOWN

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.settings and not self.sync

    @property
    def title(self) -> str:
        """What it is, in a few words: `align: 3 fixes, 1 sync`."""
        parts = [plural(len(self.settings), "fix").replace("fixs", "fixes")] if self.settings else []
        parts += ["1 sync"] if self.sync else []
        return f"{'undo the alignment' if self.undoes else 'align'}: {', '.join(parts) or 'nothing to do'}"

    @property
    def names(self) -> tuple[str, ...]:
        """What can be left out: the fixes, and SYNC."""
        return (*(one.fix for one in self.settings), *((SYNC,) if self.sync else ()))

    @property
    def together(self) -> str:
        """What all of it is expected to take away, as a clause; "" where nothing of it is known."""
        gains = [one.gain for one in self.settings] + ([self.sync_gain] if self.sync_wanted else [])
        known = [one.nats for one in gains if math.isfinite(one.nats)]
        if not known or self.undoes:
            return ""
        rest = len(gains) - len(known)
        return f"{Gain(math.fsum(known))}{f', and {rest} not known' if rest else ''}"


@dataclass(frozen=True)
class Order:
    """One command to the run; `what` names it to the operator."""

    verb: Verb
    args: Mapping[str, str]
    generation: int
    what: str
    fix: str = ""


def plan(
    fixes: Mapping[str, FixState], effects: Mapping[str, Effect], wanted: Wanted = REFERENCE, *, trainer: bool
) -> Alignment:
    """The alignment that is asked for, from the reported states. `trainer`: the run has one, which can sync."""
    settings, skipped = _settings(fixes, wanted.values)
    # A fix that waits for a sync already is carried by one now.
    asked = trainer and (wanted.sync or _staged(fixes, wanted.values))
    found = []
    for one in settings:
        named = wanted.named is None or one.fix in wanted.named
        share = wanted.shares.get(BY_ID[one.fix].layer, UNKNOWN) if named else UNKNOWN
        found.append(replace(one, named=named, share=share, alone=measured(one.fix, effects.get(one.fix))))
    sync = asked or (trainer and _carried(found))
    made = Alignment(tuple(_with_gains(found)), sync, wanted.why, tuple(skipped), sync_wanted=asked)
    layer = wanted.shares.get(UPDATE, UNKNOWN) if wanted.sync else UNKNOWN
    taken = any(one.named and BY_ID[one.fix].layer == UPDATE for one in found)
    return replace(made, sync_gain=UNKNOWN if taken else layer)


def without(made: Alignment, names: Collection[str]) -> Alignment:
    """The same but for some fixes, or SYNC; what the others are expected to take away follows."""
    kept = [one for one in made.settings if one.fix not in names]
    sync = made.sync and SYNC not in names and (made.sync_wanted or _carried(kept))
    settings = kept if made.undoes else _with_gains(kept)
    return replace(made, settings=tuple(settings), sync=sync, sync_wanted=made.sync_wanted and sync)


def _with_gains(settings: Sequence[Setting]) -> list[Setting]:
    """A layer's share is expected of the first named fix of the layer, and of no other one."""
    used: set[str] = set()
    found = []
    for one in settings:
        layer = BY_ID[one.fix].layer
        share = one.share if one.share.source and layer not in used else None
        used |= {layer} if one.named else set()
        found.append(replace(one, gain=share or one.alone))
    return found


def _carried(settings: Sequence[Setting]) -> bool:
    """Whether some of it takes effect with a sync."""
    return any(one.how == "next_sync" for one in settings)


def undo(record: Mapping[str, tuple[str, str]], fixes: Mapping[str, FixState], *, trainer: bool) -> Alignment:
    """What sets an alignment back: `record` has by fix the value that was wanted before it and the one it set.

    A fix that has been set to something else since stays as it is.
    """
    back: dict[str, str] = {}
    kept: list[Skipped] = []
    for fix, (before, value) in record.items():
        state = fixes.get(fix)
        if state is not None and state.requested != value:
            if state.requested != before:
                kept.append(Skipped(fix, before, f"has been set to {state.requested} since"))
            continue
        back[fix] = before
    settings, skipped = _settings(fixes, back, undoing=True)
    sync = trainer and _carried(settings)
    return Alignment(tuple(settings), sync, "as before the alignment", (*kept, *skipped), undoes=True)


def _settings(
    fixes: Mapping[str, FixState], values: Mapping[str, str], *, undoing: bool = False
) -> tuple[list[Setting], list[Skipped]]:
    found: list[Setting] = []
    skipped: list[Skipped] = []
    for fix in FIXES:
        value = values.get(fix.id)
        if value is None:
            continue
        state = fixes.get(fix.id)
        if state is None:
            skipped.append(Skipped(fix.id, value, "not reported by this run"))
        elif state.how == "not_available":
            # Where it is the other way by itself, there is nothing to be done and nothing to be said.
            if not meets(value, state.effective):
                skipped.append(Skipped(fix.id, value, _why_not(state)))
        elif meets(value, state.requested) and (not undoing or value == state.requested):
            continue
        elif state.how == "engine_restart" or "removed" in (value, state.requested):
            skipped.append(Skipped(fix.id, value, f"needs a rolling restart: driftline fix set {fix.id} {value}"))
        else:
            found.append(Setting(fix.id, value, state.requested, state.effective, state.how, state.generation))
    # Stable: the catalogue's order within each way.
    return sorted(found, key=lambda one: one.how != "live"), skipped


def _why_not(state: FixState) -> str:
    why = state.detail or next((one.detail for one in state.engines if one.detail), "no engine supports it")
    return why if "not available" in why else f"not available here: {why}"


def _staged(fixes: Mapping[str, FixState], values: Mapping[str, str]) -> bool:
    return any(
        (state := fixes.get(fix)) is not None
        and state.how == "next_sync"
        and state.requested == value
        and not state.settled
        for fix, value in values.items()
    )


def measured(fix: str, effect: Effect | None) -> Gain:
    """What the newest switch of this fix alone has changed, as what repairing takes away; UNKNOWN without one."""
    if effect is None or joint(effect) or not effect.changes:
        return UNKNOWN
    name, before, after = effect.changes[0]
    repairs = BY_ID[fix].repairs
    if name != fix or (before in repairs) == (after in repairs):
        return UNKNOWN
    one = next((measure for measure in effect.measures if measure.metric == MISMATCH), None)
    if one is None or not math.isfinite(one.before + one.after):
        return UNKNOWN
    change = one.change if math.isfinite(one.change) else one.after - one.before
    low, high = one.low, one.high
    if after in repairs:
        change, low, high = -change, -high, -low
    return Gain(change, low, high, "measured")


def batches(made: Alignment) -> list[list[Order]]:
    """Commands in the order in which they are sent; those of one batch without waiting for each other.

    What is staged for a sync is answered by the sync that carries it, so it is sent together with that: a run works its
    commands off in order.
    """
    live = [_order(one) for one in made.settings if one.how == "live"]
    rest = [_order(one) for one in made.settings if one.how != "live"]
    rest += [Order("sync", {}, -1, "sync weights")] if made.sync else []
    return [*([one] for one in live), *([rest] if rest else [])]


def _order(one: Setting) -> Order:
    return Order("fix.set", {"fix": one.fix, "value": one.value}, one.generation, f"{one.fix} {one.value}", one.fix)


WHEN: Final[Mapping[str, str]] = {"live": "live", "next_sync": "with the sync"}


def when(setting: Setting, *, sync: bool) -> str:
    """How a setting takes effect, in a few words."""
    return WHEN[setting.how] if sync or setting.how == "live" else "with the next sync"


def cost(made: Alignment, sync_s: float | None) -> str:
    """What it costs, as a clause. `sync_s`: seconds that the last sync took, None where none was measured."""
    if not made.sync:
        return "none: engines go on generating"
    pause = f"about {sync_s:.2g} s, as the last sync took" if sync_s is not None else "not measured yet"
    return f"one sync, in which engines pause: {pause}; nothing is thrown away"
