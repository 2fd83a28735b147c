"""Typed messages: everything that crosses the wire or lands in the journal.

One tagged, array-like msgspec struct per kind of message, packed as MessagePack. Arrays travel as raw
little-endian `bytes` inside the one body (measured: as fast as multipart, safe to decode, no pickle). All
structs are frozen. Times are seconds since the Unix epoch, durations are seconds, sizes are bytes, logprobs
are natural logarithms (nats).

A receiver decodes with `decode` and gets `FrameError` for anything that is not one of these structs, however
it is broken.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.text import sanitize_struct

SCHEMA: Final = 1
"""Version of this file's layout. Fields are only ever appended, with defaults; a removal or a change of
meaning raises the number."""

MAX_BODY: Final = 8 * 1024 * 1024
"""Largest body in bytes; bigger frames are refused where they are made, not where they arrive."""

How = Literal["live", "next_sync", "engine_restart", "not_available"]
Level = Literal["info", "warn", "error"]
RunStatus = Literal["starting", "running", "paused", "stopping", "finished", "failed"]
Phase = Literal["starting", "running", "paused", "syncing", "restarting", "dead"]
Verb = Literal[
    "fix.set",
    "sync",
    "pause",
    "resume",
    "stop",
    "mark",
    "correction.set",
    "cache.reset",
    "digest",
    "shadow.set",
    "diagnose",
]
AckState = Literal["queued", "sent", "accepted", "applied", "failed", "refused", "expired"]

# Ranges of every number that is not a measured value, enforced wherever a body is decoded: at the hub's door, and by
# readers of journals that an older hub has written. NaN and infinity lie outside of all of them.
MAX_TIME: Final = 32_503_680_000.0
MAX_SECONDS: Final = 1e9
MAX_INT: Final = 2**53 - 1
Step = Annotated[int, msgspec.Meta(ge=-1, le=MAX_INT)]
"""A trainer step, -1 for none. Up to 2^53, so that a float64 of a chart or table holds it exactly."""
Version = Annotated[int, msgspec.Meta(ge=-1, le=MAX_INT)]
"""A version of the weights, -1 for none or not known."""
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
"""A number of things, or of bytes."""
Generation = Annotated[int, msgspec.Meta(ge=-1, le=MAX_INT)]
"""How often something was asked for, -1 for any."""
Time = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_TIME)]
"""Seconds since the Unix epoch, up to the year 3000: milliseconds and nanoseconds lie outside."""
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_SECONDS)]
"""A duration, up to some thirty years."""
Finite = Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)]
"""A rate, a fraction or a temperature."""
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Any integer that a table holds."""
Data = dict[str, str | float | Integer | bool]
"""Printable values by name; floats may be anything."""

TERMINAL: Final = frozenset({"applied", "failed", "refused", "expired"})
"""States after which a command does not change any more."""


class FrameError(ValueError):
    """A body that is not a frame of this schema."""


