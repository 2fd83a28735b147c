"""From the model to what the panes show: pure functions, no screen, no clock of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from console.connect.source import Link
from console.status.link_health import BEHIND_FRAMES, Banner, banner, ended
from console.store.model import Logged, RunModel
from console.tui.chart.data import ChartData, Freshness, Line
from console.tui.paint.axis import number
from console.tui.paint.cells import Text
from console.tui.paint.theme import HEALTH_INK, Ink
from driftline.catalog.metrics import BY_NAME, health
from driftline.frames import EngineState

if TYPE_CHECKING:
    from console.sentinels.alarm import Alarm

Part = tuple[int, tuple[Text, ...]]
"""A piece of a line with its rank: pieces of a higher rank are left out first."""


class ChartSpec(msgspec.Struct, frozen=True):
    """One chart of the live screen: which metric, and how it is named where there is little room."""

    id: str
    metric: str
    title: str
    short: str
    log: bool = False
    second: str = ""
    names: tuple[str, str] = ("", "")


LIVE_CHARTS: Final[tuple[ChartSpec, ...]] = (
    ChartSpec("clip", "policy/clip_fraction", "clip fraction", "clip fraction"),
    ChartSpec("kl", "policy/kl_new_old", "KL new‖old (k3)", "KL new‖old"),
    ChartSpec("entropy", "policy/entropy", "entropy", "entropy"),
    ChartSpec("reward", "reward/mean", "reward", "reward"),
    ChartSpec("mismatch", "mismatch/abs_diff_mean", "mismatch mean|Δlogp|", "mismatch |Δlogp|", log=True),
    ChartSpec("lag", "async/version_lag_mean", "", "", second="engine/tokens_per_s", names=("lag", "tok/s")),
)


def freshness(model: RunModel, link: Link) -> Freshness:
    """Whether the newest point of a chart is the run's newest: not while history comes in, nor in silence."""
    if link.state in ("stale", "lost") and not ended(model.run, link):
        return "stale"
    return "loading" if link.state == "live" and link.behind > BEHIND_FRAMES else "live"


def chart(model: RunModel, spec: ChartSpec, fresh: Freshness = "live") -> ChartData:
    """The data of one chart as of now."""
    lines = [_line(model, spec.metric, Ink.LINE, spec.names[0])]
    if spec.second:
        lines.append(_line(model, spec.second, Ink.SECOND, spec.names[1], secondary=True))
    metric = BY_NAME[spec.metric]
    limits = [(metric.warn, Ink.LIMIT_WARN), (metric.alarm, Ink.LIMIT_ALARM)]
    return ChartData(
        title=spec.title,
        short=spec.short,
        label=model.labels.get(spec.metric, ""),
        lines=tuple(lines),
        marks=tuple(model.marks),
        limits=tuple((value, ink) for value, ink in limits if value is not None),
        empty=_empty(model, spec),
        freshness=fresh,
    )


def _line(model: RunModel, metric: str, ink: Ink, short: str, *, secondary: bool = False) -> Line:
    return Line(model.metrics.points(metric), ink, metric, short, secondary)


def _empty(model: RunModel, spec: ChartSpec) -> str:
    if len(model.metrics.names()):
        return "not reported"
    if spec is not LIVE_CHARTS[0]:
        return ""  # nothing has come yet: said once, not six times
    run = model.run
    if run is not None and run.status == "starting" and run.detail:
        return run.detail
    return "waiting for the first step"


def extent(model: RunModel) -> tuple[int, int]:
    """First and last step of anything the live charts show."""
    first, last = [], [0]
    for spec in LIVE_CHARTS:
        steps = model.metrics.steps(spec.metric)
        if len(steps):
            first.append(int(steps[0]))
            last.append(int(steps[-1]))
    return min(first, default=0), max(last)


