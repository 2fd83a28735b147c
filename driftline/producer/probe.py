"""The producer's interface: `Probe` sends numbers and events of a trainer or an engine without ever blocking it.

`emit` packs a frame and appends it to a ring in memory; a thread of the probe's own sends it. There is no system
call and no waiting on that path, whatever the hub does: away, stopped or killed, frames wait in the ring, and when
the ring is full the least important unsent ones are dropped and counted (raw tokens first, acks last). A frame the
producer saw acknowledged is in the journal after any kill -9 of the hub.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from driftline import rundir
from driftline.frames import (
    TOPIC,
    Ack,
    AckState,
    Command,
    Event,
    Frame,
    FrameError,
    Level,
    Metrics,
    Tokens,
    check_tokens,
    decode,
    encode,
)
from driftline.keys import Keys, load
from driftline.producer.mend import mended, without_surrogates
from driftline.producer.ring import Ring
from driftline.producer.sender import TICK_S, Sender
from driftline.rundir import Connection, RunDir, RunError

RING_BYTES: Final = 64 * 1024 * 1024
_NUMBERS: Final = frozenset((float, int))
_REPORT_LIMIT: Final = 32

log = logging.getLogger("driftline.probe")

Scalar = str | float | int | bool


class ProbeStats(msgspec.Struct, frozen=True):
    """Counts since the probe was made.

    `refused` are values and frames that could not be packed or lie outside the ranges of `driftline.frames`, and
    `corrected` are frames of which only a time or a duration did: these are sent, at the time of now.
    """

    sent: int
    acked: int
    dropped: int
    queued_bytes: int
    connected: bool
    refused: int
    corrected: int = 0


class Probe:
    """A producer of one run, by name: "trainer", "engine-0". Thread-safe.

    `run` is a run directory or its id; None takes $DRIFTLINE_RUN, else the newest live run, and without any the
    probe is inert. `keys` names a key file of the run, or is a pair. On another machine give `connection` and the
    pair instead of `run`. Commands for this producer go to `on_command`, on the probe's own thread, or into
    `commands`; every command id is handed over once. `tick`: after at most so many seconds a frame is sent, unless
    `wake` has it sent at once; each look at what there is costs some ten microseconds of the process.

    No method raises because of the hub or because of a value: what cannot be sent is counted and logged once. In a
    child made by `os.fork`, such as a loader's worker, the probe is inert: its thread stayed with the parent.
    """

    def __init__(
        self,
        name: str = "trainer",
        run: RunDir | str | Path | None = None,
        *,
        keys: str | Keys = "trainer",
        connection: Connection | None = None,
        ring_bytes: int = RING_BYTES,
        on_command: Callable[[Command], None] | None = None,
        tick: float = TICK_S,
    ) -> None:
        self.name = name
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._on_command = on_command
        self._refused = self._corrected = 0
        self._reported: set[str] = set()
        self._ring = Ring(ring_bytes)
        self._sender: Sender | None = None
        self._run: RunDir | None = None
        self._forked: Sender | None = None
        """The parent's, in a child: its sockets are not the child's to close."""
        self._closed = False
        try:
            find, pair, self._run = _resolve(run, keys, connection)
        except RunError as error:
            log.warning("probe '%s' is inert: %s", name, error)
            return
        self._sender = Sender(name, self._ring, find, pair, self._command, tick)
        self._sender.start()
        _probes.add(self)
        # A trainer that just ends should not lose its last step.
        atexit.register(self.close)

    def emit(
        self,
        values: Mapping[str, Any],
        *,
        step: int,
        version: int = -1,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Send numbers of one step by metric name (floats, ints, numpy scalars, one-element tensors)."""
        if self._sender is None:
            return self._ignore()
        try:
            try:  # names and numbers as a frame holds them, as a rule; anything else is converted one by one
                plain = type(values) is dict and _NUMBERS.issuperset(map(type, values.values())) and "".join(values)
            except TypeError:  # a name that is not a str
                plain = False
            numbers: Any = values if plain else self._numbers(values)
            frame = Metrics(int(step), int(version), time.time(), numbers, _texts(labels) if labels else {})
            try:
                body = encode(frame)
            except FrameError:  # an int of more than 64 bits, or a name that UTF-8 cannot hold
                body = encode(without_surrogates(msgspec.structs.replace(frame, values=self._numbers(values))))
            decode(body)
            self._ring.add(body)
        except Exception as error:  # noqa: BLE001  a trainer must not fall over its telemetry, whatever it passed
            self._refuse("emit", error)

    def send(self, frame: Frame) -> None:
        """Send any frame."""
        if self._sender is None:
            return self._ignore()
        try:
            if type(frame) not in TOPIC:
                raise FrameError("not a frame")
            try:
                body = encode(frame)
            except FrameError:
                body = encode(without_surrogates(frame))
            try:
                decode(body)
            except FrameError as error:
                body = encode(mended(frame))
                decode(body)
                self._correct(error)
            self._ring.add(body)
        except Exception as error:  # noqa: BLE001  as in emit
            self._refuse(type(frame).__name__, error)

    def event(self, kind: str, text: str, level: Level = "info", step: int = -1, **data: Any) -> None:
        """Send something that happened; what is not a str, float, int or bool in `data` is sent as its str()."""
        try:
            text, step = text if isinstance(text, str) else str(text), int(step)
            printable = {key: _scalar(value) for key, value in data.items()}
        except Exception as error:  # noqa: BLE001  as in emit: str() of a foreign object may raise anything
            self._refuse("event", error)
            printable = {}
        self.send(Event(time.time(), level, kind, text, step, printable))

    def tokens(
        self,
        *,
        step: int,
        version: int,
        ids: npt.ArrayLike,
        seq: npt.ArrayLike,
        position: npt.ArrayLike,
        token_version: npt.ArrayLike,
        rollout: npt.ArrayLike,
        trainer: npt.ArrayLike,
        engines: Sequence[str] = (),
        prompts: Sequence[str] = (),
        rewards: Sequence[float] = (),
        pieces: Sequence[str] = (),
    ) -> None:
        """Send token logprobs: flat arrays of one length (see `driftline.frames.Tokens`)."""
        if self._sender is None:
            return self._ignore()
        try:
            blobs = {
                "ids": _blob(ids, "<i4"),
                "seq": _blob(seq, "<i4"),
                "position": _blob(position, "<i4"),
                "token_version": _blob(token_version, "<i4"),
                "rollout": _blob(rollout, "<f4"),
                "trainer": _blob(trainer, "<f4"),
            }
            frame = Tokens(
                step=int(step),
                version=int(version),
                time=time.time(),
                n=len(blobs["ids"]) // 4,
                engines=tuple(engines),
                prompts=tuple(prompts),
                rewards=tuple(float(r) for r in rewards),
                pieces=tuple(pieces),
                **blobs,
            )
            check_tokens(frame)
            self.send(frame)
        except Exception as error:  # noqa: BLE001  as in emit
            self._refuse("tokens", error)

    def ack(self, id: str, state: AckState, detail: str = "", data: Mapping[str, Any] | None = None) -> None:
        """Report how far a command has come."""
        try:
            printable = {key: _scalar(value) for key, value in (data or {}).items()}
        except Exception as error:  # noqa: BLE001  as in event
            self._refuse("ack", error)
            printable = {}
        self.send(Ack(id, state, time.time(), detail, printable))

    @property
    def stats(self) -> ProbeStats:
        """Counts so far."""
        ring, sender = self._ring, self._sender
        connected = sender is not None and sender.connected
        return ProbeStats(
            ring.numbered, ring.acked, ring.dropped, ring.bytes, connected, self._refused, self._corrected
        )

    @property
    def connected(self) -> bool:
        """True while the hub answers."""
        return self._sender is not None and self._sender.connected

    def wake(self) -> None:
        """Have what was emitted sent now, where a long `tick` would let it wait. Waits for nothing."""
        sender = self._sender
        if sender is not None:
            sender.wake()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything emitted so far is acknowledged; False if time ran out or some of it was dropped."""
        if self._sender is None:
            return False
        ring, deadline = self._ring, time.monotonic() + timeout
        wanted, dropped = ring.added_count, ring.dropped
        self._sender.wake()
        numbered = None
        while True:
            if numbered is None and ring.taken_count >= wanted:
                numbered = ring.numbered
            if numbered is not None and ring.acked >= numbered:
                return ring.dropped == dropped
            if time.monotonic() >= deadline or not self._sender.is_alive():
                return False
            time.sleep(0.002)

    def close(self, timeout: float = 2.0) -> None:
        """Flush for at most `timeout` seconds, then stop. What is emitted afterwards is ignored.

        A hub that is away is waited for, in this time, if the run has a supervisor to start it again.
        """
        sender = self._sender
        if sender is None or self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        # A script that emits and ends at once has not met its hub yet; one that is away for good is not waited for.
        deadline = time.monotonic() + (timeout if self._ring.bytes else 0.0)
        while not sender.connected and time.monotonic() < deadline and (sender.may_connect or self._supervised()):
            time.sleep(0.002 if sender.may_connect else 0.05)
        if sender.connected:
            self.flush(deadline - time.monotonic())
        self._sender = None
        sender.end()

    def _supervised(self) -> bool:
        """Whether a hub that is away is being started again."""
        try:
            return self._run is not None and self._run.supervised()
        except RunError:
            return False

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _numbers(self, values: Mapping[str, Any]) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name, value in values.items():
            try:
                if isinstance(value, str | bytes):
                    raise TypeError("a text")
                numbers[str(name)] = float(value)
            except Exception as error:  # noqa: BLE001  float() of a foreign object may raise anything
                self._refuse(f"{name}", error)
        return numbers

    def _command(self, command: Command) -> None:
        """Take one command on the sender's thread."""
        if time.time() > command.deadline:
            self.ack(command.id, "expired", f"reached '{self.name}' after its deadline")
            return
        if self._on_command is None:
            self.commands.put(command)
            return
        try:
            self._on_command(command)
        except Exception as error:  # the callback is the trainer's; its failure is the command's result
            log.exception("command %s (%s) failed", command.id, command.verb)
            self.ack(command.id, "failed", f"{type(error).__name__}: {error}")

    def _ignore(self) -> None:
        """Nothing is sent after `close`, by an inert probe, or in a child: the last of these says so."""
        if self._forked and not self._reported:
            self._reported.add("fork")
            log.warning("probe '%s' is inert in process %d, which was forked: nothing is sent", self.name, os.getpid())

    def _become_inert(self) -> None:
        """This is a forked child: the sender does not run here, and the ring's lock may never be released."""
        self._forked, self._sender = self._sender, None
        self._reported.clear()

    def _refuse(self, what: str, error: Exception) -> None:
        self._refused += 1
        self._log_once(what, f"{what} cannot be sent, counted from now on: {error}")

    def _correct(self, error: FrameError) -> None:
        self._corrected += 1
        place = str(error).partition(":")[0]
        self._log_once(place, f"{error}; sent with the time of now, or no duration; counted from now on")

    def _log_once(self, what: str, sentence: str) -> None:
        key = what if len(self._reported) < _REPORT_LIMIT else "…"
        if key not in self._reported:
            self._reported.add(key)
            log.warning("probe '%s': %s", self.name, sentence)


