"""The table of what works where. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Word = Literal["works", "reports only", "not available", "fails"]

COLUMNS: Final = {
    "join": "joins, state",
    "processed-logprobs": "`processed-logprobs`",
    "prefix-cache-off": "`prefix-cache-off`",
    "cache.reset": "cache reset",
    "pause": "pause, lease, resume",
    "digest": "digest",
    "inflight-keep": "`inflight-keep`",
    "async-scheduling-off": "`async-scheduling-off`",
    "fp32-lm-head": "`fp32-lm-head`",
}
"""What is checked, and its heading."""


@dataclass(frozen=True)
class Cell:
    """What came of one check, and why where it is not `works`, or what was measured."""

    word: Word
    why: str = ""


@dataclass
class Row:
    """A version. `absent` is why there is no environment of it here, "" where there is; `hosts` joined."""

    version: str
    torch: str = ""
    absent: str = ""
    hosts: list[str] = field(default_factory=list)
    cells: dict[str, Cell] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """Whether everything that could be checked was as it should be."""
        return (
            not self.absent and set(self.cells) == set(COLUMNS) and all(c.word != "fails" for c in self.cells.values())
        )


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line a version, and below it the reasons, each once with the versions that it is for."""
    lines = [
        f"| vLLM | torch | hosts | {' | '.join(COLUMNS.values())} |",
        f"|---|---|---|{'---|' * len(COLUMNS)}",
    ]
    for row in rows:
        if row.absent:
            lines.append(f"| {row.version} | | not available here | {' | ' * (len(COLUMNS) - 1)} |")
            continue
        cells = (row.cells.get(name, Cell("fails", "was not checked")).word for name in COLUMNS)
        lines.append(f"| {row.version} | {row.torch} | {', '.join(row.hosts)} | {' | '.join(cells)} |")
    reasons = _reasons(rows)
    return "\n".join(lines) + ("\n\n" + "\n".join(reasons) if reasons else "") + "\n"


def _reasons(rows: Sequence[Row]) -> list[str]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.absent:
            found.setdefault(f"not available here: {row.absent}", []).append(row.version)
        for name, cell in row.cells.items():
            if cell.why:
                found.setdefault(f"{COLUMNS[name]}, {cell.word}: {cell.why}", []).append(row.version)
    every = {row.version for row in rows if not row.absent}
    return [f"- {why}" if set(at) == every else f"- {', '.join(at)}: {why}" for why, at in found.items()]
