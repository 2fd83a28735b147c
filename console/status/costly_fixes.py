"""Fixes that are off though something can be done about it, and what was measured of the price. Pure.

No price is made up: it is the effect that was measured when the fix itself was switched last, else the run's mismatch
as it is now (which is not one fix's alone), else the words that nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from console.formatting import short
from console.status.fix_coverage import engines_of
from console.status.fix_effects import MISMATCH, joint
from driftline.catalog.fixes import BY_ID, FIXES
from driftline.catalog.metrics import health
from driftline.frames import Effect, FixState

PATHS: Final = frozenset({"processed-logprobs", "prefix-cache-off", "async-scheduling-off", "fp32-lm-head"})
"""Fixes of the engine's logprobs: the run's mismatch is the price of those of them that are off."""


class Costly(NamedTuple):
    """A fix that is off on `off` of `total` engines.

    `before` to `after` is the mismatch (nats) at its own last switch, by which it was taken away; NaN where that was
    not measured.
    """

    fix: str
    off: int
    total: int
    before: float = math.nan
    after: float = math.nan

    @property
    def measured(self) -> bool:
        """Whether a price of its own was measured."""
        return math.isfinite(self.before) and math.isfinite(self.after)


def costly(fixes: Mapping[str, FixState], effects: Mapping[str, Effect], mismatch: float | None) -> list[Costly]:
    """The fixes that are off and cost something, the dearest first; none while the mismatch is healthy.

    `mismatch` is the run's newest mean |difference of logprobs| in nats, None where there is none. What was measured of
    a fix's own switch goes first, by its size; then the others in the catalogue's order.
    """
    if mismatch is not None and health(MISMATCH, mismatch) in ("healthy", "none"):
        return []
    found = []
    for fix in FIXES:
        state = fixes.get(fix.id)
        if fix.id not in PATHS or state is None or state.how == "not_available":
            continue
        reports = engines_of(state)
        # A cache that is salted by version is neither off nor what the fix makes of it.
        off = sum(one.effective in (fix.values[0], "mixed") for one in reports)
        if off:
            found.append(Costly(fix.id, off, len(reports), *_price(fix.id, effects.get(fix.id))))
    return sorted(found, key=lambda one: -(one.after - one.before) if one.measured else 0.0)


def _price(fix: str, effect: Effect | None) -> tuple[float, float]:
    """Mismatch before and after the switch that took this fix away, where it was measured for it alone and is worse."""
    nothing = math.nan, math.nan
    if effect is None or joint(effect) or not effect.changes:
        return nothing
    name, before, after = effect.changes[0]
    repairs = BY_ID[fix].repairs
    if name != fix or before not in repairs or after in repairs:
        return nothing
    measure = next((one for one in effect.measures if one.metric == MISMATCH), None)
    if measure is None or not measure.low > 0:
        return nothing
    return measure.before, measure.after


def sentences(found: list[Costly], mismatch: float | None, key: str) -> tuple[str, ...]:
    """What to say of the dearest, in ever fewer words; empty where nothing is off.

    `processed-logprobs is off on 8/8: mismatch .19 now; press F`. `key` switches it; "" where it may not be.
    """
    if not found:
        return ()
    first = found[0]
    if first.measured:
        before, after = short(first.before), short(first.after)
        price, few = f"mismatch {before} became {after} with it", f": mismatch {after}, was {before}"
    elif mismatch is not None and math.isfinite(mismatch):
        price, few = f"mismatch {short(mismatch)} now", f": mismatch {short(mismatch)}"
    else:
        price, few = "price not measured yet", ", not measured yet"
    press = f"; press {key}" if key else ""
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    off = f"{first.fix} is off on {first.off}/{first.total}"
    return (
        f"{off}{others}: {price}{press}",
        f"{off}: {price}{press}",
        f"{first.fix} off{few}{press}",
        f"{first.fix} off{few}",
    )
