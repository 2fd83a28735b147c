"""Fixtures of more than one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.hubs import Hub

# Textual believes these before it asks the terminal, and who runs tests in parallel sets them.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub process of the test's own, ended with it."""
    hub = Hub(tmp_path)
    hub.start()
    yield hub
    hub.end()
