"""A diagnosis as lines of text, as Markdown, and as plain values for JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from console.diagnosis.model import NONE, UNKNOWN, Attribution, Diagnosis, Evidence, Ranked
from console.formatting import short

_EVIDENCE: Final = 4
_LIKELY: Final = 0.02
"""Hypotheses below this are not printed."""
_WORDS: Final = {NONE: "nothing beyond the numeric floor", UNKNOWN: "not one that I know"}


def lines(found: Diagnosis) -> list[str]:
    """The whole answer for a terminal: sentence, evidence, what else it might be, what to do, what is missing."""
    made = [found.sentence[:1].upper() + found.sentence[1:]]
    if found.verdict == "not enough data":
        return [*made, *(f"not recorded: {one}" for one in found.missing)]
    made[0] += f"  ({found.certainty:.0%} sure, {found.tokens} tokens of {found.steps} steps)"
    for one in found.ranked:
        if one.name in found.named or (not found.named and one is found.ranked[0]):
            made += [f"  {title(one)}", *_evidence("for", one.supporting), *_evidence("against", one.opposing)]
    others = [one for one in found.ranked if one.name not in found.named and one.probability >= _LIKELY]
    if others and found.named:
        made.append("or: " + "; ".join(f"{title(one)} {one.probability:.0%}" for one in others))
    if found.attribution is not None:
        made.append("mean |d| by layer: " + shares(found.attribution))
    if found.normal is not None:
        made += [f"normal: {found.normal.text}", f"  source: {found.normal.source}"]
    made += [f"do: {action.text}" for action in found.actions]
    if found.ruled_out:
        made.append("ruled out: " + "; ".join(f"{one.name} ({one.how})" for one in found.ruled_out))
    return [*made, *(f"not recorded: {one}" for one in found.missing)]


def title(one: Ranked) -> str:
    """A hypothesis in words."""
    return one.cause.title if one.cause is not None else _WORDS.get(one.name, one.name)


def shares(found: Attribution) -> str:
    """`weight update .19 (.15 to .24), numerics .01 (.008 to .012); of .20 nats`."""
    parts = [f"{one.layer} {short(one.nats)} ({short(one.low)} to {short(one.high)})" for one in found.shares]
    text = f"{', '.join(parts) or 'nothing'}; of {short(found.total)} nats"
    return f"{text}; {found.note}" if found.note else text


def _evidence(word: str, found: Sequence[Evidence]) -> list[str]:
    return [f"    {word} ({one.llr:+.1f}) {one.instrument}: {one.text}" for one in found[:_EVIDENCE]]


def document(found: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain values; the keys are the fields of `console.diagnosis.model.Diagnosis`."""
    plain: dict[str, Any] = msgspec.to_builtins(found)
    return plain
