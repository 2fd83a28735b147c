"""What can be made wrong in a run, as values: on the side of an engine, and on that of the trainer. Pure.

Each is a fault that real runs have had (see the causes in `console/diagnosis/`), at the place where it arises: the
sampling parameters of a request, the weights that a loader takes up, what a pause does with caches, the arithmetic of
one side. Nothing in the product knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class EngineFault:
    """What is wrong with one engine. The defaults are a healthy one.

    `sampling`: attributes of vLLM's SamplingParams. `mode`, `head`: logprobs mode and dtype of the last projection,
    unseen by the fix states. `keep`: prefixes of tensors that a sync leaves as they were ("" all of them); `swap`:
    prefixes whose tensors change places; `noise`: standard deviation added to every weight, over its own.
    `stale_cache`: a sync clears no cache and says that it did. `keep_kv`: a sync freezes what is in flight and lets it
    go on over the KV of the older weights. `decimals`: logprobs are rounded to so many, -1 for none.
    """

    sampling: Mapping[str, Any] = field(default_factory=dict)
    mode: str = "processed_logprobs"
    head: str = "float32"
    keep: tuple[str, ...] = ()
    swap: tuple[tuple[str, str], ...] = ()
    noise: float = 0.0
    stale_cache: bool = False
    keep_kv: bool = False
    decimals: int = -1

    @property
    def of_weights(self) -> bool:
        """Whether other weights are loaded than were sent."""
        return bool(self.keep or self.swap or self.noise)

    def weights(self, sent: Weights, held: Weights) -> dict[str, torch.Tensor]:
        """What the engine takes up of the weights that were sent, over those that it has held."""
        found = dict(sent)
        for one, other in self.swap:
            for name in sent:
                if name.startswith(one):
                    twin = other + name.removeprefix(one)
                    found[name], found[twin] = sent[twin], sent[name]
        for name in sent:
            if any(name.startswith(prefix) for prefix in self.keep):
                found[name] = held[name]
        if self.noise:
            import torch

            rng = torch.Generator().manual_seed(1)
            for name, tensor in found.items():
                shake = torch.randn(tensor.shape, generator=rng) * tensor.float().std().nan_to_num(0.0) * self.noise
                found[name] = tensor + shake.to(tensor.dtype)
        return found


@dataclass(frozen=True)
class TrainerFault:
    """What is wrong with the trainer. The defaults are a healthy one.

    `temperature` is added to that of its forward. `head` is the dtype of its last projection, "" for that of the run.
    `dropout` stays on with this probability. `inserted`: its text has one token more than was sampled, in the middle of
    every response, so that what follows is shifted by one. `zero_last`: the last token of every response comes with a
    logprob of exactly 0. `newest`: it scores with the newest weights, whatever sampled a token. `rope` multiplies the
    base of the rotary embedding. `eps` is added to that of every norm.
    """

    temperature: float = 0.0
    head: str = ""
    dropout: float = 0.0
    inserted: bool = False
    zero_last: bool = False
    newest: bool = False
    rope: float = 1.0
    eps: float = 0.0


Fault = TypeVar("Fault", EngineFault, TrainerFault)


def both(one: Fault, other: Fault) -> Fault:
    """Two faults at once. Raises ValueError where both change the same thing."""
    healthy = type(one)()
    changed: dict[str, Any] = {}
    for name in (entry.name for entry in fields(one)):
        usual, mine, theirs = getattr(healthy, name), getattr(one, name), getattr(other, name)
        if isinstance(mine, Mapping):
            changed[name] = {**mine, **theirs}
        elif mine != usual and theirs not in (usual, mine):
            raise ValueError(f"both faults change {name}")
        else:
            changed[name] = mine if mine != usual else theirs
    return replace(one, **changed)
