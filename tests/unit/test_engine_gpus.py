"""What an engine reads of its GPUs, against an NVML of the test's own: there is no GPU where the tests run."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from console.store.engines import Trace
from console.tui.screens.engines.view import gpu
from engine.actor.stats import GpuMonitor, GpuReading
from tests.tui.synthetic import START, engines


class FakeNvml:
    """NVML's calls as they are named there; `broken` ones raise."""

    class NVMLError(Exception):
        pass

    def __init__(self, *broken: str) -> None:
        self._broken = broken
        self.asked: list[int | str] = []

    def _call(self, name: str) -> None:
        if name in self._broken:
            raise self.NVMLError(name)

    def nvmlInit(self) -> None:  # noqa: N802  NVML's own name
        self._call("init")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802  NVML's own name
        return 4

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802  NVML's own name
        self._call("handle")
        self.asked.append(number)
        return number

    def nvmlDeviceGetHandleByUUID(self, name: str) -> int:  # noqa: N802  NVML's own name
        self.asked.append(name)
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802  NVML's own name
        self._call("memory")
        return SimpleNamespace(used=10 + handle, total=80)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802  NVML's own name
        self._call("use")
        return SimpleNamespace(gpu=20 * handle)


@pytest.mark.parametrize(
    ("visible", "asked", "reading"),
    [
        (None, [0, 1, 2, 3], GpuReading(46, 320, 0.3)),
        ("2", [2], GpuReading(12, 80, 0.4)),
        ("1,3", [1, 3], GpuReading(24, 160, 0.4)),
        ("GPU-8f6e", ["GPU-8f6e"], GpuReading(10, 80, 0.0)),
        ("", [], GpuReading()),
    ],
)
def test_only_the_engines_own_gpus_are_read(visible: str | None, asked: list[int | str], reading: GpuReading):
    nvml = FakeNvml()
    found = GpuMonitor(nvml, visible).read()
    assert nvml.asked == asked
    assert found[:2] == reading[:2]
    assert found.busy == pytest.approx(reading.busy)


@pytest.mark.parametrize(
    ("broken", "reading"),
    [("init", GpuReading()), ("handle", GpuReading()), ("memory", GpuReading()), ("use", GpuReading(46, 320, -1.0))],
)
def test_what_nvml_does_not_tell_is_not_made_up(broken: str, reading: GpuReading):
    assert GpuMonitor(FakeNvml(broken), None).read() == reading


def test_the_engines_screen_says_what_is_there_and_what_is_not():
    state = engines(1)[0]
    assert "".join(text for text, _ in gpu(state)) == "GPU not available here: no GPU reported"
    with_gpu = msgspec.structs.replace(
        state, gpu_memory_used=41_000_000_000, gpu_memory_total=80_000_000_000, gpu_use=0.5
    )
    assert "".join(text for text, _ in gpu(with_gpu)) == "GPU 41.0 GB of 80.0 GB, 50% busy"
    trace = Trace()
    trace.record(with_gpu, START)
    assert trace.whole()[0].gpu_use == 0.5
