"""Commands that ask for an active round: each waits for the loop, which has the tokens and the engines' version."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from driftline.frames import Command
from trainer.control.command_queue import ENDED, execute
from trainer.control.deadline import check_deadline
from trainer.errors import RefusedError
from trainer.measure.sync_spans import Data
from trainer.report import Reporter

MOST: Final = 4


class ProbeQueue:
    """`request` on the control thread, `carry_out` on the loop's. `estimate` says what so many tokens will cost."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._waiting: deque[tuple[Command, int]] = deque()
        self._lock = threading.Lock()
        self.tokens_of: Callable[[str], int] = _unavailable
        self.estimate: Callable[[int], str] = lambda _tokens: ""

    def request(self, command: Command) -> None:
        """Take a command, and say what it will cost. Raises RefusedError for a number of tokens that is none."""
        tokens = self.tokens_of(command.args.get("tokens", ""))
        with self._lock:
            if len(self._waiting) >= MOST:
                raise RefusedError(f"{MOST} rounds are waiting already")
            self._waiting.append((command, tokens))
        self._report.ack(command.id, "accepted", f"at the next step: {self.estimate(tokens)}")

    def carry_out(self, act: Callable[[int], Data]) -> None:
        """Carry out what waits, `act` with the number of tokens of each."""
        while (found := self._next()) is not None:
            command, tokens = found

            def probe(one: Command, tokens: int = tokens) -> Data:
                check_deadline(one)
                return act(tokens)

            execute(self._report, command, probe)

    def close(self) -> None:
        """The run ends: answer what still waits with that."""
        while (found := self._next()) is not None:
            self._report.ack(found[0].id, "failed", ENDED)

    def _next(self) -> tuple[Command, int] | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None


def _unavailable(_: str) -> int:
    raise RefusedError("this trainer makes no active round")
