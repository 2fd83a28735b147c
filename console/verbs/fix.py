"""`driftline fix list` and `driftline fix set`: the backend fixes of a live run."""

from __future__ import annotations

import argparse
import time

from console.link import connected, live_run
from console.orders import give
from console.outcome import FAILED, OK, USAGE, Failure
from console.plain import to_json
from console.recent import decoded
from console.summary import fix_document
from driftline.client import Client
from driftline.fixes import BY_ID, FIXES, UnknownFixError, check
from driftline.frames import FixState

HOW = {
    "live": "live",
    "next_sync": "next sync",
    "engine_restart": "engine restart",
    "not_available": "not available here",
}


def listing(args: argparse.Namespace) -> int:
    """List what each fix is doing: wanted value, value on the engines, how it takes effect, by whom.

    --json prints an array of {`id`, `title`, `layer`, `summary`, `values`, `reported` (bool: the run has said
    something about it), and where reported `requested`, `effective` ("" not reported by every engine, "mixed"),
    `settled`, `how` (live, next_sync, engine_restart, not_available), `generation`, `by`, `time`, `detail`,
    `engines` [{`engine`, `effective`, `how`, `since_version`, `since_step`, `detail`}]}.
    """
    with connected(live_run(args.run), "viewer") as client:
        states = fix_states(client)
    if args.json:
        print(to_json([_document(fix_id, states.get(fix_id)) for fix_id in BY_ID]))
        return OK
    for fix in FIXES:
        print(_line(fix.id, states.get(fix.id)))
    return OK


def setting(args: argparse.Namespace) -> int:
    """Set one fix on every engine. Without --wait: exit code 0 once the hub has taken the command.

    With --wait: 0 once every engine has reported the value, 1 refused or failed, 4 not within --timeout.
    --json prints {`command`, `state`, `detail`, `data`, `fix`: object as in `fix list --json`}.
    """
    try:
        check(args.id, args.value)
    except UnknownFixError as error:
        raise Failure(str(error), USAGE) from error
    with connected(live_run(args.run), "operator") as client:
        values = {"fix": args.id, "value": args.value}
        order = give(client, args, "fix.set", values, f"fix {args.id} {args.value}")
        state = fix_states(client).get(args.id) if order.ack is None else _settled(client, args)
    if args.json:
        print(to_json(order.document() | {"fix": _document(args.id, state)}))
    else:
        print(f"fix {args.id} {args.value}: queued" if order.ack is None else _line(args.id, state))
    return OK


def fix_states(client: Client) -> dict[str, FixState]:
    """The newest state of every fix that the run has reported."""
    frames = [frame for _, frame in decoded(list(client.snapshot().states))]
    return {frame.fix: frame for frame in frames if isinstance(frame, FixState)}


def _settled(client: Client, args: argparse.Namespace) -> FixState | None:
    # The acknowledgement and the state are two frames; never say "on" before an engine has reported it.
    deadline = time.monotonic() + 5.0
    while True:
        state = fix_states(client).get(args.id)
        if state is not None and state.effective == args.value:
            return state
        if time.monotonic() > deadline:
            effective = state.effective or "not reported" if state is not None else "not reported"
            raise Failure(f"fix {args.id}: acknowledged as {args.value}, but the engines say: {effective}", FAILED)
        time.sleep(0.05)


def _document(fix_id: str, state: FixState | None) -> dict[str, object]:
    fix = BY_ID[fix_id]
    static = {"id": fix.id, "title": fix.title, "layer": fix.layer, "summary": fix.summary, "values": fix.values}
    return static | {"reported": state is not None} | (fix_document(state) if state is not None else {})


def _line(fix_id: str, state: FixState | None) -> str:
    if state is None:
        return f"- {fix_id:22} not reported by this run"
    if state.how == "not_available":
        return f"- {fix_id:22} {HOW[state.how]}{f': {state.detail}' if state.detail else ''}"
    reported = sum(engine.effective == state.requested for engine in state.engines)
    sign = "●" if state.effective == "on" else ("○" if state.effective == "off" else "◐")
    since = min((engine.since_version for engine in state.engines if engine.since_version >= 0), default=None)
    parts = [
        f"{sign} {fix_id:22} {state.requested:3} {reported}/{len(state.engines)}",
        f"v{since}" if since is not None else "",
        HOW[state.how],
        f"by {state.by}" if state.by else "",
        "" if state.settled else f"(engines say: {state.effective or 'not reported'})",
        state.detail,
    ]
    return "  ".join(part for part in parts if part)
