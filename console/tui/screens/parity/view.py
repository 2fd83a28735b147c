"""The parity screen's words: the verdict on each metric, why, and what can be said without a reference. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from console.formatting import short
from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import HEALTH_INK, Ink
from console.tui.paint.units import number
from console.tui.present.corrections import verdict_now
from driftline.catalog.metrics import METRICS, Direction, Health, Metric, health

if TYPE_CHECKING:
    from console.parity.judge import Comparison, Judged
    from console.tui.watch.judging import Chosen, Verdict

_WORD: Final = {"pass": "pass", "fail": "FAIL", "not enough data": "too little"}
_INK: Final = {"pass": Ink.OK, "fail": Ink.ALARM, "not enough data": Ink.DIM}
_WORDS: Final[tuple[Literal["warn", "alarm"], ...]] = ("warn", "alarm")
_SIDES: Final[tuple[Direction, ...]] = ("low", "high")
_HEALTH: Final[dict[Health, str]] = {"none": "", "healthy": "within", "warn": "WARN", "alarm": "ALARM"}

HOW: Final = (
    "r chooses a reference run of this folder;",
    "driftline attach --reference RUN names one (id, path or FILE.parquet; several: seeds of one configuration);",
    "driftline import brings the log of another framework.",
)


def head(verdict: Verdict) -> list[Text]:
    """The verdict on the whole run, in a line."""
    from console.parity.report import closing

    words = closing(verdict.comparison)
    word, colon, rest = words.partition(":")
    line: list[Text] = [(f" {word}", _INK[verdict.comparison.verdict]), (f"{colon}{rest}", Ink.BRIGHT)]
    start = verdict.comparison.start
    return line if start is None else [*line, (f"  from step {start} on", Ink.ACCENT)]


def against(verdict: Verdict) -> str:
    """Reference, steps compared, and the source of its spread."""
    from console.parity.report import title

    comparison = verdict.comparison
    names = ", ".join(run.id for run in comparison.references)
    spread = "spread over seeds measured" if comparison.measured else "one run: spread over seeds assumed"
    if comparison.apart:
        spread = f"further apart than the rules allow for: {', '.join(map(title, comparison.apart))}"
    label = "SYNTHETIC; " if comparison.run.synthetic or any(run.synthetic for run in comparison.references) else ""
    steps = "" if comparison.start is None else f"from step {comparison.start}, after a switch, "
    return f"{label}{steps}to step {verdict.step} against {names}; {spread}"


def heads(width: int) -> list[Text]:
    """The heads of the columns."""
    wide = f"{'back':>7}{'at step':>9}" if width >= 100 else ""
    cause = "  likely cause" if width >= 100 else "  cause" if width >= 76 else ""
    return [
        (f"   {'metric':<20} {'verdict':<10}{'out since':>9}{wide}{'run':>8}{'ref':>8}{'of band':>9}{cause}", Ink.DIM)
    ]


def row(judged: Judged, verdict: Verdict, glyphs: Glyphs, width: int) -> list[Text]:
    """One metric. Run and reference are those of the window whose level the verdict rests on."""
    from console.parity.report import title, why_not

    ink = _INK[judged.verdict]
    symbol = {"pass": glyphs.on, "fail": glyphs.gap, "not enough data": glyphs.unavailable}[judged.verdict]
    line: list[Text] = [
        (f" {symbol} ", ink), (f"{title(judged.metric):<20.20} ", Ink.TEXT), (f"{_WORD[judged.verdict]:<10}", ink),
    ]  # fmt: skip
    if judged.worst is None:
        return [*line, (f"  {why_not(judged, verdict.comparison)}", Ink.DIM)]
    line.append((f"{_step(judged.first):>9}", ink if judged.first is not None else Ink.DIM))
    if width >= 100:
        line += [(f"{_step(judged.back):>7}", Ink.TEXT), (f"{_step(judged.worst):>9}", Ink.DIM)]
    line += [
        (f"{short(judged.value):>8}", Ink.BRIGHT), (f"{short(judged.expected):>8}", Ink.TEXT),
        (f"{_distance(judged.distance):>9}", ink),
    ]  # fmt: skip
    cause = verdict.causes.get(judged.metric)
    if cause is not None and width >= 76:
        text = cause.kind if width < 120 else cause.text
        line.append((f"  {text}", Ink.WARN))
    return line


def _step(step: int | None) -> str:
    return "-" if step is None else str(step)


def _distance(value: float) -> str:
    """In half-widths of the band, signed; beyond three digits the size alone counts."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'+' if value > 0 else '−'}inf"
    text = f"{value:+.1f}" if abs(value) < 1000 else f"{value:+.0e}".replace("e+0", "e")
    return text.replace("-", "−")


