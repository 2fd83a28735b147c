"""What the plugin does inside vLLM's workers, as methods that `collective_rpc` reaches by name.

Every method returns plain values and raises nothing: what went wrong is in `error`, so that no failure of ours ever
takes vLLM's own path for a failed worker.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, Final

from engine.plugin import versions

READ: Final = "driftline_joined_read"
SET_LOGPROBS: Final = "driftline_joined_logprobs"
DIGEST: Final = "driftline_joined_digest"

Answer = dict[str, Any]


def _guarded(method: Callable[..., Answer]) -> Callable[..., Answer]:
    @functools.wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Answer:
        try:
            return method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  whatever the model or a framework's patches raise
            return {"error": f"{type(error).__name__}: {error}"[:400]}

    return guarded


@_guarded
def read(self: Any) -> Answer:
    """Facts of this worker, read back from the live objects."""
    runner = self.model_runner
    dtypes, switch, owner = versions.heads(runner)
    return {
        "logprobs_modes": versions.logprobs_modes(runner),
        "model_dtype": str(runner.model_config.dtype).removeprefix("torch."),
        "head_dtypes": dtypes,
        "head_switch": switch,
        "head_owner": owner,
        "runner": versions.runner_kind(runner),
    }


@_guarded
def set_logprobs(self: Any, mode: str) -> Answer:
    """Return logprobs before ("raw_logprobs") or after ("processed_logprobs") temperature; read everything back."""
    versions.set_logprobs_mode(self.model_runner, mode)
    return read(self)


@_guarded
def digest(self: Any) -> Answer:
    """SHA-256 over name, dtype, shape and crc32c of every parameter this worker holds, in the order of their names.

    `packed` counts parameters that vLLM has packed for its kernel and emptied: those are not in the digest.
    """
    from engine.weights.publish import combine, entry

    parameters = dict(self.model_runner.get_model().named_parameters())
    held = {name: entry(one) for name, one in parameters.items() if one.numel()}
    return {"digest": combine(held), "parameters": len(parameters), "packed": len(parameters) - len(held)}


METHODS: Final[dict[str, Callable[..., Answer]]] = {READ: read, SET_LOGPROBS: set_logprobs, DIGEST: digest}


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
