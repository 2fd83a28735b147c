"""What Driftline does inside vLLM's workers, as methods that `collective_rpc` reaches by name.

The same for an engine of anybody's that has joined and for one of our own pool. The core runs them between two steps,
so a switch never splits a batch. Every method returns plain values and raises nothing: what went wrong is in `error`,
so that no failure of ours ever takes vLLM's own path for a failed worker.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, Final

from engine.plugin import versions

FACTS: Final = "driftline_facts"
APPLY: Final = "driftline_apply"
DIGEST: Final = "driftline_digest"
LOAD: Final = "driftline_load"
HELD: Final = "driftline_held"

Answer = dict[str, Any]


def _guarded(method: Callable[..., Answer]) -> Callable[..., Answer]:
    @functools.wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Answer:
        try:
            return method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  whatever the model or a framework's patches raise
            return {"error": str(error)[:400], "kind": type(error).__name__}

    return guarded


def failure(answer: Answer) -> str:
    """What went wrong in a worker, with the name of its exception; "" for nothing."""
    return f"{answer['kind']}: {answer['error']}" if "error" in answer else ""


def _facts(self: Any) -> Answer:
    runner = self.model_runner
    dtypes, switch, owner = versions.heads(runner)
    return {
        "logprobs_modes": versions.logprobs_modes(runner),
        "model_dtype": str(runner.model_config.dtype).removeprefix("torch."),
        "head_dtypes": dtypes,
        "head_switch": switch,
        "head_owner": owner,
        "head_ours": versions.our_head(runner),
        "runner": versions.runner_kind(runner),
    }


def _apply(self: Any, logprobs_mode: str = "", head_dtype: str = "") -> Answer:
    if logprobs_mode:
        versions.set_logprobs_mode(self.model_runner, logprobs_mode)
    if head_dtype:
        versions.set_head_dtype(self.model_runner, head_dtype)
    return _facts(self)


@_guarded
def facts(self: Any) -> Answer:
    """Facts of this worker, read back from the live objects."""
    return _facts(self)


@_guarded
def apply(self: Any, logprobs_mode: str = "", head_dtype: str = "") -> Answer:
    """Switch what is named, and read everything back: one call, between the same two steps.

    Logprobs are before ("raw_logprobs") or after ("processed_logprobs") temperature; the last projection is computed in
    `head_dtype`.
    """
    return _apply(self, logprobs_mode, head_dtype)


@_guarded
def load(self: Any, update: dict[str, Any], expected: str, head_dtype: str = "") -> Answer:
    """Load weights as `engine.weights.load` does, then switch the head, only with weights as they should be.

    Returns what that returns, and the facts.
    """
    from engine.plugin.load_ways import way_of
    from engine.weights.load import load as load_weights

    found = load_weights(self, update, expected, way_of(self))
    good = found["digest"] == expected and not found["problem"]
    return found | {"facts": _apply(self, head_dtype=head_dtype if good else "")}


@_guarded
def digest(self: Any) -> Answer:
    """SHA-256 over name, dtype, shape and crc32c of every parameter this worker holds, in the order of their names.

    `packed` counts parameters that vLLM has packed for its kernel and emptied: those are not in the digest.
    """
    from engine.weights.publish import combine, entry

    parameters = dict(self.model_runner.get_model().named_parameters())
    held = {name: entry(one) for name, one in parameters.items() if one.numel()}
    return {"digest": combine(held), "parameters": len(parameters), "packed": len(parameters) - len(held)}


@_guarded
def held(self: Any) -> Answer:
    """Entry of every tensor that this worker holds, in the trainer's names: name -> dtype, shape, crc32c.

    What the latest load found is kept, since a kernel's packing leaves nothing to read; before the first one only what
    is not packed can be reported.
    """
    from engine.weights.load import held_entries

    return {"entries": held_entries(self)}


METHODS: Final[dict[str, Callable[..., Answer]]] = {
    FACTS: facts,
    APPLY: apply,
    LOAD: load,
    DIGEST: digest,
    HELD: held,
}


def combined(answers: list[Answer]) -> Answer:
    """One digest of all workers' digests, in the order of their ranks; that of a single worker is its own."""
    digests = [str(answer["digest"]) for answer in answers]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
    return {
        "digest": whole,
        "workers": len(digests),
        "parameters": sum(int(answer["parameters"]) for answer in answers),
        "packed": sum(int(answer["packed"]) for answer in answers),
    }
