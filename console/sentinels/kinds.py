"""The kinds of rules as types, with what each key may be. Pure data.

Every number has a lower and an upper end, so that NaN, infinities and figures with which a rule could never fire (or
always would) are refused when the file is read.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from driftline.catalog.metrics import BY_NAME, resolve

LARGEST: Final = 1e12
"""Largest limit, change or factor; what a trainer reports is not larger."""

Seconds = Annotated[float, Meta(gt=0, le=2_592_000)]
"""At most thirty days."""
SecondsOrNone = Annotated[float, Meta(ge=0, le=2_592_000)]
Share = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=1_000)]
StepCount = Annotated[int, Meta(ge=0, le=10_000)]
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
Sigmas = Annotated[float, Meta(ge=0, le=100)]
Level = Literal["warn", "error"]
Word = Literal["warn", "alarm"]
"""A limit of the catalogue by its name."""


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """Fields of every rule. `source` is the publication of the limit, `level` the severity of the alarm."""

    enabled: bool = True
    level: Level = "warn"
    source: str = ""


class StepRule(_Rule, frozen=True, kw_only=True):
    """Judged step by step: raised when `hold` of the newest `of` are bad, cleared after `clear` good ones in a row.

    `episode` names rules that share one alarm at a time: a rule that is broken while an alarm of its episode stands,
    of the same level or a higher one, joins it.
    """

    hold: Count = 1
    of: Count | None = None
    clear: Count = 5
    episode: str = ""

    @property
    def votes(self) -> int:
        """The newest steps that are counted."""
        return self.of if self.of is not None else self.hold


class SeriesRule(StepRule, frozen=True, kw_only=True):
    """Of one metric. What is judged is the median of the newest `span` values.

    Cleared on the calm side of an easier limit: `ease` times the way to it. `custom` allows a metric that is not in the
    catalogue. `unless_reported`: nothing is raised on a step for which one of these metrics was reported.
    """

    metric: str
    custom: bool = False
    span: Count = 1
    ease: Share = 0.8
    unless_reported: tuple[str, ...] = ()


class Limit(SeriesRule, frozen=True, kw_only=True, tag="limit"):
    """The size of the value against numbers: `above`, `below` or both, or the catalogue's own "warn" or "alarm".

    With `z` nothing is raised while the run's usual level (the median of the last 100 steps but 10, from 40 values on)
    keeps the limit and the value is within `z` robust standard deviations of it: noise that crosses a limit at times.
    """

    above: Annotated[float, Meta(ge=0, le=LARGEST)] | Word | None = None
    below: Annotated[float, Meta(gt=0, le=LARGEST)] | Word | None = None
    z: Annotated[float, Meta(gt=0, le=100)] | None = None

    @property
    def high(self) -> float | None:
        """The number of `above`, None without one."""
        return self._number(self.above, "high")

    @property
    def low(self) -> float | None:
        """The number of `below`, None without one."""
        return self._number(self.below, "low")

    def _number(self, bound: float | Word | None, side: Literal["high", "low"]) -> float | None:
        if not isinstance(bound, str):
            return None if bound is None else float(bound)
        limit = BY_NAME[resolve(self.metric)].limit(bound, side)
        assert limit is not None, "checked when the rules were read"
        return limit


class Rise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The median of the metric's newest `window` values is above its median over the baseline's own steps.

    By `by` at least, and by `z` robust standard deviations of those steps.
    """

    metric: str
    by: Positive
    z: Sigmas = 3.0
    window: Count = 5


