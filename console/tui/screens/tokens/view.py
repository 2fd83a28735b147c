"""Words of the tokens screen: rows, states and the scale of differences. Pure, and safe for any text.

d = trainer - rollout throughout, both logprobs under the weights that sampled the token (`driftline.catalog.metrics`):
the backend's doing. How old those weights are stands beside it and is never mixed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Final

import numpy as np
from rich.cells import cell_len

from console.store.tokens.ring import Sequence, Token, TokenStore
from console.store.tokens.survey import By, Survey, largest
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut_wide, number, versions
from console.tui.paint.units import version as weights
from driftline.catalog.metrics import BY_NAME

WORST_SHOWN: Final = 5


def _limits() -> tuple[float, ...]:
    mean, p99, most = (BY_NAME[f"mismatch/abs_diff_{what}"] for what in ("mean", "p99", "max"))
    return tuple(limit for limit in (mean.warn, p99.warn, p99.alarm, most.alarm) if limit is not None)


LIMITS: Final = _limits()
"""|d| in nats from which a token is one level up: the published limits of the mean, of the 99th percentile (two), and
of the largest difference, as the catalogue of metrics has them."""
INKS: Final = (Ink.DIM, Ink.TEXT, Ink.WARN, Ink.ALARM, Ink.ALARM)
"""Ink of each level."""
MARKS: Final = (("", ""), ("", ""), ("‹", "›"), ("«", "»"), ("!«", "»"))
"""Marks around a token of each level, so that colours are not needed."""
ASCII_MARKS: Final = (("", ""), ("", ""), ("<", ">"), ("<<", ">>"), ("!<<", ">>"))


def level(size: float) -> int:
    """From 0, below every limit, to len(LIMITS); NaN is beyond all."""
    return len(LIMITS) if math.isnan(size) else sum(size >= limit for limit in LIMITS)


def marks(glyphs: Glyphs) -> tuple[tuple[str, str], ...]:
    """The marks of each level in one look."""
    return ASCII_MARKS if glyphs.name == "ascii" else MARKS


def signed(value: float) -> str:
    """A difference in at most seven characters."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    size = abs(value)
    if size and size < 0.001:
        mantissa, exponent = f"{value:+.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:+.3f}" if size < 100 else f"{value:+.0f}" if size < 1e5 else f"{value:+.0e}"


def logprob(value: float) -> str:
    """A logprob in at most seven characters."""
    return signed(value).removeprefix("+")


def size_of(value: float) -> str:
    """A mean or largest |d|."""
    return number(value) if math.isfinite(value) else "Inf"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """A text in exactly `width` cells."""
    text = cut_wide(text, width)
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def piece_of(token: Token, glyphs: Glyphs) -> str:
    """The token's text where its blanks can be seen, or its id."""
    return f"#{token.id}" if token.piece is None else visible(token.piece, glyphs)


def visible(piece: str, glyphs: Glyphs) -> str:
    """A piece whose leading and trailing blanks can be seen, and which is never nothing."""
    blank = "_" if glyphs.name == "ascii" else "␣"
    if not piece:
        return '""'
    body = piece.strip(" ")
    if not body:
        return blank * min(len(piece), 8)
    lead = len(piece) - len(piece.lstrip(" "))
    trail = len(piece) - len(piece.rstrip(" "))
    return blank * min(lead, 4) + body + blank * min(trail, 4)


@dataclass(frozen=True)
class Column:
    """One column of a table: its head, its cells, on which side it stands; dropped first where `rank` is highest."""

    head: str
    width: int
    rank: int = 0
    right: bool = True


WORST_COLUMNS: Final = (
    Column("Δ", 7),
    Column("rollout", 7),
    Column("trainer", 7),
    Column("token", 8, right=False),
    Column("pos", 5),
    Column("step", 6),
    Column("engine", 9, 1, right=False),
    Column("sampled→at", 11, 0, right=False),
    Column("prompt", 12, 3, right=False),
    Column("reward", 6, 2),
)
OUTLIER_COLUMNS: Final = (
    Column("mean|Δ|", 7),
    Column("max|Δ|", 6),
    Column("ΣΔ", 7),
    Column("ratio", 6, 3),
    Column("prompt", 10, right=False),
    Column("len", 4),
    Column("engine", 9, 1, right=False),
    Column("versions", 8, right=False),
    Column("step", 6, 2),
    Column("reward", 6, 1),
    Column("five worst tokens", 17, right=False),
)
_GROWS: Final = {"token": 1, "prompt": 2, "five worst tokens": 2}
"""Columns that take the room that is left, and their shares."""


