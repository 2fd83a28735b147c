"""From recorded runs to parts with labels, and from these to counted likelihoods."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from console.diagnosis.causes import BY_NAME
from console.diagnosis.facts import Dtype, Facts, facts_of
from console.diagnosis.instruments.catalogue import PASSIVE
from console.diagnosis.likelihoods import Calibrated
from console.diagnosis.model import NONE, UNKNOWN, Instrument
from console.diagnosis.parts import Part, split
from console.diagnosis.recorded import token_frames
from console.diagnosis.watch import Watch
from console.store.load import load
from driftline.frames import Tokens, decode
from driftline.rundir import RunDir
from tests.diagnosis.corpus import Recorded

SMOOTHING: Final = 0.25
MORE: Final = {"size": 2.0, "staleness": 2.0, "growth": 1.0, "updates": 0.5}
"""Counts that are added to every outcome; more where an outcome depends on sizes that the simulation has chosen."""
LOCAL: Final = {"placeholder-zero": "last", "in-flight-kv": "seam", "lag": "lag"}

SILENT: Final = {
    "growth": "short", "engine": "single", "context": "few", "repeatable": "few", "seam": "none", "repeats": "few",
    "shift": "few", "ids": "few", "lag": "no lag", "updates": "not recorded", "surprise": "few", "grid": "few",
    "staleness": "not recorded", "onset": "not seen", "relative": "few",
}  # fmt: skip
"""Outcomes by which an instrument says that it has nothing to read: these depend on a run's shape, not on a cause."""
_NOT_HIGHER: Final[dict[str, tuple[str, ...]]] = {
    "sign": ("both", "mostly lower", "engine lower"),
    "context": ("token", "some ids", "run's temperature", "another temperature"),
}
_NO_TEMPERATURE: Final[dict[str, tuple[str, ...]]] = {"context": ("position only", "some ids", "token")}
NEVER: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "raw-logprobs": _NO_TEMPERATURE,
    "trainer-temperature": _NO_TEMPERATURE,
    "shifted-ids": {"shift": ("in place",)},
    "dropout": {"repeatable": ("both do", "engine differs")},
    "head-bf16": {"grid": ("neither", "both")},
    "top-p": _NOT_HIGHER,
    "top-k": _NOT_HIGHER,
    "min-tokens": _NOT_HIGHER,
}
"""What a cause does not do by its nature."""
WRONG: Final = 0.005
"""How probable such an outcome is: that of an effect which is too small to be read right."""
PENALTY: Final[dict[str, dict[str, float]]] = {
    "context": {"position only": 0.12, "some ids": 0.866, "token": 0.01}, "repeats": {"no": 0.25}
}  # fmt: skip
"""Of a repetition penalty, stated: the simulation knows no prompt whose ids count too, and vLLM's penalty has one. Of
two ids without a penalty d is equal, which it is of no others (`contexts.LEAST_EQUAL`)."""
OF_UPDATES: Final = frozenset(
    {"missed-sync", "layer-not-loaded", "layers-swapped", "head-not-sent", "stale-prefix-cache"}
)
"""Causes whose size follows that of updates: of all others the instrument `updates` says nothing but how fast the
simulated runs learn."""


