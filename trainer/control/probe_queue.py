"""Commands that ask for an active round: each waits for the loop, which has the tokens and the engines' version."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Final

from driftline.catalog.rounds import FAILED, MADE
from driftline.frames import Command
from engine import EngineError
from trainer.control.command_queue import ENDED, execute
from trainer.control.deadline import check_deadline
from trainer.errors import CancelledError, RefusedError
from trainer.measure.sync_spans import Data
from trainer.report import Reporter

MOST: Final = 4
UNDER_WAY: Final = "under way"
Act = Callable[[int, Callable[[], None]], Data]
"""A round over so many tokens of each engine; what is called between its passes raises CancelledError."""


class ProbeQueue:
    """`request` on the control thread, `carry_out` on the loop's. `estimate` says what so many tokens will cost."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._waiting: deque[tuple[Command, int]] = deque()
        self._lock = threading.Lock()
        self._under_way = ""
        """Id of the command whose round is being made."""
        self._cancelled = ""
        """By whom it was cancelled."""
        self.tokens_of: Callable[[str], int] = _unavailable
        self.estimate: Callable[[int], str] = lambda _tokens: ""

    def request(self, command: Command) -> Data | None:
        """Take a command, and say what it will cost; cancel a round where it asks for that. Raises RefusedError for a
        number of tokens that is none, and for a round that is not there."""
        if "cancel" in command.args:
            return self._cancel(command.args["cancel"], f"cancelled by {command.issuer or '?'}")
        tokens = self.tokens_of(command.args.get("tokens", ""))
        with self._lock:
            if len(self._waiting) >= MOST:
                raise RefusedError(f"{MOST} rounds are waiting already")
            self._waiting.append((command, tokens))
        self._report.ack(command.id, "accepted", f"at the next step: {self.estimate(tokens)}")
        return None

    def _cancel(self, number: str, by: str) -> Data:
        with self._lock:
            waits = [one for one in self._waiting if one[0].id == number]
            for one in waits:
                self._waiting.remove(one)
            if not waits and self._under_way != number:
                raise RefusedError("this round neither waits nor is under way")
            if not waits:
                self._cancelled = by
        for command, _ in waits:
            self._report.ack(command.id, "failed", by)
        return {}

    def _check(self) -> None:
        with self._lock:
            by = self._cancelled
        if by:
            raise CancelledError(by)

    def carry_out(self, act: Act) -> None:
        """Carry out what waits, `act` with the number of tokens of each."""
        while (found := self._next()) is not None:
            command, tokens = found

            def probe(one: Command, tokens: int = tokens) -> Data | None:
                check_deadline(one)
                self._report.ack(one.id, "accepted", UNDER_WAY)
                try:
                    return act(tokens, self._check)
                except CancelledError as error:
                    self._report.ack(one.id, "failed", str(error))
                    return None

            execute(self._report, command, probe)
            with self._lock:
                self._under_way = self._cancelled = ""

    def by_itself(self, reason: str, step: int, act: Act) -> None:
        """Make a round that no operator has asked for, and report it as an event with its figures."""
        try:
            data = act(self.tokens_of(""), lambda: None)
        except Exception as error:  # noqa: BLE001  the run must outlive a measurement of it
            said = str(error) or "an engine did not answer in time"
            known = isinstance(error, RefusedError | EngineError | FutureTimeoutError)
            text = said if known else f"{type(error).__name__}: {said}"
            self._report.event(FAILED, text, level="warn", step=step, reason=reason)
        else:
            text = f"at an alarm ({reason}): {data['total']:.3g} nats over {data['tokens']} tokens attributed"
            text += f", in {data['seconds']:.2f} s"
            self._report.event(MADE, text, level="info", step=step, reason=reason, **data)

    def close(self) -> None:
        """The run ends: answer what still waits with that."""
        while (found := self._next()) is not None:
            self._report.ack(found[0].id, "failed", ENDED)

    def _next(self) -> tuple[Command, int] | None:
        with self._lock:
            if not self._waiting:
                return None
            found = self._waiting.popleft()
            self._under_way = found[0].id
            return found


def _unavailable(_: str) -> int:
    raise RefusedError("this trainer makes no active round")
