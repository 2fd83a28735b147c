"""An active round as the screen says it: what asking for one would mean, how far it has come, how it stands. Pure."""

from __future__ import annotations

from typing import Final

from console.diagnosis import active
from console.diagnosis.rounds import Standing, named, standing
from console.store.model import RunModel
from console.store.rounds import Round
from console.tui.paint.cells import Text
from console.tui.paint.theme import Ink
from console.tui.present.plans import Plan, RefusedError

Row = list[Text]

_BEFORE: Final = "at the next step: "
_AND: Final = ", and "
_CANCELLED: Final = "cancelled by"
"""Words of the trainer's answers (`trainer/control/probe_queue.py`)."""


def plan_round(model: RunModel) -> Plan:
    """Have trainer and engines score recorded tokens again. Raises RefusedError where this run's cannot."""
    if why := cannot(model):
        raise RefusedError(f"refused: {why}")
    stands = standing(model)
    count = len(model.engines)
    return Plan(
        title="measure the cause",
        target=f"the trainer and {count} engine{'s' * (count != 1)}",
        now=stands.name or "no round has been made in this run",
        effect="an active round: some newest tokens are scored again, in several ways; nothing is trained, sent, "
        "switched or sampled for it",
        cost=f"{active.expected(stands.made.figures if stands.made is not None else None)}; one step waits for it, "
        "generation goes on",
        verb="diagnose",
        args={"tokens": str(active.TOKENS)},
        closes=True,
    )


def cannot(model: RunModel) -> str:
    """Why no round can be made of this run, as a clause; "" where one can."""
    run = model.run
    if run is None:
        return "this run has no trainer, and a round takes driftline's own"
    if run.framework or run.synthetic:
        return f"the trainer is {run.framework or 'a simulator'}, and a round takes driftline's own"
    return ""


def line(stands: Standing, *, may_act: bool) -> tuple[Row, bool]:
    """How the newest round stands, and whether that comes before figures: it is under way, or came to nothing."""
    key: Row = [(" D ", Ink.WARN)] if may_act else [(" ", Ink.DIM)]
    going = stands.under_way
    if going is not None:
        stage = "asked for" if going.state in ("queued", "sent") else going.detail or "taken up"
        if going.cost and going.cost != stage:
            stage = f"{stage}; {going.cost.removeprefix(_BEFORE)}"
        # Its first clause: the dialog has said all of it.
        how = f": {stage.partition(_AND)[0]}"
        row: Row = [*key, ("cancels  " if may_act else "", Ink.BRIGHT), (f"active round{how}", Ink.ACCENT)]
        return row, True
    if (failed := stands.failed) is not None and failed.detail.startswith(_CANCELLED):
        again: Row = [*key, ("measures it  ", Ink.BRIGHT)] if may_act else key
        return [*again, (f"active round {failed.detail}", Ink.DIM)], False
    if failed is not None:
        word = "failed" if failed.state == "failed" else failed.state
        again = [*key, ("measures again  ", Ink.BRIGHT)] if may_act else key
        return [*again, (f"active round {word}: {failed.detail or 'no reason was given'}", Ink.WARN)], True
    if stands.made is None:
        offer: Row = [*key, ("measures it  ", Ink.BRIGHT), (active.expected(None), Ink.DIM)]
        return (offer if may_act else []), False
    again = [*key, ("measures again  ", Ink.BRIGHT)] if may_act else key
    made = stands.made
    by = f", by itself: {made.reason}" if made.reason else ""
    if stands.outdated:
        return [*again, (f"{stands.name}{by}: counts no longer, {stands.outdated}", Ink.DIM)], False
    return [*again, (f"{stands.name}{by}: {active.cost(made.figures)}", Ink.TEXT)], False


def label(made: Round | None, model: RunModel) -> str:
    """By which round an answer is, for the frame of its pane; "" where it is by token pairs alone."""
    return named(made, model.run.version if model.run is not None else -1) if made is not None else ""