def header(model: RunModel, name: str) -> list[Part]:
    """What the run is and how it does, most important rank first (0)."""
    run = model.run
    parts: list[Part] = [(7, ((" driftline", Ink.ACCENT),)), (0, ((f" {name}", Ink.BRIGHT),))]
    if run is not None and run.synthetic:
        parts.append((0, ((" SYNTHETIC", Ink.WARN),)))
    if run is not None and run.status != "running":
        bad = run.status in ("failed", "paused")
        by = f" by {run.paused_by}" if run.status == "paused" and run.paused_by else ""
        parts.append((1, ((f" {run.status.upper()}{by}", Ink.WARN if bad else Ink.ACCENT),)))
    if model.step >= 0:
        of = f"/{run.steps}" if run is not None and run.steps > 0 else ""
        parts.append((1, ((" step ", Ink.DIM), (f"{model.step}{of}", Ink.TEXT))))
    if run is not None:
        parts.append((4, ((f" v{run.version}", Ink.TEXT),)))
    _metric_part(parts, model, 3, "lag", "async/version_lag_mean")
    _metric_part(parts, model, 2, "R", "reward/mean")
    if model.engines:
        up = sum(engine.phase == "running" for engine in model.engines.values())
        ink = Ink.TEXT if up == len(model.engines) else Ink.WARN
        parts.append((5, ((f" {up}/{len(model.engines)}", ink), (" engines", Ink.DIM))))
    rate = sum(engine.tokens_per_s for engine in model.engines.values())
    if rate > 0:
        parts.append((6, ((f" {number(rate)}", Ink.TEXT), (" tok/s", Ink.DIM))))
    if run is not None and run.objective:
        parts.append((8, ((f" {run.objective}", Ink.DIM),)))
    if run is not None and run.temperature != 1.0:
        parts.append((9, ((f" T {number(run.temperature)}", Ink.DIM),)))
    if run is not None and run.model:
        parts.append((10, ((f" {run.model}", Ink.DIM),)))
    return parts


def alarms_part(standing: Sequence[Alarm]) -> list[Part]:
    """How many alarms stand, for the header; with a sign while one of them was not seen yet. Never colour alone."""
    if not standing:
        return []
    text = f"{len(standing)} alarm{'s' * (len(standing) > 1)}"
    news = [alarm for alarm in standing if not alarm.acknowledged]
    if not news:
        return [(1, ((f" {text}", Ink.DIM),))]
    bad = any(alarm.level == "error" for alarm in news)
    return [(1, ((f" {'!!' if bad else '!'} {text}", Ink.ALARM if bad else Ink.WARN),))]


def _metric_part(parts: list[Part], model: RunModel, rank: int, word: str, metric: str) -> None:
    value = model.metrics.last(metric)
    if value is not None:
        verdict = health(metric, value)
        ink = Ink.TEXT if verdict in ("none", "healthy") else HEALTH_INK[verdict]
        parts.append((rank, ((f" {word} ", Ink.DIM), (number(value), ink))))


def trouble(model: RunModel, link: Link) -> Banner | None:
    """What the operator must know before he believes the figures, for the banner."""
    return banner(model.run, link, list(model.drops.values()), model.last_time)


def link_text(model: RunModel, link: Link, *, frozen: bool) -> Text:
    """The state of the feed in a word: what is on screen is LIVE, STALE, LOST, ENDED, loading or FROZEN by hand."""
    if link.replay:
        return link.replay, Ink.ACCENT
    if ended(model.run, link):
        return "ENDED", Ink.WARN
    if link.state == "connecting":
        return "CONNECTING", Ink.DIM
    if link.state == "lost":
        return f"LOST {link.age:.0f}s", Ink.ALARM
    if link.state == "stale":
        return f"STALE {link.age:.0f}s", Ink.ALARM
    if frozen:
        return "FROZEN", Ink.WARN
    if link.behind > BEHIND_FRAMES:
        return f"LOADING {number(link.behind)}", Ink.WARN
    return f"LIVE {link.age:.1f}s", Ink.OK


def fit(parts: list[Part], room: int) -> list[Text]:
    """The parts that fit into `room` cells, in their order; those of the highest rank go first."""
    kept = list(parts)
    while kept and sum(len(text) for _, texts in kept for text, _ in texts) + len(kept) > room:
        kept.remove(max(kept, key=lambda part: part[0]))
    line: list[Text] = []
    for _, texts in kept:
        line += [*texts, (" ", Ink.TEXT)]
    return line


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


def engine_line(engine: EngineState, width: int) -> list[Text]:
    """One engine, most important first: as many whole figures as fit into `width` cells."""
    phase_ink = {"running": Ink.OK, "dead": Ink.ALARM}.get(engine.phase, Ink.WARN)
    line: list[Text] = [(engine.engine, Ink.TEXT), (f" v{engine.version}", Ink.BRIGHT)]
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
