"""One weight sync: its engines, their phases, and what follows from them. Pure.

The newest syncs are objects, for spans that still come; older ones are packed (`Sync.pack`) and unpacked when they are
looked at. A span is 400 bytes as an object and 70 packed, and a run of days has ten thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from driftline.frames import Span

PHASES: Final = ("pause", "load", "verify", "reset", "resume")
TOTAL: Final = "total"
TIMES: Final = (*PHASES, TOTAL)
_UNPACKED: Final = 64
"""Packed syncs whose spans are kept at hand after a look at them: as many as a screen has rows."""

_packer: Final = msgspec.msgpack.Encoder()
_unpacker: Final = msgspec.msgpack.Decoder(list[Span])


class EngineSync:
    """One engine in one sync: its spans by phase."""

    __slots__ = ("engine", "phases")

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.phases: dict[str, Span] = {}

    def _any(self) -> Span:
        return self.phases.get(TOTAL) or next(iter(self.phases.values()))

    @property
    def ok(self) -> bool:
        """Whether the engine has the new weights, as far as its spans have come."""
        return all(span.ok for span in self.phases.values())

    @property
    def detail(self) -> str:
        """Why it has not, or another remark of the engine; "" for none."""
        return next((span.detail for span in self.phases.values() if span.detail), "")

    @property
    def version_before(self) -> int:
        return self._any().version_before

    @property
    def version_after(self) -> int:
        return self._any().version_after

    @property
    def start(self) -> float:
        """Unix time."""
        return min(span.start for span in self.phases.values())

    @property
    def end(self) -> float:
        """Unix time."""
        return max(span.start + span.seconds for span in self.phases.values())

    @property
    def seconds(self) -> float:
        """Seconds of all phases together."""
        total = self.phases.get(TOTAL)
        return total.seconds if total is not None else self.end - self.start

    def phase_seconds(self, phase: str) -> float | None:
        """Seconds of one phase; None if it was not reported."""
        span = self.phases.get(phase)
        return span.seconds if span is not None else None

    @property
    def bytes(self) -> int:
        return max(span.bytes for span in self.phases.values())

    @property
    def gb_per_s(self) -> float | None:
        """10^9 bytes a second of the load; None if no load or no bytes were reported."""
        load = self.phases.get("load")
        return self.bytes / load.seconds / 1e9 if load is not None and load.seconds > 0 and self.bytes else None

    @property
    def in_flight(self) -> int:
        """Sequences held at the pause."""
        return max(span.in_flight for span in self.phases.values())

    @property
    def straddling(self) -> int:
        """Tokens that those had been given before the update."""
        return max(span.straddling for span in self.phases.values())

    @property
    def reset(self) -> str:
        """Result of the cache reset: "freed", "refused", "kept", or "" if it was not reported."""
        span = self.phases.get("reset")
        return span.result if span is not None else ""

    @property
    def digest(self) -> str:
        """Digest of its weights after the load; "" if it was not reported."""
        span = self.phases.get("verify")
        return span.result if span is not None else ""


class Summary(NamedTuple):
    """A sync in one line: the properties of `Sync` with the same names, computed once."""

    step: int
    ok: bool
    failed: int
    engines: int
    start: float
    seconds: float
    before: tuple[int, int]
    after: tuple[int, int]
    load: float | None
    gb_per_s: float | None
    bytes: int
    in_flight: int
    straddling: int
    resets: dict[str, int]
    digests: dict[str, int]
    slowest: str
    slower: float
    """Seconds that the slowest engine took more than the median; 0 for fewer than two."""
    phases: dict[str, float]
    """Seconds of the slowest engine in each phase that was reported."""


class Sync:
    """One sync over the pool. `number` counts the syncs of the run from 1; `id` is the producer's name for it."""

    __slots__ = ("_cached", "_held", "_ok", "id", "number", "spans")

    def __init__(self, number: int, identity: str) -> None:
        self.number = number
        self.id = identity
        self.spans = 0
        # One attribute for both forms: a screen may look while the reader's thread changes one into the other.
        self._held: dict[str, EngineSync] | bytes = {}
        self._ok = True
        self._cached: Summary | None = None

    @property
    def engines(self) -> dict[str, EngineSync]:
        """Its engines by name, in the order in which they were first heard of. Not to be changed."""
        held = self._held
        return _at_hand(held) if isinstance(held, bytes) else held

    def add(self, span: Span) -> bool:
        """Take in a span of this sync; whether the engine had the new weights, as far as was known, and now has not."""
        held = self._held
        engines = _unpacked(held) if isinstance(held, bytes) else held
        engine = engines.get(span.engine)
        if engine is None:
            engine = EngineSync(span.engine)
            engines = {**engines, span.engine: engine}
        lost = engine.ok and not span.ok
        # Replaced, not changed: a screen may be walking over them.
        engine.phases = engine.phases | {span.phase: span}
        self._held = engines
        self.spans += 1
        self._cached = None
        return lost

    def pack(self) -> None:
        """Keep the spans as bytes from now on; whatever is asked of the sync is answered as before."""
        held = self._held
        if not isinstance(held, bytes):
            self._ok = self.ok
            self._held = _packer.encode([span for engine in held.values() for span in engine.phases.values()])
            self._cached = None

    def summary(self) -> Summary:
        """The sync in one line, as far as its spans have come."""
        held = self._held
        if isinstance(held, bytes):
            return _summary_of_packed(held)
        if self._cached is None:
            self._cached = self._summarise()
        return self._cached

    def _summarise(self) -> Summary:
        straggler = self.straggler()
        return Summary(
            self.step, self.ok, len(self.failed), len(self.engines), self.start, self.seconds, self.before,
            self.after, self.slowest("load"), self.gb_per_s, self.bytes, self.in_flight, self.straddling,
            self.resets, self.digests, straggler[0].engine if straggler else "", straggler[1] if straggler else 0.0,
            {phase: seconds for phase in TIMES if (seconds := self.slowest(phase)) is not None},
        )  # fmt: skip

    def __iter__(self) -> Iterator[EngineSync]:
        return iter(self.engines.values())

    @property
    def step(self) -> int:
        return max(span.step for engine in self for span in engine.phases.values())

    @property
    def ok(self) -> bool:
        if isinstance(self._held, bytes):
            return self._ok  # a screen may look for the failed ones among thousands
        return all(engine.ok for engine in self)

    @property
    def failed(self) -> list[EngineSync]:
        """The engines that do not hold the new weights."""
        return [engine for engine in self if not engine.ok]

    @property
    def start(self) -> float:
        """Unix time of the first engine's pause."""
        return min(engine.start for engine in self)

    @property
    def end(self) -> float:
        """Unix time of the last engine's resume."""
        return max(engine.end for engine in self)

    @property
    def seconds(self) -> float:
        """From the first pause to the last resume."""
        return self.end - self.start

    @property
    def before(self) -> tuple[int, int]:
        """Oldest and newest weight version that an engine had."""
        versions = [engine.version_before for engine in self]
        return min(versions), max(versions)

    @property
    def after(self) -> tuple[int, int]:
        """Oldest and newest weight version that an engine has after it."""
        versions = [engine.version_after for engine in self]
        return min(versions), max(versions)

    @property
    def bytes(self) -> int:
        """Bytes that every engine loaded; the largest where they differ."""
        return max(engine.bytes for engine in self)

    @property
    def gb_per_s(self) -> float | None:
        """10^9 bytes a second of the slowest load."""
        return min((rate for engine in self if (rate := engine.gb_per_s) is not None), default=None)

    @property
    def in_flight(self) -> int:
        return sum(engine.in_flight for engine in self)

    @property
    def straddling(self) -> int:
        return sum(engine.straddling for engine in self)

    @property
    def resets(self) -> dict[str, int]:
        """Answers of the cache reset, and how many engines gave each."""
        counts: dict[str, int] = {}
        for engine in self:
            if engine.reset:
                counts[engine.reset] = counts.get(engine.reset, 0) + 1
        return counts

    @property
    def digests(self) -> dict[str, int]:
        """Digests of the engines' weights, and how many engines reported each; engines without one are left out."""
        counts: dict[str, int] = {}
        for engine in self:
            if engine.digest:
                counts[engine.digest] = counts.get(engine.digest, 0) + 1
        return counts

    def slowest(self, phase: str = TOTAL) -> float | None:
        """Seconds of the slowest engine in a phase; None if no engine reported it."""
        if phase == TOTAL:
            return max(engine.seconds for engine in self)
        return max((seconds for engine in self if (seconds := engine.phase_seconds(phase)) is not None), default=None)

    def straggler(self) -> tuple[EngineSync, float] | None:
        """The engine that took longest, and by how many seconds more than the median; None for fewer than two."""
        if len(self.engines) < 2:
            return None
        order = sorted(self, key=lambda engine: engine.seconds)
        middle = order[(len(order) - 1) // 2].seconds
        return order[-1], order[-1].seconds - middle

    def worst_first(self) -> list[EngineSync]:
        """The engines that failed, then the others from the slowest to the fastest."""
        return sorted(self, key=lambda engine: (engine.ok, -engine.seconds, engine.engine))


def _unpacked(packed: bytes) -> dict[str, EngineSync]:
    engines: dict[str, EngineSync] = {}
    for span in _unpacker.decode(packed):
        engine = engines.setdefault(span.engine, EngineSync(span.engine))
        engine.phases[span.phase] = span
    return engines


@lru_cache(maxsize=_UNPACKED)
def _at_hand(packed: bytes) -> dict[str, EngineSync]:
    return _unpacked(packed)


@lru_cache(maxsize=_UNPACKED)
def _summary_of_packed(packed: bytes) -> Summary:
    whole = Sync(0, "")
    whole._held = _at_hand(packed)
    return whole._summarise()
