"""Counting what vLLM reports, and turning two samples into rates. The counting side is vLLM's stat-logger shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.types import EngineSample, PoolStats, hit_rate

if TYPE_CHECKING:
    from vllm.v1.metrics.stats import IterationStats, SchedulerStats


class Counters:
    """Totals since the engine started and the scheduler's latest gauges."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Count from zero again."""
        self.generated = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.preemptions = 0
        self.running = 0
        self.waiting = 0
        self.kv_use = 0.0

    def scheduled(self, stats: SchedulerStats) -> None:
        """Take the gauges, and add the prefix-cache counts of one engine step."""
        self.running = stats.num_running_reqs
        self.waiting = stats.num_waiting_reqs + getattr(stats, "num_skipped_waiting_reqs", 0)  # not in 0.18.1
        self.kv_use = stats.kv_cache_usage
        prefix = stats.prefix_cache_stats
        self.prefix_queries += prefix.queries + prefix.preempted_queries
        self.prefix_hits += prefix.hits + prefix.preempted_hits

    def iterated(self, stats: IterationStats) -> None:
        """Add the tokens of one batch of outputs."""
        self.generated += stats.num_generation_tokens
        self.preemptions += stats.num_preempted_reqs


def stat_logger(counters: Counters) -> Any:
    """A vLLM stat-logger factory that feeds `counters`; vLLM runs it in the actor's event loop."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class CountingLogger(StatLoggerBase):
        def __init__(self, vllm_config: object, engine_index: int = 0) -> None:
            del vllm_config, engine_index

        def record(
            self,
            scheduler_stats: SchedulerStats | None,
            iteration_stats: IterationStats | None,
            mm_cache_stats: object = None,
            engine_idx: int = 0,
        ) -> None:
            del mm_cache_stats, engine_idx
            if scheduler_stats is not None:
                counters.scheduled(scheduler_stats)
            if iteration_stats is not None:
                counters.iterated(iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

    return CountingLogger


class GpuReading(NamedTuple):
    """The GPUs of one engine together: bytes in use and in all, and the mean part of the time they were busy.

    0, 0 and -1 where there is none.
    """

    used: int = 0
    total: int = 0
    busy: float = -1.0


class GpuMonitor:
    """The GPUs that this process may use, read through NVML, which makes no CUDA context and takes no GPU memory.

    `visible` is CUDA_VISIBLE_DEVICES: numbers or ids, all GPUs without one. Where NVML cannot be had, nothing is read.
    """

    def __init__(self, nvml: Any, visible: str | None) -> None:
        self._nvml = nvml
        self._handles: list[Any] = []
        try:
            nvml.nvmlInit()
            names = range(nvml.nvmlDeviceGetCount()) if visible is None else [n for n in visible.split(",") if n]
            self._handles = [self._handle(name) for name in names]
        except (nvml.NVMLError, ValueError):
            self._handles = []  # no driver, or a partition of a GPU, for which NVML reports less

    def _handle(self, name: int | str) -> Any:
        if str(name).strip().isdigit():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
        return self._nvml.nvmlDeviceGetHandleByUUID(str(name).strip())

    def read(self) -> GpuReading:
        """The GPUs now."""
        nvml = self._nvml
        if not self._handles:
            return GpuReading()
        try:
            memory = [nvml.nvmlDeviceGetMemoryInfo(handle) for handle in self._handles]
            used, total = sum(int(one.used) for one in memory), sum(int(one.total) for one in memory)
        except nvml.NVMLError:
            return GpuReading()
        try:
            busy = [nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in self._handles]
        except nvml.NVMLError:
            return GpuReading(used, total)  # some devices report their memory only
        return GpuReading(used, total, sum(busy) / len(busy))


def tokens_per_s(before: EngineSample, after: EngineSample) -> float:
    """Generated tokens a second between two samples of one engine; 0 for an empty interval."""
    seconds = after.state.time - before.state.time
    return (after.generated - before.generated) / seconds if seconds > 0 else 0.0


def pool_stats(before: list[EngineSample], after: list[EngineSample]) -> PoolStats:
    """The pool over an interval; `before[i]` and `after[i]` are samples of the same engine."""
    pairs = list(zip(before, after, strict=True))
    queries = sum(b.prefix_queries - a.prefix_queries for a, b in pairs)
    hits = sum(b.prefix_hits - a.prefix_hits for a, b in pairs)
    states = tuple(sample.state for sample in after)
    return PoolStats(
        tokens_per_s=sum(tokens_per_s(a, b) for a, b in pairs),
        running=sum(state.running for state in states),
        waiting=sum(state.waiting for state in states),
        kv_use=max((state.kv_use for state in states), default=0.0),
        prefix_hit_rate=hit_rate(hits, queries),
        interval_s=max((b.state.time - a.state.time for a, b in pairs), default=0.0),
        engines=states,
    )
