"""One load of weights in a vLLM worker, with a check of what the model then holds."""

from __future__ import annotations

from typing import Any, Final, Protocol

from engine.weights.publish import entry
from engine.weights.reader import READER
from engine.weights.verify import LoadCheck, layout

_HELD: Final = "_driftline_held"
"""Attribute of a worker: the entries of its latest load."""


class LoadWay(Protocol):
    """How a vLLM takes new weights into a running model: see `engine.plugin.load_ways`."""

    def load(self, worker: Any, model: Any, update: dict[str, Any], check: LoadCheck) -> None:
        """Load an update, with `check` active while tensors arrive and layers are processed."""

    def abandon(self, worker: Any, model: Any) -> None:
        """After a failed load: leave layers that can run, and be loaded again."""


def load(worker: Any, update: dict[str, Any], expected: str, way: LoadWay) -> dict[str, Any]:
    """Load an update into a worker's model.

    Returns the digest, how it was verified, the tensors that could only be checked as they came, the entries when the
    digest is not the expected one (name -> dtype, shape, crc), what went wrong ("" for nothing), the bytes that came
    and the seconds of the look; plain values. Raises what the load raises; the layers then hold a mixture but can run.
    """
    config, runner = worker.vllm_config, worker.model_runner
    exact = config.parallel_config.world_size == 1 and runner.model_config.quantization is None
    model = runner.get_model()
    check = LoadCheck(model, exact)
    try:
        way.load(worker, model, update, check)
    except BaseException:
        way.abandon(worker, model)
        READER.unmap()
        raise
    held = check.result()
    setattr(worker, _HELD, held.entries)
    good = held.digest == expected and not held.problem
    if not good:
        READER.unmap()
    return {
        "digest": held.digest,
        "verified": held.verified,
        "loose": held.loose,
        "entries": {} if good else {name: list(one) for name, one in held.entries.items()},
        "problem": held.problem,
        "bytes": check.bytes,
        "seconds": check.seconds,
    }


def held_entries(worker: Any) -> dict[str, list[Any]]:
    """The entries of what a worker holds: name -> dtype, shape, crc32c, as plain values."""
    found = getattr(worker, _HELD, None)
    if found is None:
        slots = layout(worker.model_runner.get_model())
        found = {name: entry(tensor) for name, slot in slots.items() if (tensor := slot.tensor()).numel()}
    return {name: [one.dtype, list(one.shape), one.crc] for name, one in found.items()}
