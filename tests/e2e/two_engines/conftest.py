"""The engines of this folder: one start for the tests of shadow scoring and those of engines that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.two_engines.pair import Pair


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The tests use it in their order: in the last file it loses its engines one after the other."""
    # Here, because a folder whose conftest does not import is an error and not a skip where there is no torch.
    from tests.e2e.shadow_rig import other_interpreter
    from tests.e2e.two_engines.pair import Pair

    pair = Pair(tmp_path_factory.mktemp("pair"), other_interpreter(tmp_path_factory.mktemp("venv")))
    try:
        pair.pool.start()
        yield pair
    finally:
        pair.pool.close()
