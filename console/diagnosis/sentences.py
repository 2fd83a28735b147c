"""Sentences of a diagnosis for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from console.diagnosis.causes import BY_NAME
from console.diagnosis.facts import Facts
from console.diagnosis.instruments.timing import Jump
from console.diagnosis.instruments.view import number
from console.diagnosis.model import Normal, Ranked, Verdict

SURE: Final = 0.6
"""Probability below which a cause is named together with the next one."""


def sentence(
    verdict: Verdict, causes: Sequence[str], ranked: Sequence[Ranked], normal: Normal, gone: Jump | None = None
) -> str:
    """The answer in one sentence; `gone` is where an earlier cause ended."""
    until = f"; before version {gone.version} it was {number(gone.before)}" if gone is not None else ""
    if verdict == "normal":
        figures = f"mean |d| {number(normal.seen)} nats, {number(normal.floor)} is normal"
        return f"nothing wrong beyond the numeric floor: {figures}{until}"
    clauses = [_clause(name, causes, ranked) for name in causes]
    if verdict == "unknown":
        near = next((one for one in ranked if one.cause is not None and one.name not in causes), None)
        hint = f"; the nearest is: {near.cause.title}" if near is not None and near.cause is not None else ""
        text = f"something is wrong (mean |d| {number(normal.seen)} nats), and not one that I know{hint}"
        return f"{'; '.join(clauses)}; besides, {text}" if clauses else text
    return "; and ".join(clauses)


def rival(name: str, causes: Sequence[str], ranked: Sequence[Ranked]) -> Ranked | None:
    """The next cause that these tokens fit nearly as well, where one that is named is not `SURE`."""
    one = next((item for item in ranked if item.name == name), None)
    if one is None or one.probability >= SURE:
        return None
    others = (item for item in ranked if item.cause is not None and item.name not in causes and item.where == one.where)
    return next((item for item in others if item.probability >= one.probability / 3), None)


def _clause(name: str, causes: Sequence[str], ranked: Sequence[Ranked]) -> str:
    other = rival(name, causes, ranked)
    if other is None or other.cause is None:
        return _title(name, ranked)
    return f"probably {_title(name, ranked)}; or else {other.cause.title}"


def _title(name: str, ranked: Sequence[Ranked]) -> str:
    title = BY_NAME[name].title
    one = next((item for item in ranked if item.name == name), None)
    if one is None:
        return title
    if one.where.startswith("engine") and title.startswith(("the engine ", "an engine ")):
        title = f"{one.where} {title.split(' ', 2)[2]}"
    elif one.where:
        title = f"{title} ({one.where})"
    return f"{title}, since version {one.since}" if one.since > 0 else title


def normal(floor: float, seen: float, facts: Facts) -> str:
    """Whether what is seen is normal, as a clause."""
    kind = f"a {facts.dtype} body" if facts.dtype else "a body of a type that is not reported (taken for bfloat16)"
    verdict = "normal" if seen <= floor else f"{number(seen / floor)} times that"
    return f"up to {number(floor)} nats are normal for {kind}; {number(seen)} is {verdict}"
