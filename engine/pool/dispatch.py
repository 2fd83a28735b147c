"""Requests on their way to engines and groups on their way back: each request comes back exactly once.

A request is on one member at a time. When that member is lost or leaves, the request goes to another or waits for
one; a late answer of the old member is ignored.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from engine.cluster.ray_calls import LoopThread
from engine.pool.members import Fleet, Flight, Member
from engine.types import EngineError, Group, RolloutRequest

RETRY_S: Final = 0.02
RETRY_MAX_S: Final = 0.1
"""First and longest delay, in seconds, before a group that was cut short more than once is run again.

Long enough not to spin at an engine that aborts at once; short, because where every sync aborts what is in flight,
a group that begins late in the time between two syncs is cut short again, and comes to its end only after many."""


class Dispatch:
    """`submit`, `take`, `close` and `in_flight` for any thread; the rest on the pool's own."""

    def __init__(self, fleet: Fleet, loop: LoopThread) -> None:
        self._fleet = fleet
        self._loop = loop
        self._waiting: deque[Flight] = deque()
        self._changed = threading.Condition()
        self._done: deque[Group] = deque()
        self._in_flight = 0
        self._failure: EngineError | None = None
        self._aborted = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_sampled: Callable[[Group], None] = lambda _group: None
        """Called with each group that is handed over, on the pool's own thread."""

    # -- any thread -----------------------------------------------------------------------------------------------

    def submit(self, request: RolloutRequest) -> None:
        """Put a request on its way. Does not wait."""
        flight = Flight(request)
        with self._changed:
            self._raise_failure()
            self._loop.post(lambda: self._send(flight))
            self._in_flight += 1

    def take(self, timeout: float) -> list[Group]:
        """Groups completed since the last call; waits for the first one, up to `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._done or self._failure, timeout)
            self._raise_failure()
            groups = list(self._done)
            self._done.clear()
            return groups

    @property
    def in_flight(self) -> int:
        """Requests that have not come back."""
        return self._in_flight

    @property
    def outstanding(self) -> int:
        """Requests that `take` has not handed over."""
        with self._changed:
            return self._in_flight + len(self._done)

    def fail(self, error: EngineError) -> None:
        """Every `submit` and `take` raises this from now on, also one that waits."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the failure, if there is one."""
        with self._changed:
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise EngineError(str(self._failure)) from self._failure

    # -- the pool's own thread ------------------------------------------------------------------------------------

    def send_waiting(self) -> None:
        """Hand waiting requests to members in rotation, to the one with the fewest sequences in flight."""
        while self._waiting and (member := self._fleet.least_loaded()) is not None:
            flight = self._waiting.popleft()
            member.flights[flight] = None
            task = asyncio.get_running_loop().create_task(self._roll(member, flight))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def requeue(self, member: Member) -> int:
        """Take every request back from a member that is out of rotation, the oldest first; returns how many."""
        flights, member.flights = list(member.flights), {}
        self._waiting.extendleft(reversed(flights))
        self.send_waiting()
        if flights:
            text = f"{len(flights)} groups of {member.name} are run again by the engines that serve"
            self._fleet.report_event("rollouts.moved", text, "info", {"groups": len(flights), "engine": member.name})
        return len(flights)

    def take_aborted(self) -> int:
        """Groups cut short by a pause since the previous call; each is run again."""
        count, self._aborted = self._aborted, 0
        return count

    def _send(self, flight: Flight) -> None:
        self._waiting.append(flight)
        self.send_waiting()

    async def _roll(self, member: Member, flight: Flight) -> None:
        result = await self._fleet.ask(member, lambda actor: actor.generate.remote(flight.request))
        if isinstance(result, EngineError):
            await self._fleet.still_serves(member)  # a dead one has its requests taken back before this returns
        if flight not in member.flights:
            return
        del member.flights[flight]
        if isinstance(result, EngineError):
            self.fail(result)  # refused by a living engine: another would refuse it as well
            self._fleet.fail(result)
        elif result.aborted:
            self._retry(flight)
        else:
            self._deliver(result)
            self.on_sampled(result)

    def _retry(self, flight: Flight) -> None:
        self._aborted += 1
        flight.aborts += 1
        if flight.aborts == 1:
            self._waiting.appendleft(flight)
            self.send_waiting()
        else:  # an engine that aborts at once must not be asked in a tight loop
            delay = min(RETRY_MAX_S, RETRY_S * 2.0 ** (flight.aborts - 2))
            asyncio.get_running_loop().call_later(delay, self._send, flight)

    def _deliver(self, group: Group) -> None:
        with self._changed:
            self._done.append(_writable(group))
            self._in_flight -= 1
            self._changed.notify_all()


def _writable(group: Group) -> Group:
    """Ray hands arrays over read-only, which torch warns about; these small ones are worth a copy."""
    sequences = [
        replace(s, ids=s.ids.copy(), logprobs=s.logprobs.copy(), versions=s.versions.copy(), epochs=s.epochs.copy())
        for s in group.sequences
    ]
    return replace(group, sequences=sequences)