class _Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Common options of every frame."""


class Metrics(_Frame, tag="m", frozen=True):
    """Numbers of one trainer step, under the names of `driftline.catalog.metrics`.

    `labels` qualifies a value where one name covers several rules, for example
    `{"policy/clip_fraction": "gspo", "policy/entropy": "exact"}`.
    """

    step: Step
    version: Version
    time: Time
    values: dict[str, float]
    labels: dict[str, str] = {}


class Tokens(_Frame, tag="t", frozen=True):
    """Token logprobs of some sequences, flattened; token i of the arrays belongs to sequence `seq[i]`.

    Blobs are little-endian, each of length n: `ids` int32, `seq` int32, `position` int32 (in the response,
    from 0), `token_version` int32 (weights that sampled it), `rollout` float32 (engine's logprob), `trainer`
    float32 (trainer's logprob under the same weights). `engines`, `prompts` and `rewards` are per sequence;
    `pieces` holds the decoded text of each token where the producer has a tokenizer, else is empty.
    """

    step: Step
    version: Version
    time: Time
    n: Count
    ids: bytes
    seq: bytes
    position: bytes
    token_version: bytes
    rollout: bytes
    trainer: bytes
    engines: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    rewards: tuple[float, ...] = ()
    pieces: tuple[str, ...] = ()


class Span(_Frame, tag="p", frozen=True):
    """One phase of one weight sync on one engine: pause, load, verify, reset, resume or total.

    `bytes` is what was loaded, `in_flight` the sequences held at the pause and `straddling` the tokens that those
    had been given before it. `result` is what the phase came back with: the digest for verify, "freed", "refused"
    (requests hold blocks) or "kept" for reset.
    """

    sync: str
    engine: str
    phase: str
    start: Time
    seconds: Seconds
    version_before: Version
    version_after: Version
    step: Step
    bytes: Count = 0
    in_flight: Count = 0
    ok: bool = True
    detail: str = ""
    straddling: Count = 0
    result: str = ""


class Event(_Frame, tag="e", frozen=True):
    """Something that happened. `kind` is a dotted word such as `sync.done`; `text` is for people."""

    time: Time
    level: Level
    kind: str
    text: str
    step: Step = -1
    data: Data = {}


class RunState(_Frame, tag="r", frozen=True):
    """State of the whole run, owned by the trainer. `detail` says what a long wait is for.

    `correction`: the objective-side correction (`driftline.catalog.corrections`) that the trainer uses since step
    `correction_since`, "" where a trainer says nothing of it; `correction_requested` is what was asked for last, by
    `correction_by`, and `correction_generation` counts the requests. `shadow_share` is the fraction of the groups that
    another engine is to score as well, as `shadow_by` has asked for, -1 where a trainer says nothing of it.

    `framework` is the trainer's, with its version ("TRL 1.2.0"), and `via` how it speaks to the run ("adapter",
    "files"); "" for Driftline's own trainer and where it does not say.
    """

    run: str
    status: RunStatus
    step: Step
    steps: Count
    version: Version
    time: Time
    objective: str = ""
    model: str = ""
    temperature: Finite = 1.0
    synthetic: bool = False
    detail: str = ""
    paused_by: str = ""
    lease_until: Time = 0.0
    config_digest: str = ""
    correction: str = ""
    correction_requested: str = ""
    correction_generation: Count = 0
    correction_by: str = ""
    correction_since: Step = -1
    framework: str = ""
    via: str = ""
    shadow_share: Finite = -1.0
    shadow_by: str = ""


class EngineState(_Frame, tag="g", frozen=True):
    """State of one engine, sent by that engine a few times a second; rates are over the last interval.

    `gpu_memory_used` and `gpu_memory_total` are bytes over its GPUs, for all their users, 0 without a GPU; `gpu_use`
    is the mean fraction of the time that they were busy (0 to 1), -1 where that is not reported. `settings` says how
    the engine is set, as it read it back, in one line; "" where it does not say. `environment` names the one that it
    runs in, "" for that of the trainer.

    Who speaks for the engine: `via` is how ("plugin", "actor", "bridge"), `framework` whose engine it is, with its
    version ("verl 0.6.0"), `since` when that one joined (Unix time); "" and 0 where it does not say. `key` is the
    holder of the key that it came with, as `Grant.identity`: the hub writes it, whatever the producer has put there.
    """

    engine: str
    phase: Phase
    version: Version
    time: Time
    running: Count = 0
    waiting: Count = 0
    kv_use: Finite = 0.0
    prefix_hit_rate: Finite = 0.0
    tokens_per_s: Finite = 0.0
    preemptions: Count = 0
    node: str = ""
    pid: Count = 0
    backend: str = ""
    vllm: str = ""
    detail: str = ""
    gpu_memory_used: Count = 0
    gpu_memory_total: Count = 0
    gpu_use: Finite = -1.0
    settings: str = ""
    via: str = ""
    framework: str = ""
    since: Time = 0.0
    key: str = ""
    environment: str = ""


def meets(wanted: str, effective: str) -> bool:
    """Whether an engine that reports `effective` has what is wanted: without a prefix cache, its reads are off too."""
    return effective == wanted or (wanted == "on" and effective == "removed")


class EngineFix(_Frame, frozen=True):
    """One engine's report of one fix. `effective` is read back from the engine; "" means not reported yet.

    `wanted` is a value that this engine alone is to have, whatever the pool has; "" where it follows the pool.
    """

    engine: str
    effective: str
    how: How
    since_version: Version = -1
    since_step: Step = -1
    detail: str = ""
    wanted: str = ""


class FixState(_Frame, tag="f", frozen=True):
    """A fix over the whole pool: the requested value, and the report of each engine."""

    fix: str
    requested: str
    generation: Generation
    by: str
    time: Time
    how: How
    engines: tuple[EngineFix, ...]
    detail: str = ""

    @property
    def effective(self) -> str:
        """The value that every engine has reported, "mixed" where they differ, "" where one has not.

        Engines that are to have a value of their own do not count where others follow the pool.
        """
        values = {e.effective for e in self.following}
        if not values or "" in values:
            return ""
        if len(values) == 1:
            return values.pop()
        return self.requested if all(meets(self.requested, value) for value in values) else "mixed"

    @property
    def following(self) -> tuple[EngineFix, ...]:
        """The engines that are to have what the pool has; all of them where none is."""
        return tuple(e for e in self.engines if not e.wanted) or self.engines

    def met(self, engine: EngineFix) -> bool:
        """Whether this engine reports what it is to have."""
        return meets(engine.wanted or self.requested, engine.effective)

    @property
    def settled(self) -> bool:
        """True once every engine reports the requested value, or the one that it alone is to have."""
        return bool(self.engines) and all(self.met(engine) for engine in self.engines)


class Measure(_Frame, frozen=True):
    """One number on both sides of a change: `before` and `after` are means over tokens.

    `change` is how far the number moved *at* the change, each side followed along its own trend, so that what learning
    moves from step to step is not in it; `low`, `high` are its 95 % interval. `ratio`, `ratio_low` and `ratio_high` are
    the same as after / before: never negative, NaN where before is exactly 0. `unit`, "step" or "prompt group", is what
    counts as independent in the intervals; there are `units_before` and `units_after` of it. NaN and "" while a side
    has too few; `note` says why an interval or a ratio is missing, or may be too narrow.

    Of a run recorded before 0.2 `change` is NaN, and `low` to `high` is a bootstrap over sequences of `after - before`,
    which is too narrow: sequences of one prompt and of one step are alike.
    """

    metric: str
    before: float
    after: float
    low: float
    high: float
    tokens_before: Count
    tokens_after: Count
    change: float = math.nan
    ratio: float = math.nan
    ratio_low: float = math.nan
    ratio_high: float = math.nan
    unit: str = ""
    units_before: Count = 0
    units_after: Count = 0
    note: str = ""


class Effect(_Frame, tag="x", frozen=True):
    """The measured effect of a change of fixes, over tokens sampled wholly under the state before and after it.

    `changes` holds (fix, value before, value after); more than one where they followed each other so closely that
    nothing was sampled between them. Sent again with the same `id` as tokens come in, until `done`.
    """

    id: str
    changes: tuple[tuple[str, str, str], ...]
    step: Step
    version: Version
    time: Time
    by: str = ""
    steps_before: Count = 0
    steps_after: Count = 0
    measures: tuple[Measure, ...] = ()
    done: bool = False
    detail: str = ""


class Command(_Frame, tag="c", frozen=True):
    """An operator's request. `issuer` is filled in by the hub from the key that sent it, never by the sender.

    `generation` is the fix generation the sender saw; -1 skips the check. `deadline` is a Unix time after
    which the command must not take effect any more. `session` is the sender's name for itself, which distinguishes
    clients that share a key (see `Lease`).
    """

    id: str
    verb: Verb
    args: dict[str, str] = {}
    generation: Generation = -1
    deadline: Time = 0.0
    issuer: str = ""
    session: str = ""


class Ack(_Frame, tag="a", frozen=True):
    """Progress of a command. `data` holds the results of an applied one, as printable values."""

    id: str
    state: AckState
    time: Time
    detail: str = ""
    data: Data = {}


class Lease(_Frame, tag="w", frozen=True):
    """The operator lease: the one session of one operator's key that may act on the run. Sent by the hub alone.

    `issuer` is the role and name of the holder's key, "" while the lease is free; `session` is the holder's name for
    itself, such as `ana@box:812`. Held since Unix time `since`, until Unix time `until` unless it is renewed; a renewal
    is published as the same lease with a later `until`.
    """

    issuer: str = ""
    session: str = ""
    since: Time = 0.0
    until: Time = 0.0


Frame = Metrics | Tokens | Span | Event | RunState | EngineState | FixState | Effect | Command | Ack | Lease

TOPIC: Final[dict[type[_Frame], bytes]] = {
    Metrics: b"metrics",
    Tokens: b"tokens",
    Span: b"span",
    Event: b"event",
    RunState: b"state",
    EngineState: b"state",
    FixState: b"state",
    Effect: b"state",
    Command: b"command",
    Ack: b"ack",
    Lease: b"state",
}
"""Publication topic of each kind. `tokens` is the only one that a console must ask for."""


class Stamped(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A frame as the hub recorded it: `seq` counts from 1 without a gap, `time` is the hub's clock."""

    seq: int
    time: float
    producer: str
    body: msgspec.Raw

    def frame(self) -> Frame:
        """Decode the body, with text made safe to show (see `driftline.text`). Raises FrameError."""
        return sanitize_struct(decode(bytes(self.body)))


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)

