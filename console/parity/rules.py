"""The rules of the parity verdict: data in TOML, typed, with errors as sentences."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from driftline.catalog.metrics import BY_NAME, METRICS, resolve

DEFAULT: Final = Path(__file__).with_name("rules.toml")

Above = Annotated[float, Meta(gt=0)]


class RulesError(ValueError):
    """Rules that cannot be used: one sentence with the file, the key and what is allowed."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One metric. `spread`: usual standard deviation between seeds of a window's mean, on the rule's scale.

    On the log scale x is judged as log(max(x, 0) + floor), so a spread of 0.2 is about 20 %. The band is never narrower
    than `tolerance` on either side, on the same scale.
    """

    spread: Above
    scale: Literal["linear", "log"] = "linear"
    floor: Above | None = None
    side: Literal["both", "high", "low"] = "both"
    tolerance: Annotated[float, Meta(ge=0)] = 0.0
    limit: float | None = None


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file; what the words mean is in the docstring of `console.parity` and in `rules.toml`."""

    alpha: Annotated[float, Meta(gt=0, le=0.5)] = 0.05
    window: Annotated[int, Meta(ge=2)] = 10
    hold: Annotated[int, Meta(ge=1)] = 20
    weight: Annotated[float, Meta(ge=3)] = 10.0
    metrics: dict[str, Rule]

    def only(self, names: Iterable[str]) -> Rules:
        """The rules of some metrics, in the order asked for. Raises RulesError for one without a rule."""
        chosen = {}
        for name in map(resolve, names):
            if name not in self.metrics:
                raise RulesError(f"no parity rule for '{name}'; there are rules for: {', '.join(self.metrics)}")
            chosen[name] = self.metrics[name]
        return replace(self, metrics=chosen)


def load(path: Path = DEFAULT) -> Rules:
    """Read and check a file. Raises RulesError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RulesError(f"{path}: cannot be read: {reason}") from error
    return parse(text, str(path))


def parse(text: str, where: str) -> Rules:
    """Check the text of a file named `where`. Raises RulesError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{where}: not TOML: {error}") from error
    try:
        rules = msgspec.convert(raw, Rules)
    except msgspec.ValidationError as error:
        raise RulesError(f"{where}: {_sentence(str(error), raw)}") from error
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


def _sentence(error: str, raw: dict[str, object]) -> str:
    # msgspec: "Expected `float` > 0.0 - at `$.metrics[...].spread`"; it hides the key of a dictionary behind dots.
    what, _, path = error.rpartition(" - at `$.")
    if not what:
        return error[0].lower() + error[1:]
    table = raw.get("metrics")
    path = path.rstrip("`")
    if "[...]" in path and isinstance(table, dict):
        culprits = [name for name, rule in table.items() if not _converts(rule)]
        path = path.replace("[...]", f'."{culprits[0]}"' if culprits else "")
    return f"{path}: {what[0].lower()}{what[1:]}"


def _converts(rule: object) -> bool:
    try:
        msgspec.convert(rule, Rule)
    except msgspec.ValidationError:
        return False
    return True
