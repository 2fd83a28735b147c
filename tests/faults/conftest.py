"""A table of the cases of a matrix, printed by the last of its tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import Case, Table


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table()
    yield made
    print(f"\n{made}")


@pytest.fixture
def case(tmp_path: Path, table: Table) -> Iterator[Callable[..., Case]]:
    made: list[Case] = []

    def make(config: str, **options: object) -> Case:
        made.append(Case(tmp_path / f"{len(made)}", table, config, **options))  # type: ignore[arg-type]  # passed on
        return made[-1]

    yield make
    for one in made:
        one.close()