def fitted(columns: Many[Column], width: int) -> list[tuple[Column, int]]:
    """The columns that fit into `width` cells with a blank between them, and how wide each is."""
    kept = list(columns)
    while sum(column.width + 1 for column in kept) > width and any(column.rank for column in kept):
        kept.remove(max(kept, key=lambda column: column.rank))
    spare = max(width - sum(column.width + 1 for column in kept), 0)
    shares = sum(_GROWS.get(column.head, 0) for column in kept) or 1
    return [(column, column.width + spare * _GROWS.get(column.head, 0) // shares) for column in kept]


def heads(columns: Many[tuple[Column, int]], glyphs: Glyphs) -> list[Text]:
    """The line above a table."""
    line: list[Text] = [(" ", Ink.DIM)]
    for column, width in columns:
        line.append((padded(column.head.replace("→", glyphs.arrow), width, right=column.right) + " ", Ink.DIM))
    return line


def worst_line(token: Token, columns: Many[tuple[Column, int]], glyphs: Glyphs) -> list[Text]:
    """One of the worst tokens."""
    sequence = token.sequence
    ink = INKS[level(abs(token.diff))]
    cells: dict[str, Text] = {
        "Δ": (signed(token.diff), ink),
        "rollout": (logprob(token.rollout), Ink.TEXT),
        "trainer": (logprob(token.trainer), Ink.TEXT),
        "token": (piece_of(token, glyphs), Ink.BRIGHT),
        "pos": (str(token.position), Ink.TEXT),
        "step": (str(sequence.step), Ink.TEXT),
        "engine": (sequence.engine, Ink.TEXT),
        "sampled→at": (ages(token, glyphs), Ink.WARN if token.lag > 0 else Ink.DIM),
        "prompt": (sequence.prompt, Ink.DIM),
        "reward": (_reward(sequence), Ink.DIM),
    }
    return _line(cells, columns)


def ages(token: Token, glyphs: Glyphs) -> str:
    """The versions of sampler and trainer; one alone where they are the same or not recorded."""
    here = token.sequence.version
    one = weights(token.version)
    return one if token.version == here else f"{one}{glyphs.arrow}{weights(here)}"


def outlier_line(
    store: TokenStore, sequence: Sequence, columns: Many[tuple[Column, int]], glyphs: Glyphs
) -> list[Text]:
    """One of the sequences that stand out."""
    span = versions((sequence.low, sequence.high))
    cells: dict[str, Text] = {
        "mean|Δ|": (size_of(sequence.mean), INKS[level(sequence.mean)]),
        "max|Δ|": (size_of(sequence.max), INKS[level(sequence.max)]),
        "ΣΔ": (signed(sequence.ratio), Ink.TEXT),
        "ratio": (_ratio(sequence.ratio), Ink.TEXT),
        "prompt": (sequence.prompt or "-", Ink.TEXT),
        "len": (str(sequence.count), Ink.TEXT),
        "engine": (sequence.engine, Ink.TEXT),
        "versions": (span, Ink.WARN if sequence.low < sequence.version else Ink.DIM),
        "step": (str(sequence.step), Ink.TEXT),
        "reward": (_reward(sequence), Ink.TEXT),
        "five worst tokens": ("  ".join(five_worst(store, sequence, glyphs)), Ink.BRIGHT),
    }
    return _line(cells, columns)


def five_worst(store: TokenStore, sequence: Sequence, glyphs: Glyphs) -> list[str]:
    """The tokens of a sequence that differ most, worst first."""
    rows = worst_rows(store, sequence)
    tokens = [store.token(row) for row in rows[:WORST_SHOWN]]
    return [cut_wide(piece_of(token, glyphs), 12) for token in tokens if token is not None]


def worst_rows(store: TokenStore, sequence: Sequence, count: int = WORST_SHOWN) -> list[int]:
    """Rows of the tokens of a sequence that differ most, worst first."""
    size = store.rows("size", sequence.first, sequence.first + sequence.count)
    return [int(row) for row in largest(size, count) + sequence.first]


def _line(cells: dict[str, Text], columns: Many[tuple[Column, int]]) -> list[Text]:
    line: list[Text] = [(" ", Ink.TEXT)]
    for column, width in columns:
        text, ink = cells[column.head]
        line.append((padded(text, width, right=column.right) + " ", ink))
    return line


def _ratio(log_ratio: float) -> str:
    """The sequence's importance ratio, as a number or a power."""
    if not math.isfinite(log_ratio):
        return "NaN" if math.isnan(log_ratio) else "Inf" if log_ratio > 0 else "0"
    return number(float(np.exp(log_ratio))) if abs(log_ratio) < 20 else f"e{log_ratio:+.0f}"


def _reward(sequence: Sequence) -> str:
    return "-" if math.isnan(sequence.reward) else number(sequence.reward)


def about(token: Token, glyphs: Glyphs, width: int) -> list[list[Text]]:
    """The chosen token in lines that fit: what differs, where it is from, what its age means, what it answers."""
    sequence = token.sequence
    wide = width >= 76
    rollout, trainer = logprob(token.rollout), logprob(token.trainer)
    if wide:
        rollout, trainer = f"{rollout} ({_chance(token.rollout)})", f"{trainer} ({_chance(token.trainer)})"
    words = ("  Δ ", "  rollout ", "  trainer ") if width >= 60 else (" Δ ", " roll ", " train ")
    differs: list[Text] = [
        (" ", Ink.TEXT),
        (cut_wide(piece_of(token, glyphs), max(width // 6, 8)), Ink.BRIGHT),
        (words[0], Ink.DIM),
        (signed(token.diff), INKS[level(abs(token.diff))]),
        (words[1], Ink.DIM),
        (rollout, Ink.TEXT),
        (words[2], Ink.DIM),
        (trainer, Ink.TEXT),
    ]
    place = f" pos {token.position}/{sequence.count}  step {sequence.step}"
    place += f"  {sequence.engine}" if sequence.engine else ""
    place += f"  reward {_reward(sequence)}" + (f"  id {token.id}" if token.piece is not None else "")
    from_where: list[Text] = [(place, Ink.TEXT)]
    prompt = cut_wide(sequence.prompt, max(width - 9, 1)) if sequence.prompt else "not reported"
    answers: list[Text] = [(" prompt ", Ink.DIM), (prompt, Ink.TEXT)]
    if width >= 100:
        return [differs, [*from_where, (" ", Ink.TEXT), *_age(token, width)], answers]
    return [differs, from_where, _age(token, width), answers]


def _age(token: Token, width: int) -> list[Text]:
    """The weights that sampled the token; the difference does not depend on their age."""
    version, now = token.version, token.sequence.version
    if version < 0:
        return [(" weights that sampled it: ", Ink.DIM), ("not recorded", Ink.TEXT)]
    if token.lag <= 0:
        return [(f" sampled by v{version}, ", Ink.DIM), ("not stale", Ink.TEXT)]
    text = f" sampled by v{version}, trainer at v{now}: stale by {token.lag}"
    more = f"; Δ is between both backends at v{version}" if width >= 130 or 76 <= width < 100 else ""
    return [(text, Ink.WARN), (more, Ink.DIM)]


def _chance(value: float) -> str:
    """A logprob as a probability."""
    return f"p {math.exp(value):.2g}" if math.isfinite(value) and value <= 0.01 else "p ?"


def scale(glyphs: Glyphs, width: int) -> list[Text]:
    """The meaning of colours and marks."""
    bounds = [f"<{number(LIMITS[0])}", *(f"{glyphs_ge(glyphs)}{number(limit)}" for limit in LIMITS)]
    line: list[Text] = [(" |Δ| ", Ink.DIM)]
    for ink, (left, right), bound in zip(INKS, marks(glyphs), bounds, strict=True):
        line += [(f"{left}{bound}{right}", ink), (" ", Ink.TEXT)]
    if sum(len(text) for text, _ in line) + 15 <= width:
        line += [("  [chosen]", Ink.BRIGHT)]
    return line


def glyphs_ge(glyphs: Glyphs) -> str:
    """At least."""
    return ">=" if glyphs.name == "ascii" else "≥"


def order_word(by: By) -> str:
    """The value by which sequences are ranked."""
    return {"mean": "mean|Δ|", "max": "max|Δ|", "sum": "|ΣΔ|"}[by]


@dataclass(frozen=True)
class Standing:
    """The state of the feed of tokens."""

    asked: bool
    refused: str
    behind: int
    filter: str


def nothing(standing: Standing, found: Survey) -> list[tuple[str, Ink]]:
    """Why there is nothing to list, and what to do; none where there is something."""
    if found.matched:
        return []
    if standing.refused:
        return [
            ("no token logprobs: " + standing.refused, Ink.WARN),
            ("Text of a model's answers is for keys that may read it; who runs it grants one without the", Ink.DIM),
            ("word no-tokens in keys/authorized (driftline keys). All other screens go on.", Ink.DIM),
        ]
    if found.kept:
        return [
            (f"none of {found.kept:,} tokens match: {standing.filter}", Ink.WARN),
            ("esc clears the filter, / changes it", Ink.DIM),
        ]
    if not standing.asked:
        return [("asking for token logprobs", Ink.DIM)]
    if standing.behind:
        return [(f"loading: {standing.behind:,} frames of the recent past to look through", Ink.DIM)]
    return [
        ("no token logprobs have been reported yet", Ink.TEXT),
        ("A trainer reports them after each step with Probe.tokens(...): ids,", Ink.DIM),
        ("positions, versions, and both logprobs; driftline's own does so for its", Ink.DIM),
        ("8 worst sequences and 8 others, from step 1 on.", Ink.DIM),
    ]
