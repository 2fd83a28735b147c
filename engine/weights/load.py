"""One load of weights in a vLLM worker, through vLLM's transfer engine, with a check of what the model then holds."""

from __future__ import annotations

from typing import Any, Final

from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

from engine.weights.publish import entry
from engine.weights.transfer_shm import READER
from engine.weights.verify import LoadCheck, layout

_HELD: Final = "_driftline_held"
"""Attribute of a worker: the entries of its latest load."""


def load(worker: Any, update: dict[str, Any], expected: str) -> dict[str, Any]:
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
        worker.start_weight_update()
        with check.checking():
            worker.update_weights(update)
            worker.finish_weight_update()
    except BaseException:
        # A model left in the reloading state cannot run at all, nor be loaded again. Finishing twice does no harm.
        finalize_layerwise_reload(model, runner.model_config)
        worker._weight_update_active = False
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
        "entries": {} if good else {name: list(entry) for name, entry in held.entries.items()},
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
