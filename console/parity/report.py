"""A comparison as lines for people and as plain values for JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from console.formatting import short
from console.parity.bursts import Burst
from console.parity.cause import Cause
from console.parity.judge import TOO_LITTLE_POWER, Comparison, Judged
from console.parity.power import Power
from console.parity.rules import Rule, Rules
from console.parity.runs import Corrected, Run
from driftline.catalog.metrics import BY_NAME
from driftline.text import plural

HEADS: Final = ("metric", "verdict", "steps", "out at", "back", "worst", "run", "reference", "of band")


BURSTS: Final = 3
"""Bursts of a metric that are named one by one."""


def lines(comparison: Comparison, causes: dict[str, Cause]) -> list[str]:
    """The table, its notes, and the verdict in the last line."""
    rows = [HEADS, *(_row(judged) for judged in comparison.metrics)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    table = ["  ".join(_aligned(i, cell, widths[i]) for i, cell in enumerate(row)) for row in rows]
    return [_head(comparison), "", *table, "", *_notes(comparison, causes), closing(comparison)]


def _aligned(column: int, cell: str, width: int) -> str:
    """Words to the left, numbers to the right."""
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def closing(comparison: Comparison) -> str:
    """The verdict as one line: `FAIL: clip fraction out of the band since step 4 (and 3 more metrics)`.

    A correction of the objective that was on in the run is named beside it: it may be the reason of a pass. So are
    bursts that were too short for a verdict, and metrics that no run has.
    """
    return _verdict(comparison) + _aside(comparison) + corrected(comparison)


def _aside(comparison: Comparison) -> str:
    """What a pass does not cover: `; a burst of mismatch at steps 20 to 22; not recorded: KL`."""
    if comparison.verdict != "pass":
        return ""
    text = ""
    for one in comparison.metrics:
        if one.bursts:
            many = f"{len(one.bursts)} bursts" if len(one.bursts) > 1 else "a burst"
            first = ", the first" if len(one.bursts) > 1 else ""
            text += f"; {many} of {title(one.metric)}{first} at {_span(one.bursts[0].first, one.bursts[0].last)}"
    if comparison.unrecorded:
        text += f"; not recorded, not judged: {', '.join(map(title, comparison.unrecorded))}"
    return text


def _span(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"


def corrected(comparison: Comparison) -> str:
    """`; the objective corrected by tis` if a correction was on in the judged steps of the run, else ""."""
    values = dict.fromkeys(one.value for one in comparison.run.corrected(comparison.start, comparison.until))
    return f"; the objective corrected by {', '.join(values)}" if values else ""


def _verdict(comparison: Comparison) -> str:
    failed = [judged for judged in comparison.metrics if judged.verdict == "fail"]
    if comparison.verdict == "fail":
        # Of several since the same step, the one that is farthest off, and of one mismatch its first name.
        rules = comparison.rules.metrics
        first = min(failed, key=lambda one: (one.first or 0, rules[one.metric].optional, -abs(one.distance)))
        more = f" (and {plural(len(failed) - 1, 'more metric')})" if len(failed) > 1 else ""
        # Far off like its reference: only the limit says so.
        where = "beyond its limit" if abs(first.distance) <= 1 else "out of the band"
        return f"FAIL: {title(first.metric)} {where} since step {first.first}{more}"
    if comparison.verdict == "not enough data":
        lacking = [judged for judged in comparison.metrics if judged.verdict == "not enough data"]
        clause = f"{title(lacking[0].metric)}: {why_not(lacking[0], comparison)}" if lacking else comparison.lacking
        return f"NOT ENOUGH DATA: {clause}"
    home = comparison.home
    return "PASS" + (f": home since step {home}" if home is not None and comparison.start is not None else "")


def why_not(judged: Judged, comparison: Comparison) -> str:
    """The reason of a verdict as a clause, "" where there is none besides the band."""
    if judged.reason != TOO_LITTLE_POWER or judged.power is None:
        return judged.reason
    rule = comparison.rules.metrics[judged.metric]
    least = power_text(judged.power, rule) or "no shift"
    effect = rule.effect or 0.0
    needed = f"±{short(effect)}" if rule.scale == "linear" else f"×{short(math.exp(effect))}"
    return f"too little power: would have seen {least}, a pass needs {needed}"


def power_text(power: Power, rule: Rule) -> str:
    """The smallest shifts that would have failed: `±.2`, `+.02`, `×.4 or ×2.5`; "" where there is none."""
    if rule.scale == "linear":
        least = power.least(rule)
        sign = {"both": "±", "high": "+", "low": "−"}[rule.side]
        return f"{sign}{short(least)}" if math.isfinite(least) else ""
    factors = []
    if rule.side != "high" and not math.isnan(power.low) and power.level > 0:
        factors.append(power.low / power.level)
    if rule.side != "low" and power.level > 0:
        factors.append(power.high / power.level)
    return " or ".join(f"×{short(one)}" for one in factors if math.isfinite(one))


def title(metric: str) -> str:
    """The catalogue's title of a metric."""
    return BY_NAME[metric].title if metric in BY_NAME else metric


