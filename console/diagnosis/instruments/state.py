"""What a run says of itself, as readings: fixes as read back from the engines, temperature, versions. Pure."""

from __future__ import annotations

import math

from console.diagnosis.instruments.view import View, reading
from console.diagnosis.model import Reading
from driftline.catalog.fixes import WAIT


def fix(view: View, name: str) -> Reading:
    """Whether a fix is on, on every engine, as they report it."""
    repaired = view.facts.repaired(name)
    value = view.facts.fixes.get(name, "")
    outcome = "not reported" if repaired is None else "repaired" if repaired else "not repaired"
    text = f"{name} is reported as {value}" if value else f"{name} is not reported"
    return reading(name, outcome, math.nan if repaired is None else float(repaired), text)


def processed_logprobs(view: View) -> Reading:
    """Of the fix of this name."""
    return fix(view, "processed-logprobs")


def prefix_cache(view: View) -> Reading:
    """Of the fix `prefix-cache-off`."""
    return fix(view, "prefix-cache-off")


def head(view: View) -> Reading:
    """Of the fix `fp32-lm-head`."""
    return fix(view, "fp32-lm-head")


def in_flight(view: View) -> Reading:
    """Whether a pause lets requests finish. With keys and values kept they go on over those of older weights."""
    value = view.facts.fixes.get("inflight-keep", "")
    outcome = "not reported" if value in ("", "mixed") else "waits" if value in (WAIT, "off") else "kept"
    text = f"inflight-keep is reported as {value}" if value else "inflight-keep is not reported"
    return reading("inflight-keep", outcome, math.nan, text)


def temperature(view: View) -> Reading:
    """At a temperature of 1 raw and processed logprobs are the same numbers."""
    value = view.facts.temperature
    if not math.isfinite(value):
        return reading("temperature", "not reported", value, "the temperature is not reported")
    return reading("temperature", "one" if value == 1 else "another", value, f"the temperature is {value:g}")


def versions(view: View) -> Reading:
    """Whether an engine says itself that its weights are not the newest."""
    if not view.facts.engines:
        return reading("versions", "not reported", math.nan, "no engine has reported the version of its weights")
    behind = ", ".join(view.facts.failed)
    text = f"{behind} reports older weights than the others" if behind else "all engines report the same weights"
    return reading("versions", "behind" if behind else "newest", float(len(view.facts.failed)), text)
