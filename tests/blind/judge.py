"""A recorded case as the diagnosis sees it, its answers, and the table of confusions. No frame has the truth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from console.diagnosis import active, looks
from console.diagnosis.facts import facts_of
from console.diagnosis.model import NONE, UNKNOWN, Diagnosis
from console.diagnosis.watch import Watch
from console.store.model import RunModel
from driftline.frames import Ack, Tokens
from driftline.journal.records import read
from driftline.rundir import RunDir
from tests.blind.cases import Case

PASSIVE_TOKENS: Final = 2_000
"""Of the newest tokens since the onset, so many are enough for the passive part."""
WANTED: Final = {"single causes": 0.95, "pairs": 0.80, "none": 0.99}
"""Rates that are to be met."""
NOTHING: Final = "no data"


@dataclass(frozen=True)
class Answers:
    """What was said of a case: by passive instruments within PASSIVE_TOKENS of the onset, with those and the active
    round, and what the round took of the slowest engine's time, in seconds."""

    passive: Diagnosis
    both: Diagnosis
    engine_s: float
    cost: str


def judge(run: RunDir, onset: int) -> Answers:
    """Diagnose a recorded run from its journal. Raises ValueError where no active round was answered."""
    model, watch, since = RunModel(), Watch(), 0
    passive: Diagnosis | None = None
    figures: active.Figures = {}
    for stamped in read(run.journal):
        model.apply(stamped)
        frame = stamped.frame()
        if isinstance(frame, Ack) and frame.state == "applied":
            figures = frame.data
        if isinstance(frame, Ack) and frame.state in ("failed", "refused"):
            raise ValueError(f"{run.id}: the active round {frame.state}: {frame.detail}")
        if isinstance(frame, Tokens):
            if passive is None and frame.step >= onset and since + frame.n > PASSIVE_TOKENS:
                passive = watch.diagnosis(facts_of(model))
            watch.feed(frame)
            since += frame.n if frame.step >= onset else 0
    facts = facts_of(model)
    if not figures:
        raise ValueError(f"{run.id}: no active round was answered")
    both = looks.diagnose(watch, facts, figures)
    seconds = max((float(figures.get(f"{one}.seconds", 0.0)) for one in active.engines(figures)), default=0.0)
    return Answers(passive or watch.diagnosis(facts), both, seconds, active.cost(figures))


def answer(found: Diagnosis) -> tuple[str, ...]:
    """The names that a diagnosis gives: NONE for nothing wrong, UNKNOWN for none that it knows."""
    if found.verdict == "normal":
        return (NONE,)
    if found.verdict == "unknown":
        return (UNKNOWN,)
    return found.named if found.verdict == "cause" else (NOTHING,)


def right(case: Case, names: Sequence[str]) -> bool:
    """Whether the answer is right: the first name for one cause, both for two, none, or that it is not known."""
    if case.unknown:
        return names[0] == UNKNOWN
    if not case.causes:
        return names[0] == NONE
    return names[0] == case.causes[0] if len(case.causes) == 1 else set(case.causes) <= set(names)


def kind(case: Case) -> str:
    """Which of the rates a case counts for."""
    if case.unknown:
        return "not one that it knows"
    return ("none", "single causes", "pairs")[len(case.causes)]


def table(judged: Iterable[tuple[Case, Sequence[str]]]) -> str:
    """Each case with its answers and how often each was given, wrong ones marked."""
    lines: dict[str, Counter[str]] = {}
    cases: dict[str, Case] = {}
    for case, names in judged:
        cases[case.name] = case
        mark = "" if right(case, names) else " (wrong)"
        lines.setdefault(case.name, Counter())[" + ".join(names[:3]) + mark] += 1
    width = max(map(len, lines), default=0)
    return "\n".join(
        f"{name:<{width}}  {', '.join(f'{count} {text}' for text, count in found.most_common())}"
        for name, found in lines.items()
    )


def rates(how: str, judged: Sequence[tuple[Case, Sequence[str]]]) -> bool:
    """Print the rate of each kind; whether all that have a wanted one meet it."""
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for case, names in judged:
        by_kind[kind(case)].append(right(case, names))
    met = True
    for name, rights in sorted(by_kind.items()):
        rate, wanted = sum(rights) / len(rights), WANTED.get(name)
        good = wanted is None or rate >= wanted
        met = met and good
        limit = "" if wanted is None else f", at least {wanted:.0%}{'' if good else ': missed'}"
        print(f"{how}: {name}: {sum(rights)} of {len(rights)} right ({rate:.0%}){limit}")
    return met
