"""Loads a recorded run: the model of its frames, without decoding a frame for each of a million steps.

    loaded = load(run)                     # a RunDir: ended, live, or a copy; from the journal or the compacted tables
    loaded.model                           # as if every frame had been applied, in order
    load(run, until=40_000).model          # as it was after frame 40,000: where a replay starts from

Numbers are read from the journal in bulk (`console.recorded.metric_arrays`) and appended to their series as columns;
all other frames, of which there are few, are decoded and applied one by one. The result equals the model of
the same frames one by one (tests/unit/test_store_load.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from console.recorded.blocks import Block, decoder, run_segments, segment
from console.recorded.metric_arrays import Alike, Layouts
from console.recorded.metric_columns import Portion, Stretch, stretches_of_frames
from console.store.model import RunModel
from driftline.frames import DECODE_ERRORS, FrameError, Metrics, decode
from driftline.journal.records import Damage
from driftline.rundir import RunDir

_METRICS: Final = ord("m")
_TOKENS: Final = ord("t")
_END: Final = 2**63 - 1


class Loaded(NamedTuple):
    """A run as of frame `seq` (0: none), stamped by the hub at Unix time `time`; `damaged` bytes were skipped."""

    model: RunModel
    seq: int
    time: float | None
    damaged: int


def load(run: RunDir, *, until: int | None = None) -> Loaded:
    """The model of a run's frames, up to and including number `until`.

    Raises OSError, or what Polars and pyarrow raise, for a file that cannot be read.
    """
    damage = Damage()
    model = RunModel()
    for portion in portions(run, damage, _END if until is None else until):
        apply_portion(model, portion)
    return Loaded(model, model.head, model.last_time, damage.bytes)


def portions(run: RunDir, damage: Damage, until: int = _END) -> Iterator[Portion]:
    """The frames of a run up to number `until`, in order; `damage` counts what was skipped.

    A segment that the journal no longer has is read from its Parquet.
    """
    layouts = Layouts()
    for number, path in run_segments(run):
        if path is None or not path.exists():  # since it was listed: a hub deletes what is compacted
            from console.recorded.compaction.frames import portion  # Polars takes a while to load

            found = portion(run, number, until)
            if found is not None:
                yield found
            continue
        for block in segment(path, damage):
            wanted = block.first(int(np.searchsorted(block.seqs, np.uint64(until), side="right")))
            found = _portion(wanted, layouts)
            if found is not None:
                yield found
            if len(wanted) < len(block):
                return


def apply_portion(model: RunModel, portion: Portion) -> None:
    """Apply frames behind the model's head, as `RunModel.apply` would one by one."""
    if portion.stretches:
        places = np.concatenate([one.places for one in portion.stretches])
        order = np.argsort(places)
        steps = np.maximum.accumulate(np.concatenate([one.steps for one in portion.stretches])[order])
        places = places[order]
    if model.first_time is None:
        model.first_time = portion.first[1]
    for stamped in portion.others:
        if portion.stretches:
            # Marks are set at the newest step that was reported before their frame.
            before = int(np.searchsorted(places, stamped.seq))
            model.step = max(model.step, int(steps[before - 1])) if before else model.step
        model.apply(stamped)
    if portion.stretches:
        model.apply_metrics(portion.stretches)
    model.damaged += portion.damaged
    model.head, model.last_time = portion.last


def _portion(block: Block, layouts: Layouts) -> Portion | None:
    """A block of the journal; None if it has no record of this version."""
    first, last = _end(block, range(len(block))), _end(block, range(len(block) - 1, -1, -1))
    if first is None or last is None:
        return None
    alike, odd = layouts.sort(block)
    stretches = [_stretch(one) for one in alike]
    single, damaged = _frames(block.bodies(odd))
    others = np.flatnonzero((block.tags != _METRICS) & (block.tags != _TOKENS))
    found = []
    for body in block.bodies(others):
        try:
            found.append(decoder.decode(body))
        except DECODE_ERRORS:
            continue  # intact, but not a record of this version
    tokens = block.bodies(np.flatnonzero(block.tags == _TOKENS))
    damaged += sum(not _sound(body) for body in tokens)
    return Portion([*stretches, *stretches_of_frames(single)], found, first, last, damaged)


def _end(block: Block, places: range) -> tuple[int, float] | None:
    """Number and hub time of the first of some places of a block at which a record of this version is."""
    for at in places:
        try:
            stamped = decoder.decode(block.bodies(np.array([at]))[0])
        except DECODE_ERRORS:
            continue
        return stamped.seq, stamped.time
    return None


def _stretch(alike: Alike) -> Stretch:
    layout, rows = alike.layout, alike.rows
    values = {name: number.floats(rows) for name, number in layout.values.items()}
    return Stretch(layout.seq.ints(rows), layout.step.ints(rows), layout.time.floats(rows), values, layout.labels)


def _frames(bodies: Sequence[bytes]) -> tuple[list[tuple[int, Metrics]], int]:
    """Numbers and Metrics frames that are decoded one by one, and how many cannot be."""
    found: list[tuple[int, Metrics]] = []
    damaged = 0
    for body in bodies:
        try:
            stamped = decoder.decode(body)
        except DECODE_ERRORS:
            continue  # intact, but not a record of this version
        try:
            frame = stamped.frame()
        except FrameError:
            damaged += 1
            continue
        if isinstance(frame, Metrics):
            found.append((stamped.seq, frame))
    return found, damaged


def _sound(body: bytes) -> bool:
    """Whether a Tokens frame can be decoded: the model counts those that cannot, and keeps none of them."""
    try:
        decode(bytes(decoder.decode(body).body))
    except FrameError:
        return False
    except DECODE_ERRORS:
        return True  # not a record of this version, so not a frame of the run
    return True
