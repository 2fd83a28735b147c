"""Well-typed frames whose numbers are the odd ones: extremes, NaN, infinity, negative counts, other people's units."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import hypothesis
import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from driftline import frames
from driftline.frames import TOPIC, Frame, Tokens
from tests.faults.scale import dice
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
AT_A_TIME = 20


def of(kind: Any, within: bool) -> st.SearchStrategy[Any]:
    """Values of a field's type, mostly odd ones.

    `within` its range, of which the ends are among them, as a hub lets them in; else of any size, as an older probe
    could send them.
    """
    low, high = -math.inf, math.inf
    if get_origin(kind) is Annotated:
        kind, meta = get_args(kind)[:2]
        low, high = (meta.ge, meta.le) if within else (low, high)
    match get_origin(kind):
        case origin if origin is Literal:
            return st.sampled_from(get_args(kind))
        case origin if origin is tuple:
            inner = get_args(kind)
            if len(inner) == 2 and inner[1] is Ellipsis:
                return st.lists(of(inner[0], within), max_size=3).map(tuple)
            return st.tuples(*(of(one, within) for one in inner))
        case origin if origin is dict:
            return st.dictionaries(st.sampled_from(NAMES), of(get_args(kind)[1], within), max_size=5)
        case origin if origin is not None:  # a union
            return st.one_of(*(of(one, within) for one in get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return odd(kind, within)
    if kind in (int, float):
        odd_ones: tuple[float, ...] = INTS if kind is int else FLOATS
        ranged = [] if math.isinf(low) else [kind(low), kind(high)]
        return st.sampled_from([*ranged, *(one for one in odd_ones if not ranged or low <= one <= high)])
    plain: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(), str: st.sampled_from(TEXTS), bytes: st.just(b""),
    }  # fmt: skip
    return plain[kind]


def odd(kind: type, within: bool) -> st.SearchStrategy[Any]:
    """Frames of one kind."""
    hints = get_type_hints(kind, include_extras=True)
    if kind is Tokens:
        return tokens(within)
    fields = kind.__struct_fields__  # type: ignore[attr-defined]  # a Struct
    return st.builds(kind, **{name: of(hints[name], within) for name in fields})


@st.composite
def tokens(draw: st.DrawFn, within: bool) -> Tokens:
    """Blobs of the right length with any bits in them, so that what is beyond their length is met too."""
    n = draw(st.integers(0, 6))
    blobs = [draw(st.binary(min_size=4 * n, max_size=4 * n)) for _ in range(6)]
    some = st.lists(st.sampled_from(TEXTS), max_size=n).map(tuple)
    ids, seq, position, version, rollout, trainer = blobs
    return Tokens(
        draw(of(frames.Step, within)), draw(of(frames.Version, within)), draw(of(frames.Time, within)), n,
        ids, seq, position, version, rollout, trainer, draw(some), draw(some),
        tuple(draw(st.lists(of(float, within), max_size=3))), draw(some),
    )  # fmt: skip


def any_frame() -> st.SearchStrategy[Frame]:
    """A frame of any kind, within its ranges or not."""
    return st.one_of(*(odd(kind, within) for within in (True, False) for kind in TOPIC))


@functools.cache
def drawn(count: int) -> tuple[Frame, ...]:
    """`count` examples that a body can be made of, of a printed seed: half within their ranges, half anywhere.

    They go into journals by the thousand, which lists of a strategy cannot be.
    """
    found: list[Frame] = []
    seed = dice("odd frames").randrange(2**32)
    while len(found) < count:
        _collect(found, count - len(found), seed)
        seed += 1
    return tuple(found[:count])


def _collect(found: list[Frame], count: int, seed: int) -> None:
    """Add about `count` of them; some examples at a time, which takes half the time of one by one."""

    @hypothesis.seed(seed)
    @settings(
        max_examples=count // AT_A_TIME + 1, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.tuples(*[any_frame()] * AT_A_TIME))
    def collect(some: tuple[Frame, ...]) -> None:
        found.extend(filter(packed, some))

    collect()


def packed(frame: Frame) -> bool:
    """Whether a body can be made of it."""
    try:
        frames.encode(frame)
    except frames.FrameError:
        return False
    return True


def in_range(frame: Frame) -> bool:
    """Whether the hub's door lets it in."""
    try:
        frames.decode(frames.encode(frame))
    except frames.FrameError:
        return False
    return True
