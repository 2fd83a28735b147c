"""Batches of verl and OpenRLHF as pairs, without either: masks, alignment, what is no pair."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from driftline.adapters import openrlhf, verl
from driftline.adapters.tensors import array


def of_verl(**more: Any) -> dict[str, Any]:
    return {
        "responses": np.array([[5, 6, 0], [7, 8, 9]]),
        "rollout_log_probs": np.array([[-1.0, -2.0, 0.0], [-0.5, -0.1, -0.2]]),
        "old_log_probs": np.array([[-1.1, -2.0, 0.0], [-0.5, -0.1, -0.2]]),
        **more,
    }


def test_verls_mask_is_the_responses_or_the_end_of_the_attentions() -> None:
    response = np.array([[1, 1, 0], [1, 0, 1]])
    attention = np.array([[0, 1, 1, 1, 0], [1, 1, 1, 0, 1]])
    for given in ({"response_mask": response}, {"attention_mask": attention}):
        pairs = verl.pairs_of(of_verl(**given), 4)
        assert pairs.ids.tolist() == [5, 6, 7, 9]
        assert set(pairs.version.tolist()) == {4}


def test_without_a_mask_padding_is_no_pair_of_certainty() -> None:
    batch = of_verl(old_log_probs=np.array([[-1.1, -2.0, -3.0], [-0.5, -0.1, -0.2]]))
    pairs = verl.pairs_of(batch, -1)
    assert pairs.ids.tolist() == [5, 6, 7, 8, 9]
    assert sum(pairs.left_out.values()) == 1


def test_verls_rewards_are_sums_over_tokens() -> None:
    scores = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.5]])
    assert verl.pairs_of(of_verl(rm_scores=scores), 0).rewards == (1.0, 0.5)


def test_a_batch_without_logprobs_is_an_error_for_the_guard() -> None:
    batch = of_verl()
    del batch["old_log_probs"]
    with pytest.raises(KeyError, match="old_log_probs"):
        verl.pairs_of(batch, 0)


def experience(**more: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        **{
            "sequences": np.array([[1, 2, 5, 6, 7]]),
            "action_mask": np.array([[0, 1, 0, 1]]),
            "rollout_log_probs": np.array([[0.0, -1.0, 0.0, -2.0]]),
            "action_log_probs": np.array([[0.0, -1.5, 0.0, -2.0]]),
            "rewards": np.array([0.25]),
            **more,
        }
    )


def test_openrlhfs_logprobs_are_of_the_last_tokens_and_feedback_is_no_pair() -> None:
    pairs = openrlhf.pairs_of([experience(), experience(rollout_log_probs=None), experience(rewards=None)], 2)
    assert pairs.ids.tolist() == [5, 7, 5, 7]
    assert pairs.position.tolist() == [0, 2, 0, 2]
    assert pairs.rewards[0] == 0.25
    assert np.isnan(pairs.rewards[1])


def test_tensors_of_any_type_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    made = torch.tensor([1.5, -2.0], dtype=torch.bfloat16, requires_grad=True)
    assert array(made).tolist() == [1.5, -2.0]
    assert array(made).dtype == np.float32
    assert array(torch.tensor([True, False])).tolist() == [True, False]
    assert array([1, 2]).tolist() == [1, 2]
