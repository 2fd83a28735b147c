"""The words of the cause: what is wrong, how sure that is, what is normal, what to do, and what was ruled out. Pure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from console.aligning.plan import Alignment
from console.aligning.wanted import other_actions, sure
from console.diagnosis.model import Action, Attribution, Cause, Diagnosis, Profile, Ranked, Share, Verdict
from console.formatting import short
from console.tui.paint.bars import fill, parts
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink

Row = list[Text]

INKS: Final[dict[Verdict, Ink]] = {
    "normal": Ink.OK, "cause": Ink.ALARM, "unknown": Ink.WARN, "not enough data": Ink.DIM,
}  # fmt: skip
_LAYER_INKS: Final = (Ink.LINE, Ink.SECOND, Ink.OVERLAY, Ink.ACCENT, Ink.TEXT, Ink.DIM)
_USUAL: Final = ("engine", "position", "tails", "onset")
"""Instruments whose pictures stand where the cause is predicted on no others."""
_SENT: Final = ("fix", "sync", "reset")
"""Kinds of actions that are commands to the run."""
PICTURES: Final = 3
SENTENCE_LINES: Final = 3
"""Most lines of the answer itself."""
_WORDS_LINES: Final = 2
_LEAST: Final = 0.01
"""A negative share is named from this part of the whole on."""
_SMALL: Final = 0.05
"""A share of less than this need not have its figure where there is no room; its interval never has to."""
_WHAT: Final = "A cause is found from the logprobs of both sides of the same tokens:"


@dataclass(frozen=True)
class Asked:
    """Where the tokens of the run on show stand: asked for, refused and why, frames still to be looked through, pairs
    that have come.

    `recorded`: it is a recording or an imported log, to which nothing will be added.
    """

    asked: bool = False
    refused: str = ""
    behind: int = 0
    tokens: int = 0
    recorded: bool = False
    error: str = ""


@dataclass(frozen=True)
class Answer:
    """What the first pane shows. `alignment` is what `A` would do, None where the console may not act."""

    found: Diagnosis | None
    asked: Asked
    alignment: Alignment | None = None
    why_not: str = ""
    """Why the console may not act, as it says itself."""
    round: Row = field(default_factory=list)
    """How the newest active round stands, and the key that asks for one."""
    urgent: bool = False
    """Whether that comes before figures: it is under way, or has come to nothing."""
    by_round: str = ""
    """The active round that the answer is by, "" where it is by token pairs alone."""


def sign(verdict: Verdict, glyphs: Glyphs) -> str:
    """Never colour alone: a sign for each verdict."""
    return {
        "normal": glyphs.on, "cause": glyphs.gap, "unknown": glyphs.partial, "not enough data": glyphs.unavailable,
    }[verdict]  # fmt: skip


def label(found: Diagnosis | None, by_round: str = "") -> str:
    """How sure, and by which round or on how many tokens."""
    if found is None or found.verdict == "not enough data":
        return ""
    if by_round:
        return f"{percent(found.certainty)} sure; {by_round}"
    sampled = f", of {found.seen * 100:.0f} %" if found.seen < 0.995 else ""
    return f"{percent(found.certainty)} sure; {found.tokens:,} token pairs{sampled}"


def percent(share: float) -> str:
    """`97 %`; never 100, which no evidence is."""
    return f"{min(share, 0.999) * 100:.{1 if share >= 0.995 else 0}f} %"


def waiting(asked: Asked, found: Diagnosis | None) -> list[Row]:
    """At most four lines in place of an answer: what would fill the screen, and how to get it."""
    if asked.error:
        return [[(f" {asked.error}", Ink.ALARM)]]
    if asked.refused:
        return [
            [(f" no cause: no token pairs: {asked.refused}", Ink.WARN)],
            [(" A key that may read tokens brings them: driftline keys new NAME, without --no-tokens.", Ink.DIM)],
        ]
    if found is not None:
        missing = [[(f" not recorded: {'; '.join(found.missing)}", Ink.DIM)]] if found.missing else []
        return [[(f" {found.sentence}", Ink.WARN)], *missing]
    if asked.tokens:
        return [[(f" looking for the cause among {asked.tokens:,} token pairs", Ink.ACCENT)]]
    if asked.behind:
        return [[(f" reading tokens: {asked.behind:,} frames of the recent past to look through", Ink.ACCENT)]]
    if not asked.asked:
        return [[(" asking for token pairs", Ink.ACCENT)]]
    if asked.recorded:
        return [
            [(" no cause: this recording has no token pairs up to here", Ink.WARN)],
            [(f" {_WHAT} a trainer reports them with Probe.tokens, and driftline import reads the token files of "
              "prime-rl and NeMo-RL.", Ink.DIM)],
        ]  # fmt: skip
    return [
        [(" no token pairs have been reported yet", Ink.WARN)],
        [(f" {_WHAT} driftline's own trainer reports them from step 1 on, any other one with Probe.tokens "
          "(docs/your-trainer.md).", Ink.DIM)],
    ]  # fmt: skip


def answer(view: Answer, glyphs: Glyphs, width: int, height: int) -> list[Row]:
    """The answer in at most `height` lines: what there is no room for is left out, the least important first."""
    found = view.found
    if found is None or found.verdict == "not enough data" or view.asked.error:
        rows = [row for line in waiting(view.asked, found) for row in wrapped(line, width, 3)][: max(height, 4)]
        return [*rows, *(wrapped(view.round, width, SENTENCE_LINES) if view.round and not view.asked.error else [])]
    ink, said, mark = INKS[found.verdict], found.sentence, sign(found.verdict, glyphs)
    if not sure(found):
        ink, said, mark = Ink.WARN, f"perhaps: {said}", glyphs.partial
    blocks: list[tuple[int, Callable[[int], list[Row]]]] = [
        (0, lambda _: wrapped([(f" {mark} ", ink), (said, ink)], width, SENTENCE_LINES)),
        (6, lambda _: [row for one in first(found) for row in named(one, glyphs, width, alone=len(found.named) == 1)]),
        (5, lambda room: normal(found, glyphs, width, room)),
        (3, lambda _: bar(found.attribution, width, glyphs)),
        (1, lambda _: do(view, width)),
        # One that goes on is seen in any case; any other one leaves a line for what is normal.
        (2, lambda room: _round(view, width, min(room, SENTENCE_LINES)) if view.urgent else []),
        (4, lambda room: [] if view.urgent else _round(view, width, min(max(room - 1, 1), _WORDS_LINES))),
        (8, lambda _: alone(view, width)),
        (7, lambda _: missing(found, width)),
    ]
    room, kept = height, dict[int, list[Row]]()
    for rank, made in sorted(blocks, key=lambda block: block[0]):
        rows = made(room) if room > 0 or rank <= 1 else []
        if rows and (len(rows) <= room or rank <= 1):
            kept[rank] = rows
            room -= len(rows)
    return [row for rank, _ in blocks for row in kept.get(rank, ())][:height]


def _round(view: Answer, width: int, most: int) -> list[Row]:
    return wrapped(view.round, width, most) if view.round else []


def first(found: Diagnosis) -> list[Ranked]:
    """The hypotheses that are named, in the order of the answer."""
    by_name = {one.name: one for one in found.ranked}
    return [by_name[name] for name in found.named if name in by_name]


def named(one: Ranked, glyphs: Glyphs, width: int, *, alone: bool) -> list[Row]:
    """A cause that was found: how probable, which, layer, place, since when. `alone`: the answer has said which."""
    cause = one.cause
    words = [cause.layer if cause is not None else "", one.where, f"since step {one.since}" if one.since >= 0 else ""]
    about = ", ".join(word for word in words if word)
    row: Row = [(f" {glyphs.pointer} ", Ink.ACCENT), (f"{percent(one.probability)}  ", Ink.BRIGHT)]
    row += [] if alone else [(f"{cause.title if cause is not None else one.name}  ", Ink.TEXT)]
    return wrapped([*row, (about, Ink.TEXT if alone else Ink.DIM)], width, 1)


def normal(found: Diagnosis, glyphs: Glyphs, width: int, room: int = 2) -> list[Row]:
    """The answer to "is this normal?", in at most two lines: what is normal on this stack, and by whom."""
    one = found.normal
    if one is None:
        return []
    word = (f"{glyphs.on} yes", Ink.OK) if one.is_normal else ("no", Ink.WARN)
    if not math.isfinite(one.seen):
        word = ("not known", Ink.DIM)
    source = f" ({one.source})" if one.source else ""
    return wrapped([(" normal? ", Ink.DIM), word, (f"  {one.text}{source}", Ink.TEXT)], width, min(room, _WORDS_LINES))


def bar(attribution: Attribution | None, width: int, glyphs: Glyphs) -> list[Row]:
    """How much each layer accounts for: one bar, and the figures below it with the same fills."""
    if attribution is None:
        return []
    shares = sorted((one for one in attribution.shares if one.nats > 0), key=lambda one: -one.nats)
    if not shares or not attribution.total > 0:
        return []
    inks = _LAYER_INKS
    room = max(width - 2, 8)
    drawn: Row = [(" ", Ink.TEXT)]
    drawn += list(zip(parts([one.nats for one in shares], room, glyphs), inks, strict=False))
    legend: Row = [(" ", Ink.TEXT)]
    used = 1
    texts = _shares(shares, attribution.total, width - used)
    for at, (text, ink) in enumerate(zip(texts, inks, strict=False)):
        if used + len(text.rstrip()) + 1 > width:
            break
        legend += [(fill(at, glyphs), ink), (text, Ink.TEXT)]
        used += len(text) + 1
    for one in attribution.shares:
        # A layer that hides a part of another's error has no place in a bar.
        text = f" {one.layer} −{short(-one.nats)}   "
        if one.nats < -_LEAST * attribution.total and used + len(text.rstrip()) <= width:
            legend.append((text, Ink.DIM))
            used += len(text)
    if attribution.note and used + len(attribution.note) + 2 <= width:
        legend.append((attribution.note, Ink.DIM))
    legend[-1] = (legend[-1][0].rstrip(), legend[-1][1])
    return [drawn, legend]


def _shares(shares: Sequence[Share], total: float, room: int) -> list[str]:
    """Their figures, the largest first, with intervals for as many as leave room for every share that is not small."""
    large = sum(one.nats >= _SMALL * total for one in shares)
    for bounds in range(len(shares), 0, -1):
        texts = [_share(one, total, bounds=at < bounds) for at, one in enumerate(shares)]
        if sum(len(text) + 1 for text in texts[: max(large, bounds)]) - 3 <= room:  # without the last one's blanks
            return texts
    return [_share(one, total, bounds=False) for one in shares]


def _share(one: Share, total: float, *, bounds: bool) -> str:
    interval = f" ({short(one.low)} to {short(one.high)})" if bounds else ""
    return f" {one.layer} {short(one.nats)}{interval}, {one.nats / total * 100:.0f} %   "


def do(view: Answer, width: int) -> list[Row]:
    """What to do: the keys that open the right dialogs, and what the console cannot do by itself."""
    found = view.found
    if found is None or found.verdict == "normal":
        return []
    rows: list[Row] = []
    made = view.alignment
    asked = [one for one in found.actions if one.kind in _SENT and sure(found)]
    if made is not None and not made.empty:
        settings = ", ".join(f"{one.fix} {one.value}" for one in made.settings)
        text = " and ".join(part for part in (settings, "a weight sync" if made.sync else "") if part)
        rows += wrapped([(" A ", Ink.WARN), (f"aligns: {text}", Ink.BRIGHT)], width, _WORDS_LINES)
    elif asked:
        left_out = "; ".join(f"{one.fix}: {one.why}" for one in made.skipped) if made is not None else view.why_not
        why = left_out or "wanted already, or in force"
        rows += wrapped([(" to do ", Ink.DIM), (_texts(asked), Ink.BRIGHT), (f": {why}", Ink.DIM)], width, 3)
    if others := other_actions(found):
        rows += wrapped([(" to do ", Ink.DIM), ("; ".join(others), Ink.BRIGHT)], width, _WORDS_LINES)
    return rows


def _texts(actions: Sequence[Action]) -> str:
    return "; ".join(action.text for action in actions)


def alone(view: Answer, width: int) -> list[Row]:
    """The keys of the single dialogs, where more than one is asked for."""
    made, found = view.alignment, view.found
    if made is None or found is None or not sure(found) or len(made.settings) + made.sync < 2:
        return []
    keys = _keys(found.actions)
    return wrapped([(" alone ", Ink.DIM), *keys], width, 1) if keys else []


def _keys(actions: Sequence[Action]) -> Row:
    """The keys of the single dialogs."""
    found: Row = []
    fix = next((action for action in actions if action.kind == "fix"), None)
    if fix is not None:
        found += [("F ", Ink.WARN), (f"{fix.fix} {fix.value}   ", Ink.TEXT)]
    if any(action.kind in ("sync", "reset") for action in actions):
        found += [("S ", Ink.WARN), ("sync the weights", Ink.TEXT)]
    return found


def missing(found: Diagnosis, width: int) -> list[Row]:
    """What was not recorded and would decide more."""
    if not found.missing:
        return []
    return wrapped([(" not recorded ", Ink.DIM), ("; ".join(found.missing), Ink.DIM)], width, _WORDS_LINES)


def evidence(found: Diagnosis, width: int, *, ruled_out: bool) -> list[Row]:
    """For and against what is named, each with the ln of its likelihood ratio; what else is possible, and (`ruled_out`)
    what is not."""
    rows: list[Row] = []
    heads = first(found) or found.ranked[:1]
    for one in heads:
        if len(heads) > 1:
            rows += wrapped([(f" {_title(one)}", Ink.BRIGHT)], width, 1)
        for item in one.supporting:
            rows += wrapped([(f" {item.llr:+5.1f}  ", Ink.OK), (item.text, Ink.TEXT)], width, 2)
        for item in one.opposing:
            weight = f" {item.llr:+5.1f}  ".replace("-", "−")
            rows += wrapped([(weight, Ink.WARN), (item.text, Ink.TEXT)], width, 2)
    if not rows:
        rows += wrapped([(" no instrument speaks for one cause more than for another", Ink.DIM)], width, 2)
    others = [one for one in found.ranked if one not in heads and one.probability >= 0.005]
    if others:
        text = ", ".join(f"{_title(one)} {percent(one.probability)}" for one in others[:4])
        rows += wrapped([("    or  ", Ink.DIM), (text, Ink.DIM)], width, 2)
    return [*rows, *excluded(found, width)] if ruled_out else rows


def excluded(found: Diagnosis, width: int) -> list[Row]:
    """What was ruled out, and by which reading."""
    rows: list[Row] = []
    for one in found.ruled_out:
        rows += wrapped([("   not  ", Ink.DIM), (one.title, Ink.TEXT), (f": {one.how}", Ink.DIM)], width, 2)
    return rows or [[(" nothing is ruled out yet", Ink.DIM)]]


def _title(one: Ranked) -> str:
    names = {"none": "nothing wrong", "unknown": "something that I do not know"}
    cause: Cause | None = one.cause
    return cause.title if cause is not None else names.get(one.name, one.name)


def pictures(found: Diagnosis | None) -> list[Profile]:
    """Three pictures: those of the strongest evidence first, then the usual ones."""
    if found is None:
        return []
    heads = first(found)
    wanted = [item.instrument for one in heads for item in one.supporting]
    # The diagnosis has put those first that the cause is predicted on.
    order = [one.instrument for one in found.profiles if one.instrument in wanted]
    order += [name for name in _USUAL if name not in order]
    by_name = {one.instrument: one for one in found.profiles}
    chosen = [by_name[name] for name in dict.fromkeys(order) if name in by_name]
    chosen += [one for one in found.profiles if one not in chosen]
    return chosen[:PICTURES]


def wrapped(line: Row, width: int, most: int) -> list[Row]:
    """A line over at most `most` lines, each text in its ink, indented below the first text."""
    whole = "".join(text for text, _ in line)
    width -= 1  # a cell of air before the frame
    if len(whole) <= width:
        return [line]
    lead = len(whole) - len(whole.lstrip())
    indent = min(len(line[0][0]) if len(line) > 1 else lead, 12)
    rows = textwrap.wrap(whole.strip(), max(width, 24), initial_indent=" " * lead, subsequent_indent=" " * indent)
    cut = len(rows) > most
    rows = rows[:most]
    if cut:
        rows[-1] = f"{rows[-1][: max(width - 1, 1)].rstrip()}…"
    return _inked(rows, line, indent, lead)


def _inked(rows: Sequence[str], line: Row, indent: int, lead: int) -> list[Row]:
    """Give wrapped rows the inks of the texts that their characters are from."""
    inks = [ink for text, ink in line for char in text if not char.isspace()]
    found: list[Row] = []
    at = 0
    for number, row in enumerate(rows):
        start = lead if number == 0 else indent
        parts_: Row = [(" " * start, Ink.TEXT)] if start else []
        for char in row[start:]:
            ink = inks[min(at, len(inks) - 1)] if inks else Ink.TEXT
            if not char.isspace():
                at += 1
            elif parts_:
                ink = parts_[-1][1]
            if parts_ and parts_[-1][1] == ink:
                parts_[-1] = (parts_[-1][0] + char, ink)
            else:
                parts_.append((char, ink))
        found.append(parts_)
    return found
