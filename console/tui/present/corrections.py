"""The objective's correction as the fixes screen shows it: which is in force, and what stands before another. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from console.parity.gate import Verdict, backend_verdict
from console.parity.rules import Rules, load
from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.present.fix_rows import who
from driftline.catalog.corrections import BY_ID, CORRECTIONS, OFF

ROW: Final = "objective-correction"
"""The name of the row among those of the fixes."""


@dataclass(frozen=True)
class CorrectionView:
    """The correction of a run. `effective` is "" where the trainer says nothing of it."""

    requested: str
    effective: str
    since: int
    by: str
    verdict: Verdict
    """On the backend: what a correction would hide."""

    @property
    def settled(self) -> bool:
        return not self.requested or self.requested == self.effective


@lru_cache(maxsize=1)
def _rules() -> Rules:
    """The packaged rules, read once: a screen asks for a verdict with every frame."""
    return load()


def verdict_now(model: RunModel) -> Verdict:
    """The verdict on the backend as of now."""
    return backend_verdict(model, _rules())


def correction_view(model: RunModel) -> CorrectionView:
    """The correction as the trainer has reported it, and the verdict on the backend."""
    run = model.run
    if run is None:
        return CorrectionView("", "", -1, "", verdict_now(model))
    return CorrectionView(
        run.correction_requested, run.correction, run.correction_since, run.correction_by, verdict_now(model)
    )


def line(view: CorrectionView, glyphs: Glyphs, name: int, state: int, *, narrow: bool = False) -> list[Text]:
    """The row below the fixes: name and state in columns of these widths, then the gate.

    `narrow`: the gate stands before since when and by whom, as the effects of the fixes do there.
    """
    title = f" {'correction':<{name}} "
    if not view.effective:
        silent = "this run's trainer says nothing of corrections"
        return [(" ", Ink.TEXT), (glyphs.unavailable, Ink.DIM), (title, Ink.TEXT), (silent, Ink.DIM)]
    if not view.settled:
        symbol, ink, said = glyphs.partial, Ink.WARN, f"{view.effective} {glyphs.arrow} {view.requested}"
    else:
        on = view.effective != OFF
        # On, and the backend wrong: it is doing what a fix should do.
        ink = Ink.WARN if on and view.verdict.asks else Ink.OK if on else Ink.TEXT
        symbol, said = (glyphs.on if on else glyphs.off), view.effective
    since = f"s{view.since}" if view.since > 0 and view.settled else ""
    front: list[Text] = [(" ", Ink.TEXT), (symbol, ink), (title, Ink.TEXT), (f"{said:<{state}}", ink)]
    by = who(view.by) if view.by else ""
    if not narrow:
        return [*front, (f"{since:<6}", Ink.DIM), (f"{by:<8.8}", Ink.DIM), gate(view.verdict)]
    return [*front, gate(view.verdict), (f"  {since} {by}".rstrip(), Ink.DIM)]


def gate(verdict: Verdict) -> Text:
    """The backend's verdict as what it means for a correction."""
    ink = {True: Ink.OK, False: Ink.ALARM, None: Ink.WARN}[verdict.passes]
    word = {True: "backend passes", False: "backend FAILS: fixes first", None: "backend not judged yet"}[verdict.passes]
    return word, ink


def detail(view: CorrectionView) -> list[list[Text]]:
    """The gate in full, what is in force, and what each correction is."""
    verdict = view.verdict
    word, ink = gate(verdict)
    asks = "; a correction is asked for twice" if verdict.asks else ""
    rows: list[list[Text]] = [[(" gate     ", Ink.DIM), (f"{word}: {verdict.why}{asks}", ink)]]
    now = view.effective or "the trainer says nothing of it"
    wanted = f", wanted {view.requested} by {who(view.by)}" if view.requested and view.by else ""
    since = f" since step {view.since}" if view.since > 0 else ""
    rows.append([(" now      ", Ink.DIM), (f"{now}{since}{wanted}", Ink.TEXT)])
    for one in CORRECTIONS:
        rows.append([(f" {one.id:<13} ", Ink.TEXT if one.id == view.effective else Ink.DIM), (one.summary, Ink.TEXT)])
        rows.append([(" " * 15, Ink.DIM), (f"weight {one.formula}", Ink.DIM)])
    return rows


def advice(value: str, verdict: Verdict) -> str:
    """The warning before a correction that would hide a fault."""
    what = {False: "the backend FAILS parity", None: "the backend has not been judged"}.get(verdict.passes, "")
    return (
        f"{what}: {verdict.why}. {BY_ID[value].title} would hide what a fix repairs: "
        "clip rate and KL look well while the engine's logprobs stay wrong. First the fixes, then, if anything is "
        "left, a correction."
    )
