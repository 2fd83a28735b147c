"""Shadow scoring: a share of the groups that one engine samples is scored by another one under the same weights.

So two engines are compared token by token while the run goes on. It never waits for that: a group that finds no room,
or whose weights are no longer those of the scoring engine, is left out and counted.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from driftline.config import ShadowConfig
from engine.pool import shadow_tokens
from engine.pool.members import Fleet, Member
from engine.pool.shadow_share import Share
from engine.types import EngineError, Group, ScoreRequest, Scores, ShadowPair, ShadowStep

SCORE_S: Final = 30.0
"""Longest wait for one group's scores."""
KEPT: Final = 100_000
"""Most differences kept for the next `take`: nothing takes them while the loop is paused."""


@dataclass(frozen=True)
class _Job:
    group: Group
    asked: ScoreRequest
    tokens: int


class Shadow:
    """`offer` and `stop` on the pool's own thread, the rest on any."""

    def __init__(self, fleet: Fleet, config: ShadowConfig) -> None:
        self._fleet = fleet
        self._config = config
        self._share = Share(config.share)
        self._waiting: dict[str, deque[_Job]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._rng = np.random.default_rng()
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], list[np.ndarray]] = {}
        self._kept = self._skipped = 0
        self._failed = ""

    # -- any thread -----------------------------------------------------------------------------------------------

    def set_share(self, share: float) -> None:
        """Score this share of the groups from now on. Raises EngineError where no engine could score another's."""
        names = self._fleet.names
        sampled, scored = self._config.sampled or names, self._config.scored or names
        if share and not any(one != other for one in sampled for other in scored):
            raise EngineError("shadow scoring takes two engines: one samples, another one scores; this pool has one")
        with self._lock:
            self._share.set(share)

    def take(self) -> ShadowStep:
        """What was scored and what was left out since the previous call."""
        with self._lock:
            pairs = tuple(
                ShadowPair(sampled, scored, np.concatenate(found))
                for (sampled, scored), found in sorted(self._found.items())
            )
            step = ShadowStep(pairs, self._skipped, self._share.effective, self._share.wanted)
            self._found, self._kept, self._skipped = {}, 0, 0
        return step

    # -- the pool's own thread ------------------------------------------------------------------------------------

    def offer(self, group: Group) -> None:
        """A group has been sampled. Does not wait."""
        if self._config.sampled and group.engine not in self._config.sampled:
            return
        with self._lock:
            if not self._share.wanted or not self._share.take():
                return
        count = shadow_tokens.tokens(group, self._config.positions)
        scorer = self._scorer(group.engine)
        if scorer is None or self._fleet.paused:
            self._skip(count)
            return
        version = scorer.loaded.version if scorer.loaded else 0
        asked = shadow_tokens.request(group, version, self._config.positions, self._rng)
        if asked is None:
            self._skip(count)
            return
        waiting = self._waiting.setdefault(scorer.name, deque())
        if len(waiting) >= self._config.queue:
            self._skip(count, late=True)
            return
        waiting.append(_Job(group, asked, count))
        if scorer.name not in self._tasks:
            task = self._tasks[scorer.name] = asyncio.get_running_loop().create_task(self._work(scorer.name))
            task.add_done_callback(lambda _: self._tasks.pop(scorer.name, None))

    def stop(self) -> None:
        """Leave what waits."""
        for task in self._tasks.values():
            task.cancel()

    def _scorer(self, sampler: str) -> Member | None:
        """The engine with the least to score of those that may score what this one has sampled."""
        allowed = self._config.scored or self._fleet.names
        free = [one for one in self._fleet.serving if one.name in allowed and one.name != sampler and one.healthy]
        return min(free, key=lambda one: len(self._waiting.get(one.name, ())), default=None)

    async def _work(self, name: str) -> None:
        """Score what waits for one engine, group by group."""
        waiting = self._waiting[name]
        while waiting:
            job, member = waiting.popleft(), self._fleet.members[name]
            held, fixes = member.loaded.version if member.loaded else 0, _fixes(member)
            if not member.serves or self._fleet.paused or held != job.asked.version:
                self._skip(job.tokens, late=True)
                continue
            result = await self._fleet.ask(member, partial(_score, job.asked), SCORE_S, fatal=False)
            if isinstance(result, EngineError):
                self._skip(job.tokens, late=True)
                self._report_failed(str(result))
            elif fixes != _fixes(member) or self._switched(job.group):
                self._skip(job.tokens)  # what is compared would be neither the engines before it nor those after it
            else:
                self._add(job, name, shadow_tokens.differences(job.group, job.asked, result))

    def _switched(self, group: Group) -> bool:
        """Whether the engine of this group has other fixes by now than it was sampled under."""
        now = _fixes(self._fleet.members[group.engine])
        return any(state != now for state in group.states.values())

    def _add(self, job: _Job, scorer: str, found: np.ndarray) -> None:
        if not len(found):
            self._skip(job.tokens, late=True)  # the weights changed before the first of them
            return
        with self._lock:
            room = found[: max(0, KEPT - self._kept)]
            self._found.setdefault((job.group.engine, scorer), []).append(room)
            self._kept += len(room)
            self._skipped += job.tokens - len(room)
            back = self._share.in_time()
        if back:
            text = f"the scoring engine keeps up again: {self._share.wanted:g} of the groups are scored, as wanted"
            self._fleet.report_event("shadow.caught-up", text, "info", {"share": self._share.wanted})

    def _skip(self, count: int, *, late: bool = False) -> None:
        with self._lock:
            self._skipped += count
            less = late and self._share.late()
            share, wanted = self._share.effective, self._share.wanted
        if less:
            text = f"the scoring engine falls behind: {share:.3g} of the groups are scored instead of {wanted:g}"
            self._fleet.report_event("shadow.behind", text, "warn", {"share": share, "wanted": wanted})

    def _report_failed(self, text: str) -> None:
        if text != self._failed:
            self._failed = text
            self._fleet.report_event("shadow.failed", text, "warn", {})


def _fixes(member: Member) -> dict[str, str]:
    return {fix_id: state.effective for fix_id, state in member.states.items()}


def _score(asked: ScoreRequest, actor: Any) -> Awaitable[Scores]:
    call: Awaitable[Scores] = actor.score.remote(asked)
    return call
