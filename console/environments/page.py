"""A comparison of two vLLM versions as a page of Markdown, and what it comes to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from console.errors import NOT_ENOUGH_DATA, NOT_PARITY, OK
from driftline.migration import Answer, Difference, Row, Side

CLOSE: Final = {"float32": 1e-4}
CLOSE_HALF: Final = 0.03
"""Nats. Two float32 engines that compute the same differ by 1e-6, two of half precision by about .016 each against
float32, with nothing wrong (measured on tiny models, bfloat16)."""
LEAST: Final = 50
"""Fewer tokens in a direction say nothing."""

Defaults = Mapping[str, str]


def limit(dtype: str) -> float:
    """How far apart two engines of this dtype may be."""
    return CLOSE.get(dtype, CLOSE_HALF)


def home(answer: Answer) -> int | None:
    """The first layer in which the two engines are together; None where none is."""
    return next((at for at, row in enumerate(answer.rows) if _together(row, answer.dtype)), None)


def exit_code(answer: Answer) -> int:
    """0 where some layer brings them together, else NOT_PARITY; NOT_ENOUGH_DATA where too little was compared."""
    if any(_tokens(row) < LEAST for row in answer.rows):
        return NOT_ENOUGH_DATA
    return OK if home(answer) is not None else NOT_PARITY


def verdict(answer: Answer) -> str:
    """What the two are to each other, and then to torch, as the trainer computes."""
    return " ".join(filter(None, (_between(answer), _beside_torch(answer))))


def _beside_torch(answer: Answer) -> str:
    """Which of them are off as they come, and what brings them home."""
    if exit_code(answer) == NOT_ENOUGH_DATA:
        return ""
    first = _off(answer, answer.rows[0])
    if not first:
        return "Both are what torch computes."
    words = " and ".join(f"{side} is {_nats(gap)}" for side, gap in first.items())
    text = f"As they come, {words} nats off what torch computes"
    at = next((at for at, row in enumerate(answer.rows) if not _off(answer, row)), None)
    if at is None:
        return f"{text}, and no fix ends that."
    return f"{text}; {_listed([row.fix for row in answer.rows[1 : at + 1]])} on ends that."


def _off(answer: Answer, row: Row) -> dict[str, float]:
    """The versions that are not what torch computes, and by how much."""
    both = zip(answer.sides, (row.from_torch, row.to_torch), strict=True)
    return {side.vllm: one.mean for side, one in both if one is not None and one.mean > limit(answer.dtype)}


def _between(answer: Answer) -> str:
    one, other = (side.vllm for side in answer.sides)
    first, last, at = answer.rows[0], answer.rows[-1], home(answer)
    if exit_code(answer) == NOT_ENOUGH_DATA:
        least = min(_tokens(row) for row in answer.rows)
        return f"Too little was compared to say: {least} tokens in one direction, at least {LEAST} are needed."
    if at == 0:
        return f"vLLM {one} and {other} agree as they come: mean |Δ| {_nats(first.parted)} nats."
    if at is not None:
        needed = [row.fix for row in answer.rows[1 : at + 1]]
        return (
            f"vLLM {one} and {other} part as they come: mean |Δ| {_nats(first.parted)} nats. "
            f"With {_listed(needed)} on they agree: {_nats(answer.rows[at].parted)} nats."
        )
    return (
        f"vLLM {one} and {other} part as they come: mean |Δ| {_nats(first.parted)} nats. No fix brings them together: "
        f"{_nats(last.parted)} nats are left with all of them, {limit(answer.dtype):g} would do."
    )


def markdown(answer: Answer, defaults: tuple[Defaults, Defaults]) -> str:
    """The page."""
    one, other = answer.sides
    what = answer.model or "a tiny Qwen2, random but for a scaled head"
    lines = [
        f"# Migration from vLLM {one.vllm} to {other.vllm}",
        "",
        verdict(answer),
        "",
        "## Mismatch by layer",
        "",
        f"| layer | fix | {one.vllm} scored by {other.vllm} | {other.vllm} scored by {one.vllm} "
        f"| {one.vllm} against torch | {other.vllm} against torch |",
        "|---|---|---|---|---|---|",
        *map(_line, answer.rows),
        "",
        f"Mean and most of |Δ logprob| in nats, over the tokens named. Model: {what}, {answer.dtype}, temperature "
        f"{answer.temperature:g}; {answer.prompts} prompts, {answer.samples} samples of each, sampled once before and "
        f"once after an update that moves every tensor by {answer.move:g} of its standard deviation; the second pass "
        f"is compared. Torch: the same weights in {answer.dtype}, log_softmax in float32 after temperature. "
        f"{answer.skipped} tokens were sampled and not scored. {answer.seconds:.0f} s.",
        "",
        "## The fixes, as each version comes",
        "",
        f"| fix | {one.vllm} | {other.vllm} |",
        "|---|---|---|",
        *(f"| {fix_id} | {_state(one, fix_id)} | {_state(other, fix_id)} |" for fix_id in one.fixes),
        "",
        *_defaults(one, other, defaults),
        "",
        "## What this does not say",
        "",
        "- Sequences that were in flight across a weight update go on over keys and values of older weights, which no "
        "other engine has: `inflight-keep` shows in a run, not here.",
        "- Async scheduling is chosen when an engine is built: it stays as each version comes.",
        "- Nothing was trained: `driftline run` with two `[[engine]]` tables, and `compare`, say what comes of it.",
    ]
    return "\n".join(lines) + "\n"


def differing(defaults: tuple[Defaults, Defaults]) -> list[tuple[str, str, str]]:
    """Settings that both versions have, with another default each."""
    one, other = defaults
    return [(name, one[name], other[name]) for name in sorted(one.keys() & other.keys()) if one[name] != other[name]]


def _defaults(one: Side, other: Side, defaults: tuple[Defaults, Defaults]) -> list[str]:
    rows = differing(defaults)
    only = [len(defaults[a].keys() - defaults[b].keys()) for a, b in ((0, 1), (1, 0))]
    return [
        "## Settings whose defaults differ",
        "",
        f"| setting | {one.vllm} | {other.vllm} |",
        "|---|---|---|",
        *(f"| {name} | `{first}` | `{second}` |" for name, first, second in rows),
        "",
        f"As they are declared; None is chosen by platform and model. {only[0]} settings are {one.vllm}'s alone, "
        f"{only[1]} {other.vllm}'s.",
    ]


def _line(row: Row) -> str:
    cells = [_cell(one) for one in (row.from_by_to, row.to_by_from, row.from_torch, row.to_torch)]
    return f"| {row.name} | {row.fix or '-'} | {' | '.join(cells)} |"


def _cell(one: Difference | None) -> str:
    return "no token" if one is None else f"{_nats(one.mean)}, {_nats(one.most)} ({one.tokens})"


def _state(side: Side, fix_id: str) -> str:
    value, detail = side.fixes.get(fix_id, ("", ""))
    return f"{value or 'not known'}{f': {detail}' if detail else ''}".replace("|", "/")


def _together(row: Row, dtype: str) -> bool:
    return row.parted is not None and row.parted <= limit(dtype)


def _tokens(row: Row) -> int:
    return min(0 if one is None else one.tokens for one in (row.from_by_to, row.to_by_from))


def _nats(value: float | None) -> str:
    return "?" if value is None else f"{value:.2g}"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
