"""The fixes screen's words: what each fix does in this run, what its last change did, who did what. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from console.formatting import clock, short
from console.status.fix_effects import AGAINST, Relative, change_of, owner, relative, units
from console.store.model import CommandLife, RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import number
from console.tui.present.fix_rows import FixRow, absent, by_value, fix_rows, who
from driftline.catalog.fixes import BY_ID, FIXES, Fix
from driftline.frames import AckState, Effect, Event, Measure

MEASURED: Final[tuple[tuple[str, str], ...]] = (
    ("mismatch/abs_diff_mean", "mismatch"),
    ("policy/clip_fraction", "clip"),
    ("policy/kl_new_old", "KL"),
)
"""The metrics of an effect, each with the word for it where there is little room; fixes are ranked by the first."""

Order = Literal["catalogue", "effect"]
ROWS: Final = len(FIXES)


@dataclass(frozen=True)
class Gain:
    """The effect of a repair on one metric, as a share of its value without it.

    `reverse`: measured when the repair was taken away, and turned round. `fixes`: how many changed together; of more
    than one it is the effect of the set, and says nothing of any of them.
    """

    share: Relative
    reverse: bool = False
    fixes: int = 1
    done: bool = True

    @property
    def sure(self) -> bool:
        """Whether the interval is known and does not hold zero."""
        return self.share.sure


def gain(fix: Fix, effect: Effect | None, metric: str) -> Gain | None:
    """The measured gain of a fix or of the set that it was changed with; None where nothing has been measured of it."""
    if effect is None or all(name != fix.id for name, _, _ in effect.changes):
        return None
    measure = next((one for one in effect.measures if one.metric == metric), None)
    # A set has a direction only if every one of it was taken away.
    reverse = all(
        before in BY_ID[name].repairs and after not in BY_ID[name].repairs
        for name, before, after in effect.changes
        if name in BY_ID
    )
    share = relative(measure, reverse=reverse) if measure is not None else None
    return Gain(share, reverse, len(effect.changes), effect.done) if share is not None else None


def gain_text(
    one: Gain | None, effect: Effect | None, *, available: bool, over: bool = False, switched: bool = False
) -> Text:
    """A gain with its interval; else the honest word for what there is.

    `over`: nothing can be switched any more; `switched`: it was, and no effect was reported.
    """
    if one is None:
        if effect is not None and not effect.done:
            return "measuring", Ink.DIM
        wish = "switched, not measured yet" if switched else "not measured yet: switch it"
        return ("" if not available else "not measured" if over else wish), Ink.DIM
    together = f"{one.fixes} fixes: " if one.fixes > 1 else ""
    if not one.sure:
        return f"{together}{one.share} ?", Ink.DIM
    return f"{together}{one.share}", Ink.OK if one.share.change < 0 else Ink.WARN


@dataclass(frozen=True)
class FixView:
    """A row of the table: `row` as in the panel of the live screen, with the gain of the metric that is looked at.

    The gain of a set of fixes stands with the first of them; `with_fix` is that one's title in the rows of the others.
    """

    row: FixRow
    gain: Gain | None
    effect: Text
    best: bool = False
    switched: bool = False
    """Whether it has changed since the run began."""
    with_fix: str = ""

    @property
    def id(self) -> str:
        return self.row.fix.id


def fix_views(model: RunModel, glyphs: Glyphs, metric: str, order: Order, *, over: bool = False) -> list[FixView]:
    """All fixes, in the catalogue's order or by gain: what lowers the metric most first, what is not sure after it.

    `over`: nothing can be switched any more.
    """
    views = []
    for row in fix_rows(model, glyphs):
        effect = model.effects.get(row.fix.id)
        first = owner(model.effects, row.fix.id) if effect is not None else row.fix.id
        with_fix = "" if first == row.fix.id else BY_ID[first].title
        one = gain(row.fix, effect, metric) if not with_fix else None
        available = row.symbol[0] != glyphs.unavailable
        values = {value for _, fix, value in model.fix_changes if fix == row.fix.id}
        switched = len(values - {"", "mixed"}) > 1
        text = gain_text(one, effect, available=available, over=over, switched=switched)
        text = (f"with {with_fix}", Ink.DIM) if with_fix else text
        views.append(FixView(row, one, text, switched=switched, with_fix=with_fix))
    best = most(views)
    views = [replace(view, best=view is best) for view in views]
    if order == "effect":
        views.sort(key=_rank)
    return views


def _rank(view: FixView) -> tuple[int, float]:
    if view.gain is None:
        return 3, 0.0
    # A set is not ranked among single fixes: how much of its effect is whose is not known.
    return (0 if view.gain.sure and view.gain.fixes == 1 else 1 if view.gain.sure else 2), view.gain.share.change


def most(views: list[FixView]) -> FixView | None:
    """The fix with the largest gain that is sure and its own, None while there is none."""
    own = [view for view in views if view.gain is not None and view.gain.sure and view.gain.fixes == 1]
    lower = [view for view in own if view.gain is not None and view.gain.share.change < 0]
    return min(lower, key=lambda view: view.gain.share.change if view.gain is not None else 0.0, default=None)


def verdict(views: list[FixView], word: str, *, over: bool = False) -> Text:
    """The fix that helps most, in a line. `over`: nothing can be switched any more."""
    best = next((view for view in views if view.best), None)
    if best is not None:
        return f"helps {word} most: {best.row.fix.title} {best.effect[0]}", Ink.OK
    together = [view for view in views if view.gain is not None and view.gain.sure and view.gain.fixes > 1]
    if together:
        return f"{word}, {together[0].effect[0]}; none was measured alone", Ink.DIM
    if any(view.gain is not None for view in views):
        return f"no effect on {word} is sure{'' if over else ' yet'}", Ink.DIM
    wish = "" if any(view.switched for view in views) else ": switch a fix to measure it"
    return "no effect was measured" if over else f"no effect measured yet{wish}", Ink.DIM


# -- one fix in full


def detail(
    model: RunModel, view: FixView, width: int, glyphs: Glyphs, *, roomy: bool, over: bool = False
) -> list[list[Text]]:
    """The lines about a fix, most important first; `roomy` draws the effect as bars too.

    `over`: nothing can be switched any more.
    """
    fix = view.row.fix
    state = model.fixes.get(fix.id)
    measurement = model.effects.get(fix.id)
    effect = effect_lines(
        fix, measurement, width, glyphs, roomy=roomy, over=over, switched=view.switched, with_fix=view.with_fix
    )
    # What was measured is what one looks for, and a small pane shows its first lines; a promise of it can wait.
    measured = measurement is not None
    lines: list[list[Text]] = [*(effect if measured else []), _labelled("what", fix.summary, Ink.TEXT)]
    if state is None:
        lines.append(_labelled("state", absent(model), Ink.DIM))
    else:
        when = clock(state.time)
        asked = f"{state.requested} by {who(state.by)} {when}; takes effect: {HOW[state.how]}"
        lines.append(_labelled("wanted", asked, Ink.TEXT))
        reported = "; ".join(by_value(state)) or "no engine has reported"
        said = f"{state.detail}; {reported}" if state.detail else reported
        lines.append(_labelled("engines", said, Ink.TEXT if state.settled else Ink.WARN))
    lines += [] if measured else effect
    lines.append(_labelled("why", fix.why, Ink.TEXT))
    lines.append(_labelled("layer", f"{fix.layer}; vLLM's default: {fix.vllm_default}", Ink.DIM))
    return lines


HOW: Final = {
    "live": "live, within a step",
    "next_sync": "with the next weight sync",
    "engine_restart": "by a rolling restart",
    "not_available": "not available here",
}


def _labelled(word: str, text: str, ink: Ink) -> list[Text]:
    return [(f" {word:<8} ", Ink.DIM), (text, ink)]


_WISH: Final = "not measured yet: switch the fix, and what changes is measured"


def effect_lines(
    fix: Fix,
    effect: Effect | None,
    width: int,
    glyphs: Glyphs,
    *,
    roomy: bool,
    over: bool = False,
    switched: bool = False,
    with_fix: str = "",
) -> list[list[Text]]:
    """The measured effect of the last change: means before and after, difference with its interval, what it rests on.

    `with_fix`: the title of the fix that the effect of a set is shown with.
    """
    if effect is None:
        wish = "switched, and the run has not yet said what changed" if switched else _WISH
        silent = "not measured" if over else wish
        return [_labelled("effect", silent, Ink.DIM)]
    change = next(((before, after) for name, before, after in effect.changes if name == fix.id), ("", ""))
    others = [f"{name} {after}" for name, _, after in effect.changes if name != fix.id]
    together = f", as a set with {', '.join(others)}" if others else ""
    still = "" if effect.done else ", still counting"
    head = f"{change[0]} {glyphs.arrow} {change[1]} at step {effect.step} (v{effect.version}){together}{still}"
    lines = [_labelled("effect", head, Ink.TEXT)]
    if with_fix:
        return [*lines, [(f"   measured for the set: see {with_fix}", Ink.DIM)]]
    known = {measure.metric: measure for measure in effect.measures}
    for metric, word in MEASURED:
        measure = known.get(metric)
        if measure is None or not (math.isfinite(measure.before) and math.isfinite(measure.after)):
            lines.append([(f"   {word:<9}", Ink.TEXT), ("too few tokens on one side", Ink.DIM)])
            continue
        lines += _bars(word, measure, width, glyphs) if roomy else [_one_line(word, measure, glyphs)]
    if any(measure.unit for measure in effect.measures):
        lines.append([(f"   Δ {AGAINST}; the rest: means of the steps around it", Ink.DIM)])
    return lines


def _one_line(word: str, measure: Measure, glyphs: Glyphs) -> list[Text]:
    return [
        (f"   {word:<9}", Ink.TEXT),
        (f"{short(measure.before)} {glyphs.arrow} {short(measure.after)}", Ink.BRIGHT),
        _difference(measure),
        (f"  {units(measure) or _tokens(measure)}", Ink.DIM),
    ]


def _tokens(measure: Measure) -> str:
    return f"{number(measure.tokens_before)} and {number(measure.tokens_after)} tokens"


def _difference(measure: Measure) -> Text:
    change = f"  Δ {signed(change_of(measure))}"
    if not (math.isfinite(measure.low) and math.isfinite(measure.high)):
        return f"{change}, {measure.note or 'interval not known yet'}", Ink.DIM
    text = f"{change} (95 %: {signed(measure.low)} to {signed(measure.high)})"
    if measure.low <= 0 <= measure.high:
        return f"{text} ?", Ink.DIM
    return text, Ink.OK if measure.high < 0 else Ink.WARN


def signed(value: float) -> str:
    """`−0.43`, `+0.1`."""
    return f"{'−' if value < 0 else '+'}{short(abs(value))}"


def _bars(word: str, measure: Measure, width: int, glyphs: Glyphs) -> list[list[Text]]:
    """Before and after as two bars from zero, on one scale, and the difference in a line below."""
    longest = max(measure.before, measure.after, 0.0)
    room = max(width - 44, 8)
    block = "#" if glyphs.name == "ascii" else "▇"

    def bar(name: str, when: str, value: float, tokens: int, ink: Ink) -> list[Text]:
        length = round(room * max(value, 0.0) / longest) if longest > 0 else 0
        # What is above zero has a mark, however small it is beside the other.
        drawn = block * max(length, int(value > 0))
        return [(f"   {name:<9}{when:<7}", Ink.TEXT if name else Ink.DIM), (drawn, ink),
                (f" {short(value)}", Ink.BRIGHT), (f"  {tokens:,} tokens", Ink.DIM)]  # fmt: skip

    return [
        bar(word, "before", measure.before, measure.tokens_before, Ink.REFERENCE),
        bar("", "after", measure.after, measure.tokens_after, Ink.LINE),
        [(" " * 17, Ink.DIM), _difference(measure), (f"  {units(measure)}", Ink.DIM)],
    ]


# -- the audit trail


@dataclass(frozen=True)
class Entry:
    """One action: issuer, time, outcome; `seconds` from its first record to its last, NaN where unknown."""

    time: float
    by: str
    what: str
    state: str
    detail: str = ""
    seconds: float = math.nan
    ink: Ink = Ink.TEXT


_STATE_INK: Final[dict[AckState, Ink]] = {
    "applied": Ink.OK, "failed": Ink.ALARM, "refused": Ink.ALARM, "expired": Ink.WARN,
}  # fmt: skip


def audit(model: RunModel) -> list[Entry]:
    """Commands of this run and changes of who holds it, newest first."""
    entries = [_entry(life) for life in model.commands.values()]
    entries += [_taken(logged.time, logged.event) for logged in model.events if logged.event.kind == "writer.taken"]
    # What has no time yet has only just been sent: it is the newest.
    return sorted(entries, key=lambda entry: entry.time or math.inf, reverse=True)


def _entry(life: CommandLife) -> Entry:
    command, acks = life.command, life.acks
    started, ended = (acks[0].time, acks[-1].time) if acks else (0.0, 0.0)
    what = " ".join([command.verb.removesuffix(".set"), *(str(value) for value in command.args.values())])
    detail = acks[-1].detail if acks else ""
    seconds = ended - started if life.done and ended > started else math.nan
    return Entry(
        started, who(command.issuer), what, life.state, detail, seconds, _STATE_INK.get(life.state, Ink.ACCENT)
    )


def _taken(at: float, event: Event) -> Entry:
    taker, took, former = event.text.partition(" took over from ")
    if not took:
        return Entry(at, "hub", event.text, "taken", ink=Ink.WARN)
    return Entry(at, who(taker.partition(" (")[0]), f"took over from {former}", "taken", ink=Ink.WARN)


def audit_line(entry: Entry, width: int) -> list[Text]:
    """One entry; the detail is what is cut first."""
    when = clock(entry.time) if entry.time else "--:--:--"
    line: list[Text] = [(f" {when} ", Ink.DIM), (f"{entry.by:<9.9} ", Ink.TEXT), (f"{entry.state:<8} ", entry.ink)]
    if width >= 90:
        took = f"{entry.seconds:6.2f} s" if math.isfinite(entry.seconds) else ""
        line.append((f"{took:<9}", Ink.DIM))
    line.append((f"{entry.what}  ", Ink.TEXT))
    line.append((entry.detail, Ink.DIM))
    return line
