"""The chosen token as text to take away: its numbers, its sequence's, and the whole context with its marks."""

from __future__ import annotations

from console.store.tokens.ring import Token, TokenStore
from console.tui.paint.glyphs import Glyphs
from console.tui.screens.tokens.context import plain
from console.tui.screens.tokens.view import LIMITS, five_worst, marks, piece_of


def copied(store: TokenStore, token: Token, run: str, glyphs: Glyphs) -> str:
    """Lines of `name: value`, then the context. Numbers are whole, not as short as on screen."""
    sequence = token.sequence
    rows: list[tuple[str, object]] = [
        ("run", run),
        ("step", sequence.step),
        ("token", piece_of(token, glyphs)),
        ("id", token.id),
        ("position", f"{token.position} of {sequence.count}"),
        ("diff trainer-rollout (nats)", token.diff),
        ("rollout logprob", token.rollout),
        ("trainer logprob", token.trainer),
        ("sampled by version", token.version),
        ("trainer at version", sequence.version),
        ("engine", sequence.engine or "not reported"),
        ("prompt", sequence.prompt or "not reported"),
        ("reward", sequence.reward),
        ("sequence versions", f"{sequence.low} to {sequence.high}"),
        ("sequence mean |diff|", sequence.mean),
        ("sequence max |diff|", sequence.max),
        ("sequence sum of diff", sequence.ratio),
        ("five worst tokens", "  ".join(five_worst(store, sequence, glyphs))),
    ]
    lines = [f"{name}: {value}" for name, value in rows]
    around = zip(marks(glyphs)[1:], LIMITS, strict=True)
    legend = ", ".join(f"{left}|diff| from {limit:g}{right}" for (left, right), limit in around if left)
    lines += ["", f"context ([chosen], {legend}):", plain(store, token, glyphs)]
    return "\n".join(lines)
