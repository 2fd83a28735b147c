"""Which of the trainer's tensors an engine really holds: its entries against those of every kept version."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from driftline.text import plural
from engine.types import HeldEntry
from engine.weights.publish import entry
from trainer.learn.versions import Weights, WeightStore

_LAYER: Final = re.compile(r"^(.*?\.\d+)\.")
_HEAD: Final = re.compile(r"(?:^|\.)(?:lm_head|embed_tokens|embed_out|wte|output)\.")
"""Last projections, and embeddings that are one under another name where weights are tied."""
MOST_NAMED: Final = 4


@dataclass(frozen=True)
class Origin:
    """A tensor that an engine holds in the place of the trainer's: `source` of `version`, "" for one that is neither
    the trainer's now nor in any kept version."""

    name: str
    version: int
    source: str


@dataclass(frozen=True)
class Held:
    """What an engine holds that is not what `version` says. `compared` tensors could be held against the trainer's."""

    version: int
    compared: int
    differing: tuple[Origin, ...]

    @property
    def known(self) -> bool:
        """Whether every differing tensor was found among the trainer's."""
        return all(one.source for one in self.differing)

    def weights(self, base: Weights, store: WeightStore) -> Weights:
        """`base` with the engine's tensors in their places, where they are known."""
        found = dict(base)
        for one in self.differing:
            version = store.get(one.version) if one.source else None
            if version is not None:
                found[one.name] = version[one.source]
        return found

    @property
    def kind(self) -> str:
        """One word: "equal"; "older": every tensor of one other version; "swapped": tensors in each other's places;
        "head": the last projection alone, of an older version; "part": some tensors of older versions; "other": a
        tensor that the trainer has never had, or not any more."""
        if not self.differing:
            return "equal"
        if not self.known:
            return "other"
        if any(one.source != one.name for one in self.differing):
            return "swapped"
        if len(self.differing) == self.compared and len({one.version for one in self.differing}) == 1:
            return "older"
        return "head" if all(_HEAD.search(one.name) for one in self.differing) else "part"

    @property
    def text(self) -> str:
        """A clause: "model.layers.1 (9 tensors) of version 41"; "" where nothing differs."""
        if not self.differing:
            return ""
        old = {one.version for one in self.differing if one.source == one.name}
        if len(self.differing) == self.compared and len(old) == 1:
            return f"all {self.compared} tensors of version {old.pop()}"
        groups = Counter((_layer(one.name), _whence(one, self.version)) for one in self.differing)
        named = [f"{layer} ({plural(count, 'tensor')}) {whence}" for (layer, whence), count in groups.items()]
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        return ", ".join(named[:MOST_NAMED]) + more


def compare(held: Mapping[str, HeldEntry], version: int, store: WeightStore) -> Held | None:
    """What differs from this version; None where it is not kept any more.

    Costs a checksum of every tensor of the version, and of the differing ones in each older one.
    """
    weights = store.get(version)
    if weights is None:
        return None
    mine = {name: tuple(entry(tensor)) for name, tensor in weights.items() if name in held}
    other = [name for name, one in mine.items() if one != _tuple(held[name]) and one[0] == held[name][0]]
    compared = sum(one[0] == held[name][0] for name, one in mine.items())
    by_entry = {one: name for name, one in mine.items()}
    return Held(version, compared, tuple(_origin(name, _tuple(held[name]), version, by_entry, store) for name in other))


def _origin(
    name: str, one: HeldEntry, version: int, by_entry: Mapping[tuple[object, ...], str], store: WeightStore
) -> Origin:
    for kept in store.versions():
        weights = store.get(kept)
        if kept != version and weights is not None and name in weights and tuple(entry(weights[name])) == one:
            return Origin(name, kept, name)
    return Origin(name, version, by_entry.get(one, ""))


def _whence(one: Origin, version: int) -> str:
    if not one.source:
        return "of no kept version"
    if one.source != one.name:
        return f"with the weights of {_layer(one.source)}"
    return f"of version {one.version}, not {version}"


def _layer(name: str) -> str:
    found = _LAYER.match(name)
    return found[1] if found is not None else name.removesuffix(".weight")


def _tuple(one: HeldEntry) -> HeldEntry:
    dtype, shape, crc = one
    return dtype, tuple(shape), crc
