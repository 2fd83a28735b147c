"""The diagnosis of a run that is on this machine: ended, imported, live or a copy, as far as it is recorded now."""

from __future__ import annotations

from collections.abc import Iterator

from console.diagnosis.looks import of_model
from console.diagnosis.model import Diagnosis
from console.diagnosis.watch import Watch
from console.recorded import frames
from console.recorded.blocks import decoder, run_segments, segment
from console.store.load import load
from console.store.model import RunModel
from console.store.tokens.frames import LeanTokens, decode_lean, is_tokens
from driftline.frames import DECODE_ERRORS, FrameError
from driftline.journal.records import Damage
from driftline.rundir import RunDir


def diagnose_run(run: RunDir, model: RunModel | None = None) -> Diagnosis:
    """The diagnosis of everything that is recorded, its newest active round included for as long as that counts.

    `model` is the run's, where it was loaded already.

    Raises OSError, or what Polars and pyarrow raise (`console.recorded.frames.unreadable`), for a file that cannot
    be read."""
    watch = Watch()
    for frame in token_frames(run):
        watch.feed(frame)
    return of_model(watch, model if model is not None else load(run).model)


def token_frames(run: RunDir) -> Iterator[LeanTokens]:
    """The Tokens frames of a run in order; damaged ones are left out."""
    damage = Damage()
    for number, path in run_segments(run):
        if path is not None and path.exists():
            for block in segment(path, damage):
                yield from _decoded(block.having(b"t"))
        else:  # a hub deletes what is compacted
            for stamped in frames.compacted(run, number):
                if is_tokens(stamped.body):
                    yield from _lean(bytes(stamped.body))


def _decoded(bodies: list[bytes]) -> Iterator[LeanTokens]:
    for body in bodies:
        try:
            stamped = decoder.decode(body)
        except DECODE_ERRORS:
            continue  # intact, but not a record of this version
        yield from _lean(bytes(stamped.body))


def _lean(body: bytes) -> Iterator[LeanTokens]:
    try:
        yield decode_lean(body)
    except FrameError:
        return
