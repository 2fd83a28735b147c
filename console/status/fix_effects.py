"""The measured effect of a change of fixes, as plain values for JSON and as text for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from console.formatting import short
from driftline.catalog.fixes import BY_ID
from driftline.frames import Effect, Measure
from driftline.text import plural

MISMATCH: Final = "mismatch/abs_diff_mean"
OTHERS: Final = {"clip": "policy/clip_fraction", "kl": "policy/kl_new_old"}
"""Keys of the other measures in JSON and their metrics."""

AGAINST: Final = "at the change, against the trend"
"""What the difference of an effect is, beside the means of both sides."""

_AS_FACTOR: Final = 9.0
"""Relative change from which on it is shown as a factor: 1,900 % more is 20 times as much."""


class Relative(msgspec.Struct, frozen=True):
    """A change as a share of the value before: `change`, with a 95 % interval from `low` to `high`, NaN if not known.

    `sure`: an interval is known and does not hold zero.
    """

    change: float
    low: float
    high: float
    sure: bool

    def __str__(self) -> str:
        """`−90 % (−92 to −88)`, `×25 (×19 to ×33)`, `to 0`; without what is not known."""
        if self.change <= -1.0:
            return "to 0"
        if self.change >= _AS_FACTOR:
            shown, unit = [f"×{short(1 + share)}" for share in (self.change, self.low, self.high)], ""
        else:
            shown, unit = [percent(share) for share in (self.change, self.low, self.high)], " %"
        bounds = f" ({shown[1]} to {shown[2]})" if math.isfinite(self.low) and math.isfinite(self.high) else ""
        return f"{shown[0]}{unit}{bounds}"


def relative(measure: Measure, *, reverse: bool = False) -> Relative | None:
    """The relative change of a measure; None where it has none. `reverse`: from after to before.

    A recording of an older version has no interval of the ratio: that of its difference says no more than the sign.
    """
    ratio, low, high = measure.ratio, measure.ratio_low, measure.ratio_high
    if not math.isfinite(ratio):
        known = math.isfinite(measure.before) and math.isfinite(measure.after) and measure.before > 0
        ratio = measure.after / measure.before if known else math.nan
    if reverse:
        ratio, low, high = (1 / one if one > 0 else math.nan for one in (ratio, high, low))
    if not math.isfinite(ratio):
        return None
    return Relative(ratio - 1, low - 1, high - 1, sure=measure.low > 0 or measure.high < 0)


def percent(share: float) -> str:
    """`−92`; `−99.9` rather than `−100`, which would be to exactly zero."""
    number = share * 100
    if -100 < number < -99:
        # Toward zero: no digit claims more than was measured.
        return f"−{math.floor(-number * 10) / 10:.1f}"
    return "NaN" if math.isnan(share) else f"{number:+.0f}".replace("-", "−")


def joint(effect: Effect) -> bool:
    """Whether the effect is that of several fixes at once: it belongs to the set and to none of them."""
    return len(effect.changes) > 1


def owner(effects: Mapping[str, Effect], fix: str) -> str:
    """The fix that the effect of `fix` is shown with: the first in the catalogue's order of those it belongs to."""
    mine = effects[fix].id
    return next(one for one in BY_ID if one in effects and effects[one].id == mine)


def change_of(measure: Measure) -> float:
    """The difference that the interval is about; of an older recording that of the means."""
    return measure.change if math.isfinite(measure.change) else measure.after - measure.before


def units(measure: Measure) -> str:
    """`20 and 14 steps`, `192 and 16 prompt groups`; empty without an interval."""
    return f"{measure.units_before:,} and {plural(measure.units_after, measure.unit)}" if measure.unit else ""


def effect_document(effect: Effect) -> dict[str, Any]:
    """One effect as plain values; the keys are documented in `docs/json.md`."""
    measures = {measure.metric: measure for measure in effect.measures}
    return {
        "metric": MISMATCH,
        **_numbers(measures.get(MISMATCH)),
        "steps": {"before": effect.steps_before, "after": effect.steps_after},
        **{key: {"metric": name, **_numbers(measures.get(name))} for key, name in OTHERS.items()},
        "changes": [{"fix": fix, "before": before, "after": after} for fix, before, after in effect.changes],
        "joint": joint(effect),
        "done": effect.done,
        "step": effect.step,
        "version": effect.version,
        "by": effect.by,
        "time": effect.time,
        "id": effect.id,
        "detail": effect.detail,
    }


def effect_line(effect: Effect) -> str:
    """`mismatch .16 -> .004, -.16 at the change, against the trend (95 % -.17 to -.15; 20 and 20 steps)`, with what is
    missing; of several fixes at once the set first."""
    found = next((measure for measure in effect.measures if measure.metric == MISMATCH), None)
    named = ", ".join(f"{fix} {after}" for fix, _, after in effect.changes)
    parts = [f"{len(effect.changes)} fixes together ({named})"] if joint(effect) else []
    parts += [f"mismatch {_pair(found)}" if found is not None else "not measured"]
    parts += [] if effect.done else [f"so far, {effect.steps_after} steps after"]
    parts += [effect.detail] if effect.detail else []
    return "; ".join(parts)


def _pair(measure: Measure) -> str:
    means = f"{_value(measure.before)} -> {_value(measure.after)}"
    tokens = f"{measure.tokens_before:,}/{measure.tokens_after:,} tokens"
    if not (math.isfinite(measure.low) and math.isfinite(measure.high)):
        return f"{means} ({measure.note or 'no interval yet'}; {tokens})"
    interval = f"95 % {_signed(measure.low)} to {_signed(measure.high)}"
    if not measure.unit:
        return f"{means} ({interval} by sequence, which is too narrow; {tokens})"
    note = f"; {measure.note}" if measure.note else ""
    return f"{means}, {_signed(measure.change)} {AGAINST} ({interval}; {units(measure)}, {tokens}{note})"


def _value(value: float) -> str:
    return short(value) if math.isfinite(value) else "-"


def _signed(value: float) -> str:
    return f"+{short(value)}" if value > 0 else short(value)


def _numbers(measure: Measure | None) -> dict[str, Any]:
    one = measure or Measure(MISMATCH, math.nan, math.nan, math.nan, math.nan, 0, 0)
    return {
        "before": one.before,
        "after": one.after,
        "change": one.change,
        "ci": [one.low, one.high],
        "ratio": one.ratio,
        "ratio_ci": [one.ratio_low, one.ratio_high],
        "unit": one.unit,
        "units": {"before": one.units_before, "after": one.units_after},
        "note": one.note,
        "tokens": {"before": one.tokens_before, "after": one.tokens_after},
    }
