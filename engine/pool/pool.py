"""The pool: the trainer's interface to get rollouts, push weights and switch fixes on N engines at once.

One background thread awaits every Ray call and owns all state; its parts are members (rotation), dispatch
(requests), weight syncs, fix changes, recovery (deaths) and rolling restarts. The caller's thread only submits and
collects, and never waits for a single engine longer than it said.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from driftline.config import EngineConfig, SamplingConfig, ShadowConfig, engine_fixes
from driftline.frames import EngineFix, How, Level
from driftline.keys import Keys
from driftline.rundir import Connection, RunDir
from engine.actor.launch import EngineSpec, check_model
from engine.cluster.ray_calls import LoopThread, unwrap
from engine.cluster.ray_cluster import Cluster
from engine.fixes import wanted_at_start
from engine.pool.admission import Admission
from engine.pool.dispatch import Dispatch
from engine.pool.fix_changes import FixChanges, check_fix
from engine.pool.interpreters import own_specs
from engine.pool.members import Fleet
from engine.pool.probes import Probes
from engine.pool.recovery import Recovery
from engine.pool.reporting import report_to, stats
from engine.pool.rolling_restart import RollingRestart
from engine.pool.shadow import Shadow
from engine.pool.spawn import CLOSE_S, Spawner
from engine.pool.weight_sync import RETRIES, WeightSyncs
from engine.types import (
    EngineError,
    EngineInfo,
    HeldWeights,
    PauseReport,
    PoolStats,
    ProbeRequest,
    ProbeScores,
    RestartReport,
    RolloutRequest,
    ShadowStep,
    SyncReport,
    engine_names,
)
from engine.types import Group as Group
from engine.weights.shared_memory import sweep
from engine.weights.transport import Transport, open_transport

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
EventData = dict[str, str | int | float | bool]

PROGRESS_S: Final = 5.0


class EnginePool:
    """N engines, each one vLLM in a Ray actor. Every method may be called from any thread and raises EngineError with

    a sentence. What a trainer needs is `start`, `submit`, `take`, `sync`, `fix_states`, `apply_fix` and `close`
    (docs/your-trainer.md has a loop); these stay as they are. A `with` block starts and closes.

    `model` is a local Hugging Face directory, `dtype` vLLM's word for the body's ("auto": the model's own), `fixes` the
    value of each backend fix at the start, by its id, where it is not vLLM's default. A dead engine is replaced in the
    background, with the wanted fixes and the newest weights, at most `config.replacements` times; after that every call
    raises.

    With a `run` the engines report to it, and their logs lie in it; `connection` and `keys` (for each engine the pair
    it sends under) take its place where there is no run directory on this machine. `log_dir` holds the engines' logs,
    "engine-logs" in the working directory where nothing else is named. `on_progress(text)` reports the start.
    `on_event(kind, text, level, data)` reports deaths and the like, from the pool's own thread, in which the pool's
    methods must not be called. Raises RunError for a run whose keys cannot be read.
    """

    def __init__(
        self,
        config: EngineConfig,
        sampling: SamplingConfig,
        *,
        model: Path,
        dtype: str = "auto",
        fixes: Mapping[str, str] | None = None,
        run: RunDir | None = None,
        connection: Connection | None = None,
        keys: Mapping[str, Keys] | None = None,
        log_dir: Path | None = None,
        on_progress: Callable[[str], None] = lambda _text: None,
        on_event: Callable[[str, str, Level, EventData], None] | None = None,
        shadow: ShadowConfig | None = None,
    ) -> None:
        self._config = config
        self._sampling = sampling
        self._model = Path(model).resolve()
        self._dtype = dtype
        self._fixes = dict(fixes or {})
        if run is not None and connection is None:
            connection, keys = report_to(run, self.names)
        self._connection = connection
        self._keys = dict(keys or {})
        self._log_dir = Path(log_dir or (run.logs if run is not None else "engine-logs")).resolve()
        self._on_progress = on_progress
        self._on_event = on_event
        self._cluster = Cluster()
        self._loop = LoopThread("engine-pool")
        own = dict(zip(self.names, engine_fixes(config), strict=True))
        self._fleet = Fleet(self.names, wanted_at_start(self._fixes), self._post_event, own)
        self._dispatch = Dispatch(self._fleet, self._loop)
        self._shadow = Shadow(self._fleet, shadow or ShadowConfig())
        self._dispatch.on_sampled = self._shadow.offer
        self._probes = Probes(self._fleet)
        self._started = False
        self._closed = False

    def __enter__(self) -> EnginePool:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start Ray and all engines side by side, and wait for them. On any failure everything started is ended.

        Call it from the thread that will outlive the pool (see Cluster.start), as a rule the main one.
        """
        if self._closed or self._loop.running:
            raise EngineError("an engine pool starts once")
        atexit.register(self.close)
        try:
            check_model(self._model)
            for fix_id, value in self._fixes.items():
                check_fix(fix_id, value)
            self._log_dir.mkdir(parents=True, exist_ok=True)
            own = own_specs(self._config, self._dtype, os.environ)
            sweep()
            transport = open_transport(self._config)
            self._on_progress("starting Ray")
            self._cluster.start(self._config, self._ray_lost, self._guard_died)
            template = EngineSpec(
                name="", index=0, config=self._config, sampling=self._sampling, model=str(self._model),
                dtype=self._dtype, fixes={}, log="", connection=self._connection,
                transport=transport.kind,
            )  # fmt: skip
            spawner = Spawner(self._fleet, self._cluster, transport, template, self._log_dir, self._keys, own)
            self._assemble(transport, spawner)
            self._start_engines()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every engine, vLLM's processes and Ray; leaves none behind. Idempotent, also from a signal handler."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        closed = EngineError("the engine pool is closed")
        self._dispatch.fail(closed)
        self._cluster.track_process()
        if self._cluster.lost and self._started:
            self._spawner.abandon()
            self._loop.stop()
        if self._loop.running:
            try:
                self._loop.wait(self._end_engines(closed), CLOSE_S + 5.0)
            except EngineError as error:
                self._on_progress(f"engines did not end by themselves ({error}); killing them")
            self._loop.stop()
        if self._started:
            self._transport.close()
        known = self._cluster.lost
        self._cluster.stop()
        if self._cluster.lost != known:
            self._on_progress(f"{self._cluster.lost}; what was left of it is killed")

    @property
    def names(self) -> list[str]:
        """Names of the engines, in order."""
        return engine_names(self._config.count)

    @property
    def infos(self) -> list[EngineInfo]:
        """Version, backend and location of each engine that has come up; also of one that has died since."""
        members = [self._fleet.members[name] for name in self.names if name in self._fleet.members]
        return [member.info for member in members if member.info is not None]

    @property
    def abandoned(self) -> bool:
        """True where Ray has died: what it does when the interpreter ends must not be waited for."""
        return bool(self._cluster.lost)

    # -- rollouts -----------------------------------------------------------------------------------------------

    def submit(self, request: RolloutRequest) -> None:
        """Hand a request to the engine with the fewest sequences in flight, or to the first to come up. No wait.

        It comes back from `take` exactly once, whatever happens to the engine that has it.
        """
        length, limit = len(request.prompt_ids), self._config.max_model_len
        if request.n < 1 or not 0 < length < limit:
            raise EngineError(
                f"group {request.group}: {request.n} samples of a prompt of {length} tokens; allowed: at least 1 "
                f"sample, 1 to {limit - 1} tokens (engine.max_model_len = {limit})"
            )
        self._check()
        self._dispatch.submit(request)

    def take(self, timeout: float) -> list[Group]:
        """Groups completed since the last call; waits for the first one, up to `timeout` seconds.

        Raises EngineError once a dead engine cannot be replaced any more.
        """
        return self._dispatch.take(timeout)

    @property
    def in_flight(self) -> int:
        """Groups submitted and not yet completed."""
        return self._dispatch.in_flight

    @property
    def outstanding(self) -> int:
        """Groups submitted and not yet handed over by `take`."""
        return self._dispatch.outstanding

    # -- steering -----------------------------------------------------------------------------------------------

    def sync(
        self,
        weights: Mapping[str, torch.Tensor],
        version: int,
        *,
        timeout: float = 120.0,
        barrier: bool = False,
        retries: int = RETRIES,
    ) -> list[SyncReport]:
        """Give every engine these weights (Hugging Face names): pause, load, verify, resume, side by side.

        Staged fixes change in it. The pool keeps the newest weights, which must not be changed any more: engines that
        come up later get them too. `timeout` s bound one engine's sync, and the wait for an engine when none is up;
        a silent engine counts as dead then. A failed load is repeated `retries` times. `barrier`: no engine resumes
        before all have loaded.

        One report for each engine that lived through it; `ok` false is one that kept its old version or stays paused.
        """
        self._check()
        work = self._syncs.sync(weights, version, timeout=timeout, barrier=barrier, retries=retries)
        reports = self._loop.wait(work)
        self._check()  # of a pool that was closed meanwhile the reports are of engines that are gone, or of some only
        return reports

    def pause(self, lease_until: float = 0.0) -> list[PauseReport]:
        """Hold every sequence where it is, until `resume`, or `lease_until` (Unix time; 0: no lease) and a second.

        A sync meanwhile leaves the engines paused, and one that comes up meanwhile joins paused.
        """
        self._fleet.start_pause(lease_until)
        return self._call_all(lambda actor: actor.pause.remote(lease_until), "pause")

    def resume(self) -> list[PauseReport]:
        """Let held sequences go on."""
        self._fleet.end_pause()
        return self._call_all(lambda actor: actor.resume.remote(), "resume")

    @property
    def wanted(self) -> dict[str, str]:
        """The fix values that the pool aims for."""
        return dict(self._fleet.wanted)

    @property
    def staged(self) -> dict[str, str]:
        """Fix values that the next sync brings."""
        return dict(self._syncs.staged) if self._started else {}

    def how(self, fix_id: str, value: str, engine: str = "") -> How:
        """How the value would take effect now, by what the engines last reported; does not ask them.

        `engine`: on that one alone.

        Raises EngineError for an unknown fix or value, and with the reason where it is not available.
        """
        self._check()
        return self._fix_changes.how(fix_id, value, engine)

    def set_fix(self, fix_id: str, value: str, engine: str = "") -> list[EngineFix]:
        """Switch a live fix on every engine, or on none; returns the states read back.

        `engine`: on that one alone, which keeps it whatever the pool changes to, until it is given the pool's value.

        Raises EngineError where it is not live here, or when an engine refuses or dies: the others are then set
        back, and one that cannot be is built anew.
        """
        self._check()
        return self._loop.wait(self._fix_changes.set_fix(fix_id, value, engine))

    def stage_fix(self, fix_id: str, value: str) -> None:
        """Let a fix change at the next sync, in all engines; takes the place of an earlier stage."""
        self._check()
        self._fix_changes.stage(fix_id, value)

    def restart_fix(self, fix_id: str, value: str) -> Future[list[RestartReport]]:
        """Build one engine after the other anew with another value, while the rest serve on. Does not wait.

        Engines that have the value already are left alone. Requests of the engine that is out are run by the others,
        or wait for it. The Future raises EngineError when an engine did not come up: all are back at the old value.
        """
        self._check()
        how = self.how(fix_id, value)
        if how not in ("engine_restart", "live"):
            raise EngineError(f"{fix_id} {value} takes effect at the next weight sync, not by a restart")
        self._rolling_restart.reserve(fix_id)
        return self._loop.schedule(self._rolling_restart.run(fix_id, value))

    def apply_fix(self, fix_id: str, value: str) -> How:
        """Let a fix take a value by the way that it takes; returns that way.

        "live": every engine has it now, read back. "next_sync": the next `sync` brings it, and its reports hold what
        was read back. "engine_restart": one engine after the other was built anew with it, which took minutes, while
        the rest served. Raises EngineError for an unknown fix or value, where it is not available here, and where an
        engine did not take it: none has it then.
        """
        how = self.how(fix_id, value)
        if how == "live":
            self.set_fix(fix_id, value)
        elif how == "next_sync":
            self.stage_fix(fix_id, value)
        else:
            self.restart_fix(fix_id, value).result()
        return how

    def fix_states(self, fix_id: str | None = None) -> dict[str, list[EngineFix]]:
        """Every fix of the catalogue (or the one named), per engine, read back from the engines now.

        One that is dead or restarting has effective "" and says so in its detail.
        """
        self._check()
        return self._loop.wait(self._fix_changes.states(fix_id))

    def set_shadow(self, share: float) -> None:
        """Have another engine score this share of the groups (0: none) from now on. Does not wait.

        Raises EngineError where there is no other engine.
        """
        self._check()
        self._shadow.set_share(share)

    def take_shadow(self) -> ShadowStep:
        """What other engines have scored since the previous call. Does not wait."""
        return self._shadow.take()

    def probe(
        self, requests: Mapping[str, Sequence[ProbeRequest]], timeout: float
    ) -> dict[str, list[ProbeScores] | EngineError]:
        """Have each engine score recorded tokens, its requests one after the other; waits `timeout` s at most.

        Changes nothing in the engines but that they are asked. An engine that does not answer has its error for a
        result.
        """
        self._check()
        return self._loop.wait(self._probes.score(requests, timeout))

    def held_weights(self, timeout: float = 30.0) -> dict[str, HeldWeights | EngineError]:
        """What each engine in rotation holds, tensor by tensor."""
        self._check()
        return self._loop.wait(self._probes.held(timeout))

    def stats(self) -> PoolStats:
        """Load and rates since the previous call. A slow engine is shown as it last was, an absent one as absent."""
        return self._loop.wait(stats(self._fleet))

    # -- on the loop's thread -----------------------------------------------------------------------------------

    async def _end_engines(self, closed: EngineError) -> None:
        self._fleet.fail(closed)
        self._recovery.stop()
        self._shadow.stop()
        await self._spawner.end_all()

    # -- between the threads ------------------------------------------------------------------------------------

    def _assemble(self, transport: Transport, spawner: Spawner) -> None:
        """Put the parts together and start the thread that they live on."""
        fleet, dispatch = self._fleet, self._dispatch
        self._transport, self._spawner = transport, spawner
        self._syncs = WeightSyncs(fleet, transport, dispatch)
        self._admission = Admission(fleet, spawner, self._syncs, self._config.start_timeout)
        self._recovery = Recovery(fleet, dispatch, spawner, self._admission, self._config.replacements)
        self._rolling_restart = RollingRestart(fleet, dispatch, spawner, self._admission, self._recovery)
        self._fix_changes = FixChanges(fleet, self._syncs, self._rolling_restart)
        self._loop.start()
        self._started = True

    def _start_engines(self) -> None:
        starts = [self._loop.schedule(self._recovery.first_start(name)) for name in self.names]
        began, said = time.monotonic(), -PROGRESS_S
        while not all(start.done() for start in starts):
            if self._cluster.lost:
                raise EngineError(self._cluster.lost)
            if failed := [s for s in starts if s.done() and s.exception()]:
                failed[0].result()
            if (elapsed := time.monotonic() - began) - said >= PROGRESS_S:
                said = elapsed
                for member in list(self._fleet.members.values()):
                    self._on_progress(f"{member.name}: {member.stage or 'starting its process'} ({elapsed:.0f} s)")
            # A short wait, so that Ctrl-C is heard. All may be done by now: nothing is assumed of any of them.
            wait(starts, 0.2, FIRST_EXCEPTION)
        for start in starts:
            info = start.result().info
            assert info is not None
            self._on_progress(f"{info.engine}: vLLM {info.vllm} on {info.backend}, ready in {info.loaded_s:.0f} s")
        self.stats()

    def _call_all(self, call: Callable[[Any], Awaitable[T]], what: str) -> list[T]:
        self._check()

        async def each() -> list[T]:
            found: list[T | EngineError] = []
            for member, result in await self._fleet.ask_all(call, self._fleet.control_s):
                if isinstance(result, EngineError):
                    if not await self._fleet.still_serves(member):
                        continue  # dead: its replacement joins as the pool then is
                    result = EngineError(f"{what}: {result}")
                found.append(result)
            return unwrap(found)

        return self._loop.wait(each())

    def _post_event(self, kind: str, text: str, level: Level, data: EventData) -> None:
        if self._on_event is not None and self._loop.running:
            on_event = self._on_event
            # After what is going on now: a listener that raises must not tear it.
            self._loop.post(lambda: on_event(kind, text, level, data))

    def _ray_lost(self, text: str) -> None:
        """On the watch's thread: every wait for engines ends with this error, since none will come."""
        error = EngineError(text)
        self._dispatch.fail(error)
        with suppress(EngineError):  # not running yet: the start sees it by itself
            self._loop.post(lambda: self._recovery.give_up(error))

    def _guard_died(self, text: str) -> None:
        self._post_event("guard.died", text, "warn", {})

    def _check(self) -> None:
        if not self._started and not self._closed:
            raise EngineError("the engine pool is not started")
        self._dispatch.check()