def why(judged: Judged, verdict: Verdict) -> list[Text]:
    """Why the chosen metric has the verdict it has."""
    from console.parity.report import burst_text, power_text, steps_of, why_not

    cause = verdict.causes.get(judged.metric)
    if cause is not None:
        return [(" likely cause ", Ink.DIM), (cause.text, Ink.WARN)]
    on = f"; steps {steps_of(judged)}" if judged.steps else ""
    if judged.bursts:
        return [(" why ", Ink.DIM), (f"{burst_text(judged, judged.bursts[0])}{on}", Ink.WARN)]
    if reason := why_not(judged, verdict.comparison):
        return [(" why ", Ink.DIM), (f"{reason}{on}", Ink.TEXT)]
    if judged.first is not None:
        return [(" why ", Ink.DIM), (f"out since step {judged.first}{on}", Ink.TEXT)]
    seen = power_text(judged.power, verdict.comparison.rules.metrics[judged.metric]) if judged.power is not None else ""
    power = f"; would have seen {seen}" if seen else ""
    return [(" why ", Ink.DIM), (f"never out of its band for good{on}{power}", Ink.TEXT)]


def shown(comparison: Comparison) -> list[Judged]:
    """The metrics that have a row: all but optional ones that pass without a burst."""
    rules = comparison.rules.metrics
    return [
        one for one in comparison.metrics if not rules[one.metric].optional or one.verdict != "pass" or one.bursts
    ] or list(comparison.metrics)


def waiting(chosen: Chosen, verdict: Verdict | None) -> list[list[Text]]:
    """The lines in place of a table while there is none."""
    names = ", ".join(Path(name).name for name in chosen.names)
    if chosen.state == "loading":
        return [[(f" reading {names}", Ink.ACCENT)]]
    if chosen.state == "failed":
        return [[(f" reference: {chosen.error}", Ink.ALARM)], [(" r chooses another", Ink.DIM)]]
    if chosen.state == "ready" and verdict is None:
        return [[(f" judging against {names}", Ink.ACCENT)]]
    return [[(" no reference run: nothing to be at parity with", Ink.WARN)], *([(f" {line}", Ink.DIM)] for line in HOW)]


def legend(comparison: Comparison, width: int) -> str:
    """The meaning of the numbers, and how many metrics have no row."""
    rules = comparison.rules
    hidden = len(comparison.metrics) - len(shown(comparison))
    more = f"{hidden} more pass; " if hidden else ""
    if width < 110:
        return f"{more}of band: level held for {rules.window} steps, 1 is the edge"
    return (
        f"{more}of band: the level held for {rules.window} steps, or the change within the run, 1 is the edge; "
        f"at most {rules.alpha:.0%} of healthy runs fail"
    )


# -- without a reference: what has a published limit


@dataclass(frozen=True)
class Limited:
    """A metric of the run beside its published limits."""

    metric: Metric
    value: float
    verdict: Health


def limited(model: RunModel) -> list[Limited]:
    """Metrics of the run that have a published limit, the worst first."""
    found = []
    for metric in METRICS:
        value = model.metrics.last(metric.name) if metric.warn is not None or metric.alarm is not None else None
        if value is not None:
            found.append(Limited(metric, value, health(metric.name, value)))
    order: list[Health] = ["alarm", "warn", "healthy", "none"]
    return sorted(found, key=lambda one: order.index(one.verdict))


def limit_line(one: Limited, width: int) -> list[Text]:
    """Value, verdict, limits and who published them."""
    ink = HEALTH_INK[one.verdict]
    # Three digits: with two, the limits 1.05 and 1.1 would be one.
    limits = []
    for word in _WORDS:
        # Of a quantity that is healthy in between, both ends.
        ends = [number(end) for side in _SIDES if (end := one.metric.limit(word, side)) is not None]
        limits += [f"{word} {'-'.join(ends)}"] if ends else []
    below = "below " if one.metric.worse == "low" else ""
    line: list[Text] = [
        (f" {one.metric.title:<26.26}", Ink.TEXT), (f"{number(one.value):>8}  ", Ink.BRIGHT),
        (f"{_HEALTH[one.verdict]:<8}", ink), (f"{below}{', '.join(limits):<24}", Ink.DIM),
    ]  # fmt: skip
    if width >= 90:
        line.append((one.metric.source, Ink.DIM))
    return line


def backend(model: RunModel) -> list[Text]:
    """The verdict on the backend alone, which needs no reference: published limits of the mismatch."""
    found = verdict_now(model)
    ink = {True: Ink.OK, False: Ink.ALARM, None: Ink.DIM}[found.passes]
    word = {True: "passes", False: "FAILS", None: "not enough data"}[found.passes]
    return [(" backend by published limits: ", Ink.DIM), (word, ink), (f", {found.why}", Ink.TEXT)]
