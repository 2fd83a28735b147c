"""The catalogue of what is injected: each case with the names that a right answer has, and where its onset is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.blind.faults import EngineFault, TrainerFault, both

ENGINES: Final = ("engine-0", "engine-1")


@dataclass(frozen=True)
class Case:
    """`causes` are the names of what is wrong, none for a healthy run; `unknown` is one that no answer may name.

    `engines` holds the fault of each engine from the first token on, `later` what each has from a sync in the middle of
    the run on. `ahead` groups are in flight beyond a step's, a sync comes every `every` steps. `late`: groups are asked
    for just before a sync, so that it finds them in flight.
    """

    name: str
    causes: tuple[str, ...]
    engines: Mapping[str, EngineFault] = field(default_factory=dict)
    trainer: TrainerFault = field(default_factory=TrainerFault)
    later: Mapping[str, EngineFault] = field(default_factory=dict)
    ahead: int = 0
    every: int = 1
    late: bool = False
    unknown: bool = False


def on_all(fault: EngineFault) -> dict[str, EngineFault]:
    """The fault on every engine."""
    return dict.fromkeys(ENGINES, fault)


def on_one(fault: EngineFault) -> dict[str, EngineFault]:
    """The fault on the last engine."""
    return {ENGINES[-1]: fault}


LAYER: Final = "model.layers.1."
SWAPPED: Final = (("model.layers.0.", "model.layers.1."),)

SINGLE: Final = (
    Case("none", ()),
    Case("none-ahead", (), ahead=4),
    Case("none-late", (), late=True),
    Case("none-bf16-heads", (), engines=on_all(EngineFault(head="bfloat16")), trainer=TrainerFault(head="bfloat16")),
    Case("raw-logprobs", ("raw-logprobs",), engines=on_all(EngineFault(mode="raw_logprobs"))),
    Case("stale-prefix-cache", ("stale-prefix-cache",), later=on_all(EngineFault(stale_cache=True))),
    Case("bf16-head-engine", ("head-bf16",), engines=on_all(EngineFault(head="bfloat16"))),
    Case("bf16-head-trainer", ("head-bf16",), trainer=TrainerFault(head="bfloat16")),
    Case("missed-sync", ("missed-sync",), later=on_one(EngineFault(keep=("",)))),
    Case("layer-not-loaded", ("layer-not-loaded",), later=on_all(EngineFault(keep=(LAYER,)))),
    Case("layer-not-loaded-one", ("layer-not-loaded",), later=on_one(EngineFault(keep=(LAYER,)))),
    Case("layers-swapped", ("layers-swapped",), later=on_all(EngineFault(swap=SWAPPED))),
    Case("head-not-sent", ("head-not-sent",), later=on_all(EngineFault(keep=("lm_head.",)))),
    Case("temperature", ("trainer-temperature",), trainer=TrainerFault(temperature=0.1)),
    Case("top-p", ("top-p",), engines=on_all(EngineFault({"top_p": 0.9}))),
    Case("top-k", ("top-k",), engines=on_all(EngineFault({"top_k": 8}))),
    Case("min-tokens", ("min-tokens",), engines=on_all(EngineFault({"min_tokens": 19}))),
    Case("repetition-penalty", ("repetition-penalty",), engines=on_all(EngineFault({"repetition_penalty": 1.2}))),
    Case("dropout", ("dropout",), trainer=TrainerFault(dropout=0.1)),
    Case("ids-shifted", ("shifted-ids",), trainer=TrainerFault(inserted=True)),
    Case("zero-last", ("placeholder-zero",), trainer=TrainerFault(zero_last=True)),
    Case(
        "inflight-kv", ("in-flight-kv",),
        later=on_all(EngineFault({"skip_reading_prefix_cache": True}, keep_kv=True)), late=True,
    ),
    Case("lag", ("lag",), trainer=TrainerFault(newest=True), every=4),
)  # fmt: skip

UNKNOWN: Final = (
    Case("unknown-rope", (), trainer=TrainerFault(rope=1e-3), unknown=True),
    Case("unknown-noise", (), engines=on_all(EngineFault(noise=0.02)), unknown=True),
    Case("unknown-rounded", (), engines=on_all(EngineFault(decimals=1)), unknown=True),
    Case("unknown-eps", (), trainer=TrainerFault(eps=0.05), unknown=True),
)

BY_NAME: Final = {case.name: case for case in (*SINGLE, *UNKNOWN)}

PAIRS: Final = (
    ("raw-logprobs", "missed-sync"),
    ("raw-logprobs", "stale-prefix-cache"),
    ("raw-logprobs", "zero-last"),
    ("top-p", "missed-sync"),
    ("top-p", "dropout"),
    ("bf16-head-engine", "missed-sync"),
    ("temperature", "zero-last"),
    ("temperature", "layer-not-loaded-one"),
    ("min-tokens", "missed-sync"),
    ("dropout", "zero-last"),
    ("stale-prefix-cache", "zero-last"),
    ("ids-shifted", "missed-sync"),
    ("lag", "zero-last"),
    ("repetition-penalty", "missed-sync"),
    ("head-not-sent", "zero-last"),
)
"""Names of two single cases that are injected together."""


def pair(first: str, second: str) -> Case:
    """Two cases at once, each fault from its own onset on."""
    one, other = BY_NAME[first], BY_NAME[second]
    engines = merged(one.engines, other.engines)
    return Case(
        f"{first}+{second}", (*one.causes, *other.causes), engines, both(one.trainer, other.trainer),
        merged(one.later, other.later), max(one.ahead, other.ahead), max(one.every, other.every),
        one.late or other.late,
    )  # fmt: skip


def merged(one: Mapping[str, EngineFault], other: Mapping[str, EngineFault]) -> dict[str, EngineFault]:
    """The faults of both, engine by engine."""
    healthy = EngineFault()
    names = [name for name in ENGINES if name in one or name in other]
    return {name: both(one.get(name, healthy), other.get(name, healthy)) for name in names}
