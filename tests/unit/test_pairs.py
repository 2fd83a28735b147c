"""Token pairs: every form of a batch gives the same pairs, and no placeholder is taken for a probability of 1."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.frames import decode, encode, floats, ints
from driftline.pairs import formulas
from driftline.pairs.pairs import (
    NO_LOGPROB,
    NOT_FINITE,
    PLACEHOLDER,
    UNKNOWN,
    Sampled,
    of_packed,
    of_padded,
    of_sequences,
    of_the_next,
)
from driftline.pairs.shown import MOST_TOKENS, RANDOM, WORST, frame

IDS = ([5, 6, 7], [8, 9])
ROLLOUT = ([-0.5, -1.0, -0.25], [-2.0, -0.125])
TRAINER = ([-0.5, -1.25, -0.25], [-2.5, -0.25])


def same(one, two) -> None:
    for name in ("ids", "seq", "position", "rollout", "trainer"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


def plain():
    return of_sequences(Sampled(*rows) for rows in zip(IDS, ROLLOUT, TRAINER, strict=True))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_gives_the_same_pairs(side: str) -> None:
    def padded(rows, fill):
        gaps = [[fill] * (5 - len(row)) for row in rows]
        return [gap + list(row) if side == "left" else list(row) + gap for gap, row in zip(gaps, rows, strict=True)]

    mask = padded([[1] * len(row) for row in IDS], 0)
    got = of_padded(padded(IDS, 0), padded(ROLLOUT, 0.0), padded(TRAINER, -7.0), mask)
    same(got, plain())
    assert not got.left_out


def test_a_packed_row_is_cut_where_positions_begin_anew() -> None:
    ids, rollout, trainer = (np.concatenate(rows) for rows in (IDS, ROLLOUT, TRAINER))
    same(of_packed(ids, [0, 1, 2, 0, 1], rollout, trainer, [1] * 5), plain())


def test_positions_count_from_the_first_sampled_token_also_over_a_tools_answer() -> None:
    got = of_sequences([Sampled([1, 2, 3, 4, 5], [0, -1, 0, 0, -2], [-9, -1, -9, -9, -2], [0, 1, 0, 0, 1])])
    assert got.position.tolist() == [0, 3]
    assert got.ids.tolist() == [2, 5]


def test_logprobs_of_the_next_token_are_shifted_by_one() -> None:
    shifted = of_the_next([[-1.0, -2.0]])
    assert np.isnan(shifted[0, 0])
    assert shifted[0, 1:].tolist() == [-1.0, -2.0]
    got = of_padded([[1, 2, 3]], shifted, shifted, [[1, 1, 1]])
    assert got.ids.tolist() == [2, 3]
    assert got.left_out == {NOT_FINITE: 1}


def test_zeros_at_a_trimmed_end_are_placeholders_and_zeros_before_are_not() -> None:
    got = of_sequences([Sampled([1, 2, 3, 4], [-1.0, 0.0, -1.0, 0.0], [-1.0, -0.5, -1.0, -3.0])])
    assert got.ids.tolist() == [1, 2, 3]
    assert got.left_out == {PLACEHOLDER: 1}


def test_a_certain_token_at_the_end_is_a_pair() -> None:
    got = of_sequences([Sampled([1, 2], [-1.0, 0.0], [-1.0, -1e-6])])
    assert len(got) == 2
    assert not got.left_out


def test_a_sequence_without_engine_logprobs_has_no_pair() -> None:
    got = of_sequences([Sampled([1, 2], [0.0, 0.0], [-1.0, -0.5]), Sampled([3], [-1.0], [-1.0])])
    assert got.ids.tolist() == [3]
    assert got.seq.tolist() == [1]
    assert got.left_out == {NO_LOGPROB: 1}


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("side", ["rollout", "trainer"])
def test_what_is_no_number_is_left_out_and_counted(bad, side: str) -> None:
    values = {"rollout": [-1.0, -1.0, -1.0], "trainer": [-1.0, -1.0, -1.0]}
    values[side][1] = bad
    got = of_sequences([Sampled([1, 2, 3], **values)])
    assert got.ids.tolist() == [1, 3]
    assert got.left_out == {NOT_FINITE: 1}


def test_versions_are_one_number_one_a_sequence_or_one_a_token() -> None:
    args = np.array([[1, 2], [3, 4]]), np.full((2, 2), -1.0), np.full((2, 2), -1.0), np.ones((2, 2))
    assert of_padded(*args).version.tolist() == [UNKNOWN] * 4
    assert of_padded(*args, version=7).version.tolist() == [7] * 4
    assert of_padded(*args, version=[7, 8]).version.tolist() == [7, 7, 8, 8]
    assert of_padded(*args, version=[[1, 2], [3, 4]]).version.tolist() == [1, 2, 3, 4]


def test_lengths_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match="trainer has 1 tokens, ids has 2"):
        of_sequences([Sampled([1, 2], [-1.0, -1.0], [-1.0])])
    with pytest.raises(ValueError, match=r"mask has shape \[1, 3\]"):
        of_padded([[1, 2]], [[-1.0, -1.0]], [[-1.0, -1.0]], [[1, 1, 1]])
    with pytest.raises(ValueError, match="position_ids has 1 tokens"):
        of_packed([1, 2], [0], [-1.0, -1.0], [-1.0, -1.0], [1, 1])
    with pytest.raises(ValueError, match="rewards: 1 of them for 2 sequences"):
        of_padded(*[np.ones((2, 2))] * 4, rewards=[1.0])


def test_no_sequence_is_no_pair_and_no_frame() -> None:
    for empty in (of_sequences([]), of_sequences([Sampled([1], [-1.0], [-1.0], [0])])):
        assert len(empty) == 0
        assert formulas.mismatch(empty.trainer, empty.rollout) == {}
        assert frame(empty, step=1, version=1, time=1.0, rng=np.random.default_rng(0)) is None


def test_the_frame_has_the_worst_sequences_first_and_no_more_than_it_may() -> None:
    rng = np.random.default_rng(1)
    many = [Sampled([row] * 3, [-1.0] * 3, [-1.0 - (row == 30)] * 3, engine=f"e{row}") for row in range(40)]
    got = decode(encode(frame(of_sequences(many), step=4, version=2, time=9.0, rng=rng)))
    assert len(got.engines) == WORST + RANDOM
    assert got.engines[0] == "e30"
    assert got.rewards == ()
    assert got.n == 3 * (WORST + RANDOM)
    assert ints(got.ids)[:3].tolist() == [30] * 3
    assert np.abs(floats(got.trainer) - floats(got.rollout))[:3].tolist() == [1.0] * 3
    long = of_sequences(
        [Sampled(np.ones(MOST_TOKENS + 5), np.full(MOST_TOKENS + 5, -1.0), np.full(MOST_TOKENS + 5, -1.0))]
    )
    assert frame(long, step=1, version=1, time=1.0, rng=rng).n == MOST_TOKENS
