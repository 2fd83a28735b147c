"""The trainer's reports to the hub: frames out through a Probe, and the one place that holds the run's state."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import msgspec
import numpy as np
from transformers import PreTrainedTokenizerBase

from driftline import Probe
from driftline.frames import AckState, Frame, Level, RunState
from driftline.pairs.shown import pick
from trainer.learn.batch import Batch, Sample

Scalar = str | float | int | bool


class Reporter:
    """Thin and thread-safe over a Probe: the loop and the command thread both send through it."""

    def __init__(self, probe: Probe, state: RunState, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        self._probe = probe
        self._state = state
        self._lock = threading.Lock()
        self._rng = np.random.default_rng(0)
        self.tokenizer = tokenizer

    @property
    def run(self) -> RunState:
        """The run's state as last sent."""
        return self._state

    def state(self, **changes: object) -> None:
        """Change fields of the run's state and publish it."""
        with self._lock:
            self._state = msgspec.structs.replace(self._state, **changes, time=time.time())
            self._probe.send(self._state)

    def send(self, frame: Frame) -> None:
        """Send any frame as it is."""
        self._probe.send(frame)

    def event(self, kind: str, text: str, *, level: Level = "info", step: int = -1, **data: Scalar) -> None:
        """Send an event."""
        self._probe.event(kind, text, level=level, step=step, **data)

    def ack(self, command: str, state: AckState, detail: str = "", data: dict[str, Scalar] | None = None) -> None:
        """Answer a command."""
        self._probe.ack(command, state, detail, data or {})

    def metrics(self, values: dict[str, float], *, step: int, version: int, labels: dict[str, str]) -> None:
        """The numbers of one step."""
        self._probe.emit(values, step=step, version=version, labels=labels)

    def tokens(
        self, samples: Sequence[Sample], batch: Batch, own: np.ndarray, scored: np.ndarray, *, step: int, version: int
    ) -> None:
        """Token logprobs of some sequences. `own`, `scored` [B, R]: trainer's logprobs and where there is one."""
        rollout = batch.rollout.numpy()
        rows = pick_rows(np.where(scored, np.abs(own - rollout), 0.0), scored, self._rng)
        if not rows.size:
            return
        keep = scored[rows]
        seq, position = np.nonzero(keep)
        ids = batch.response.numpy()[rows][keep].astype(np.int32)
        self._probe.tokens(
            step=step,
            version=version,
            ids=ids,
            seq=seq.astype(np.int32),
            position=position.astype(np.int32),
            token_version=batch.versions.numpy()[rows][keep].astype(np.int32),
            rollout=rollout[rows][keep].astype(np.float32),
            trainer=own[rows][keep].astype(np.float32),
            engines=tuple(samples[row].engine for row in rows),
            prompts=tuple(samples[row].text for row in rows),
            rewards=tuple(float(samples[row].reward) for row in rows),
            pieces=self._pieces(ids),
        )

    def _pieces(self, ids: np.ndarray) -> tuple[str, ...]:
        if self.tokenizer is None:
            return ()
        known = {int(token): str(self.tokenizer.decode([int(token)])) for token in np.unique(ids)}
        return tuple(known[int(token)] for token in ids)


def pick_rows(size: np.ndarray, scored: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows to show from |d| [B, R]: the worst by mean over their scored tokens, then some of the others."""
    counts = scored.sum(axis=1)
    rows = np.nonzero(counts)[0]
    return pick(size.sum(axis=1)[rows] / counts[rows], rows, rng) if rows.size else rows
