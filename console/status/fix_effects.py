"""The measured effect of a change of fixes, as plain values for JSON and as a line for people. Pure."""

from __future__ import annotations

import math
from typing import Any, Final

from console.formatting import short
from driftline.frames import Effect, Measure

MISMATCH: Final = "mismatch/abs_diff_mean"
OTHERS: Final = {"clip": "policy/clip_fraction", "kl": "policy/kl_new_old"}
"""Keys of the other measures in JSON and their metrics."""


def effect_document(effect: Effect) -> dict[str, Any]:
    """One effect as plain values; the keys are documented in `docs/json.md`."""
    measures = {measure.metric: measure for measure in effect.measures}
    return {
        "metric": MISMATCH,
        **_numbers(measures.get(MISMATCH)),
        "steps": {"before": effect.steps_before, "after": effect.steps_after},
        **{key: {"metric": name, **_numbers(measures.get(name))} for key, name in OTHERS.items()},
        "changes": [{"fix": fix, "before": before, "after": after} for fix, before, after in effect.changes],
        "done": effect.done,
        "step": effect.step,
        "version": effect.version,
        "by": effect.by,
        "time": effect.time,
        "id": effect.id,
        "detail": effect.detail,
    }


def effect_line(effect: Effect, fix: str) -> str:
    """`mismatch .16 -> .004 (95 % -.17 to -.15; 5,210/4,880 tokens)`, with what else changed and what is missing."""
    found = next((measure for measure in effect.measures if measure.metric == MISMATCH), None)
    others = [f"{other} {after}" for other, _, after in effect.changes if other != fix]
    parts = [f"mismatch {_pair(found)}" if found is not None else "not measured"]
    parts += [f"together with {', '.join(others)}"] if others else []
    parts += [] if effect.done else [f"so far, {effect.steps_after} steps after"]
    parts += [effect.detail] if effect.detail else []
    return "; ".join(parts)


def _pair(measure: Measure) -> str:
    known = math.isfinite(measure.low) and math.isfinite(measure.high)
    interval = f"95 % {_signed(measure.low)} to {_signed(measure.high)}" if known else "no interval yet"
    tokens = f"{measure.tokens_before:,}/{measure.tokens_after:,} tokens"
    return f"{_value(measure.before)} -> {_value(measure.after)} ({interval}; {tokens})"


def _value(value: float) -> str:
    return short(value) if math.isfinite(value) else "-"


def _signed(value: float) -> str:
    return f"+{short(value)}" if value > 0 else short(value)


def _numbers(measure: Measure | None) -> dict[str, Any]:
    if measure is None:
        return {"before": math.nan, "after": math.nan, "ci": [math.nan, math.nan], "tokens": {"before": 0, "after": 0}}
    return {
        "before": measure.before,
        "after": measure.after,
        "ci": [measure.low, measure.high],
        "tokens": {"before": measure.tokens_before, "after": measure.tokens_after},
    }