# msgspec raises more than its own errors on hostile input, as fuzzing it has shown.
DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


def encode(frame: Frame) -> bytes:
    """Pack one frame. Raises FrameError above MAX_BODY or for a value msgpack cannot hold."""
    try:
        body = _encoder.encode(frame)
    except (TypeError, OverflowError, ValueError) as error:
        raise FrameError(f"{type(frame).__name__}: {error}") from error
    if len(body) > MAX_BODY:
        raise FrameError(f"{type(frame).__name__}: {len(body)} bytes, allowed {MAX_BODY}")
    return body


def decode(body: bytes) -> Frame:
    """Unpack one frame. Raises FrameError for anything else, including array blobs of the wrong length."""
    try:
        frame = _decoder.decode(body)
    except DECODE_ERRORS as error:
        raise FrameError(_named(str(error) or type(error).__name__, body)) from error
    if isinstance(frame, Tokens):
        check_tokens(frame)
    return frame


_PLACE: Final = re.compile(r" - at `\$\[(\d+)\]")
_KINDS: Final = {kind.__struct_config__.tag: kind for kind in TOPIC}
_raw_decoder: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


def _named(sentence: str, body: bytes) -> str:
    """What msgspec says of a body, with the name of the frame and its field in the place of a number."""
    place = _PLACE.search(sentence)
    try:
        kind = _KINDS[msgspec.msgpack.decode(_raw_decoder.decode(body)[0])]
        field = kind.__struct_fields__[int(place[1]) - 1] if place is not None else ""
    except (*DECODE_ERRORS, KeyError, IndexError, TypeError):
        return sentence
    said = sentence[: place.start()] if place is not None else sentence
    return f"{kind.__name__}.{field}: {said[:1].lower()}{said[1:]}" if field else f"{kind.__name__}: {said}"


def check_tokens(frame: Tokens) -> None:
    """Raise FrameError unless every blob of a Tokens frame holds `n` items of 4 bytes."""
    for name in ("ids", "seq", "position", "token_version", "rollout", "trainer"):
        size = len(getattr(frame, name))
        if size != 4 * frame.n:
            raise FrameError(f"Tokens.{name}: {size} bytes, {4 * frame.n} expected for n = {frame.n}")


def ints(blob: bytes) -> npt.NDArray[np.int32]:
    """An int32 blob of a frame as a read-only array."""
    return np.frombuffer(blob, dtype="<i4")


def floats(blob: bytes) -> npt.NDArray[np.float32]:
    """A float32 blob of a frame as a read-only array."""
    return np.frombuffer(blob, dtype="<f4")