_OF_WEIGHTS: Final = (0.3, 0.3, 0.3, 0.1)
_TRUNCATED: Final = (0.2, 0.25, 0.35, 0.2)
_SCALED: Final = (0.05, 0.25, 0.4, 0.3)
_ANY: Final = (0.25, 0.25, 0.25, 0.25)
RELATIVE: Final[dict[str, tuple[float, float, float, float]]] = {
    NONE: (0.9, 0.06, 0.03, 0.01), "head-bf16": (0.85, 0.1, 0.03, 0.02), "dropout": (0.05, 0.15, 0.6, 0.2),
    "min-tokens": _TRUNCATED, "top-p": _TRUNCATED, "top-k": _TRUNCATED, "raw-logprobs": _SCALED,
    "trainer-temperature": _SCALED, "repetition-penalty": _SCALED, "shifted-ids": (0.02, 0.05, 0.2, 0.73),
    "layers-swapped": (0.05, 0.1, 0.35, 0.5), "missed-sync": (0.15, 0.25, 0.35, 0.25),
    "layer-not-loaded": _OF_WEIGHTS, "head-not-sent": _OF_WEIGHTS, "stale-prefix-cache": _OF_WEIGHTS,
}  # fmt: skip
"""Slight, some, plain and far of the instrument `relative`: stated, since how far a cause goes is what the simulation
draws, but that a logit rounded to eight bits moves by no more than some hundredths is its nature."""
SLIGHT: Final[dict[str, dict[str, float]]] = {
    "raw-logprobs": {"surprise": 0.12}, "trainer-temperature": {"surprise": 0.12},
}  # fmt: skip
"""Least probability of "no" where a policy that is nearly certain, or a temperature near the other, makes an effect too
small to be read: stated, since how certain the simulated policies get is chosen."""
SAID_NOTHING: Final = 0.1
ALIKE: Final = ("sign", "sampler", "context", "tails", "bound", "surprise", "shift", "repeats")
"""Instruments that say that an engine computes with other weights and how far these are, not why: of those five causes
each is given the average."""


class Labelled(NamedTuple):
    """A part of a run and the cause that acts on it."""

    cause: str
    part: Part
    visible: bool


def facts(run: Recorded) -> Facts:
    """What the run said of itself."""
    dtype: Dtype = "bfloat16" if run.dtype == "bfloat16" else "float32"
    newest = run.values[-16:]
    return Facts(
        temperature=run.temperature,
        dtype=dtype,
        staleness=float(np.mean([one["staleness/abs_diff_mean"] for one in newest])),
        lag=float(np.mean([one["async/version_lag_mean"] for one in newest])),
    )


def watched(run: Recorded) -> Watch:
    """A watch that has seen all of its frames."""
    watch = Watch()
    for body in run.frames:
        frame = decode(body)
        assert isinstance(frame, Tokens)
        watch.feed(frame)
    return watch


def label(run: Recorded) -> Iterator[Labelled]:
    """The parts of a simulated run with one fault or none, each with its cause."""
    name, engine = (run.faults[0][0], run.faults[0][2]) if run.faults else (NONE, -1)
    yield from labelled(split(watched(run).columns, facts(run)), name, facts(run).floor[0], engine=engine >= 0)


def labelled(parts: Sequence[Part], name: str, floor: float, *, engine: bool) -> Iterator[Labelled]:
    """The part that a cause acts on, and the rest, on which nothing does."""
    if name == NONE:
        yield from (Labelled(NONE, part, False) for part in parts)
        return
    wanted = LOCAL.get(name, "engine" if engine else "rest")
    target = next((part for part in parts if part.name == wanted), parts[-1])
    if name in ("head-not-sent", "layers-swapped"):
        # A sender's error is on all engines; where the simulation has it on one, that says nothing.
        alike = tuple(msgspec.structs.replace(r, outcome="alike") if r.outcome == "one" else r for r in target.readings)
        target = dataclasses.replace(target, readings=alike)
    yield Labelled(name, target, target.view.mean > floor)
    if wanted == target.name != "rest":
        yield Labelled(NONE, parts[-1], False)