_probes: Final[weakref.WeakSet[Probe]] = weakref.WeakSet()


def _after_fork() -> None:
    for probe in _probes:
        probe._become_inert()


os.register_at_fork(after_in_child=_after_fork)


def _texts(labels: Mapping[str, str]) -> dict[str, str]:
    return {str(key): value if isinstance(value, str) else str(value) for key, value in labels.items()}


def _resolve(
    run: RunDir | str | Path | None, keys: str | Keys, connection: Connection | None
) -> tuple[Callable[[], Connection | None], Keys, RunDir | None]:
    """The function that finds the hub, also after it has moved, the keys to use, and the run if it is on this machine.

    Raises RunError.
    """
    if connection is not None:
        if isinstance(keys, Keys):
            return lambda: connection, keys, None
        if run is None:
            raise RunError("a connection without a run needs a key pair")
    found = run if isinstance(run, RunDir) else rundir.find(os.fspath(run) if run is not None else None)

    def find() -> Connection | None:
        try:
            return found.connection()
        except RunError:
            return connection  # the hub has not come up yet

    return find, keys if isinstance(keys, Keys) else load(found, keys), found


def _blob(array: npt.ArrayLike, dtype: str) -> bytes:
    return np.asarray(array).astype(dtype).tobytes()


def _scalar(value: Any) -> Scalar:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, np.generic):
        return _scalar(value.item())
    return str(value)


__all__ = ["Probe", "ProbeStats"]