def document(comparison: Comparison, causes: dict[str, Cause]) -> dict[str, Any]:
    """The comparison as plain values; the keys are documented in `console.cli.verbs.compare`."""
    return {
        "verdict": comparison.verdict,
        "run": comparison.run.id,
        "references": [reference.id for reference in comparison.references],
        "synthetic": _synthetic(comparison),
        "spread": "measured" if comparison.measured else "assumed",
        "alpha": comparison.rules.alpha,
        "window": comparison.rules.window,
        "from": comparison.start,
        "until": comparison.until,
        "home": comparison.home,
        "reason": comparison.lacking,
        "unrecorded": list(comparison.unrecorded),
        "apart": comparison.apart,
        "corrections": [
            {"run": run.id, "id": one.value, "first": one.first, "last": one.last}
            for run, one in _corrections(comparison)
        ],
        "missing": {run.id: list(run.missing) for run in (*comparison.references, comparison.run) if run.missing},
        "metrics": [_document(judged, causes.get(judged.metric), comparison) for judged in comparison.metrics],
    }


def _document(judged: Judged, cause: Cause | None, comparison: Comparison) -> dict[str, Any]:
    return {
        "metric": judged.metric,
        "verdict": judged.verdict,
        "steps": judged.steps,
        "since": judged.since,
        "until": judged.until,
        "first": judged.first,
        "back": judged.back,
        "excursions": [
            {"first": one.first, "last": one.last, "side": "above" if one.above else "below"}
            for one in judged.excursions
        ],
        "worst": judged.worst,
        "value": None if judged.worst is None else judged.value,
        "reference": None if judged.worst is None else judged.expected,
        "difference": None if judged.worst is None else judged.value - judged.expected,
        "distance": None if judged.worst is None else judged.distance,
        "distance_last": None if judged.worst is None else judged.last,
        "reason": why_not(judged, comparison),
        "bursts": [
            {
                "first": one.first,
                "last": one.last,
                "steps": one.count,
                "peak": one.peak,
                "side": "above" if one.above else "below",
            }
            for one in judged.bursts
        ],
        "sees": _sees(judged),
        "cause": None if cause is None else {"kind": cause.kind, "fixes": list(cause.fixes), "text": cause.text},
    }


def _sees(judged: Judged) -> dict[str, float | None] | None:
    if judged.power is None:
        return None
    power = judged.power
    return {
        "level": power.level if math.isfinite(power.level) else None,
        "low": power.low if math.isfinite(power.down) and math.isfinite(power.low) else None,
        "high": power.high if math.isfinite(power.up) else None,
    }


def _row(judged: Judged) -> tuple[str, ...]:
    def step(value: int | None) -> str:
        return "-" if value is None else str(value)

    known = judged.worst is not None
    return (
        title(judged.metric),
        judged.verdict,
        steps_of(judged),
        step(judged.first),
        step(judged.back),
        step(judged.worst),
        short(judged.value) if known else "-",
        short(judged.expected) if known else "-",
        f"{judged.distance:+.1f}" if known else "-",
    )


def steps_of(judged: Judged) -> str:
    """The steps that a metric was judged on: `1-90`, and how many where some are missing, `1-90 (72)`."""
    if judged.since is None or judged.until is None:
        return "-"
    holed = judged.steps < judged.until - judged.since + 1
    return f"{judged.since}-{judged.until}" + (f" ({judged.steps})" if holed else "")


