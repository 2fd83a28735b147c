"""Charts of the live screen from the model: which they are, their lines, freshness and extent. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from console.connect.source import Link
from console.status.link_health import BEHIND_FRAMES, ended
from console.store.model import RunModel
from console.tui.chart.data import ChartData, Freshness, Line
from console.tui.paint.theme import Ink
from driftline.catalog.metrics import BY_NAME

if TYPE_CHECKING:
    pass


class ChartSpec(msgspec.Struct, frozen=True):
    """One chart of the live screen: which metric, and how it is named where there is little room.

    `instead` is what is shown, under names of its own, in a run that does not report `metric` but that.
    """

    id: str
    metric: str
    title: str
    short: str
    log: bool = False
    second: str = ""
    names: tuple[str, str] = ("", "")
    instead: tuple[str, str, str] = ("", "", "")


LIVE_CHARTS: Final[tuple[ChartSpec, ...]] = (
    ChartSpec("clip", "policy/clip_fraction", "clip fraction", "clip fraction"),
    ChartSpec(
        "kl", "policy/kl_new_old", "KL old‖new (k3)", "KL old‖new",
        instead=("policy/kl_ref", "KL to the reference", "KL reference"),
    ),
    ChartSpec("entropy", "policy/entropy", "entropy", "entropy"),
    ChartSpec("reward", "reward/mean", "reward", "reward"),
    ChartSpec("mismatch", "mismatch/abs_diff_mean", "mismatch mean|Δlogp|", "mismatch |Δlogp|", log=True),
    ChartSpec("lag", "async/version_lag_mean", "", "", second="engine/tokens_per_s", names=("lag", "tok/s")),
)  # fmt: skip


def shown(model: RunModel, spec: ChartSpec) -> ChartSpec:
    """The chart as this run has it: TRL and SkyRL, for two, report only the KL to their reference."""
    metric, title, short = spec.instead
    if not metric or len(model.metrics.steps(spec.metric)) or not len(model.metrics.steps(metric)):
        return spec
    return msgspec.structs.replace(spec, metric=metric, title=title, short=short)


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
    if spec.id != LIVE_CHARTS[0].id:
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
