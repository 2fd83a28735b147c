"""The quantile of Student's t distribution."""

from __future__ import annotations

import pytest

from driftline.t_quantile import upper_quantile, upper_tail


@pytest.mark.parametrize(
    ("tail", "freedom", "expected"),
    # Published tables of Student's t.
    [(0.05, 4, 2.132), (0.025, 10, 2.228), (0.005, 3, 5.841), (0.0005, 20, 3.850), (0.025, 1e3, 1.962)],
)
def test_quantiles_of_student(tail: float, freedom: float, expected: float) -> None:
    assert upper_quantile(tail, freedom) == pytest.approx(expected, abs=6e-4)
    assert upper_tail(upper_quantile(tail, freedom), freedom) == pytest.approx(tail, rel=1e-6)
