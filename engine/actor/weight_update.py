"""One weight sync on one engine: pause, load, verify, reset, resume, each with its time and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.actor.core import Core
from engine.actor.epochs import Epochs
from engine.actor.fix_switches import FixSwitches
from engine.actor.pause_reasons import PauseReasons
from engine.fixes import PAUSES
from engine.plugin import worker
from engine.plugin.report import WorkerFacts, worker_facts
from engine.types import EngineError, PauseMode, Reset, SyncReport
from engine.weights.transport import Update

if TYPE_CHECKING:
    from engine.weights.publish import Entry


@dataclass(frozen=True)
class UpdateRequest:
    """One request to load weights: see `EngineActor.sync`."""

    update: Update
    version: int
    expected: str
    resume: bool = True
    fixes: Mapping[str, str] = field(default_factory=dict)


@dataclass
class LoadOutcome:
    """The outcome of a load. `detail` is "" only for weights that are those of the trainer."""

    detail: str = ""
    digest: str = ""
    verified: str = ""
    bytes: int = 0
    load_s: float = 0.0
    verify_s: float = 0.0
    facts: WorkerFacts | None = None


class WeightUpdate:
    """Runs the weight syncs of one engine. `aborted` returns how many sequences have ended in an abort so far."""

    def __init__(
        self, core: Core, switches: FixSwitches, epochs: Epochs, pauses: PauseReasons, aborted: Callable[[], int]
    ) -> None:
        self._core, self._switches, self._epochs, self._pauses, self._aborted = core, switches, epochs, pauses, aborted
        self.active = False
        """Whether generation is about to stop, or stands still, for an update."""

    async def run(self, request: UpdateRequest) -> SyncReport:
        """See `EngineActor.sync`. The caller holds the actor's lock."""
        core = self._core
        start, began, before = time.time(), time.perf_counter(), self._epochs.version
        try:
            published = await self._published(request)
        except (OSError, ValueError) as error:
            return SyncReport(
                engine=core.name, ok=False, version_before=before, version_after=before, start=start, pause_s=0.0,
                load_s=0.0, resume_s=0.0, total_s=time.perf_counter() - began, bytes=0, in_flight=core.in_flight,
                detail=f"the weights cannot be read: {error}; version {before} serves on",
            )  # fmt: skip
        self.active = True
        try:
            return await self._update(request, published, start, began)
        finally:
            self.active = False

    async def _update(
        self, request: UpdateRequest, published: Mapping[str, Entry], start: float, began: float
    ) -> SyncReport:
        core, pauses, before = self._core, self._pauses, self._epochs.version
        in_flight, aborted, asked = core.in_flight, self._aborted(), time.perf_counter()
        mode = await self._pause(request)
        paused = time.perf_counter()
        loaded = await self._load(request, published)
        straddling = core.sampled  # nothing was sampled meanwhile, and the last outputs are through by now
        pauses.damaged = loaded.detail
        pauses.held = not (request.resume or loaded.detail)
        reset_at = time.perf_counter()
        reset = await self._reset(mode, loaded)
        resume_at = time.perf_counter()
        await self._resume(request, loaded)
        end = time.perf_counter()
        return SyncReport(
            engine=core.name, ok=not loaded.detail, version_before=before, version_after=self._epochs.version,
            start=start, pause_s=paused - asked, load_s=loaded.load_s, verify_s=loaded.verify_s,
            reset_s=resume_at - reset_at, resume_s=end - resume_at, total_s=end - began,
            # While it waits for requests to finish, an engine generates.
            held_s=end - (paused if mode == "wait" else asked),
            bytes=loaded.bytes, in_flight=in_flight, detail=loaded.detail, reset=reset, digest=loaded.digest,
            verified=loaded.verified, straddling=straddling, aborted=self._aborted() - aborted,
            fixes=tuple(self._switches.last_read().values()),
        )  # fmt: skip

    async def _published(self, request: UpdateRequest) -> dict[str, Entry]:
        """Look through a segment while generation goes on; other transports can be looked at only as they arrive."""
        if "segment" not in request.update:
            return {}
        from engine.weights.publish import verify_segment

        return await asyncio.to_thread(verify_segment, request.update, request.expected)

    async def _pause(self, request: UpdateRequest) -> PauseMode:
        inflight = request.fixes.get("inflight-keep", self._switches.inflight)
        mode = PAUSES[inflight]
        pause = mode
        if self._pauses.damaged and mode != "keep":
            # Nothing may go on with damaged weights. What waits to begin can stay; what had begun must not cross.
            pause = "abort" if self._core.sampled else "keep"
        try:
            await self._core.pause(pause, settle=False)
        except EngineError:
            if not self._pauses.active:
                await self._core.resume(self._epochs.label)  # a pause that failed half-way would last for ever
            raise
        self._switches.inflight = inflight
        return mode

    async def _load(self, request: UpdateRequest, published: Mapping[str, Entry]) -> LoadOutcome:
        head, began = self._switches.head_dtype(request.fixes.get("fp32-lm-head")), time.perf_counter()
        failed = f"the load of version {request.version} failed half-way: "
        try:
            answers = await self._core.ask(worker.LOAD, dict(request.update), request.expected, head_dtype=head)
            looked = max(answer.pop("seconds") for answer in answers)
            answer = self._core.agreed(answers)
        except EngineError as error:
            return LoadOutcome(
                failed + str(error).removeprefix(f"{self._core.name}: "), load_s=time.perf_counter() - began
            )
        wrong = answer["problem"] or _differs(answer["entries"], published, answer["digest"], request.expected)
        return LoadOutcome(
            detail=f"{failed}{wrong}" if wrong else "",
            digest=answer["digest"],
            verified=answer["verified"],
            bytes=answer["bytes"],
            load_s=time.perf_counter() - began - looked,
            verify_s=looked,
            facts=worker_facts(answer["facts"]),
        )

    async def _reset(self, mode: PauseMode, loaded: LoadOutcome) -> Reset:
        if mode == "keep" or loaded.detail:
            return "kept"
        # The pause has cleared the caches already, as vLLM does by default; this is what the cache says to it.
        return "freed" if await self._core.reset_prefix_cache() else "refused"

    async def _resume(self, request: UpdateRequest, loaded: LoadOutcome) -> None:
        if not loaded.detail:
            self._epochs.version = request.version
        self._switches.on_synced(loaded.facts, self._epochs.version)
        if self._pauses.active:
            await self._core.stamp(self._epochs.label)
        else:
            await self._core.resume(self._epochs.label)


def _differs(held: Mapping[str, Any], published: Mapping[str, Entry], digest: str, expected: str) -> str:
    """The differing tensors, by name where the published entries are known; "" for no difference."""
    if digest == expected:
        return ""
    sentence = f"the engine's digest is {digest[:12]}, the trainer's {expected[:12]}"
    names = [name for name, entry in published.items() if name not in held or _tuples(held[name]) != tuple(entry)]
    return f"{sentence}: {len(names)} tensors differ, among them {min(names)}" if names else sentence


def _tuples(entry: list[Any]) -> tuple[Any, ...]:
    dtype, shape, crc = entry
    return dtype, tuple(shape), crc
