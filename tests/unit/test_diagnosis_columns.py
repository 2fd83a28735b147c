"""Token columns of frames: contexts, seams, repeats; and frames as a hostile or broken producer may send them."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from console.diagnosis.columns import MOST, join, of_frame
from console.diagnosis.facts import Facts
from console.diagnosis.watch import DETAIL, KEPT, Watch
from driftline.frames import Tokens
from tests.unit.diagnosis_columns import Bigrams, columns, plain
from tests.unit.runs import tokens

ENGINES = {"engine-0": 0, "engine-1": 1}


def frame(
    rows: list[tuple[int, int, int, int, float, float]], prompts: tuple[str, ...] = (), version: int = 0
) -> Tokens:
    """A frame of rows (id, sequence, position, version, rollout, trainer)."""
    whole = np.array([row[:4] for row in rows], dtype=np.int64).reshape(-1, 4)
    return Tokens(
        0, version, 1e9, len(rows),
        *(whole[:, i].astype("<i4").tobytes() for i in range(4)),
        np.array([row[4] for row in rows], dtype="<f4").tobytes(),
        np.array([row[5] for row in rows], dtype="<f4").tobytes(),
        (), prompts,
    )  # fmt: skip


def test_a_context_is_the_prompt_and_all_tokens_before() -> None:
    rows = [
        (id_, seq, at, 0, -1.0, -1.0)
        for seq, ids in enumerate(([5, 6, 7], [5, 6, 8], [5, 9, 7], [5, 6, 7]))
        for at, id_ in enumerate(ids)
    ]
    found = of_frame(frame(rows, ("a", "a", "a", "b")), {})
    first, second, third, other = found.context.reshape(4, 3)
    assert first[0] == second[0] == third[0] != other[0]
    assert first[1] == second[1] == third[1]  # all begin with 5
    assert first[2] == second[2] != third[2]
    assert not set(other.tolist()) & set(first.tolist())
    assert len(set(first.tolist())) == 3


def test_a_context_is_unknown_without_prompt_or_beginning() -> None:
    rows = [(5, 0, at, 0, -1.0, -1.0) for at in (1, 2)] + [(5, 1, at, 0, -1.0, -1.0) for at in (0, 1, 3)]
    found = of_frame(frame(rows, ("a", "b")), {})
    assert (found.context[:2] == -1).all()
    assert (found.context[2:4] >= 0).all()
    assert found.context[4] == -1
    assert (of_frame(frame(rows), {}).context == -1).all()


def test_seams_repeats_and_last_tokens() -> None:
    rows = [(id_, 0, at, version, -1.0, -1.0) for at, (id_, version) in enumerate([(3, 4), (4, 4), (3, 5), (3, 6)])]
    rows += [(3, 1, 0, 6, -1.0, -1.0)]
    found = of_frame(frame(rows, version=7), {})
    assert found.seam.tolist() == [0, 0, 1, 2, 0]
    assert found.repeated.tolist() == [False, False, True, True, False]
    assert found.last.tolist() == [False, False, False, True, True]
    assert found.lag.tolist() == [3, 3, 2, 1, 1]


def test_interleaved_sequences_are_put_in_order() -> None:
    given_ = tokens(3)
    found = of_frame(given_, ENGINES)
    assert found.seq.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert found.position.tolist() == [0, 1, 2, 3, 4] * 3
    assert found.engine.tolist() == [0] * 5 + [1] * 5 + [-1] * 5
    rollout = np.frombuffer(given_.rollout, "<f4").reshape(5, 3).T.ravel()
    assert np.array_equal(found.rollout, rollout.astype(np.float64))


def test_some_of_the_tokens_keep_their_context() -> None:
    found = columns(Bigrams(plain, plain).frames(2))
    chosen = found.position > 2
    part = found.take(chosen)
    assert np.array_equal(part.context, found.context[chosen])
    assert np.array_equal(part.repeated, found.repeated[chosen])


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    rows = [(1, 0, 0, 0, math.nan, -1.0), (1, 0, 1, 0, -1.0, math.inf), (1, 0, 2, 0, -1e30, -1.0)]
    found = of_frame(frame(rows), {})
    assert (len(found), found.left_out) == (1, 2)
    assert found.d.tolist() == [-MOST]


numbers = st.one_of(
    st.floats(-20, 0, width=32), st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, -3e38, 3e38, -1e-38])
)
whole = st.one_of(st.integers(0, 5), st.integers(-(2**31), 2**31 - 1))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(whole, whole, whole, whole, numbers, numbers), max_size=30),
    repeat=st.integers(1, 12),
    temperature=st.sampled_from([math.nan, 0.0, 0.7, 1.0]),
    version=st.integers(-1, 9),
)
def test_whatever_a_frame_holds_there_is_an_answer(
    rows: list[tuple[int, int, int, int, float, float]], repeat: int, temperature: float, version: int
) -> None:
    watch = Watch()
    for _ in range(repeat):
        watch.feed(frame(rows, ("a", "b"), version))
    found = watch.diagnosis(Facts(temperature=temperature))
    assert found.tokens <= max(len(rows) * repeat, 0)
    assert 0 <= found.certainty <= 1
    assert found.sentence
    if found.attribution is not None:
        assert sum(share.nats for share in found.attribution.shares) == found.attribution.total


def test_totals_are_of_all_tokens_and_merge() -> None:
    frames = Bigrams(plain, lambda z, seen, at: plain(z, seen, at) - 0.25).frames(6)
    one, two, both = Watch(), Watch(), Watch()
    for i, item in enumerate(frames):
        (one if i < 3 else two).feed(item)
        both.feed(item)
    one.merge(two)
    assert one.history(99) == both.history(99)
    for (version, count, total), item in zip(both.history(99), frames, strict=True):
        assert (version, count) == (item.version, item.n)
        assert total == np.float32(0.25) * item.n or abs(total - 0.25 * item.n) < 1e-3
    assert len(one.columns) == len(both.columns)


def test_memory_is_bounded_whatever_comes() -> None:
    watch = Watch()
    large = frame([(i % 50, i // 500, i % 500, 0, -1.0, -1.1) for i in range(20_000)], tuple(str(i) for i in range(40)))
    for step in range(3_000):
        watch.feed(tokens(step, sequences=4, length=4))
        if step % 500 == 0:
            watch.feed(large)
    assert len(watch.columns) <= KEPT + 2 * DETAIL
    assert len(watch.history(10**6)) <= 512
    assert sum(row[1] for row in watch.history(10**6)) == watch.tokens == 3_000 * 16 + 6 * 20_000
    assert watch.seen <= 1


def test_a_thinned_frame_has_whole_sequences() -> None:
    watch = Watch()
    watch.feed(
        frame([(i % 50, i // 100, i % 100, 0, -1.0, -1.1) for i in range(20_000)], tuple(str(i) for i in range(200)))
    )
    found = watch.columns
    assert 1_000 < len(found) <= 2 * DETAIL
    assert (np.diff(np.append(found.begins, len(found))) == 100).all()
    assert (found.context >= 0).all()
    assert 0.05 < watch.seen < 0.25
    assert join([], ()).ids.size == 0
