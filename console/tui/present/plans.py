"""Plans of actions on a run: pure functions from the model to a plan, or to the reason for a refusal.

A plan says target, present state, effect and cost before anything is sent. Nothing here sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from console.connect.source import Link
from console.store.model import RunModel
from console.tui.paint.units import counted
from driftline.catalog import corrections
from driftline.catalog.fixes import BY_ID, OFF, ON, REMOVED, WAIT, Fix
from driftline.frames import EngineState, FixState, How, Verb

if TYPE_CHECKING:
    from console.parity.gate import Verdict

READ_ONLY: Final = "read-only: start the console with --operate to act on the run"
RECORDING: Final = "this is a recording: nothing can be done to it"

WHEN: Final[dict[How, str]] = {
    "live": "takes effect on running engines within a step",
    "next_sync": "takes effect with the next weight sync",
    "engine_restart": "rolling restart: one engine after the other, minutes; its rollouts go to the others",
    "not_available": "not available here",
}

RESTART_WORD: Final = "restart"
"""Typed before engines are rebuilt: what they are sampling is thrown away."""
STOP_WORD: Final = "stop"
"""Typed before the run is ended."""

_MEANING: Final[dict[tuple[str, str], str]] = {
    ("prefix-cache-off", ON): "requests stop reading cached prefix blocks",
    ("prefix-cache-off", REMOVED): "engines are rebuilt without a prefix cache",
    ("inflight-keep", ON): "a sync's pause keeps requests in flight and clears no cache",
    ("inflight-keep", WAIT): "a sync's pause lets requests in flight finish, then clears the caches",
}


class RefusedError(ValueError):
    """Acting is not possible now; the message says why and what to do."""


class Plan(msgspec.Struct, frozen=True):
    """A command with what an operator must know before it is sent.

    `word`: what has to be typed first, where work is thrown away that nothing brings back; "" asks for a button only.
    `closes`: the dialog closes once the command was taken, because the screen behind it shows how that goes.
    """

    title: str
    target: str
    now: str
    effect: str
    cost: str
    verb: Verb
    args: dict[str, str] = msgspec.field(default_factory=dict)
    generation: int = -1
    word: str = ""
    closes: bool = False


def check(operator: bool, link: Link, model: RunModel) -> None:
    """Raise RefusedError unless this console may act on what it shows."""
    if link.replay:
        raise RefusedError(RECORDING)
    if not operator:
        raise RefusedError(READ_ONLY)
    if model.run is not None and model.run.status in ("stopping", "finished", "failed"):
        raise RefusedError(f"refused: the run is {model.run.status}")
    if link.state == "connecting":
        raise RefusedError("refused: the hub has not been heard yet")
    if link.state != "live":
        raise RefusedError(f"refused: the feed is {link.age:.0f} s old, what is on screen may not be so any more")
    if model.run is None and not joined(model):
        raise RefusedError("refused: the run has not reported its state yet")


def joined(model: RunModel) -> list[EngineState]:
    """The engines that have joined by themselves and are up: those that say how they are set, or that are bridged."""
    return [
        engine
        for engine in model.engines.values()
        if (engine.settings or engine.via == "bridge") and engine.phase != "dead"
    ]


def possible(operator: bool, link: Link, model: RunModel) -> bool:
    """True if this console may act on the run."""
    try:
        check(operator, link, model)
    except RefusedError:
        return False
    return True


def _engines(model: RunModel) -> str:
    alive = [engine for engine in model.engines.values() if engine.phase != "dead"]
    return counted(len(alive), "engine")


def available(state: FixState) -> bool:
    """Whether any engine can do something about the fix."""
    return state.how != "not_available"


def reason(state: FixState) -> str:
    """Why a fix is not available: the pool's words, else those of the first engine that has any."""
    return state.detail or next((engine.detail for engine in state.engines if engine.detail), "no engine supports it")


def how_of(state: FixState, value: str) -> How:
    """The way in which this value takes effect; `state.how` is about the other usual one. A rebuild needs a restart."""
    if REMOVED in (value, state.requested) and value != state.requested:
        return "engine_restart"
    return state.how


def meaning(fix: Fix, value: str) -> str:
    """The effect of a value of a fix, in one clause."""
    return _MEANING.get((fix.id, value)) or (fix.vllm_default if value == fix.values[0] else fix.summary)


def plan_fix(model: RunModel, fix_id: str, value: str | None = None) -> Plan:
    """Switch a fix to `value`, or to the other one of two than the wanted one. Raises RefusedError."""
    fix = BY_ID[fix_id]
    state = model.fixes.get(fix_id)
    if state is None:
        raise RefusedError(f"refused: {fix.title} has not been reported yet")
    if not available(state):
        raise RefusedError(f"{fix.title} is not available here: {reason(state)}")
    if value is None:
        value = OFF if state.requested in fix.repairs else fix.repairs[0]
    elif value == state.requested:
        raise RefusedError(f"{fix.title} is wanted {value} already")
    effective = state.effective or "not reported yet"
    wanted = "" if state.settled else f", wanted {state.requested}"
    how = how_of(state, value)
    return Plan(
        title=f"set {fix.id} to {value}",
        target=f"{fix.title}, on {_engines(model)}",
        now=f"{effective}{wanted}",
        effect=meaning(fix, value),
        cost=WHEN[how],
        verb="fix.set",
        args={"fix": fix_id, "value": value},
        generation=state.generation,
        word=RESTART_WORD if how == "engine_restart" else "",
    )


