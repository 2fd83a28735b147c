"""Rows as lines of strict JSON. Polars would write null for NaN and infinities, which would hide a divergence."""

from __future__ import annotations

import io
import math
from collections import defaultdict

import msgspec
import polars as pl


def lines(part: pl.DataFrame) -> bytes:
    """One object a row; NaN and infinities are the strings of `console.formatting.to_json`."""
    made = io.BytesIO()
    part.write_ndjson(made)
    words: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for column in part.iter_columns():
        if column.dtype.is_float():
            for at in (~column.is_finite()).arg_true().to_list():
                words[at][column.name] = _word(column[at])
    if not words:
        return made.getvalue()
    rows = made.getvalue().split(b"\n")
    for at, values in words.items():
        rows[at] = msgspec.json.encode(msgspec.json.decode(rows[at]) | values)
    return b"\n".join(rows)


def _word(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
