"""The faults that a simulated run can have, each put where a real one acts. Names are those of
`console.diagnosis.causes`, and of some that no cause of the catalogue explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tests.diagnosis.tasks import END
from tests.diagnosis.tiny import Weights


@dataclass(frozen=True)
class Fault:
    """`at`: the version from which it acts (0: from the start). `engine`: the one that it is on, -1 for all of them.

    `size` is a number of the fault: top-p, k, a temperature, a penalty, m of min_tokens, a share, or a layer.
    """

    name: str
    at: int = 0
    engine: int = -1
    size: float = 0.0

    def on(self, engine: int, version: int) -> bool:
        return version >= self.at and self.engine in (-1, engine)


class Faults(tuple[Fault, ...]):
    """Those of one run."""

    def find(self, name: str, engine: int, version: int) -> Fault | None:
        return next((one for one in self if one.name == name and one.on(engine, version)), None)

    def held(self, versions: list[Weights], engine: int, version: int) -> Weights:
        """The weights that an engine has where it says that it has `version`."""
        weights = dict(versions[version])
        if (one := self.find("missed-sync", engine, version)) is not None:
            # size 0: stuck at the version before; 1: always one behind
            return versions[max(one.at - 1, 0)] if one.size == 0 else versions[max(version - 1, 0)]
        if (one := self.find("layer-not-loaded", engine, version)) is not None:
            old = versions[max(one.at - 1, 0)]
            weights |= {name: old[name] for name in weights if name.startswith(f"{int(one.size)}.")}
        if self.find("layers-swapped", engine, version) is not None:
            swap = {"0": "1", "1": "0"}
            weights = {
                name: weights[swap.get(name[0], name[0]) + name[1:] if name[0].isdigit() else name] for name in weights
            }
        if (one := self.find("head-not-sent", engine, version)) is not None:
            old = versions[max(one.at - 1, 0)]
            weights["head.sent"] = old.get("head", old["embed"])
        if (one := self.find("quantised-weights", engine, version)) is not None:
            weights = {
                name: _int8(value, int(one.size) or 8) if value.ndim == 2 else value for name, value in weights.items()
            }
        return weights

    def process(
        self, logits: torch.Tensor, seen: torch.Tensor, at: int, temperature: float, engine: int, version: int
    ) -> torch.Tensor:
        """Logprobs [B, V] that are sampled from; `seen` [B, V] counts ids so far. vLLM's order: min_tokens, penalties,
        temperature, then top-k and top-p (vllm.v1.sample)."""
        logits = logits.clone()
        if (one := self.find("min-tokens", engine, version)) is not None and at < one.size:
            logits[:, END] = float("-inf")
        if (one := self.find("repetition-penalty", engine, version)) is not None:
            lowered = torch.where(logits > 0, logits / one.size, logits * one.size)
            logits = torch.where(seen > 0, lowered, logits)
        logits = logits / temperature
        if (one := self.find("top-k", engine, version)) is not None:
            least = logits.topk(int(one.size), dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        if (one := self.find("top-p", engine, version)) is not None:
            ordered, places = logits.sort(dim=-1, descending=True)
            above = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
            dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, places, above >= one.size)
            logits = logits.masked_fill(dropped, float("-inf"))
        return logits.log_softmax(-1)


def _int8(value: torch.Tensor, bits: int) -> torch.Tensor:
    scale = value.abs().amax() / (2 ** (bits - 1) - 1)
    made: torch.Tensor = (value / scale).round() * scale
    return made


def shift(logprobs: np.ndarray, lengths: np.ndarray, start: np.ndarray, by: int) -> np.ndarray:
    """Trainer's logprobs [B, R] that belong to the token `by` places on, from position `start` [B] on."""
    made = logprobs.copy()
    for row, (length, first) in enumerate(zip(lengths, start, strict=True)):
        places = np.arange(min(first, length), length)
        made[row, places] = logprobs[row, np.clip(places + by, 0, length - 1)]
    return made