def plan_sync(model: RunModel) -> Plan:
    """Sync the trainer's weights to every engine."""
    run = model.run
    version = run.version if run is not None else -1
    behind = [f"v{version}" for version in sorted({engine.version for engine in model.engines.values()})]
    last = model.metrics.last("sync/total_s")
    pause = f"about {last:.2g} s each, as the last sync took" if last is not None else "not measured yet"
    return Plan(
        title="sync weights now",
        target=_engines(model),
        now=f"trainer v{version}, engines {', '.join(behind) or 'none'}",
        effect="pause, load the trainer's weights, resume; the versions are equal afterwards",
        cost=f"engines pause: {pause}",
        verb="sync",
    )


def plan_pause(model: RunModel) -> Plan:
    """Pause generation, or resume it when the run is paused."""
    run = model.run
    own = joined(model)
    paused = (run is not None and run.status == "paused") or (bool(own) and all(e.phase == "paused" for e in own))
    by = f" by {run.paused_by}" if run is not None and run.paused_by else ""
    if paused:
        return Plan("resume generation", _engines(model), f"paused{by}", "engines generate again", "none", "resume")
    rate = model.metrics.last("engine/tokens_per_s")
    lost = f"{rate:,.0f} tokens/s are not sampled" if rate is not None else "no tokens are sampled"
    return Plan(
        title="pause generation",
        target=_engines(model),
        now="generating",
        effect="no new tokens until resumed; the trainer waits for rollouts",
        cost=f"{lost} while it is paused; the pause ends by itself when its lease runs out",
        verb="pause",
    )


def plan_stop(model: RunModel) -> Plan:
    """End the run in good order. Nothing starts it again but a new run, or one from its checkpoint."""
    run = model.run
    done = f"step {run.step}{f' of {run.steps}' if run.steps > 0 else ''}" if run is not None else "not reported yet"
    flying = sum(engine.running + engine.waiting for engine in model.engines.values())
    lost = f"{flying} requests in flight are thrown away; " if flying else ""
    return Plan(
        title="stop the run",
        target=f"the trainer and {_engines(model)}",
        now=f"{run.status if run is not None else 'not reported'}, {done}",
        effect="the step under way ends, a checkpoint is written where the run keeps them, everything shuts down",
        cost=f"{lost}training ends here",
        verb="stop",
        word=STOP_WORD,
    )


def plan_shadow(model: RunModel, share: float) -> Plan:
    """Score this share of the groups on another engine from now on. Raises RefusedError."""
    run = model.run
    if run is None or run.shadow_share < 0:
        raise RefusedError("refused: this run's trainer says nothing of shadow scoring")
    if len(model.engines) < 2 and share:
        raise RefusedError("refused: one engine samples and another one scores; this run has one")
    if share == run.shadow_share:
        raise RefusedError(f"a shadow share of {share:g} is wanted already")
    return Plan(
        title=f"set the shadow share to {share:g}",
        target=_engines(model),
        now=f"{run.shadow_share:g} of the groups are scored by another engine",
        effect=f"{share:g} of the groups are scored" if share else "no group is scored any more",
        cost="the scoring engine computes beside its rollouts; the run does not wait for it" if share else "none",
        verb="shadow.set",
        args={"share": f"{share:g}"},
    )


def plan_correction(model: RunModel, value: str, verdict: Verdict) -> Plan:
    """Correct the objective from the trainer's next step on; `verdict` is that on the backend. Raises RefusedError.

    Where the verdict asks, the correction's name has to be typed, and what was known is written down with the command.
    """
    run = model.run
    correction = corrections.BY_ID[value]
    if run is None or not run.correction:
        raise RefusedError("refused: this run's trainer says nothing of corrections")
    if value == (run.correction_requested or run.correction):
        raise RefusedError(f"correction {value} is wanted already")
    args = {"value": value}
    # Not before it is asked for: the panes of the first frame need the other plans only.
    from console.parity.gate import needs_consent

    asks = needs_consent(value, verdict)
    if asks:
        args["despite"] = f"{verdict.word}: {verdict.why}"
    return Plan(
        title=f"set correction to {value}",
        target="the trainer's objective, from its next step on",
        now=run.correction,
        effect=f"{correction.summary} (weight {correction.formula})",
        cost="clip rate and KL mean something else from then on: they divide by the trainer's own logprobs"
        if value != corrections.OFF
        else "clip rate and KL divide by the engine's logprobs again",
        verb="correction.set",
        args=args,
        generation=run.correction_generation,
        word=value if asks else "",
    )
