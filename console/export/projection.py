"""The part of a stored table that is wanted: a hint that saves a reader work; the result is still filtered."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

KEYS: Final = frozenset({"seq", "step", "version", "time"})
"""Columns with one value a frame, which cost next to nothing to read."""


class Projection(NamedTuple):
    """Columns and rows that a caller asks for.

    A reader may leave the other `columns` (None: none) without values, and rows out for which `where`, an expression
    of KEYS, does not hold, where that saves more than it costs; so the caller still has to filter and to select.
    `reports` has all its columns in any case, those that are not wanted without values and of no type, because their
    names are a part of the answer.
    """

    columns: frozenset[str] | None = None
    where: pl.Expr | None = None

    def has(self, name: str) -> bool:
        """Whether a column is wanted."""
        return self.columns is None or name in self.columns

    def rows(self, keys: pl.DataFrame) -> npt.NDArray[np.bool_] | None:
        """Which rows are wanted, by their keys; None for all of them."""
        if self.where is None:
            return None
        # A condition that is null is not met.
        wanted = keys.select(self.where.alias("wanted"))["wanted"].fill_null(value=False).to_numpy()
        return None if wanted.all() else wanted


EVERYTHING: Final = Projection()


def projection_for(columns: list[str] | None, where: pl.Expr | None) -> Projection:
    """The projection for columns and a row filter that Polars pushes down."""
    if columns is None:
        return Projection(None, only_keys(where))
    needed = frozenset(columns) | frozenset(where.meta.root_names() if where is not None else ())
    return Projection(needed, only_keys(where))


def only_keys(where: pl.Expr | None) -> pl.Expr | None:
    """The condition, if it depends on KEYS alone, else None."""
    return where if where is not None and KEYS.issuperset(where.meta.root_names()) else None
