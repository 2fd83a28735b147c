"""From the model to the panes of the engines screen: the columns of a row, everything about one engine. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from console.formatting import clock
from console.status.engine_config import joined_as
from console.store.engines import Reading
from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.spark import resample, spark
from console.tui.paint.table import Column, row
from console.tui.paint.theme import HEALTH_INK, Ink
from console.tui.paint.units import NONE, counted, duration, number, size, speed
from console.tui.present.engine_rows import SILENT_AFTER, EngineRow
from driftline.catalog.metrics import BY_NAME, health
from driftline.frames import EngineState

_PHASE_INK: Final = {"running": Ink.OK, "dead": Ink.ALARM}
_SPARK: Final = 9
_BAR: Final = 5

COLUMNS: Final = (
    Column("sign", "", 1),
    Column("engine", "engine", 9),
    Column("phase", "phase", 10),
    Column("version", "weights", 7, right=True),
    Column("behind", "lag", 3, 1, right=True),
    Column("running", "run", 4, 2, right=True),
    Column("waiting", "wait", 4, 2, right=True),
    Column("kv", "KV use", _BAR + 5, 1),
    Column("hit", "hit", 4, 3, right=True),
    Column("preempted", "preempt", 7, 5, right=True),
    Column("rate", "tok/s", 6, 0, right=True),
    Column("spark", "", _SPARK, 4, grows=True),
    Column("for", "for", 9, 6, right=True),
    Column("node", "node", 12, 7),
    Column("pid", "pid", 7, 8, right=True),
    Column("backend", "backend", 10, 9),
    Column("vllm", "vLLM", 8, 10),
    Column("restarts", "restarts", 8, 11, right=True),
)


def columns(engines: Sequence[EngineRow]) -> list[Column]:
    """The columns for these engines: what differs between them, of where they come from, before what they share."""
    name = min(max((len(one.state.engine) for one in engines), default=9), 20)
    made = [replace(column, width=max(name, 6)) if column.id == "engine" else column for column in COLUMNS]
    joined = [_joined(one.state) for one in engines]
    if any(joined):
        made.append(Column("joined", "joined by", min(max(len(word) for word in joined), 24), 12))
    for ident, words in (
        ("joined", set(joined)),
        ("vllm", {one.state.vllm for one in engines}),
        ("backend", {one.state.backend for one in engines}),
    ):
        if len(words) > 1:
            made = [replace(column, rank=_DIFFERS) if column.id == ident else column for column in made]
    return made


_DIFFERS: Final = 2


def _joined(state: EngineState) -> str:
    """`plugin verl 0.6.0`."""
    return " ".join(word for word in (state.via, state.framework) if word)


def table_row(engine: EngineRow, columns: Sequence[Column], glyphs: Glyphs) -> list[Text]:
    """One engine in the table."""
    state = engine.state
    ink = Ink.DIM if engine.ended else _PHASE_INK.get(state.phase, Ink.WARN)
    dead = state.phase == "dead"
    silent = engine.silent > SILENT_AFTER
    phase = f"silent {duration(engine.silent)}" if silent else "ended" if engine.ended else state.phase
    cells: dict[str, Text] = {
        "sign": ("!" if dead or silent else "", Ink.ALARM),
        "engine": (state.engine, Ink.ALARM if dead else Ink.TEXT),
        "phase": (phase, Ink.ALARM if silent else ink),
        "version": (f"v{state.version}", Ink.BRIGHT) if state.version >= 0 else (NONE, Ink.DIM),
        "behind": (f"{engine.behind}", Ink.WARN if engine.behind > 1 else Ink.TEXT),
        "for": (duration(engine.held), Ink.DIM),
        "node": (state.node or NONE, Ink.DIM),
        "pid": (str(state.pid) if state.pid else NONE, Ink.DIM),
        "backend": (state.backend or NONE, Ink.DIM),
        "vllm": (state.vllm or NONE, Ink.DIM),
        "restarts": (str(engine.restarts), Ink.WARN if engine.restarts else Ink.DIM),
        "joined": (_joined(state) or NONE, Ink.DIM),
    }
    if dead:
        # Its last figures are not those of now; why it died is what matters.
        line = row([column for column in columns if column.id in ("sign", "engine", "phase", "version")], cells)
        return [*line, (state.detail or "it gave no reason", Ink.ALARM)]
    room = next((column.width for column in columns if column.id == "spark"), 0)
    cells |= {
        "running": (str(state.running), Ink.TEXT),
        "waiting": (str(state.waiting), Ink.TEXT),
        "kv": (f"{meter(state.kv_use, _BAR, glyphs)} {state.kv_use:4.0%}", _kv_ink(state.kv_use)),
        "hit": (f"{state.prefix_hit_rate:.0%}", Ink.TEXT),
        "preempted": (str(state.preemptions), Ink.WARN if state.preemptions else Ink.TEXT),
        "rate": (number(state.tokens_per_s), Ink.BRIGHT),
        "spark": (spark([one.tokens_per_s for one in engine.recent[-room:]], room, glyphs), Ink.LINE),
    }
    return row(columns, cells)


def _kv_ink(value: float) -> Ink:
    return HEALTH_INK[health("engine/kv_use", value)] if value >= (BY_NAME["engine/kv_use"].warn or 1.0) else Ink.TEXT


def meter(part: float, width: int, glyphs: Glyphs) -> str:
    """A fraction as a bar; what is not full shows where its end is."""
    full, rest = ("#", ".") if glyphs.name == "ascii" else ("█", "░")
    count = max(min(round(part * width), width), 0)
    return full * count + rest * (width - count)


def facts(model: RunModel, engine: EngineRow) -> list[list[Text]]:
    """Everything about one engine that is not drawn over time, in pieces."""
    state = engine.state
    ink = _PHASE_INK.get(state.phase, Ink.WARN)
    pieces: list[list[Text]] = [[(state.phase, ink), (f" for {duration(engine.held)}", Ink.TEXT)]]
    if engine.ended:
        pieces = [[("ended with the run", Ink.DIM), (f", {state.phase} before: its last figures", Ink.DIM)]]
    if engine.silent > SILENT_AFTER:
        pieces.append([(f"! silent for {duration(engine.silent)}: its figures are old", Ink.ALARM)])
    if state.detail:
        pieces.append([(state.detail, Ink.ALARM if state.phase == "dead" else Ink.WARN)])
    behind = f", {counted(engine.behind, 'version')} behind" if engine.behind else ", the newest"
    if state.version >= 0:
        pieces.append([(f"v{state.version}", Ink.BRIGHT), (behind, Ink.TEXT)])
    else:
        pieces.append([("weight version not reported", Ink.DIM)])
    for word, value in (("pid", str(state.pid) if state.pid else ""), ("on", state.node)):
        if value:
            pieces.append([(f"{word} ", Ink.DIM), (value, Ink.TEXT)])
    kind = " ".join(part for part in (state.backend, f"vLLM {state.vllm}" if state.vllm else "") if part)
    if kind:
        pieces.append([(kind, Ink.TEXT)])
    before = f" and {engine.lost_preemptions} before its restart" if engine.lost_preemptions else ""
    pieces.append([("preempted ", Ink.DIM), (f"{state.preemptions}{before}", Ink.TEXT)])
    if engine.restarts:
        pieces.append([("restarted ", Ink.DIM), (counted(engine.restarts, "time"), Ink.WARN)])
    pieces.append(gpu(state))
    on = [
        (fix.fix, one.effective)
        for fix in model.fixes.values()
        for one in fix.engines
        if one.engine == state.engine and one.effective not in ("", "off")
    ]
    text = ", ".join(fix if value == "on" else f"{fix} {value}" for fix, value in on)
    pieces.append([("fixes ", Ink.DIM), (text or "none on", Ink.TEXT)])
    pieces.append(_last_sync(model, state.engine))
    if state.environment:
        pieces.append([("environment ", Ink.DIM), (state.environment, Ink.TEXT)])
    if how := joined_as(state):
        since = f" since {clock(state.since, model.last_time)}" if state.since else ""
        pieces.append([("joined by ", Ink.DIM), (f"{how}{since}", Ink.TEXT)])
    if state.settings:
        pieces.append([("set to " if how else "joined by itself, set to ", Ink.DIM), (state.settings, Ink.TEXT)])
    return pieces


def gpu(state: EngineState) -> list[Text]:
    """Memory and use of its GPUs, as far as it reports any."""
    total = state.gpu_memory_total
    if not total:
        return [("GPU ", Ink.DIM), ("not available here: no GPU reported", Ink.DIM)]
    used, use = state.gpu_memory_used, state.gpu_use
    busy = f", {use:.0%} busy" if use >= 0 else ""
    return [("GPU ", Ink.DIM), (f"{size(used)} of {size(total)}{busy}", Ink.TEXT)]


def _last_sync(model: RunModel, name: str) -> list[Text]:
    for sync in list(model.syncs.syncs)[-3:][::-1]:
        mine = sync.engines.get(name)
        if mine is not None:
            parts = [f"v{mine.version_after} {clock(mine.start)} in {duration(mine.seconds)}"]
            if mine.gb_per_s is not None:
                parts.append(f"load at {speed(mine.gb_per_s)}")
            if mine.reset:
                parts.append(f"cache {mine.reset}")
            text = ", ".join(parts) if mine.ok else f"FAILED: {mine.detail or 'it gave no reason'}"
            return [("last sync ", Ink.DIM), (text, Ink.TEXT if mine.ok else Ink.ALARM)]
    return [("last sync ", Ink.DIM), ("none seen lately", Ink.DIM)]


class History(NamedTuple):
    """One quantity over time; `top` is the end of its scale, None for its own largest value."""

    word: str
    field: str
    top: float | None
    percent: bool


HISTORIES: Final = (
    History("tok/s", "tokens_per_s", None, False),
    History("KV use", "kv_use", 1.0, True),
    History("running", "running", None, False),
    History("waiting", "waiting", None, False),
    History("prefix hit", "prefix_hit_rate", 1.0, True),
    History("GPU busy", "gpu_use", 1.0, True),
)


def history_lines(readings: Sequence[Reading], width: int, glyphs: Glyphs) -> list[list[Text]]:
    """Every quantity as a line over time, with its newest, smallest and largest value."""
    if not readings:
        return [[(" no report yet", Ink.DIM)]]
    lines: list[list[Text]] = []
    times = [one.time for one in readings]
    room = max(width - 12 - 30, 8)
    for history in HISTORIES:
        values = [float(getattr(one, history.field)) for one in readings]
        known = [value for value in values if value >= 0]
        if not known:
            continue  # the facts say why there is none
        drawn = spark(resample(times, values, room), room, glyphs, history.top)
        show = _percent if history.percent else number
        low, high = show(min(known)), show(max(known))
        lines.append(
            [
                (f" {history.word:<10} ", Ink.DIM),
                (f"{drawn:<{room}} ", Ink.LINE),
                (f"{show(known[-1]):>7}", Ink.BRIGHT),
                (f"  {low} to {high}", Ink.DIM),
            ]
        )
    return lines


def _percent(value: float) -> str:
    return f"{value:.0%}"


def span(readings: Sequence[Reading]) -> str:
    """The time between the first and the last reading."""
    return duration(readings[-1].time - readings[0].time) if len(readings) > 1 else ""


def copied_text(model: RunModel, engine: EngineRow) -> str:
    """An engine as text, for copying."""
    state = engine.state
    figures = (
        f"running {state.running}, waiting {state.waiting}, KV {state.kv_use:.0%}, prefix hits"
        f" {state.prefix_hit_rate:.0%}, {number(state.tokens_per_s)} tokens/s"
    )
    return "\n".join([f"{state.engine}: {figures}", *("".join(t for t, _ in piece) for piece in facts(model, engine))])
