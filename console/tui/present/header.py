"""From the model to what the panes show: pure functions, no screen, no clock of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from console.connect.source import Link
from console.status.link_health import BEHIND_FRAMES, Banner, banner, ended, over
from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.theme import HEALTH_INK, Ink
from console.tui.paint.units import number
from driftline.catalog.metrics import health

if TYPE_CHECKING:
    from console.sentinels.alarm import Alarm

Part = tuple[int, tuple[Text, ...]]
"""A piece of a line with its rank: pieces of a higher rank are left out first."""


def header(model: RunModel, name: str) -> list[Part]:
    """Name and state of the run in parts, most important rank first (0)."""
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
    if run is not None and run.version >= 0:
        parts.append((4, ((f" v{run.version}", Ink.TEXT),)))
    _metric_part(parts, model, 3, "lag", "async/version_lag_mean")
    _metric_part(parts, model, 2, "R", "reward/mean")
    run_over = over(run)
    if model.engines and run_over:
        count = len(model.engines)
        parts.append((5, ((f" {count}", Ink.TEXT), (f" engine{'s' * (count > 1)} ended", Ink.DIM))))
    elif model.engines:
        up = sum(engine.phase == "running" for engine in model.engines.values())
        ink = Ink.TEXT if up == len(model.engines) else Ink.WARN
        parts.append((5, ((f" {up}/{len(model.engines)}", ink), (" engines", Ink.DIM))))
    rate = sum(engine.tokens_per_s for engine in model.engines.values())
    if rate > 0 and not run_over:
        parts.append((6, ((f" {number(rate)}", Ink.TEXT), (" tok/s", Ink.DIM))))
    if run is not None and run.objective:
        parts.append((8, ((f" {run.objective}", Ink.DIM),)))
    if run is not None and run.temperature != 1.0:
        parts.append((9, ((f" T {number(run.temperature)}", Ink.DIM),)))
    if run is not None and run.model:
        parts.append((10, ((f" {run.model}", Ink.DIM),)))
    return parts


def alarms_part(standing: Sequence[Alarm]) -> list[Part]:
    """The number of standing alarms, for the header; with a sign while one is not seen yet. Never colour alone."""
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
    """The reason not to trust the figures just now, for the banner; None without one."""
    return banner(model.run, link, list(model.drops.values()), model.last_time, model.crowded)


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