class Baseline(SeriesRule, frozen=True, kw_only=True, tag="baseline"):
    """The value against the series' own past: see `console.sentinels.baseline` for the statistics.

    `reference`: "recent" is the trailing `window` of steps without the newest `gap`; "start" the first `window`. Beyond
    means further from the median than `z` robust standard deviations *and* than `factor` (scale "log") or `change`
    (scale "linear", in units). Nothing is judged before `warmup` values. `unless` suppresses the alarm.
    """

    side: Literal["high", "low"]
    scale: Literal["log", "linear"] = "log"
    floor: Annotated[float, Meta(ge=0, le=LARGEST)] = 0.0
    reference: Literal["recent", "start"] = "recent"
    window: Annotated[int, Meta(ge=10, le=10_000)] = 100
    gap: StepCount = 10
    warmup: Annotated[int, Meta(ge=5, le=10_000)] = 40
    z: Sigmas = 4.0
    factor: Annotated[float, Meta(gt=1, le=LARGEST)] | None = None
    change: Positive | None = None
    unless: Rise | None = None


class Missing(StepRule, frozen=True, kw_only=True, tag="missing"):
    """A metric that was reported and has no number while the run goes on: absent, null, NaN or infinite.

    `metrics`: which; without any all that have a limit in the catalogue and those of the other rules. A step is judged
    when `late` further ones were reported (at the end of the run all are), because its numbers may come from several
    producers. A metric is absent once it has been reported `warmup` times and is overdue by its own rhythm.
    """

    metrics: tuple[str, ...] = ()
    late: Annotated[int, Meta(ge=0, le=1_000)] = 2
    warmup: Annotated[int, Meta(ge=2, le=10_000)] = 3


class Skew(_Rule, frozen=True, kw_only=True, tag="version-skew"):
    """An engine serves weights that are more than `syncs` syncs older than another's, for `seconds`."""

    syncs: Annotated[int, Meta(ge=0, le=60)] = 1
    seconds: SecondsOrNone = 10.0


class Engine(_Rule, frozen=True, kw_only=True, tag="engine"):
    """An engine with a problem: each limit in seconds.

    `silent` without a report, `no_tokens` with requests and no token, `syncing` in one weight sync, `starting` in
    one start or restart. A dead one is raised at once.
    """

    silent: Seconds = 10.0
    no_tokens: Seconds = 30.0
    syncing: Seconds = 120.0
    starting: Seconds = 600.0
    clear: SecondsOrNone = 3.0


class Steps(_Rule, frozen=True, kw_only=True, tag="steps"):
    """A running trainer has reported no step for `seconds`, and for `factor` times its usual step."""

    seconds: Seconds = 60.0
    factor: Annotated[float, Meta(ge=1, le=1_000_000)] = 10.0


class Feed(_Rule, frozen=True, kw_only=True, tag="feed"):
    """The hub has been silent for `seconds`."""

    seconds: Seconds = 15.0


Rule = Limit | Baseline | Missing | Skew | Engine | Steps | Feed
BY_KIND: Final[dict[str, type[Rule]]] = {str(one.__struct_config__.tag): one for one in get_args(Rule)}
KINDS: Final = tuple(BY_KIND)


def allowed(kind: type[msgspec.Struct], at: str) -> dict[str, str]:
    """What each key of a table of this kind may be, in words, by its full name in the file: `at` is the table's."""
    found: dict[str, str] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if text := " or ".join(_words(hint)):
            found[f"{at}.{name}"] = text
        for part in (hint, *get_args(hint)):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                found[f"{at}.{name}"] = f"a table with {', '.join(part.__struct_fields__)}"
                found |= allowed(part, f"{at}.{name}")
    return found


def _words(hint: object) -> list[str]:
    """One text for each alternative of a type; none for what has no limits to tell of."""
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        meta = next(note for note in notes if isinstance(note, Meta))
        low = f"from {meta.ge:g}" if meta.ge is not None else f"above {meta.gt:g}"
        high = f"to {meta.le:g}" if meta.ge is not None else f"and up to {meta.le:g}"
        return [f"a {'whole ' if base is int else ''}number {low} {high}"]
    if get_origin(hint) is Literal:
        return [", ".join(f'"{word}"' for word in get_args(hint))]
    if hint is bool:
        return ["true, false"]
    if hint is str:
        return ["text in quotes"]
    if get_origin(hint) is tuple:
        return ["a list of names in quotes"]
    return [word for part in get_args(hint) for word in _words(part)]
