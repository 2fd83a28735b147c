"""A migration taken apart by layer: the candidate with its fixes put on one layer after the other. Pure.

As the article did it: processed logprobs first, then prefix cache and scheduling, then the semantics of requests in
flight, then the head in float32. Each run has the fixes of all layers before its own, from the first step on, so that a
row less the row above it is what one layer brings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from console.formatting import short
from console.parity.judge import Comparison
from console.parity.report import closing, title
from console.parity.runs import Run
from driftline.catalog.fixes import BY_ID, FIXES

COLUMNS: Final = (
    "mismatch/abs_diff_mean",
    "mismatch/ratio_mean",
    "policy/clip_fraction",
    "policy/kl_new_old",
    "policy/entropy",
    "reward/mean",
)
"""The mean ratio stands beside the others because it is back at 1 long before they are."""


@dataclass(frozen=True)
class Stage:
    """A run of the candidate: `name` says which fixes were on, `comparison` is against all references."""

    name: str
    comparison: Comparison


def layers(fixes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The layers that some fixes are in, in the catalogue's order, each with its fixes."""
    found: dict[str, list[str]] = {}
    for fix in FIXES:
        if fix.id in fixes:
            found.setdefault(fix.layer, []).append(fix.id)
    return list(found.items())


def cumulative(fixes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """For each layer but the last: its name in the table, and the fixes of it and of all before it."""
    on: list[str] = []
    found = []
    for _, own in layers(fixes)[:-1]:
        on = [*on, *own]
        found.append((added(own), list(on)))
    return found


def added(fixes: Sequence[str]) -> str:
    """`+ processed logprobs`."""
    return "+ " + ", ".join(BY_ID[fix].title for fix in fixes)


def table(references: Sequence[Run], stages: Sequence[Stage]) -> list[str]:
    """Lines: a head, a row for the references (mean of their means), and one a stage, with its verdict below the table.

    The figures are means over the second half of the steps.
    """
    heads = ["", *(title(name) for name in COLUMNS)]
    rows = [["the reference", *_cells(references)]]
    rows += [[stage.name, *_cells([stage.comparison.run])] for stage in stages]
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [_line(row, widths) for row in (heads, *rows)]
    width = max(len(stage.name) for stage in stages)
    verdicts = [f"{stage.name:<{width}}  {closing(stage.comparison)}" for stage in stages]
    return [*lines, "", *verdicts]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()


def _cells(runs: Sequence[Run]) -> list[str]:
    return [_cell([late(run, name) for run in runs]) for name in COLUMNS]


def _cell(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return short(sum(known) / len(known)) if known else "not recorded"


def late(run: Run, name: str) -> float:
    """Mean of a metric over the second half of a run's steps; NaN where it has none."""
    series = run.series.get(name)
    if series is None:
        return math.nan
    middle = (series.steps[0] + series.steps[-1]) / 2
    values = series.values[(series.steps > middle) & np.isfinite(series.values)]
    return float(values.mean()) if len(values) else math.nan
