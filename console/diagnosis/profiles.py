"""Small pictures of |d|: by version, engine, position, probability. Pure."""

from __future__ import annotations

import numpy as np

from console.diagnosis.columns import Columns
from console.diagnosis.instruments.places import engine_means, position_means
from console.diagnosis.instruments.shape import surprise_means
from console.diagnosis.instruments.timing import by_version
from console.diagnosis.model import Profile

MOST_VERSIONS = 48


def profiles(columns: Columns, history: tuple[tuple[int, float, float], ...] = ()) -> tuple[Profile, ...]:
    """Mean |d| in nats over versions, engines, positions, classes of probability, and before and behind a seam."""
    table = sorted([*history, *by_version(columns)])[-MOST_VERSIONS:]
    by = [
        (
            "onset",
            "by version of the weights",
            [str(row[0]) for row in table],
            [row[2] / max(row[1], 1) for row in table],
        )
    ]
    engines = engine_means(columns)
    by.append(("engine", "by engine", list(engines), [value for value, _ in engines.values()]))
    names, means, _ = position_means(columns)
    by.append(("position", "by position in the response", names, means))
    names, means = surprise_means(columns)
    by.append(("tails", "by the trainer's probability", names, means))
    behind = columns.seam > 0
    if behind.any():
        values = [
            float(np.minimum(columns.size[one], 5).mean()) if one.any() else float("nan") for one in (~behind, behind)
        ]
        by.append(("seam", "before and behind a change of weights", ["before", "behind"], values))
    return tuple(Profile(what, title, tuple(labels), tuple(values)) for what, title, labels, values in by if labels)
