"""Well-typed frames whose numbers are the odd ones: extremes, NaN, infinity, negative counts, other people's units."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from driftline import frames
from driftline.frames import TOPIC, Frame, Tokens
from tests.unit.runs import NOW

INTS = (
    0, 1, -1, -2, 5, 2**31, 2**53 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), int(NOW), int(NOW * 1e9),
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e18, 1e-300,
    NOW, NOW * 1e3, NOW * 1e9, -NOW, 253_402_300_800.0,
)  # fmt: skip
TEXTS = (
    "", "a", "engine-0", "processed-logprobs", "on", "off", "sync.done", "reward/mean", "step", "x" * 300, "\x1b[2J",
)  # fmt: skip
NAMES = (
    "reward/mean", "policy/entropy", "mismatch/abs_diff_mean", "policy/kl_new_old", "step", "time", "", "odd\nname",
)  # fmt: skip


def of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, mostly odd ones. Ranges are ignored: this is what an older probe could send."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    match get_origin(kind):
        case origin if origin is Literal:
            return st.sampled_from(get_args(kind))
        case origin if origin is tuple:
            inner = get_args(kind)
            if len(inner) == 2 and inner[1] is Ellipsis:
                return st.lists(of(inner[0]), max_size=3).map(tuple)
            return st.tuples(*map(of, inner))
        case origin if origin is dict:
            return st.dictionaries(st.sampled_from(NAMES), of(get_args(kind)[1]), max_size=5)
        case origin if origin is not None:  # a union
            return st.one_of(*map(of, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return odd(kind)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(), int: st.sampled_from(INTS), float: st.sampled_from(FLOATS), str: st.sampled_from(TEXTS),
        bytes: st.just(b""),
    }  # fmt: skip
    return plain[kind]


def odd(kind: type) -> st.SearchStrategy[Any]:
    """Frames of one kind."""
    hints = get_type_hints(kind, include_extras=True)
    if kind is Tokens:
        return tokens()
    return st.builds(kind, **{name: of(hints[name]) for name in kind.__struct_fields__})  # type: ignore[attr-defined]  # a Struct


@st.composite
def tokens(draw: st.DrawFn) -> Tokens:
    """Blobs of the right length with any bits in them, so that what is beyond their length is met too."""
    n = draw(st.integers(0, 6))
    blobs = [draw(st.binary(min_size=4 * n, max_size=4 * n)) for _ in range(6)]
    number, when = st.sampled_from(INTS), st.sampled_from(FLOATS)
    rewards = tuple(draw(st.lists(when, max_size=3)))
    some = st.lists(st.sampled_from(TEXTS), max_size=n).map(tuple)
    ids, seq, position, version, rollout, trainer = blobs
    return Tokens(
        draw(number), draw(number), draw(when), n, ids, seq, position, version, rollout, trainer,
        draw(some), draw(some), rewards, draw(some),
    )  # fmt: skip


def any_frame() -> st.SearchStrategy[Frame]:
    """A frame of any kind."""
    return st.one_of(*(odd(kind) for kind in TOPIC))


def in_range(frame: Frame) -> bool:
    """Whether the hub's door lets it in."""
    try:
        frames.decode(frames.encode(frame))
    except frames.FrameError:
        return False
    return True