def _head(comparison: Comparison) -> str:
    references = comparison.references
    names = ", ".join(reference.id for reference in references)
    span = [judged.until for judged in comparison.metrics if judged.until is not None]
    steps = ""
    if span:
        steps = f", {'' if comparison.start is None else f'from step {comparison.start} '}to step {max(span)}"
    after = " (after a switch: time to come home is granted)" if comparison.start is not None else ""
    label = "SYNTHETIC  " if _synthetic(comparison) else ""
    return f"{label}{comparison.run.id} against {plural(len(references), 'reference run')} ({names}){steps}{after}"


def _notes(comparison: Comparison, causes: dict[str, Cause]) -> list[str]:
    rules = comparison.rules
    metrics_by_text: dict[str, list[str]] = {}
    for metric, cause in causes.items():
        metrics_by_text.setdefault(cause.text, []).append(title(metric))
    notes = [f"likely cause of {', '.join(metrics)}: {text}" for text, metrics in metrics_by_text.items()]
    notes += [f"{title(one.metric)}: {why_not(one, comparison)}" for one in comparison.metrics if one.reason]
    notes += [burst_text(one, burst) for one in comparison.metrics for burst in one.bursts[:BURSTS]]
    if comparison.lacking and comparison.metrics:
        notes.append(comparison.lacking)
    if comparison.unrecorded:
        notes.append(f"recorded by no run, not judged: {', '.join(map(title, comparison.unrecorded))}")
    for run, one in _corrections(comparison):
        last = "on" if one.last is None else f"to {one.last}"
        notes.append(f"correction of the objective in {run.id}: {one.value} from step {one.first} {last}")
    seen = power_lines(comparison)
    if seen:
        notes.append(f"would have seen, over the last half of the steps: {', '.join(seen)}")
    notes += assumptions(comparison)
    notes.append(
        f"of band: the level that the run's means of {rules.window} steps held for {rules.window} steps, "
        f"1 is the edge of the band; at most {rules.alpha:.0%} of healthy runs fail"
    )
    return notes


def burst_text(judged: Judged, burst: Burst) -> str:
    """One burst as a sentence."""
    side = "above" if burst.above else "below"
    return (
        f"{title(judged.metric)}: a burst at {_span(burst.first, burst.last)}, {plural(burst.count, 'step')} {side} "
        f"the band, as far as {short(burst.peak)}; too short for a verdict"
    )


def power_lines(comparison: Comparison) -> list[str]:
    """`reward ±.2`: the smallest shift of each metric that would have failed."""
    found = []
    for judged in comparison.metrics:
        if judged.power is not None and judged.verdict != "fail":
            text = power_text(judged.power, comparison.rules.metrics[judged.metric])
            found.append(f"{title(judged.metric)} {text or 'no shift at all'}")
    return found


def assumptions(comparison: Comparison) -> list[str]:
    """What the share of false alarms rests on, where the data cannot say or say otherwise."""
    rules = comparison.rules
    if not comparison.measured:
        spreads = ", ".join(
            f"{title(one.metric)} {'' if rules.metrics[one.metric].scale == 'linear' else '×'}"
            f"{short(_reach(rules.metrics[one.metric], rules))}"
            for one in comparison.metrics
            if one.band is not None
        )
        return [
            "one reference run: its spread over seeds is assumed from the rules, not measured: a standard deviation of "
            f"at most {spreads}"
        ]
    return [
        f"outside the model: the references' {title(metric)} is {apart:.1f} times as far apart as the rules assume, "
        f"{rules.reach:g} times are allowed for; the band is wider, but the share of false alarms is not known"
        for metric, apart in comparison.apart.items()
    ]


def _reach(rule: Rule, rules: Rules) -> float:
    """The largest spread over seeds that is allowed for: in units, or as a factor."""
    spread = rules.reach * rule.spread
    return spread if rule.scale == "linear" else math.exp(spread)


def _corrections(comparison: Comparison) -> Iterator[tuple[Run, Corrected]]:
    """Corrections in the judged steps, of the run and of its references."""
    for run in (comparison.run, *comparison.references):
        for one in run.corrected(comparison.start, comparison.until):
            yield run, one


def _synthetic(comparison: Comparison) -> bool:
    return comparison.run.synthetic or any(reference.synthetic for reference in comparison.references)
