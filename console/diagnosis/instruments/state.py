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


def digests(view: View) -> Reading:
    """Whether engines that have loaded the same version report the same weights. That they do says little: a sender's
    error is in all of them, and a digest may be of what was received."""
    reported = view.facts.digests
    if len(reported) < 2:
        return reading("digests", "not reported", math.nan, "fewer than two engines have reported a digest")
    different = len(set(reported.values()))
    text = f"{len(reported)} engines report {different} digest{'s' if different > 1 else ''} of the newest weights"
    return reading("digests", "differ" if different > 1 else "alike", float(different), text, unit="digests")


def resets(view: View) -> Reading:
    """What the resets of the prefix caches came back with at the newest sync."""
    reported = view.facts.resets
    if not reported:
        return reading("resets", "not reported", math.nan, "no engine has reported what a cache reset came back with")
    kept = sorted(name for name, result in reported.items() if result != "freed")
    text = (
        f"the cache reset of {', '.join(kept)} came back with {reported[kept[0]]}"
        if kept
        else "every engine has emptied its prefix cache at the newest sync"
    )
    return reading("resets", "not freed" if kept else "freed", float(len(kept)), text, unit="engines")
