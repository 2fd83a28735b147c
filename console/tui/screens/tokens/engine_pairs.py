"""Engine against engine: what shadow scoring has found, newest step first, as lines. Pure.

The trainer reports one mean for each pair of engines (`trainer.measure.shadow`), and in the label of the whole which
pairs there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import number
from console.tui.screens.tokens.view import INKS, level, padded, size_of

NAME: Final = "shadow/abs_diff_mean"
RECENT: Final = 8
"""Steps whose means stand behind the newest one."""
_NUMBERS: Final = ("abs_diff_mean", "abs_diff_p99", "tokens")


@dataclass(frozen=True)
class EnginePair:
    """Tokens that `sampled` has sampled, as `scored` scores them: the newest step, and the means before it."""

    sampled: str
    scored: str
    step: int
    mean: float
    p99: float
    tokens: float
    recent: npt.NDArray[np.float64]


def engine_pairs(model: RunModel) -> list[EnginePair]:
    """The pairs of the newest step that has any, the one that is furthest apart first."""
    named = [pair.split(" by ") for pair in model.labels.get(NAME, "").split(", ")]
    names = [(pair[0], pair[1]) for pair in named if len(pair) == 2]
    found = []
    for sampled, scored in names:
        own = f"shadow/{sampled}-{scored}/" if len(names) > 1 else "shadow/"
        mean, p99, tokens = (model.metrics.points(own + name) for name in _NUMBERS)
        if not (len(mean) and len(p99) and len(tokens)):
            continue
        found.append(
            EnginePair(
                sampled, scored, int(mean.steps[-1]), float(mean.values[-1]), float(p99.values[-1]),
                float(tokens.values[-1]), np.asarray(mean.values[-RECENT - 1 : -1], dtype=np.float64),
            )
        )  # fmt: skip
    return sorted(found, key=lambda pair: -pair.mean if np.isfinite(pair.mean) else 0.0)


def pairs_label(model: RunModel, pairs: list[EnginePair]) -> str:
    """How much is compared."""
    parts = []
    for name, word in (("shadow/share", "share"), ("shadow/skipped", "tokens skipped")):
        if (value := model.metrics.last(name)) is not None:
            parts.append(f"{word} {number(value)}")
    return ", ".join([f"step {pairs[0].step}", *parts]) if pairs else ""


def pair_lines(pairs: list[EnginePair], width: int, glyphs: Glyphs) -> list[list[Text]]:
    """One line for each pair."""
    wide = max((len(pair.sampled) + len(pair.scored) + 4 for pair in pairs), default=0)
    wide = min(wide, max(width // 2, 12))
    found: list[list[Text]] = []
    for pair in pairs:
        line: list[Text] = [
            (" ", Ink.TEXT),
            (padded(f"{pair.sampled} {glyphs.arrow} {pair.scored}", wide), Ink.TEXT),
            ("  mean|Δ| ", Ink.DIM),
            (padded(size_of(pair.mean), 7, right=True), INKS[level(pair.mean)]),
            ("  p99 ", Ink.DIM),
            (padded(size_of(pair.p99), 7, right=True), Ink.TEXT),
            (f"  of {number(pair.tokens)} tokens", Ink.DIM),
        ]
        used = sum(len(text) for text, _ in line)
        if len(pair.recent) and used + 8 + 8 * len(pair.recent) <= width:
            line.append(("  before ", Ink.DIM))
            line += [(padded(size_of(value), 8), INKS[level(value)]) for value in pair.recent[::-1]]
        found.append(line)
    return found
