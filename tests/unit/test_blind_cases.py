"""What the blind test puts into runs, and how its answers are counted; without an engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from console.diagnosis.causes import BY_NAME
from tests.blind import judge
from tests.blind.__main__ import _drawn
from tests.blind.cases import BY_NAME as CASES
from tests.blind.cases import ENGINES, PAIRS, SINGLE, UNKNOWN, Case, merged, on_all, on_one, pair
from tests.blind.faults import EngineFault, TrainerFault, both

OLD = {f"model.layers.{layer}.w": torch.full((2, 2), float(layer)) for layer in (0, 1)} | {"lm_head.w": torch.ones(2)}
NEW = {name: tensor + 10 for name, tensor in OLD.items()}


def test_a_healthy_engine_takes_up_what_was_sent() -> None:
    found = EngineFault().weights(NEW, OLD)
    assert all(found[name] is tensor for name, tensor in NEW.items())
    assert not EngineFault().of_weights


def test_what_is_not_loaded_stays_and_what_is_swapped_changes_places() -> None:
    found = EngineFault(keep=("model.layers.1.",)).weights(NEW, OLD)
    assert [float(found[name].flatten()[0]) for name in NEW] == [10.0, 1.0, 11.0]
    found = EngineFault(keep=("",)).weights(NEW, OLD)
    assert all(torch.equal(found[name], tensor) for name, tensor in OLD.items())
    found = EngineFault(swap=(("model.layers.0.", "model.layers.1."),)).weights(NEW, OLD)
    assert [float(found[name].flatten()[0]) for name in NEW] == [11.0, 10.0, 11.0]


def test_two_faults_at_once_and_what_cannot_be() -> None:
    made = both(EngineFault({"top_p": 0.9}), EngineFault({"top_k": 8}, keep=("",)))
    assert (dict(made.sampling), made.keep) == ({"top_p": 0.9, "top_k": 8}, ("",))
    assert both(TrainerFault(dropout=0.1), TrainerFault()) == TrainerFault(dropout=0.1)
    with pytest.raises(ValueError, match="both faults change head"):
        both(EngineFault(head="bfloat16"), EngineFault(head="float16"))
    assert set(merged(on_all(EngineFault()), on_one(EngineFault(keep=("",))))) == set(ENGINES)


def test_every_case_has_names_of_the_catalogue_and_every_pair_can_be() -> None:
    for case in (*SINGLE, *UNKNOWN):
        assert set(case.causes) <= set(BY_NAME), case.name
        assert case.unknown == case.name.startswith("unknown-")
    for names in PAIRS:
        made = pair(*names)
        assert made.causes == tuple(cause for name in names for cause in CASES[name].causes)
        assert made.engines or made.later or made.trainer != TrainerFault()
    assert len({cause for case in SINGLE for cause in case.causes}) >= 16


def test_a_seed_draws_every_single_case_in_an_order_of_its_own() -> None:
    one, again, other = (_drawn(np.random.default_rng(seed), 1, 4) for seed in (3, 3, 4))
    assert [case.name for case in one] == [case.name for case in again] != [case.name for case in other]
    assert {case.name for case in one} >= {case.name for case in (*SINGLE, *UNKNOWN)}
    assert sum(len(case.causes) == 2 for case in one) == 4


@pytest.mark.parametrize(
    ("causes", "unknown", "names", "good"),
    [
        (("top-p",), False, ("top-p",), True),
        (("top-p",), False, ("top-p", "lag"), True),
        (("top-p",), False, ("lag", "top-p"), False),
        (("top-p", "lag"), False, ("lag", "top-p"), True),
        (("top-p", "lag"), False, ("top-p",), False),
        ((), False, ("none",), True),
        ((), False, ("lag",), False),
        ((), True, ("unknown",), True),
        ((), True, ("lag",), False),
        ((), True, ("none",), False),
    ],
)
def test_how_an_answer_is_counted(causes: tuple[str, ...], unknown: bool, names: tuple[str, ...], good: bool) -> None:
    assert judge.right(Case("c", causes, unknown=unknown), names) == good
