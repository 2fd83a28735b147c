"""Two engines, the second on an interpreter of its own, which the tests of this folder use up one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from driftline.config import EngineGroup
from engine import Group, RolloutRequest, SyncReport
from tests.e2e import engine_support as support


class Pair:
    """Two engines, the weights they hold, and a stream of groups through them that is counted."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.python = python
        self.model = support.engine_model(folder / "model")
        self.said: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.pool = support.engine_pool(
            folder / "model", folder / "logs", self.said, count=2, replacements=2,
            each=(EngineGroup(), EngineGroup(environment=str(python))),
            on_event=lambda kind, text, _level, data: self.events.append((kind, data | {"text": text})),
        )  # fmt: skip
        self.outside = set(psutil.Process().children(recursive=True))
        self.seen: set[psutil.Process] = set()
        self.version = 0
        self.submitted = 0
        self.groups: dict[int, Group] = {}

    def processes(self) -> set[psutil.Process]:
        """Ours now; remembered for the end."""
        now = set(psutil.Process().children(recursive=True)) - self.outside
        self.seen |= now
        return now

    def sync(self, **options: Any) -> list[SyncReport]:
        self.model, self.version = support.engine_moved(self.model, head_only=True), self.version + 1
        return self.pool.sync(self.model.state_dict(), self.version, **options)

    def flow(self, ahead: int = 24) -> None:
        """Keep so many groups in flight and take what has come; each group comes once."""
        while self.pool.in_flight < ahead:
            prompt = support.PROMPTS.integers(2, support.VOCABULARY, support.PROMPT).tolist()
            self.pool.submit(RolloutRequest(self.submitted, prompt, 8))
            self.submitted += 1
        self._take(self.pool.take(0.2))

    def settle(self) -> None:
        """Take all that is in flight; nothing is missing then, and nothing came twice."""
        while len(self.groups) < self.submitted:  # what is not in flight any more may not have been taken yet
            groups = self.pool.take(support.LIMIT_S)
            assert groups
            self._take(groups)
        assert self.groups.keys() == set(range(self.submitted))

    def _take(self, groups: list[Group]) -> None:
        for group in groups:
            assert group.group not in self.groups
            assert not group.aborted
            assert len(group.sequences) == 8
            self.groups[group.group] = group

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == kind]

    def until(self, condition: Callable[[], Any], ahead: int = 24) -> None:
        """Let groups flow until something has come about; few of them while engines load on the same cores."""
        deadline = time.monotonic() + 4 * support.LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"it did not come about; events: {self.events}"
            self.flow(ahead)

    def effective(self) -> dict[str, list[str]]:
        return {fix: [state.effective for state in states] for fix, states in self.pool.fix_states().items()}