def of_folder(folder: Path) -> Iterator[tuple[str, Watch, Facts, tuple[str, ...]]]:
    """Runs of the real engine that `tests/blind` has recorded: name, watch, facts, and the causes by `truth.json`; of
    one that no cause explains, (UNKNOWN,)."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    for name, known in sorted(truth.items()):
        run, watch = RunDir(folder / name), Watch()
        for frame in token_frames(run):
            watch.feed(frame)
        if not watch.tokens:
            continue
        causes = (UNKNOWN,) if known["unknown"] else tuple(known["causes"])
        yield name, watch, facts_of(load(run).model), causes


def label_folder(folder: Path, seeds: Container[int]) -> Iterator[Labelled]:
    """Parts of recorded runs with one cause or none."""
    for name, watch, known, causes in of_folder(folder):
        if len(causes) > 1 or UNKNOWN in causes or int(name.rpartition("-")[2]) not in seeds:
            continue
        cause = causes[0] if causes else NONE
        one = "-one-" in name or cause == "missed-sync"
        yield from labelled(split(watch.columns, known), cause, known.floor[0], engine=one)


def count(parts_of: Iterable[Labelled], temper: float) -> Calibrated:
    """Likelihoods counted over parts of runs; those in which nothing is visible are not counted for their cause."""
    seen: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    parts: Counter[str] = Counter()
    for cause, part, visible in parts_of:
        if cause != NONE and not visible:
            continue
        parts[cause] += 1
        for one in part.readings:
            seen[cause][one.instrument][one.outcome] += 1
    table = {cause: {one.name: _chances(seen[cause][one.name], one) for one in PASSIVE} for cause in sorted(parts)}
    for name, outcome in SILENT.items():
        _pool(table, name, outcome)
    for cause, instruments in table.items():
        if cause in BY_NAME and BY_NAME[cause].onset == "update":
            # What an update brings is not there before the first one: few tokens of a version may hide where it began.
            _set(instruments["onset"], "step 0", 0.01)
        chances = instruments["relative"]
        for outcome, share in zip(chances, (*RELATIVE.get(cause, _ANY), 0.0), strict=True):
            chances[outcome] = SAID_NOTHING if outcome == "few" else round(share * (1 - SAID_NOTHING), 6)
        for name, outcomes in NEVER.get(cause, {}).items():
            for outcome in outcomes:
                _set(instruments[name], outcome, WRONG)
        _set(instruments["context"], "some ids", WRONG)
        for name, least in SLIGHT.get(cause, {}).items():
            _set(instruments[name], "no", max(least, instruments[name]["no"]))
        for name, wanted in PENALTY.items() if cause == "repetition-penalty" else ():
            _state(instruments[name], wanted)
        if cause not in OF_UPDATES:
            chances = instruments["updates"]
            instruments["updates"] = dict.fromkeys(chances, round(1 / len(chances), 4))
    alike = [table[cause] for cause in sorted(OF_UPDATES & set(table))]
    for name in ALIKE:
        for outcome in alike[0][name] if alike else ():
            usual = sum(of_cause[name][outcome] for of_cause in alike) / len(alike)
            for of_cause in alike:
                of_cause[name][outcome] = round(usual, 6)
    if "layer-not-loaded" in table:
        # How often that befalls one engine alone is the simulation's choice; a load that fails on one is a missed sync.
        _set(table["layer-not-loaded"]["engine"], "one", 0.15)
    return Calibrated(table, dict(sorted(parts.items())), temper)


def _chances(counted: Counter[str], instrument: Instrument) -> dict[str, float]:
    added = MORE.get(instrument.name, SMOOTHING)
    total = counted.total() + added * len(instrument.outcomes)
    return {outcome: round((counted[outcome] + added) / total, 6) for outcome in instrument.outcomes}


def _pool(table: dict[str, dict[str, dict[str, float]]], instrument: str, outcome: str) -> None:
    """Make the outcome equally probable under every cause: the average; what is left is shared as before."""
    usual = sum(chances[instrument][outcome] for chances in table.values()) / max(len(table), 1)
    for chances in table.values():
        _set(chances[instrument], outcome, usual)


def _state(chances: dict[str, float], wanted: Mapping[str, float]) -> None:
    """Give outcomes their probabilities where there is something to read; the others share the rest as before."""
    read = 1 - chances["few"]
    others = [one for one in chances if one != "few" and one not in wanted]
    rest = sum(chances[one] for one in others)
    for one in others:
        chances[one] = round(chances[one] / rest * (1 - sum(wanted.values())) * read, 6)
    for one, chance in wanted.items():
        chances[one] = round(chance * read, 6)


def _set(chances: dict[str, float], outcome: str, wanted: float) -> None:
    """Give an outcome a probability; the others share the rest as before."""
    rest = max(1 - chances[outcome], 1e-6)
    for one in chances:
        chances[one] = round(wanted if one == outcome else chances[one] * (1 - wanted) / rest, 6)
