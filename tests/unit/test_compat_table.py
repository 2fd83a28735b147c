"""The table of `make compat`: how it is written, and that docs/compatibility.md has it for every tested version."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.plugin.versions import TESTED
from tests.compat.rows import COLUMNS, Cell, Row, table

PAGE = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()


def a_row(version: str = "0.18.1", **cells: Cell) -> Row:
    found = {name: Cell("works") for name in COLUMNS} | {name.replace("_", "-"): cell for name, cell in cells.items()}
    return Row(version, "2.10.0", hosts=["`LLM`"], cells=found)


def test_a_row_works_when_everything_was_checked_and_nothing_failed() -> None:
    assert a_row().works
    assert a_row(digest=Cell("reports only", "why")).works
    assert not a_row(digest=Cell("fails", "why")).works
    assert not Row("0.18.1", hosts=["`LLM`"], cells={"join": Cell("works")}).works
    assert not Row("0.18.1", absent="no disk").works


def test_a_reason_stands_once_with_its_versions() -> None:
    rows = [
        a_row("0.18.1", fp32_lm_head=Cell("reports only", "it has none")),
        a_row("0.24.0", fp32_lm_head=Cell("reports only", "it has none")),
        a_row("0.32.0", fp32_lm_head=Cell("reports only", "at load time"), digest=Cell("works", "all of it")),
        Row("0.40.0", absent="there are no pins for it"),
    ]
    lines = table(rows).splitlines()
    assert lines[2].startswith("| 0.18.1 | 2.10.0 | `LLM` | works | ")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "- 0.18.1, 0.24.0: `fp32-lm-head`, reports only: it has none" in lines
    assert "- 0.32.0: digest, works: all of it" in lines
    assert "- 0.40.0: not available here: there are no pins for it" in lines


def test_what_was_not_checked_does_not_count_as_working() -> None:
    row = Row("0.18.1", hosts=["`LLM`"], cells={"join": Cell("works")})
    assert table([row]).count("fails") == len(COLUMNS) - 1


@pytest.mark.parametrize("version", TESTED)
def test_every_tested_version_stands_in_the_documents(version: str) -> None:
    lines = [
        line
        for line in PAGE.splitlines()
        if (line.startswith(f"| {version} |") and line.count("|") > len(COLUMNS))
        or line.startswith(f"{version}, the newest on the package index, is the version that")
    ]
    assert len(lines) == 1
    assert "fails" not in lines[0]
    assert "not available here" not in lines[0]


def test_the_documents_have_the_columns() -> None:
    assert f"| vLLM | torch | hosts | {' | '.join(COLUMNS.values())} |" in PAGE
