"""An engine core in the hands of the plugin: read from any thread, changed only on its own, between two steps."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from engine.errors import EngineError
from engine.plugin import versions, worker
from engine.plugin.report import CoreFacts, Facts, worker_facts

T = TypeVar("T")

SALTS_SEEN: Final = 256
"""So many requests, scheduled last, decide whether the prefix cache counts as salted."""


class Totals:
    """Counts since the engine joined. Written on the core's thread alone, by requests, so that a step costs nothing."""

    def __init__(self) -> None:
        self.finished = 0
        """Tokens of the requests that have ended."""
        self.queried = 0
        self.hit = 0
        self.preempted = 0
        self.salts: deque[bool] = deque(maxlen=SALTS_SEEN)


class CoreHandle:
    """`hooked` false: nothing of vLLM's is touched, so that totals stay at zero and nothing can be switched."""

    def __init__(self, core: Any, *, hooked: bool) -> None:
        self._core = core
        self._fixed = versions.read_core(core)
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._hand_over: Callable[[Any], None] | None = None
        self._resume: Callable[[], Any] | None = None
        self._pause: Callable[..., Any] | None = None
        self._held_by_framework = versions.paused(core)
        self._held_by_operator = False
        self._last_pause: tuple[str, bool] | None = None
        self._runner = ""
        self.totals = Totals()
        self._hooked, self._generated = hooked, 0
        self.skip_reads = False
        self.freed: bool | None = None
        if hooked:
            self._hook()

    # -- from any thread ----------------------------------------------------------------------------------------------

    @property
    def queue_lengths(self) -> tuple[int, int]:
        """Requests that run, and that wait."""
        return versions.queue_lengths(self._core)

    @property
    def kv_use(self) -> float:
        """The used part of the KV cache, 0 to 1."""
        return versions.kv_use(self._core)

    def generated(self) -> int:
        """Tokens sampled so far, for one thread at a time; it never goes back, and stays 0 where nothing is hooked.

        What has ended is read first: a request that ends meanwhile is missed until the next call, and not in it twice.
        """
        if not self._hooked:
            return 0
        finished = self.totals.finished
        self._generated = max(self._generated, finished + versions.tokens_in_flight(self._core))
        return self._generated

    @property
    def paused(self) -> bool:
        """Whether the scheduler gives out no steps, an operator's pause or the framework's own."""
        return versions.paused(self._core)

    @property
    def held_by_operator(self) -> bool:
        """Whether an operator's pause is one of the reasons."""
        return self._held_by_operator

    @property
    def weight_version(self) -> int:
        """The number that the weights are labelled with, -1 for none."""
        return versions.weight_version(self._core)

    def facts(self) -> CoreFacts:
        """What the core knows now."""
        salts = list(self.totals.salts)
        return replace(
            self._fixed, skip_reads=self.skip_reads, freed=self.freed, salted=sum(salts), scheduled=len(salts),
            pause=self._last_pause, runner=self._runner,
        )  # fmt: skip

    def read_sampling_defaults(self) -> None:
        """Read what a request gets where it names no parameter. From a file: not on the core's thread."""
        self._fixed = replace(self._fixed, sampling_defaults=versions.sampling_defaults(self._core))

    def between_steps(self, act: Callable[[], T], timeout: float) -> T:
        """Run `act` on the core's thread between two steps. Raises EngineError when it was not begun in time.

        What has been begun is waited for, and what it raises is raised here.
        """
        future = self.submit(act)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.cancel():
                idle = "" if versions.has_loop(self._core) else "; an engine in its caller's process acts when it steps"
                raise EngineError(f"the engine came to no end of a step within {timeout:.0f} s{idle}") from None
            return future.result()

    def submit(self, act: Callable[[], T]) -> Future[T]:
        """As `between_steps`, without waiting. Raises EngineError where nothing can be run at all."""
        if self._hand_over is None:
            raise EngineError("nothing can be run inside this engine")
        future: Future[T] = Future()
        self._jobs.put((future, act))
        self._hand_over(act)
        return future

    # -- on the core's thread -----------------------------------------------------------------------------------------

    def read_workers(self) -> Facts:
        """Every worker's facts, read back now."""
        return self._taken(self._ask(worker.FACTS))

    def set_logprobs(self, mode: str) -> Facts:
        """Switch the logprobs of every worker; returns the facts read back."""
        return self._taken(self._ask(worker.APPLY, mode))

    def digest(self) -> worker.Answer:
        """The digest of the weights held. Raises EngineError with a worker's own words."""
        if versions.asleep(self._core):
            raise EngineError("the engine is asleep: its weights are not on the device")
        answers = self._ask(worker.DIGEST)
        for answer in answers:
            if what := worker.failure(answer):
                raise EngineError(what)
        return worker.combined(answers)

    def set_skip_reads(self, skip: bool) -> None:
        """Let requests that are scheduled from now on read the prefix cache or not; empty it when they do not."""
        self.skip_reads = skip
        self.freed = self.reset_prefix_cache() if skip else None

    def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache; false, and nothing done, while requests hold blocks."""
        return bool(self._core.reset_prefix_cache())

    def pause(self) -> int:
        """Hold every request where it is; returns how many there are. Raises EngineError where that cannot be."""
        if not versions.pauses_alone(self._core):
            raise EngineError("ranks of data-parallel experts step together: one of them cannot be paused alone")
        if self._pause is None:
            raise EngineError("this vLLM has no pause of its own")
        if not self.paused:
            self._pause(mode="keep", clear_cache=False)
        self._held_by_operator = True
        return sum(self.queue_lengths)

    def resume(self) -> str:
        """End the operator's pause; returns why the engine stands still nevertheless, "" when it goes on."""
        self._held_by_operator = False
        if self._held_by_framework:
            return "its framework holds it paused, for a weight update as a rule; it goes on when that ends"
        if self.paused and self._resume is not None:
            self._resume()
        return ""

    def _ask(self, method: str, *args: Any) -> list[worker.Answer]:
        answers: list[worker.Answer] = self._core.model_executor.collective_rpc(method, args=args)
        return answers

    def _taken(self, answers: list[worker.Answer]) -> Facts:
        for answer in answers:
            if what := worker.failure(answer):
                return Facts(self.facts(), problem=what)
        self._runner = str(answers[0]["runner"]) if answers else ""
        return Facts(self.facts(), tuple(worker_facts(one) for one in answers), "")

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _hook(self) -> None:
        core = self._core
        self._hand_over = versions.run_between_steps(core, self._run_jobs)
        versions.replace(core.scheduler, "_free_blocks", self._counting_ended)
        versions.replace(core.scheduler, "_preempt_request", self._counting_preemptions)
        versions.replace(core.scheduler.kv_cache_manager, "get_computed_blocks", self._looking_up)
        versions.replace(core, "pause_scheduler", self._pausing)
        versions.replace(core, "resume_scheduler", self._resuming)

    def _run_jobs(self) -> None:
        while not self._jobs.empty():  # an engine in its caller's process asks before each step
            future, act = self._jobs.get_nowait()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(act())
            except Exception as error:  # noqa: BLE001  it belongs to who asked, not to the engine
                future.set_exception(error)

    def _counting_ended(self, free: Callable[..., Any]) -> Callable[..., Any]:
        totals = self.totals

        def free_blocks(request: Any, *args: Any, **kwargs: Any) -> Any:
            freed = free(request, *args, **kwargs)  # it is in flight until then
            totals.finished += int(request.num_output_tokens)
            return freed

        return free_blocks

    def _counting_preemptions(self, preempt: Callable[..., Any]) -> Callable[..., Any]:
        totals = self.totals

        def preempt_request(*args: Any, **kwargs: Any) -> Any:
            totals.preempted += 1
            return preempt(*args, **kwargs)

        return preempt_request

    def _looking_up(self, look: Callable[..., Any]) -> Callable[..., Any]:
        totals = self.totals

        def get_computed_blocks(request: Any, *args: Any, **kwargs: Any) -> Any:
            totals.salts.append(bool(getattr(request, "cache_salt", None)))
            if self.skip_reads:
                request.skip_reading_prefix_cache = True
            found = look(request, *args, **kwargs)
            if not getattr(request, "skip_reading_prefix_cache", False):
                totals.queried += int(request.num_tokens)
                totals.hit += int(found[1])
            return found

        return get_computed_blocks

    def _pausing(self, pause: Callable[..., Any]) -> Callable[..., Any]:
        self._pause = pause

        def pause_scheduler(mode: str = "abort", clear_cache: bool = True, **kwargs: Any) -> Any:
            self._held_by_framework, self._last_pause = True, (str(mode), bool(clear_cache))
            return pause(mode, clear_cache, **kwargs)

        return pause_scheduler

    def _resuming(self, resume: Callable[..., Any]) -> Callable[..., Any]:
        self._resume = resume

        def resume_scheduler(*args: Any, **kwargs: Any) -> Any:
            self._held_by_framework = False
            # An operator's pause outlasts a weight update.
            return None if self._held_by_operator else resume(*args, **kwargs)

        return resume_scheduler
