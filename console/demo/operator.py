"""The demonstration's operator: lets the defaults run, switches the fixes on, syncs once by hand.

It uses only the client, as any script could: it receives frames, sends commands and waits for their acknowledgements.
Sending may take as long as a hub takes to come back: it runs on a thread of its own (`console.demo.frame_thread`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from console.demo.report import DemoReport
from console.errors import FAILED, USAGE, CommandError
from driftline.catalog.fixes import ON
from driftline.client import Client, ClientError, HubSilentError
from driftline.frames import TERMINAL, Ack, Frame, Verb
from driftline.rundir import RunError

STEPS: Final = 90
"""Steps of the demonstration; fewer where its configuration says fewer."""
SWITCH_AT: Final = 45
"""Steps on vLLM's defaults before the fixes."""
LIVE: Final = ("live", "next_sync")
"""How a fix that is available in a live run takes effect."""
COMMAND_TIMEOUT: Final = 60.0
CONFIG: Final = Path("configs") / "demo.toml"

SendCommand = Callable[[Verb, dict[str, str]], str]
"""Sends a command (verb, arguments) and returns its id."""


def find_config(given: str | None) -> Path:
    """The demonstration's configuration: the one given, the folder's own, the checkout's. Raises CommandError."""
    if given is not None:
        return Path(given)
    places = (CONFIG, Path(__file__).parent.parent / CONFIG)
    for place in places:
        if place.is_file():
            return place
    raise CommandError(f"{CONFIG} is neither here nor beside the package; name one with --config", USAGE)


class Operator:
    """Defaults, then every available fix on, then one sync: a state machine over the frames of the run."""

    def __init__(
        self, report: DemoReport, send: SendCommand, switch_at: int, print_action: Callable[[str], None]
    ) -> None:
        self._report = report
        self._send_command = send
        self._switch_at = switch_at
        self._say = print_action
        self._waiting: dict[str, str] = {}
        self._stage = "defaults"

    @property
    def done(self) -> bool:
        """True once the sync has been applied."""
        return self._stage == "done"

    @property
    def stage(self) -> str:
        """The current stage: defaults, fixes, sync or done."""
        return self._stage

    def handle_frame(self, frame: Frame) -> None:
        """Act on one frame, after it was added to the report. Raises CommandError when a command does not succeed."""
        if isinstance(frame, Ack) and frame.id in self._waiting and frame.state in TERMINAL:
            what = self._waiting.pop(frame.id)
            detail = f": {frame.detail}" if frame.detail else ""
            if frame.state != "applied":
                raise CommandError(f"the demonstration's {what}: {frame.state}{detail}", FAILED)
            self._say(f"{what}: applied{detail}")
        if self._waiting:
            return
        if self._stage == "defaults" and self._report.step >= self._switch_at:
            self._switch()
        elif self._stage == "fixes":
            self._send("sync", {}, "sync by hand")
            self._stage = "sync"
        elif self._stage == "sync":
            self._stage = "done"

    def _switch(self) -> None:
        self._stage = "fixes"
        for fix, state in self._report.fixes.items():
            if state.effective == ON:
                self._say(f"fix {fix}: on from the start")
            elif state.how not in LIVE:
                self._say(f"fix {fix}: not available in a live run here: {state.detail or state.how}")
            else:
                self._send("fix.set", {"fix": fix, "value": ON}, f"fix {fix} on")
        if self._waiting:
            self._report.switched = self._report.step
        else:
            raise CommandError("the demonstration has no fix to switch on: are they on in its configuration?", FAILED)

    def _send(self, verb: Verb, values: dict[str, str], what: str) -> None:
        self._waiting[self._send_command(verb, values)] = what


class Sender:
    """Sends the demonstration's commands, over a hub that is away for a while."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._cancelled = threading.Event()

    def send(self, verb: Verb, values: dict[str, str]) -> str:
        """Send a command and return its id; wait for a hub up to COMMAND_TIMEOUT seconds. Raises CommandError."""
        deadline = time.monotonic() + COMMAND_TIMEOUT
        while True:
            try:
                self._client = self._client or self._connect()
                return self._client.command(verb, values, timeout=COMMAND_TIMEOUT)
            except (ClientError, RunError) as error:
                # Before there is a client the hub was not found; a client says that it does not answer.
                away = self._client is None or isinstance(error, HubSilentError)
                if not away or time.monotonic() > deadline or self._cancelled.wait(0.2):
                    raise CommandError(f"the demonstration's {verb}: {error}") from error

    def cancel(self) -> None:
        """End a wait of `send`, which raises then."""
        self._cancelled.set()
        if self._client is not None:
            self._client.close()


def print_action(text: str) -> None:
    """Print an action of the operator, among the lines of the run."""
    print(f"{'':8}  > {text}\n", end="", flush=True)  # as one write: the run's lines are printed beside it
    sys.stdout.flush()
