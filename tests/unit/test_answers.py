"""What `simulate` says of its tokens."""

from __future__ import annotations

import numpy as np
import pytest

from console.simulate.tokens import SEQUENCES, Answers


def test_answers_differ_by_the_steps_mismatch_and_carry_their_versions() -> None:
    sampled = {"engine-0": 8, "engine-1": 9}
    said = Answers(3).step(10, sampled, 0.05)
    n = len(said["pieces"])
    arrays = ("ids", "seq", "position", "token_version", "rollout", "trainer")
    assert {len(said[name]) for name in arrays} == {n}
    assert {len(said[name]) for name in ("engines", "prompts", "rewards")} == {SEQUENCES}
    assert set(said["seq"].tolist()) == set(range(SEQUENCES))
    # Capped at probability one, so a little less than asked for.
    assert np.abs(said["trainer"] - said["rollout"]).mean() == pytest.approx(0.05, rel=0.4)
    assert (said["trainer"] <= 0).all()
    assert set(said["token_version"].tolist()) <= {7, 8, 9}
    text = "".join(piece for piece, own in zip(said["pieces"], said["seq"], strict=True) if own == 0)
    number = said["prompts"][0].split()[1]
    assert number in text
    assert number[::-1] in text


def test_the_same_seed_gives_the_same_answers() -> None:
    one, two = (Answers(5).step(1, {"engine-0": 0}, 0.1) for _ in range(2))
    assert one["pieces"] == two["pieces"]
    assert np.array_equal(one["trainer"], two["trainer"])
