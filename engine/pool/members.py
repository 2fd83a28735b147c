"""The members of the pool: which of them serve, and the weights and fixes that each should have. On the pool's thread.

A name such as engine-1 outlives its actor: each new actor under it is a new `Member`. Only members that serve get
requests, syncs and fix changes; one that is starting is brought up to date by `engine.pool.admission` before it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from driftline import clocks
from driftline.frames import EngineFix, EngineState, Level
from engine.cluster.ray_calls import GoneError, ask
from engine.types import DeadCoreError, EngineError, EngineInfo, EngineSample, RolloutRequest

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Status = Literal["starting", "serving", "restarting", "dead"]
EventCallback = Callable[[str, str, Level, dict[str, str | int | float | bool]], None]

CONTROL_S: Final = 30.0
"""Longest wait, in seconds, for an idle engine to answer a control call other than a sync; then it counts as dead."""
GRACE_S: Final = 1.5
"""An actor reports the death of its vLLM core within 0.5 s; a failed call waits this long to learn whether that was it.

Calls that detect it themselves (`generate`) raise DeadCoreError, without that wait.
"""


@dataclass(eq=False)
class Flight:
    """A request on its way through the pool. `aborts`: how often a pause has cut it short."""

    request: RolloutRequest
    aborts: int = 0


@dataclass(frozen=True)
class NewestWeights:
    """The weights that every engine must hold before it serves; compared by identity, also under one version."""

    version: int
    weights: Mapping[str, torch.Tensor]
    digest: str


@dataclass(eq=False)
class Member:
    """One actor as the pool sees it.

    `loaded` is the newest weights that it was seen to hold, None for those of the model path; `healthy` whether its
    latest sync succeeded; `states` the fixes it last read back; `base` the sample that the last `stats` ended with.
    """

    name: str
    actor: Any
    log: Path
    status: Status = "starting"
    detail: str = ""
    stage: str = ""
    pid: int | None = None
    info: EngineInfo | None = None
    states: dict[str, EngineFix] = field(default_factory=dict)
    loaded: NewestWeights | None = None
    healthy: bool = True
    base: EngineSample | None = None
    shown: EngineState | None = None
    flights: dict[Flight, None] = field(default_factory=dict)

    @property
    def serves(self) -> bool:
        """In rotation."""
        return self.status == "serving"

    @property
    def load(self) -> int:
        """Sequences in flight."""
        return sum(flight.request.n for flight in self.flights)


class Fleet:
    """The members, what is wanted of them, and calls to them. `gate` is held while their weights or fixes

    change: by a sync, a fix change, or a member that enters rotation; so none enters with older weights or other fixes.
    """

    def __init__(
        self,
        names: list[str],
        wanted: dict[str, str],
        report_event: EventCallback,
        own: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.names = names
        self.members: dict[str, Member] = {}
        self.gate = asyncio.Lock()
        self.wanted = wanted
        self.newest: NewestWeights | None = None
        self.failure: EngineError | None = None
        self.report_event = report_event
        self.sync_s = 0.0
        """Timeout of the running sync for one engine, in seconds; 0 without a sync."""
        self.on_lost: Callable[[Member, EngineError], None] = lambda _member, _error: None
        self.on_entered: Callable[[Member], None] = lambda _member: None
        self._own = {name: dict(values) for name, values in (own or {}).items()}
        self._overrides: dict[str, dict[str, str]] = {}
        self._lease: float | None = None
        self._changed = asyncio.Event()

    # -- members in rotation --------------------------------------------------------------------------------------

    @property
    def serving(self) -> list[Member]:
        """Members in rotation, in the order of their names."""
        return [self.members[name] for name in self.names if name in self.members and self.members[name].serves]

    def least_loaded(self) -> Member | None:
        """The member for the next request; one whose latest sync failed, and which may be paused for it, comes last."""
        return min(self.serving, key=lambda member: (not member.healthy, member.load), default=None)

    def enter(self, member: Member) -> None:
        """Take a member into rotation."""
        member.status, member.detail = "serving", ""
        self._notify()
        self.on_entered(member)

    def leave(self, member: Member, status: Status, detail: str) -> None:
        """Take a member out of rotation."""
        member.status, member.detail = status, detail
        self._notify()

    def lose(self, member: Member, error: EngineError) -> None:
        """A member in rotation is dead, or counts as dead. Nothing happens for one that is not in rotation."""
        if member.serves:
            self.leave(member, "dead", str(error))
            if self.failure is None:
                self.on_lost(member, error)

    def fail(self, error: EngineError) -> None:
        """The pool cannot go on: every caller that waits for an engine raises this."""
        self.failure = self.failure or error
        self._notify()

    async def wait_until(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until a condition on the members holds; False after `timeout` s. Raises EngineError on failure."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not condition():
                    if self.failure is not None:
                        raise EngineError(str(self.failure))
                    await self._changed.wait()
                return True
        return False

    # -- what is wanted -------------------------------------------------------------------------------------------

    def wanted_of(self, name: str) -> dict[str, str]:
        """Fix values that an engine of this name is to have: the pool's, but for a rolling restart's progress, and for
        those that it alone is configured with."""
        return self.wanted | self._overrides.get(name, {}) | self._own.get(name, {})

    def own(self, name: str, fix_id: str) -> str:
        """The value of a fix that this engine alone is to have, "" where it follows the pool."""
        return self._own.get(name, {}).get(fix_id, "")

    def set_own(self, name: str, fix_id: str, value: str) -> None:
        """This engine alone is to have this value; it follows the pool again where the pool has the same."""
        own = self._own.setdefault(name, {})
        own.pop(fix_id, None)
        if self.wanted[fix_id] != value:
            own[fix_id] = value

    def stamped(self, name: str, fixes: Iterable[tuple[str, EngineFix]]) -> list[EngineFix]:
        """Reports of an engine, each with what it alone is to have."""
        return [msgspec.structs.replace(report, wanted=self.own(name, fix_id)) for fix_id, report in fixes]

    def following(self, fix_id: str) -> list[Member]:
        """Members in rotation that have what the pool has of a fix."""
        return [member for member in self.serving if not self.own(member.name, fix_id)]

    def set_override(self, name: str, fix_id: str, value: str | None) -> None:
        """One engine is to differ from the others (None: no longer)."""
        own = {key: other for key, other in self._overrides.get(name, {}).items() if key != fix_id}
        self._overrides[name] = own if value is None else own | {fix_id: value}

    def start_pause(self, lease_until: float) -> None:
        """The pool is paused from now, until `lease_until` (Unix time; 0: until it is resumed)."""
        self._lease = clocks.by_monotonic(lease_until)

    def end_pause(self) -> None:
        """The pool is not paused."""
        self._lease = None

    @property
    def paused(self) -> bool:
        """Whether an operator's pause is on, by the lease that it carries."""
        return self._lease is not None and not clocks.passed(self._lease)

    @property
    def lease_until(self) -> float:
        """Of the pause that is on, as a wall time of now; 0 without a lease."""
        return clocks.by_wall(self._lease or 0.0)

    # -- calls ----------------------------------------------------------------------------------------------------

    @property
    def control_s(self) -> float:
        """Longest wait for the answer to a control call that may stand behind a sync: an engine does one at a time."""
        return CONTROL_S + self.sync_s

    async def ask(
        self, member: Member, call: Callable[[Any], Awaitable[T]], timeout: float | None = None, *, fatal: bool = True
    ) -> T | EngineError:
        """One call of one member. A dead one is lost by it, as is one silent for `timeout` s (if `fatal`)."""
        result = await ask(member.name, lambda: call(member.actor), member.log, timeout)
        if fatal and isinstance(result, (GoneError, DeadCoreError)):
            self.lose(member, result)
        return result

    async def ask_all(
        self, call: Callable[[Any], Awaitable[T]], timeout: float, *, fatal: bool = True
    ) -> list[tuple[Member, T | EngineError]]:
        """One call of every member in rotation, side by side."""
        return await self.ask_these(self.serving, call, timeout, fatal=fatal)

    async def ask_these(
        self, members: list[Member], call: Callable[[Any], Awaitable[T]], timeout: float, *, fatal: bool = True
    ) -> list[tuple[Member, T | EngineError]]:
        """One call of each of these, side by side."""
        results = await asyncio.gather(*(self.ask(member, call, timeout, fatal=fatal) for member in members))
        return list(zip(members, results, strict=True))

    async def still_serves(self, member: Member) -> bool:
        """Of a member whose call has failed: whether it lives on, which a dead core shows only a moment later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while member.serves:
                    await self._changed.wait()
        return member.serves

    def _notify(self) -> None:
        # Waiting coroutines hold the old event; the next to wait gets a new one.
        happened, self._changed = self._changed, asyncio.Event()
        happened.set()
