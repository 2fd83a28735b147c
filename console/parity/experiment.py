"""The experiment behind the figure: its runs, the verdicts they need, and their panels. Pure.

Reference runs (every fix on, several seeds), one run on the engine's defaults (every fix off) and one that starts on
the defaults and has its fixes switched on live. Of a migration between versions also one with its fixes on from the
start, and one for each layer of fixes (`console.parity.stages`).

All runs start from one model, as runs of reinforcement learning do: the article's start from one pretrained
checkpoint. A seed is the chance from there on: which prompts come when, what is sampled, what is in flight at
a sync. When each seed made a tiny model of its own, three references began with rewards of 0.38, 0.44 and 0.64 and
ended with 0.63 to 0.84: a spread of models, not of seeds, which has nothing to do with a backend and which three runs
cannot measure; a reference then failed against the two others (reward, from step 8 on).

How long: until the learning has come to its end and not beyond it. A repaired run has lost about as many steps as its
fixes were off, and must be back in the band at the same steps as the reference, so the steps after the switch have to
include the return (48 steps where it was measured) and `hold` steps in the band. Beyond 100 steps there is nothing left
to learn here: the reward stands still, entropies fall towards zero at each seed's own pace, and their spread (0.1 in
the logarithm until then) doubles with every window: the model of the band, one spread over the run, does not hold
there.

The defaults and the repaired run have one seed of their own, no reference's: a run at parity is to look like one more
seed, and the band is as wide as that takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from msgspec.structs import replace

from console.parity.figure import Line, Panel
from console.parity.judge import Comparison, Verdict, compare
from console.parity.report import closing, title
from console.parity.rules import Rules
from console.parity.runs import Run
from console.parity.stages import Stage, cumulative
from driftline.catalog.fixes import BY_ID, OFF
from driftline.config import Config

PANELS: Final = ("policy/clip_fraction", "policy/kl_new_old", "policy/entropy", "reward/mean")


@dataclass(frozen=True)
class Planned:
    """One run of the experiment. `switch_at`: the last step on the defaults, None without a switch.

    `stage`: of a run with the fixes of some layers, how the table names it.
    """

    name: str
    config: Config
    switch_at: int | None = None
    stage: str = ""


@dataclass(frozen=True)
class Shown:
    """The comparisons: a reference against the others, the defaults and the repaired run against all.

    `fixed`, of a migration: the candidate with its fixes on from the start; `stages`: with those of some layers, which
    need no verdict.
    """

    seed: Comparison
    defaults: Comparison
    repaired: Comparison
    fixed: Comparison | None = None
    stages: tuple[Stage, ...] = ()

    @property
    def ladder(self) -> list[Stage]:
        """Of a migration: from the candidate's defaults to all its fixes, a layer more each; else empty."""
        if self.fixed is None:
            return []
        return [Stage("the defaults", self.defaults), *self.stages, Stage("all fixes on", self.fixed)]

    @property
    def rows(self) -> list[tuple[str, Comparison, Verdict]]:
        """Name, comparison and needed verdict of each."""
        found: list[tuple[str, Comparison, Verdict]] = [
            ("a reference run against the other seeds", self.seed, "pass"),
            ("the defaults", self.defaults, "fail"),
            ("the repaired run", self.repaired, "pass"),
        ]
        if self.fixed is not None:
            found.append(("fixed from the start", self.fixed, "pass"))
        return found

    @property
    def missing(self) -> list[str]:
        """Clauses for the verdicts that differ from the needed ones; empty if none does."""
        return [f"{name}: {closing(found)}" for name, found, wanted in self.rows if found.verdict != wanted]


def plan(reference: Config, *, steps: int, switch_at: int, seeds: int, candidate: str = "") -> list[Planned]:
    """The runs, in their order, from the configuration of the reference.

    `candidate`, of a migration: the environment that the engines of all but the reference run in; further runs then
    have all fixes on from the start, and those of the first layers.
    """

    model = reference.model
    if model.seed < 0:
        model = replace(model, seed=reference.run.seed)

    def seeded(seed: int, fixes: dict[str, str]) -> Config:
        run = replace(reference.run, steps=steps, seed=reference.run.seed + seed)
        engine = reference.engine
        if candidate and seed >= seeds:
            engine = replace(engine, environment=candidate)
        return replace(reference, run=run, model=model, engine=engine, fixes=fixes)

    on = {fix: BY_ID[fix].repairs[0] if value == OFF else value for fix, value in reference.fixes.items()}
    off = dict.fromkeys(reference.fixes, OFF)
    runs = [Planned("reference", seeded(seed, on)) for seed in range(seeds)]
    runs.append(Planned("defaults", seeded(seeds, off)))
    runs.append(Planned("repaired", seeded(seeds, off), switch_at))
    if candidate:
        runs.append(Planned("fixed", seeded(seeds, on)))
        for stage, fixes in cumulative(list(on)):
            some = {fix: value if fix in fixes else OFF for fix, value in on.items()}
            runs.append(Planned("layers", seeded(seeds, some), stage=stage))
    return runs


def judge(
    references: Sequence[Run],
    defaults: Run,
    repaired: Run,
    rules: Rules,
    switch_at: int,
    fixed: Run | None = None,
    stages: Sequence[tuple[str, Run]] = (),
) -> Shown:
    """The verdicts of the experiment; `stages`: the names and runs of the layers."""
    return Shown(
        compare(references[:-1], references[-1], rules),
        compare(references, defaults, rules),
        compare(references, repaired, rules, start=switch_at + 1),
        None if fixed is None else compare(references, fixed, rules),
        tuple(Stage(name, compare(references, run, rules)) for name, run in stages),
    )


def panels(
    references: Sequence[Run],
    defaults: Run,
    repaired: Run,
    rules: Rules,
    metrics: Sequence[str] = PANELS,
    *,
    fixed: Run | None = None,
) -> list[Panel]:
    """One panel a metric, over the whole runs: the band of the verdict, window means bold, single steps faint."""
    drawn = {"defaults": defaults, **({"fixed": fixed} if fixed is not None else {}), "repaired": repaired}
    whole = {
        kind: {judged.metric: judged.curve for judged in compare(references, run, rules).metrics}
        for kind, run in drawn.items()
    }
    # A window's mean belongs in the middle of its window.
    shift = (rules.window - 1) / 2
    shown = []
    for name in metrics:
        lines: list[Line] = []
        for kind, run in drawn.items():
            curve = whole[kind].get(name)
            if curve is None:
                continue
            raw = run.series[name]
            x = curve.steps.astype(np.float64) - shift
            if not lines:
                lines.append(Line("reference", x, curve.centre))
                band = (x, curve.low, curve.high)
            lines.append(Line(kind, x, curve.run, raw.steps.astype(np.float64), raw.values))
        if lines:
            shown.append(Panel(title(name), rules.metrics[name].scale == "log", *band, lines))
    return shown


def to_toml(config: Config) -> str:
    """A configuration as TOML that `driftline.config.parse` reads back as the same one."""
    text = []
    for section in config.__struct_fields__:
        table = msgspec.to_builtins(getattr(config, section))  # by the keys that a file has
        text.append(f"[{section}]")
        text += [f"{_key(key)} = {_scalar(item)}" for key, item in table.items() if item is not None]
        text.append("")
    return "\n".join(text)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _scalar(value: object) -> str:
    if isinstance(value, dict):
        given = [f"{_key(key)} = {_scalar(item)}" for key, item in value.items() if item is not None]
        return "{" + ", ".join(given) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    # JSON's strings, numbers and booleans are TOML's.
    return json.dumps(value, ensure_ascii=False)
