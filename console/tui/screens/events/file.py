"""The events that pass the filter of the events screen, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from console.formatting import to_json
from console.store.log import Entry

SUFFIX: Final = ".ndjson"


def write(entries: Sequence[Entry], out: Path, run: str, wanted: str) -> int:
    """Write entries to `out` and return how many; its extension picks the format, as `driftline export` has them.

    Columns are those of the table `events` (times in UTC, `data` as JSON) with the producer and the hub's time, and
    all else that the screen shows: commands with their answers, changes of fixes, engines and of who holds the run.
    Raises ExportError.
    """
    # Polars takes a third of a second to import, which only who exports should pay for.
    import polars as pl

    from console.export import save

    schema = {
        "seq": pl.Int64(), "time": pl.Datetime("us", "UTC"), "producer": pl.String(), "level": pl.String(),
        "kind": pl.String(), "text": pl.String(), "step": pl.Int64(), "data": pl.String(), "ref": pl.String(),
    }  # fmt: skip
    rows = {
        "seq": [entry.seq for entry in entries],
        "time": [round(entry.time * 1e6) for entry in entries],
        **{name: [getattr(entry, name) for entry in entries] for name in ("producer", "level", "kind", "text", "step")},
        "data": [to_json(entry.data) for entry in entries],
        "ref": [entry.ref for entry in entries],
    }
    frame = pl.DataFrame(rows, schema_overrides=schema | {"time": pl.Int64()}).with_columns(
        pl.col("time").cast(schema["time"])
    )
    save(frame, out, {"driftline.run": run, "driftline.table": "log", "driftline.filter": wanted})
    return frame.height
