"""The engine plugin on other vLLM versions, where their environments exist; `make compat` makes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console.environments import known, place
from tests.compat.__main__ import VERSIONS
from tests.compat.checks import check
from tests.compat.rows import COLUMNS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_works_that_the_table_says(version: str, tmp_path: Path) -> None:
    one = known.ALL[f"vllm-{version}"]
    folder = place.root(os.environ) / one.name
    if place.record(folder) is None:
        pytest.skip(f"no environment {one.name} here; driftline env add {one.name} makes it")
    row = check(one, folder, tmp_path, print)
    assert row.works, row
    documented = row_of_the_documents(version)
    assert not documented or {name: cell.word for name, cell in row.cells.items()} == documented


def row_of_the_documents(version: str) -> dict[str, str]:
    """The line of docs/compatibility.md, by column; nothing where there is none yet."""
    page = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith(f"| {version} |")]
    if not lines:
        return {}
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    return dict(zip(COLUMNS, cells[3:], strict=True))
