"""Fault 23's hub half: the state machine of `tests/unit/test_hub_core.py` for many thousand random steps."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.scale import dice, scaled
from tests.unit.test_hub_core import Machine

EXAMPLES, STEPS = 500, 50


class Counting(Machine):
    """Counts the steps of all histories."""

    steps = 0

    def check_invariants(self, *arguments, **options) -> None:  # type: ignore[no-untyped-def]
        Counting.steps += 1
        super().check_invariants(*arguments, **options)


@pytest.mark.timeout(900)
def test_f23_the_core_keeps_its_rules_for_thousands_of_random_steps() -> None:
    Counting.steps = 0
    number = dice("f23").randrange(2**32)
    examples = scaled(60, EXAMPLES)
    machine = seed(number)(Counting)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"f23: {Counting.steps} steps in {examples} histories")
    assert Counting.steps >= scaled(1000, 10_000)
