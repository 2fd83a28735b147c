"""The rules of the parity verdict: data in TOML, typed, with errors as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from driftline import toml_file
from driftline.catalog.metrics import BY_NAME, METRICS, resolve

DEFAULT: Final = Path(__file__).with_name("rules.toml")

Above = Annotated[float, Meta(gt=0)]


class RulesError(toml_file.TomlError):
    """Rules that cannot be used: one sentence with the file, the key and what is allowed."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One metric. `spread`: usual standard deviation between seeds of a window's mean, on the rule's scale.

    On the log scale x is judged as log(max(x, 0) + floor), so a spread of 0.2 is about 20 %. The band is never narrower
    than `tolerance` on either side, on the same scale; `effect`, the smallest shift that a pass has to be able to see,
    is on it too. `lag`: steps by which a healthy run's curve may come earlier or later. `limit` and `least` are in
    units; where only the low side counts, `limit` is the least.
    `optional`: judged only where every run has the metric. `backend`: the metric compares the backends.
    """

    spread: Above
    scale: Literal["linear", "log"] = "linear"
    floor: Above | None = None
    side: Literal["both", "high", "low"] = "both"
    tolerance: Annotated[float, Meta(ge=0)] = 0.0
    lag: Annotated[int, Meta(ge=0)] = 0
    effect: Above | None = None
    limit: float | None = None
    least: float | None = None
    optional: bool = False
    backend: bool = False


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file; what the words mean is in the docstring of `console.parity` and in `rules.toml`."""

    alpha: Annotated[float, Meta(gt=0, le=0.5)] = 0.05
    window: Annotated[int, Meta(ge=2)] = 10
    hold: Annotated[int, Meta(ge=1)] = 20
    reach: Annotated[float, Meta(ge=1)] = 2.0
    metrics: dict[str, Rule]

    def only(self, names: Iterable[str]) -> Rules:
        """The rules of some metrics, in the order asked for. Raises RulesError for one without a rule."""
        chosen = {}
        for name in map(resolve, names):
            if name not in self.metrics:
                raise RulesError(f"no parity rule for '{name}'; there are rules for: {', '.join(self.metrics)}")
            chosen[name] = self.metrics[name]
        return replace(self, metrics=chosen)


def parts(chosen: Mapping[str, Rule], rule: Rule) -> int:
    """Into how many parts alpha is split for a metric: all names of the mismatch have one metric's part together."""
    backend = sum(one.backend for one in chosen.values())
    return (len(chosen) - backend + (backend > 0)) * (backend if rule.backend else 1)


def load(path: Path = DEFAULT) -> Rules:
    """Read and check a file. Raises RulesError."""
    return parse(toml_file.read(path, RulesError), str(path))


def parse(text: str, where: str) -> Rules:
    """Check the text of a file named `where`. Raises RulesError."""
    rules = toml_file.convert(toml_file.parse(text, where, RulesError), Rules, where, RulesError)
    metrics: dict[str, Rule] = {}
    for name, rule in rules.metrics.items():
        known = resolve(name)
        if known not in BY_NAME:
            names = ", ".join(metric.name for metric in METRICS)
            raise RulesError(f"{where}: metrics: unknown metric '{name}'; allowed: {names}")
        if known in metrics:
            raise RulesError(f"{where}: metrics: '{name}' is {known}, which has a rule already")
        if (rule.scale == "log") != (rule.floor is not None):
            want = "needs a floor" if rule.scale == "log" else 'has a floor, which only scale = "log" takes'
            raise RulesError(f'{where}: metrics."{name}": scale = "{rule.scale}" {want}')
        metrics[known] = rule
    if not metrics:
        raise RulesError(f"{where}: metrics: no metric has a rule")
    return replace(rules, metrics=metrics)
