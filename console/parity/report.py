"""A comparison as lines for people and as plain values for JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from console.formatting import short
from console.parity.cause import Cause
from console.parity.judge import Comparison, Judged
from console.parity.runs import Corrected, Run
from driftline.catalog.metrics import BY_NAME
from driftline.text import plural

HEADS: Final = ("metric", "verdict", "out at", "back", "worst", "run", "reference", "distance")


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

    A correction of the objective that was on in the run is named beside it: it may be the reason of a pass.
    """
    return _verdict(comparison) + corrected(comparison)


def corrected(comparison: Comparison) -> str:
    """`; the objective corrected by tis` if a correction was on in the judged steps of the run, else ""."""
    values = dict.fromkeys(one.value for one in comparison.run.corrected(comparison.start, comparison.until))
    return f"; the objective corrected by {', '.join(values)}" if values else ""


def _verdict(comparison: Comparison) -> str:
    failed = [judged for judged in comparison.metrics if judged.verdict == "fail"]
    if comparison.verdict == "fail":
        # Of several since the same step, the one that is farthest off.
        first = min(failed, key=lambda judged: (judged.first or 0, -abs(judged.distance)))
        more = f" (and {plural(len(failed) - 1, 'more metric')})" if len(failed) > 1 else ""
        return f"FAIL: {title(first.metric)} out of the band since step {first.first}{more}"
    if comparison.verdict == "not enough data":
        lacking = next(judged for judged in comparison.metrics if judged.verdict == "not enough data")
        return f"NOT ENOUGH DATA: {title(lacking.metric)}: {lacking.reason}"
    home = comparison.home
    return "PASS" + (f": home since step {home}" if home is not None and comparison.start is not None else "")


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
        "corrections": [
            {"run": run.id, "id": one.value, "first": one.first, "last": one.last}
            for run, one in _corrections(comparison)
        ],
        "metrics": [_document(judged, causes.get(judged.metric)) for judged in comparison.metrics],
    }


def _document(judged: Judged, cause: Cause | None) -> dict[str, Any]:
    return {
        "metric": judged.metric,
        "verdict": judged.verdict,
        "steps": judged.steps,
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
        "reason": judged.reason,
        "cause": None if cause is None else {"kind": cause.kind, "fixes": list(cause.fixes), "text": cause.text},
    }


def _row(judged: Judged) -> tuple[str, ...]:
    def step(value: int | None) -> str:
        return "-" if value is None else str(value)

    known = judged.worst is not None
    return (
        title(judged.metric),
        judged.verdict,
        step(judged.first),
        step(judged.back),
        step(judged.worst),
        short(judged.value) if known else "-",
        short(judged.expected) if known else "-",
        f"{judged.distance:+.1f}" if known else "-",
    )


def _head(comparison: Comparison) -> str:
    references = comparison.references
    names = ", ".join(reference.id for reference in references)
    span = [int(judged.curve.steps[-1]) for judged in comparison.metrics if judged.curve is not None]
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
    notes += [f"{title(one.metric)}: {one.reason}" for one in comparison.metrics if one.reason]
    for run, one in _corrections(comparison):
        last = "on" if one.last is None else f"to {one.last}"
        notes.append(f"correction of the objective in {run.id}: {one.value} from step {one.first} {last}")
    if not comparison.measured:
        notes.append("one reference run: its spread over seeds is assumed from the rules, not measured")
    notes.append(
        f"means of {rules.window} steps, the one farthest off; distance in spreads of a healthy run; "
        f"at most {rules.alpha:.0%} of healthy runs fail"
    )
    return notes


def _corrections(comparison: Comparison) -> Iterator[tuple[Run, Corrected]]:
    """Corrections in the judged steps, of the run and of its references."""
    for run in (comparison.run, *comparison.references):
        for one in run.corrected(comparison.start, comparison.until):
            yield run, one


def _synthetic(comparison: Comparison) -> bool:
    return comparison.run.synthetic or any(reference.synthetic for reference in comparison.references)
