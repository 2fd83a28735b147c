"""Sends one command to a run and follows it to its final acknowledgement, for verbs without a screen."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

from console.errors import TIMEOUT, CommandError
from console.status.progress import Progress
from driftline.client import Client, ClientError, HubSilentError, LeaseHeldError
from driftline.frames import Ack, Verb


@dataclass(frozen=True)
class SentCommand:
    """A command that the hub has accepted. `ack`: its last acknowledgement, None if it was not waited for."""

    id: str
    ack: Ack | None

    def document(self) -> dict[str, Any]:
        """As plain values for JSON: {`command`: id, `state`, `detail`, `data`}."""
        if self.ack is None:
            return {"command": self.id, "state": "queued", "detail": "", "data": {}}
        return {"command": self.id, "state": self.ack.state, "detail": self.ack.detail, "data": self.ack.data}


def send_command(
    client: Client, args: argparse.Namespace, verb: Verb, values: dict[str, str], what: str, generation: int = -1
) -> SentCommand:
    """Send one command; with `args.wait` follow it until it is applied.

    `generation` is that of the fix as it was seen; -1 sends it whatever it is now.

    The deadline of the command is `args.timeout`, so that a command that timed out here cannot take effect later. The
    client takes the run's lease for the command and releases it when it is closed; with `args.take_over` also from
    another session.
    Raises CommandError: 1 refused, failed or expired, 4 no answer in time.
    """
    until = time.monotonic() + args.timeout
    try:
        if args.take_over and (former := client.take_lease()):
            print(f"driftline: taken over from {former}", file=sys.stderr)
        command = client.command(verb, values, generation=generation, timeout=args.timeout)
    except LeaseHeldError as error:
        raise CommandError(f"{what}: {error}; that is what --take-over does") from error
    except HubSilentError as error:
        raise CommandError(f"{what}: {error}", TIMEOUT) from error
    if not args.wait:
        return SentCommand(command, None)
    progress = Progress(plain=False)
    progress.update(f"{what}: sent")
    try:
        ack = _last(client, command, args.timeout, until, progress, what)
    finally:
        progress.done()
    if ack.state != "applied":
        raise CommandError(f"{what}: {ack.state}{': ' if ack.detail else ''}{ack.detail}")
    return SentCommand(command, ack)


def _last(client: Client, command: str, timeout: float, until: float, progress: Progress, what: str) -> Ack:
    """The final acknowledgement, waited for until the monotonic time `until`: `timeout` seconds from the verb's start.

    The sentence names `timeout`, which is what was asked for: sending may have used up all but a part of it.
    """
    last_ack = ""

    def report(ack: Ack) -> None:
        nonlocal last_ack
        last_ack = f"{ack.state}{': ' if ack.detail else ''}{ack.detail}"
        progress.update(f"{what}: {last_ack}")

    until = max(until, time.monotonic() + 0.1)
    try:
        return client.wait(command, until - time.monotonic(), on_ack=report)
    except ClientError as error:
        if time.monotonic() >= until - 0.05:
            last = f"the last was: {last_ack}" if last_ack else "no process of the run has acknowledged it"
            raise CommandError(f"{what}: no final answer within {timeout:g} s; {last}", TIMEOUT) from error
        raise
