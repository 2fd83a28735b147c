"""The weight syncs of a run, put together from their spans as these come: a sync, its engines, their phases.

The newest `SPANS_KEPT` spans are kept, whole syncs at a time; how long each phase took over the whole run is kept as
quantiles. Pure: the same spans give the same index.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from console.store.series.quantiles import Quantiles
from driftline.frames import Span

SPANS_KEPT: Final = 20_000
PHASES: Final = ("pause", "load", "verify", "reset", "resume")
TOTAL: Final = "total"
TIMES: Final = (*PHASES, TOTAL)


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

    __slots__ = ("cached", "engines", "id", "number", "spans")

    def __init__(self, number: int, identity: str) -> None:
        self.number = number
        self.id = identity
        self.engines: dict[str, EngineSync] = {}
        self.spans = 0
        self.cached: Summary | None = None

    def summary(self) -> Summary:
        """The sync in one line, as far as its spans have come."""
        if self.cached is None:
            straggler = self.straggler()
            self.cached = Summary(
                self.step, self.ok, len(self.failed), len(self.engines), self.start, self.seconds, self.before,
                self.after, self.slowest("load"), self.gb_per_s, self.bytes, self.in_flight, self.straddling,
                self.resets, self.digests, straggler[0].engine if straggler else "", straggler[1] if straggler else 0.0,
                {phase: seconds for phase in TIMES if (seconds := self.slowest(phase)) is not None},
            )  # fmt: skip
        return self.cached

    def __iter__(self) -> Iterator[EngineSync]:
        return iter(self.engines.values())

    @property
    def step(self) -> int:
        return max(span.step for engine in self for span in engine.phases.values())

    @property
    def ok(self) -> bool:
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


class SyncIndex:
    """All syncs that are kept, oldest first."""

    def __init__(self, kept: int = SPANS_KEPT) -> None:
        self.syncs: deque[Sync] = deque()
        self.count = 0
        """Of the whole run."""
        self.failures = 0
        """Engines that did not load their weights, summed over the syncs of the whole run."""
        self.phases = {phase: Quantiles() for phase in TIMES}
        """Seconds of each phase, of every engine in every sync of the run."""
        self._open: dict[str, Sync] = {}
        self._spans = 0
        self._kept = kept

    def record(self, span: Span) -> None:
        """Add one span."""
        sync = self._open.get(span.sync)
        earlier = sync.engines.get(span.engine) if sync is not None else None
        known = earlier.phases.get(span.phase) if earlier is not None else None
        if known is not None and known.start == span.start:
            return  # sent again after a crash of the hub
        if sync is None or known is not None:
            # A trainer that was started again counts its syncs from one: the same name is another sync then.
            sync = self._begin(span.sync)
        engine = sync.engines.get(span.engine)
        if engine is None:
            engine = EngineSync(span.engine)
            sync.engines = sync.engines | {span.engine: engine}
        if engine.ok and not span.ok:
            self.failures += 1
        # Replaced, not changed: a screen may be walking over them.
        engine.phases = engine.phases | {span.phase: span}
        sync.spans += 1
        sync.cached = None
        self._spans += 1
        if span.phase in self.phases and span.ok:
            # Failed syncs would distort the usual times.
            self.phases[span.phase].add(span.seconds)
        while self._spans > self._kept and len(self.syncs) > 1:
            gone = self.syncs.popleft()
            self._spans -= gone.spans
            if self._open.get(gone.id) is gone:
                del self._open[gone.id]

    def _begin(self, identity: str) -> Sync:
        self.count += 1
        sync = Sync(self.count, identity)
        self.syncs.append(sync)
        self._open[identity] = sync
        return sync

    def find(self, identity: str) -> Sync | None:
        """The newest sync of that name that is kept."""
        return self._open.get(identity)

    def number(self, number: int) -> Sync | None:
        """The sync with this number, if it is kept."""
        if not self.syncs or not self.syncs[0].number <= number <= self.count:
            return None
        return self.syncs[number - self.syncs[0].number]
