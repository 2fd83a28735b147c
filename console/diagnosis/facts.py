"""What a run says of itself that a diagnosis reads beside its tokens: temperature, types, fixes, syncs, staleness.
Pure.

Everything may be missing: a recorded or imported run has what its producer reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from console.status.engine_config import settings
from console.store.model import RunModel
from console.store.sync import TOTAL, EngineSync
from driftline.catalog.fixes import BY_ID

Dtype = Literal["float32", "bfloat16", "float16", "fp8", ""]
_DTYPES: Final[tuple[Dtype, ...]] = ("float32", "bfloat16", "float16", "fp8")

FLOORS: Final[Mapping[Dtype, tuple[float, str]]] = {
    "float32": (1e-4, "float32 on both sides: below 5e-5 at every step, as driftline's own loop measures it, and "
                      "Fast-LLM 525 .0022 for 0.5 B parameters"),
    "float16": (8e-3, "float16 body: about an eighth of bfloat16 (arXiv 2510.26788)"),
    "bfloat16": (0.03, "bfloat16 body: .011 flat (vime 64), .030 to .041 on this engine, sd .050 (TRL 6789)"),
    "fp8": (0.08, "fp8 weights or cache: no published floor, twice that of bfloat16"),
    "": (0.03, "type of the body not reported; taken for bfloat16 (vime 64, TRL 6789)"),
}  # fmt: skip
"""Largest mean |d| in nats that is normal for a type of the body, and the source. The same kernels on both sides give
0 or some 1e-6."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`temperature` NaN, `dtype` and `head` "" and `staleness` NaN where they are not reported.

    `fixes`: the effective value of each fix, "mixed" or "" included. `engines`: the version that each engine reports.
    `staleness` is the newest mean of `staleness/abs_diff_mean` in nats, `lag` of `async/version_lag_mean`. `failed`:
    engines whose newest sync has failed or is behind the pool's. `digests`: of the weights that each engine reported
    after the newest sync. `resets`: what each engine's newest reset of the prefix cache came back with.
    """

    temperature: float = math.nan
    dtype: Dtype = ""
    head: str = ""
    fixes: Mapping[str, str] = {}
    engines: Mapping[str, int] = {}
    version: int = -1
    staleness: float = math.nan
    lag: float = math.nan
    failed: tuple[str, ...] = ()
    digests: Mapping[str, str] = {}
    resets: Mapping[str, str] = {}
    restarts: Mapping[str, int] = {}
    synthetic: bool = False
    missing: tuple[str, ...] = ()

    @property
    def floor(self) -> tuple[float, str]:
        """Normal mean |d| of this stack, and where that is from."""
        return FLOORS[self.dtype]

    def repaired(self, fix: str) -> bool | None:
        """Whether a fix of the catalogue is on everywhere; None where that is not reported."""
        value = self.fixes.get(fix, "")
        if not value or fix not in BY_ID:
            return None
        return value in BY_ID[fix].repairs


NOTHING: Final = Facts()

_NEWEST: Final = 16
"""Steps over which staleness and lag are averaged."""


def facts_of(model: RunModel) -> Facts:
    """The facts of a run as its model has them."""
    run = model.run
    alive = {name: engine for name, engine in model.engines.items() if engine.phase != "dead"}
    lines = [settings(engine.settings) for engine in alive.values() if engine.settings]
    if (head_fix := model.fixes.get("fp32-lm-head")) is not None:
        # An engine of our own pool says it with its reading of this fix: "head X, body Y".
        lines += [settings(one.detail) for one in head_fix.engines if one.detail.startswith("head ")]
    bodies = {_dtype(line.get("body", "")) for line in lines} - {""}
    heads = {line["head"] for line in lines if "head" in line}
    fixes = {fix: state.effective for fix, state in model.fixes.items()}
    failed = tuple(sorted(name for name, engine in alive.items() if 0 <= engine.version < _newest(alive)))
    newest = _newest_sync(model)
    missing = []
    if run is None:
        missing.append("the run's state: temperature and objective are not known")
    if run is not None and run.synthetic:
        missing.append("an engine and a trainer: this run is SYNTHETIC, a simulator has made its numbers up")
    if not fixes:
        missing.append("the state of the fixes")
    if not bodies:
        missing.append("the type of the engines' weights: the floor is taken for bfloat16")
    if "staleness/abs_diff_mean" not in model.metrics:
        missing.append("staleness/abs_diff_mean: what old weights account for")
    return Facts(
        temperature=run.temperature if run is not None else math.nan,
        dtype=bodies.pop() if len(bodies) == 1 else "",
        head=heads.pop() if len(heads) == 1 else "",
        fixes=fixes,
        engines={name: engine.version for name, engine in alive.items()},
        version=run.version if run is not None else -1,
        staleness=_mean(model, "staleness/abs_diff_mean"),
        lag=_mean(model, "async/version_lag_mean"),
        failed=failed,
        digests={one.engine: one.digest for one in newest if one.digest},
        resets={one.engine: one.reset for one in newest if one.reset},
        synthetic=run.synthetic if run is not None else False,
        missing=tuple(missing),
    )


def _newest_sync(model: RunModel) -> tuple[EngineSync, ...]:
    """The engines of the newest sync that all of them have ended."""
    ended = (sync for sync in reversed(model.syncs.syncs) if all(TOTAL in one.phases for one in sync))
    return tuple(next(ended, ()))


def _newest(engines: Mapping[str, object]) -> int:
    return max((int(getattr(engine, "version", -1)) for engine in engines.values()), default=-1)


def _dtype(word: str) -> Dtype:
    return next((one for one in _DTYPES if one in word), "")


def _mean(model: RunModel, name: str) -> float:
    if name not in model.metrics:
        return math.nan
    values = [float(value) for value in model.metrics.values(name)[-_NEWEST:] if math.isfinite(value)]
    return sum(values) / len(values) if values else math.nan
