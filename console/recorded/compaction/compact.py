"""Closed segments of a journal as Parquet: a sixth of the bytes or less, read by column, each page with a checksum.

`RUN/parquet/<table>/<segment>.parquet`, one file a table and segment, and `RUN/parquet/<segment>.json` once all of them
are complete, forced to the disk and read back: without that note nothing may be deleted (`[hub] keep_*`). Together the
tables have every frame of the segment: `reports` (a row for each frame of numbers, see
`console.recorded.compaction.wide`), `metrics` (a row for each number of those whose names are too many), `events`,
`spans`, `fixes` (a row for each engine's report), `tokens` (a row for each token) and `rest`, all other frames
as they are in the journal.

All tables have `seq`, the hub's `hub_time` and the `producer`; times are Unix seconds as in the frames.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from console.process import ending
from console.recorded.compaction import temporary, wide
from console.recorded.compaction.encode import Batch, batches
from driftline import bounded_file
from driftline.frames import Stamped
from driftline.journal.disk import sync_path
from driftline.journal.journal import Damage, read_segment, segments
from driftline.rundir import NOTE_BYTES, RunDir

if TYPE_CHECKING:
    import pyarrow as pa

LOOK_SECONDS: Final = 5.0
"""Seconds between two searches of the background process for another closed segment."""


class CompactError(RuntimeError):
    """A segment that was not compacted, or whose tables are wrong; the message is a whole sentence."""


class Note(msgspec.Struct, frozen=True):
    """Record of one compacted segment: rows and SHA-256 by table, bytes before and after, damaged bytes left out."""

    segment: int
    first: int
    last: int
    journal_bytes: int
    parquet_bytes: int
    damaged: int
    rows: dict[str, int]
    sha256: dict[str, str]


def closed(run: RunDir) -> list[Path]:
    """Segments that no hub writes to any more, oldest first."""
    live = run.live()  # checked first: a hub that starts now begins a segment of its own
    paths = segments(run.journal)
    return paths[:-1] if live else paths


def compact(run: RunDir) -> Iterator[Note]:
    """Write the tables of every closed segment that has none yet. Raises CompactError; complete segments stay.

    What a compaction that was killed has left is removed first.
    """
    todo = [path for path in closed(run) if not run.compacted(int(path.stem)).exists()]
    if todo:
        temporary.remove_leftovers(run.parquet)
    for path in todo:
        if not run.compacted(int(path.stem)).exists():  # another compaction may be at work too
            yield _segment(run, path)


def check(run: RunDir) -> list[str]:
    """Read every table back, page checksums and whole files; one sentence for each that is wrong."""
    wrong = []
    for note_path in sorted(run.parquet.glob("*.json")):
        try:
            note = msgspec.json.decode(bounded_file.read(note_path, NOTE_BYTES), type=Note)
        except (OSError, msgspec.MsgspecError) as error:
            wrong.append(f"{note_path}: not a note of this project: {error}")
            continue
        for table, rows in note.rows.items():
            path = _file(run, table, note.segment)
            try:
                # The whole file first: checksums of pages do not cover the bytes between them, and the footer.
                if _sha256(path) != note.sha256[table]:
                    raise CompactError(f"{path}: checksum mismatch: the file has changed since it was written")
                _read_back(path, rows)
            except (CompactError, OSError) as error:
                wrong.append(str(error))
    return wrong


def _segment(run: RunDir, path: Path) -> Note:
    import pyarrow as pa

    number = int(path.stem)
    damage = Damage()
    span = [0, 0]

    def frames() -> Iterator[Stamped]:
        for stamped in read_segment(path, 1, damage):
            span[0], span[1] = span[0] or stamped.seq, stamped.seq
            yield stamped

    writers: dict[str, _Writer] = {}
    try:
        # Not the run directory itself: where that is away for a while, it must find its place empty.
        run.parquet.mkdir(mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            for batch in batches(frames()):
                table = batch.table
                if table not in writers:
                    _file(run, table, number).parent.mkdir(mode=0o700, exist_ok=True)
                    writers[table] = stack.enter_context(_Writer(_file(run, table, number), batch.kinds))
                writers[table].write(batch)
        for writer in writers.values():
            _read_back(writer.path, writer.rows)
            sync_path(writer.path.parent)
        note = Note(
            number,
            span[0],
            span[1],
            path.stat().st_size,
            sum(writer.path.stat().st_size for writer in writers.values()),
            damage.bytes,
            {table: writer.rows for table, writer in writers.items()},
            {table: _sha256(writer.path) for table, writer in writers.items()},
        )
        temporary.write(run.compacted(number), msgspec.json.format(msgspec.json.encode(note)))
        sync_path(run.parquet)
    except (OSError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CompactError(f"segment {number} of {run.path}: not compacted: {reason}") from error
    return note


class _Writer:
    """One table of one segment, under its name once it is complete and on the disk."""

    def __init__(self, path: Path, kinds: Mapping[str, str]) -> None:
        import pyarrow as pa

        self.path, self.rows = path, 0
        self._schema: pa.Schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in kinds.items()])

    def __enter__(self) -> _Writer:
        import pyarrow.parquet as pq

        self._temporary, self._file = temporary.create(self.path)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(ending.temporary(self._temporary))
        # Numbers of reports hardly ever repeat: a dictionary of them would not save anything.
        coded = [name for name in self._schema.names if not name.startswith(wide.VALUE)]
        self._parquet = pq.ParquetWriter(
            self._file, self._schema, compression="zstd", write_page_checksum=True, version="2.6", use_dictionary=coded
        )
        return self

    def write(self, batch: Batch) -> None:
        import pyarrow as pa

        arrays = [
            pa.array(batch.columns[field.name], type=field.type, mask=batch.missing.get(field.name))
            for field in self._schema
        ]
        self._parquet.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self.rows += len(arrays[0])

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._parquet.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            if kind is None:
                os.rename(self._temporary, self.path)
        finally:
            self._file.close()
            self._stack.close()


def _read_back(path: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = sum(batch.num_rows for batch in file.iter_batches())
    except (OSError, pa.ArrowException, ValueError) as error:  # ValueError: names that are not UTF-8
        raise CompactError(f"{path}: cannot be read: {error}") from error
    if found != rows:
        raise CompactError(f"{path}: has {found} rows, {rows} were written")


def _file(run: RunDir, table: str, segment: int) -> Path:
    return run.parquet / table / f"{segment:06d}.parquet"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """The background process of a live run, until SIGTERM or the end of the run.

    `python -m console.recorded.compaction.compact RUN_DIR`
    """
    parser = argparse.ArgumentParser(prog="python -m console.recorded.compaction.compact")
    parser.add_argument("run", type=Path)
    run = RunDir(parser.parse_args().run.resolve())
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    os.nice(19)  # the trainer and the engines come first
    while not asked:
        try:
            for note in compact(run):
                print(f"segment {note.segment}: {note.journal_bytes} -> {note.parquet_bytes} bytes", flush=True)
                if asked:
                    break
        except CompactError as error:
            print(f"driftline compact: {error}", file=sys.stderr, flush=True)
        deadline = time.monotonic() + LOOK_SECONDS
        while not asked and time.monotonic() < deadline:
            time.sleep(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
