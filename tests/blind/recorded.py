"""A recorded run without a hub: frames go into a journal as the hub would have stamped them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from driftline import rundir
from driftline.frames import Ack, AckState, EngineState, Event, Frame, Level, Metrics, Tokens, encode
from driftline.journal.records import Record, pack_head, pack_header, record_encoder
from driftline.rundir import RunDir


class JournalProbe:
    """What a Reporter sends through, written straight into the first segment of a run's journal."""

    def __init__(self, run: RunDir) -> None:
        for folder in (run.path, run.journal, run.logs, run.keys, run.snapshots):
            rundir.make_private(folder)
        self._file = (run.journal / "000001.rlj").open("wb")
        self._file.write(pack_header(1, 1, time.time()))
        self._seq = 0
        self.tokens_written = 0

    def send(self, frame: Frame, producer: str = "trainer") -> None:
        """Write a frame."""
        self._seq += 1
        record = Record(self._seq, time.time(), producer, msgspec.Raw(encode(frame)), 1, self._seq)
        packed = record_encoder.encode(record)
        self._file.write(pack_head(packed, self._seq) + packed)
        if isinstance(frame, Tokens):
            self.tokens_written += frame.n

    def of_engine(self, state: EngineState) -> None:
        """What an engine says of itself."""
        rate = state.prefix_hit_rate if state.prefix_hit_rate == state.prefix_hit_rate else 0.0
        self.send(msgspec.structs.replace(state, prefix_hit_rate=rate), state.engine)

    def emit(self, values: Mapping[str, float], *, step: int, version: int, labels: dict[str, str]) -> None:
        """Numbers of a step."""
        self.send(Metrics(step, version, time.time(), {name: float(value) for name, value in values.items()}, labels))

    def event(self, kind: str, text: str, level: Level = "info", step: int = -1, **data: Any) -> None:
        """Something that happened."""
        self.send(Event(time.time(), level, kind, text, step, data))

    def ack(self, id: str, state: AckState, detail: str = "", data: Mapping[str, Any] | None = None) -> None:
        """The answer to a command."""
        self.send(Ack(id, state, time.time(), detail, dict(data or {})))

    def tokens(
        self,
        *,
        step: int,
        version: int,
        engines: Sequence[str] = (),
        prompts: Sequence[str] = (),
        rewards: Sequence[float] = (),
        pieces: Sequence[str] = (),
        **columns: Any,
    ) -> None:
        """Token pairs."""
        kinds = {"rollout": "<f4", "trainer": "<f4"}
        blobs = {name: column.astype(kinds.get(name, "<i4")).tobytes() for name, column in columns.items()}
        self.send(
            Tokens(
                step=step,
                version=version,
                time=time.time(),
                n=len(blobs["ids"]) // 4,
                engines=tuple(engines),
                prompts=tuple(prompts),
                rewards=tuple(rewards),
                pieces=tuple(pieces),
                **blobs,
            )
        )

    def close(self) -> None:
        """The journal is complete."""
        self._file.close()
