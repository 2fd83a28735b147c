"""`driftline correction list` and `driftline correction set`: corrections of the objective for a backend that differs.

Guarded by the verdict of `console.parity.gate`: correctness before corrections.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from console.connect.backfill import decode_frames, recent_frames
from console.connect.commands import send_command
from console.connect.resolve import connect_client, live_run
from console.errors import FAILED, NOT_ENOUGH_DATA, NOT_PARITY, OK, USAGE, CommandError
from console.formatting import to_json
from console.parity import gate
from console.parity.gate import Verdict
from console.parity.rules import load
from driftline.catalog.corrections import BY_ID, CORRECTIONS, UnknownCorrectionError, check
from driftline.client import Client
from driftline.frames import Frame, Metrics, RunState, Stamped

SETTLE_SECONDS: Final = 5.0
"""Seconds that the run's state may arrive later than the acknowledgement of the command."""


def list_corrections(args: argparse.Namespace) -> int:
    """List the corrections, the one that the trainer uses, and whether the backend has passed parity.

    --json prints {`corrections` [{`id`, `title`, `formula`, `summary`, `source`}], `requested`, `effective` ("" where
    the run does not report it), `since` (step), `by`, `generation`, `parity` {`verdict` (pass, fail, not enough data),
    `why`}}.
    """
    with connect_client(live_run(args.run), "viewer") as client:
        state, verdict = _read_state(client)
    if args.json:
        print(to_json({"corrections": [_catalogue_entry(one.id) for one in CORRECTIONS], **_document(state, verdict)}))
        return OK
    for one in CORRECTIONS:
        on = state is not None and state.correction == one.id
        asked = state is not None and state.correction_requested == one.id and not on
        since = (
            f"  since step {state.correction_since}" if on and state is not None and state.correction_since > 0 else ""
        )
        print(f"{'●' if on else '◐' if asked else '○'} {one.id:14} {one.formula}{since}\n  {one.summary}")
    if state is None or not state.correction:
        print("this run's trainer says nothing of corrections")
    print(f"backend parity: {verdict.word}: {verdict.why}")
    return OK


def set_correction(args: argparse.Namespace) -> int:
    """Correct the objective from the trainer's next step on. Without --wait: 0 once the hub has accepted the command.

    While the backend has not passed parity (newest steps, engine against trainer under the same weights) two
    confirmations are asked for on a terminal, the second one by typing the correction's name. Without a terminal
    --despite-parity is needed, else nothing is sent and the exit code is 5 (fails) or 6 (not enough data). `off` needs
    no confirmation.

    --json prints {`command`, `state`, `detail`, `data` {`effective`, `since_step`}, and as in `correction list`
    `requested`, `effective`, `since`, `by`, `generation`, `parity`}.
    """
    try:
        check(args.value)
    except UnknownCorrectionError as error:
        raise CommandError(str(error), USAGE) from error
    with connect_client(live_run(args.run), "operator") as client:
        _, verdict = _read_state(client)
        values = {"value": args.value}
        if gate.needs_consent(args.value, verdict):
            require_consent(args.value, verdict, despite=args.despite_parity, ask=_ask if sys.stdin.isatty() else None)
            values["despite"] = f"{verdict.word}: {verdict.why}"
        order = send_command(client, args, "correction.set", values, f"correction {args.value}")
        state = _read_state(client)[0] if order.ack is None else _wait_settled(client, args.value)
    if args.json:
        print(to_json(order.document() | _document(state, verdict)))
    elif order.ack is None:
        print(f"correction {args.value}: queued")
    else:
        print(f"correction {args.value}: in force from step {order.ack.data.get('since_step', '?')} on")
    return OK


def require_consent(value: str, verdict: Verdict, *, despite: bool, ask: Callable[[str], str] | None) -> None:
    """Ask for two confirmations unless `despite`. `ask` is None without a terminal. Raises CommandError."""
    failed = verdict.passes is False
    what = "the backend fails parity" if failed else "whether the backend is at parity is not known"
    text = f"{what}: {verdict.why}"
    code = NOT_PARITY if failed else NOT_ENOUGH_DATA
    advice = "a correction hides what a fix would repair; see: driftline fix list"
    if despite:
        print(f"driftline: correction {value} despite parity: {text}", file=sys.stderr)
        return
    if ask is None:
        raise CommandError(f"correction {value}: {text}; {advice}; --despite-parity does it nevertheless", code)
    print(f"{text}\n{advice}", file=sys.stderr)
    if ask(f"switch {value} on nevertheless? [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandError(f"correction {value}: not switched on", code)
    if ask(f"type {value} to confirm: ").strip() != value:
        raise CommandError(f"correction {value}: not confirmed, not switched on", code)


_ANSWER: Final = 1000
"""Most characters of an answer."""


def _ask(question: str) -> str:
    # On stderr: stdout may be read by a program (--json).
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline(_ANSWER)


def _read_state(client: Client) -> tuple[RunState | None, Verdict]:
    """The run's state and the gate's verdict, from the newest states and the numbers of the last steps."""
    rules = load()
    snapshot = client.snapshot()
    states = [frame for _, frame in decode_frames(list(snapshot.states))]

    def enough(found: list[Stamped]) -> bool:
        return sum(isinstance(frame, Metrics) for _, frame in decode_frames(found)) >= rules.window

    numbers = [
        frame for _, frame in decode_frames(recent_frames(client, snapshot.head, enough)) if isinstance(frame, Metrics)
    ]
    return _newest_run_state(states), gate.verdict_of_frames([*states, *numbers], rules)


def _newest_run_state(frames: list[Frame]) -> RunState | None:
    return next((frame for frame in reversed(frames) if isinstance(frame, RunState)), None)


def _wait_settled(client: Client, value: str) -> RunState:
    # The acknowledgement and the state are two frames; report a correction as in force only once the trainer has.
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        state = _newest_run_state([frame for _, frame in decode_frames(list(client.snapshot().states))])
        if state is not None and state.correction == value:
            return state
        if time.monotonic() > deadline:
            said = state.correction if state is not None else ""
            raise CommandError(
                f"correction {value}: acknowledged, but the trainer reports: {said or 'nothing'}", FAILED
            )
        time.sleep(0.05)


def _catalogue_entry(value: str) -> dict[str, Any]:
    one = BY_ID[value]
    return {name: getattr(one, name) for name in one.__struct_fields__}


def _document(state: RunState | None, verdict: Verdict) -> dict[str, Any]:
    said = state or RunState("", "starting", 0, 0, 0, 0.0)
    return {
        "requested": said.correction_requested,
        "effective": said.correction,
        "since": said.correction_since,
        "by": said.correction_by,
        "generation": said.correction_generation,
        "parity": {"verdict": verdict.word, "why": verdict.why},
    }
