"""A small decoder-only transformer as pure functions of its weights: an engine's path (token by token, over cached keys
and values) and a trainer's path (whole sequences), so that every cause can be put where it acts.

Shapes: B sequences, T tokens, V vocabulary, L layers, D hidden. Weights are a dict of float32 tensors by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  torch's own name for it

Weights = dict[str, torch.Tensor]
Cache = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values [B, heads, T, D / heads] of each layer."""


@dataclass(frozen=True)
class Shape:
    vocab: int = 64
    hidden: int = 48
    layers: int = 2
    heads: int = 4
    length: int = 96
    tied: bool = True


@dataclass(frozen=True)
class Numerics:
    """`body`, `head`: types of the two parts; `dropout` after each block; `scale`: of attention, 1.0 is right."""

    body: torch.dtype = torch.float32
    head: torch.dtype = torch.float32
    dropout: float = 0.0
    scale: float = 1.0


EXACT = Numerics()


def fresh(shape: Shape, seed: int) -> Weights:
    """Random weights, as GPT-2 draws them."""
    random = torch.Generator().manual_seed(seed)

    def normal(*size: int, std: float = 0.02) -> torch.Tensor:
        return torch.randn(*size, generator=random) * std

    d, std = shape.hidden, shape.hidden**-0.5
    weights = {"embed": normal(shape.vocab, d, std=0.5), "place": normal(shape.length, d, std=0.3)}
    for layer in range(shape.layers):
        weights |= {
            f"{layer}.norm1": torch.ones(d),
            f"{layer}.qkv": normal(d, 3 * d, std=std),
            f"{layer}.out": normal(d, d, std=std / (2 * shape.layers) ** 0.5),
            f"{layer}.norm2": torch.ones(d),
            f"{layer}.up": normal(d, 4 * d, std=std),
            f"{layer}.down": normal(4 * d, d, std=(4 * d) ** -0.5 / (2 * shape.layers) ** 0.5),
        }
    weights["norm"] = torch.ones(d)
    if not shape.tied:
        weights["head"] = normal(shape.vocab, d, std=std)
    return weights


def forward(
    weights: Weights,
    ids: torch.Tensor,
    shape: Shape,
    cache: Cache | None = None,
    numerics: Numerics = EXACT,
    offset: torch.Tensor | int = 0,
) -> tuple[torch.Tensor, Cache]:
    """Logits [B, T, V] in float32 of `ids` [B, T] behind what `cache` holds, and the cache with them added."""
    w = weights if numerics.body is torch.float32 else {k: v.to(numerics.body) for k, v in weights.items()}
    before = cache[0][0].shape[2] if cache else 0
    rows, count = ids.shape
    places = torch.arange(before, before + count) + offset
    x = w["embed"][ids] + w["place"][places]
    causal = torch.ones(count, before + count, dtype=torch.bool).tril(before)
    kept: Cache = []
    for layer in range(shape.layers):
        q, k, v = (_norm(x, w[f"{layer}.norm1"]) @ w[f"{layer}.qkv"]).chunk(3, dim=-1)
        q, k, v = (part.view(rows, count, shape.heads, -1).transpose(1, 2) for part in (q, k, v))
        if cache:
            k, v = torch.cat([cache[layer][0], k], 2), torch.cat([cache[layer][1], v], 2)
        kept.append((k, v))
        scores = (q @ k.transpose(-1, -2)) * (numerics.scale * q.shape[-1] ** -0.5)
        mixed = scores.masked_fill(~causal, float("-inf")).softmax(-1) @ v
        x = x + _drop(mixed.transpose(1, 2).reshape(rows, count, -1) @ w[f"{layer}.out"], numerics.dropout)
        up = F.gelu(_norm(x, w[f"{layer}.norm2"]) @ w[f"{layer}.up"])
        x = x + _drop(up @ w[f"{layer}.down"], numerics.dropout)
    x = _norm(x, w["norm"])
    head = weights.get("head", weights["embed"])
    if "head.sent" in weights:
        head = weights["head.sent"]
    return (x.to(numerics.head) @ head.to(numerics.head).T).float(), kept


def _norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * gain


def _drop(x: torch.Tensor, share: float) -> torch.Tensor:
    return F.dropout(x, share, training=True) if share else x
