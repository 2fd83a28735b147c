"""The engine of this folder: one start for the tests of its actor and those of the pool around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.one_engine.shared_engine import SharedEngine


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedEngine]:
    """Ends with the folder's last test: a process has one pool at a time."""
    # Here, because a folder whose conftest does not import is an error and not a skip where there is no torch.
    from tests.e2e import engine_support as support
    from tests.e2e.one_engine.shared_engine import MAX_TOKENS, SharedEngine, segments

    folder = tmp_path_factory.mktemp("engine")
    model = support.engine_model(folder / "model")
    pool = support.engine_pool(folder / "model", folder / "logs", [], max_tokens=MAX_TOKENS)
    try:
        pool.start()
        yield SharedEngine(pool, model)
    finally:
        pool.close()
    assert segments() == set()
