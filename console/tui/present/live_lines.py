"""Lines of the live screen: the events worth showing, and one engine in a line. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from console.status.link_health import by_files, over
from console.store.model import Logged, RunModel
from console.tui.paint.cells import Text
from console.tui.paint.theme import HEALTH_INK, Ink
from console.tui.paint.units import number
from driftline.catalog.metrics import BY_NAME, health
from driftline.frames import EngineState


def notable(events: Iterable[Logged]) -> list[Logged]:
    """The events without the loop's own weight syncs but the newest of each row of them.

    A sync after every step would push what an operator looks for out of a short list.
    """
    kept: list[Logged] = []
    for logged in events:
        if kept and _routine(logged) and _routine(kept[-1]):
            kept[-1] = logged
        else:
            kept.append(logged)
    return kept


def _routine(logged: Logged) -> bool:
    event = logged.event
    return event.kind == "sync.done" and event.level == "info" and event.data.get("by") == "trainer"


def engine_line(engine: EngineState, width: int, *, run_over: bool = False) -> list[Text]:
    """One engine, most important first: as many whole figures as fit into `width` cells.

    `run_over`: the run has ended, and every engine that had not died before with it.
    """
    phase_ink = {"running": Ink.OK, "dead": Ink.ALARM}.get(engine.phase, Ink.WARN)
    line: list[Text] = [(engine.engine, Ink.TEXT)]
    if engine.version >= 0:
        line.append((f" v{engine.version}", Ink.BRIGHT))
    if run_over and engine.phase != "dead":
        return [*line, (" ended with the run", Ink.DIM)]
    if engine.phase != "running":
        line.append((f" {engine.phase}", phase_ink))
        if engine.detail:
            line.append((f" {engine.detail}", Ink.DIM))
        return line
    kv = engine.kv_use
    kv_ink = HEALTH_INK[health("engine/kv_use", kv)] if kv >= (BY_NAME["engine/kv_use"].warn or 1.0) else Ink.TEXT
    figures: list[list[Text]] = []
    for word, value, ink in (
        ("run", str(engine.running), Ink.TEXT),
        ("wait", str(engine.waiting), Ink.TEXT),
        ("kv", f"{kv:.0%}", kv_ink),
        ("tok/s", number(engine.tokens_per_s), Ink.TEXT),
        ("hit", f"{engine.prefix_hit_rate:.0%}", Ink.TEXT),
        ("preempted", str(engine.preemptions), Ink.TEXT),
    ):
        figures.append([(f" {word} ", Ink.DIM), (value, ink)])
    figures += [[(f" {word}", Ink.DIM)] for word in (f"{engine.backend} {engine.vllm}".strip(), engine.node) if word]
    used = sum(len(text) for text, _ in line)
    for figure in figures:
        used += sum(len(text) for text, _ in figure)
        if used > width:
            break
        line += figure
    return line


def no_engine(model: RunModel) -> str:
    """The sentence in place of engines while none has reported."""
    run = model.run
    if run is not None and run.status == "starting":
        return f"engines are starting{f': {run.detail}' if run.detail else ''}"
    return "engines: not recorded" if by_files(run) or over(run) else "no engine has reported yet"
