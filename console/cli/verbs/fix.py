"""`driftline fix list` and `driftline fix set`: the backend fixes of a live run."""

from __future__ import annotations

import argparse
import time

from console.connect.backfill import decode_frames
from console.connect.commands import send_command
from console.connect.resolve import connect_client, live_run
from console.errors import FAILED, OK, USAGE, CommandError
from console.formatting import to_json
from console.status.fix_effects import effect_document, effect_line, owner
from console.status.summary import Summary, fix_document, summarise
from driftline.catalog.fixes import BY_ID, FIXES, UnknownFixError, check
from driftline.client import Client
from driftline.frames import Effect, FixState, meets

TRAINER = "trainer"
"""Name of the trainer among the engines of a fix that changes its side too."""

HOW = {
    "live": "live",
    "next_sync": "next sync",
    "engine_restart": "engine restart",
    "not_available": "not available here",
}


def list_fixes(args: argparse.Namespace) -> int:
    """List the state of each fix: requested value, value on the engines, how it takes effect, by whom.

    --json prints an array of {`id`, `title`, `layer`, `summary`, `values`, `reported` (bool: the run has reported
    its state), and where reported `requested`, `effective` ("" not reported by every engine, "mixed"),
    `settled`, `how` (live, next_sync, engine_restart, not_available), `generation`, `by`, `time`, `detail`,
    `engines` [{`engine`, `effective`, `how`, `since_version`, `since_step`, `detail`}], the trainer among them where it
    takes part}. `effect` is what the run measured of the newest change of that fix, or null: {`metric`, `before`,
    `after` (means), `change` (at the change, against the trend), `ci` [low, high] (95 % of `change`), `ratio`,
    `ratio_ci`, `unit` (step, prompt group, or "" where too few leave everything from `change` on "NaN"), `units`
    {`before`, `after`}, `note` (why something is missing or too narrow), `tokens` {`before`, `after`}, `steps`
    {`before`, `after`}, `clip` and `kl` {`metric`, then as from `before` to `tokens`}, `changes` [{`fix`, `before`,
    `after`}], `joint` (bool: several fixes, too close to tell apart; the effect is the set's), `done`, `step`,
    `version`, `by`, `time`, `id`, `detail`}. Only tokens sampled under the state before and the state after the change
    count. The whole schema
    is in docs/json.md.
    """
    with connect_client(live_run(args.run), "viewer") as client:
        found = _summary(client)
    if args.json:
        print(to_json([_document(fix_id, found.fixes.get(fix_id), found.effects.get(fix_id)) for fix_id in BY_ID]))
        return OK
    for fix in FIXES:
        print(_line(fix.id, found.fixes.get(fix.id)))
        if (effect := found.effects.get(fix.id)) is not None:
            print(f"  {_effect_line(found, fix.id, effect)}")
    return OK


def set_fix(args: argparse.Namespace) -> int:
    """Set one fix on every engine, or on one alone. Without --wait: exit code 0 once the hub has accepted the command.

    With --wait: 0 once every engine has reported the value, 1 refused or failed, 4 not within --timeout: a value that
    takes effect at the next sync waits for one, one that needs a restart for all engines (give it minutes).
    --json prints {`command`, `state`, `detail`, `data`, `fix`: object as in `fix list --json`}. `data` has
    `ENGINE.effective` for each engine and the trainer where it takes part; after a sync also `sync` and `version`,
    after a rolling restart `ENGINE.down_s`, `ENGINE.moved` (groups that others took over) and `ENGINE.version`.
    """
    try:
        check(args.id, args.value)
    except UnknownFixError as error:
        raise CommandError(str(error), USAGE) from error
    with connect_client(live_run(args.run), "operator") as client:
        values = {"fix": args.id, "value": args.value} | ({"engine": args.engine} if args.engine else {})
        order = send_command(client, args, "fix.set", values, f"fix {args.id} {args.value}")
        state = fix_states(client).get(args.id) if order.ack is None else _wait_settled(client, args)
        effect = _summary(client).effects.get(args.id)
    if args.json:
        print(to_json(order.document() | {"fix": _document(args.id, state, effect)}))
    else:
        print(f"fix {args.id} {args.value}: queued" if order.ack is None else _line(args.id, state))
    return OK


def fix_states(client: Client) -> dict[str, FixState]:
    """The newest state of every fix that the run has reported."""
    return _summary(client).fixes


def _summary(client: Client) -> Summary:
    return summarise(frame for _, frame in decode_frames(list(client.snapshot().states)))


def _wait_settled(client: Client, args: argparse.Namespace) -> FixState | None:
    # The acknowledgement and the state are two frames; report "on" only once every engine has reported it.
    deadline = time.monotonic() + 5.0
    while True:
        state = fix_states(client).get(args.id)
        effective = _effective(state, args.engine)
        if meets(args.value, effective):
            return state
        if time.monotonic() > deadline:
            effective = effective or "not reported"
            raise CommandError(
                f"fix {args.id}: acknowledged as {args.value}, but the engines report: {effective}", FAILED
            )
        time.sleep(0.05)


def _effective(state: FixState | None, engine: str) -> str:
    """The value that all engines report, or the one that is named; "" for none."""
    if state is None or not engine:
        return state.effective if state is not None else ""
    return next((one.effective for one in state.engines if one.engine == engine), "")


def _effect_line(found: Summary, fix_id: str, effect: Effect) -> str:
    """The effect of a fix; that of a set of fixes stands under the first of them."""
    first = owner(found.effects, fix_id)
    return effect_line(effect) if first == fix_id else f"measured together with {first}: see there"


def _document(fix_id: str, state: FixState | None, effect: Effect | None) -> dict[str, object]:
    fix = BY_ID[fix_id]
    static = {"id": fix.id, "title": fix.title, "layer": fix.layer, "summary": fix.summary, "values": fix.values}
    reported = fix_document(state) if state is not None else {}
    measured = effect_document(effect) if effect is not None else None
    return static | {"reported": state is not None} | reported | {"effect": measured}


def _line(fix_id: str, state: FixState | None) -> str:
    if state is None:
        return f"- {fix_id:22} not reported by this run"
    if state.how == "not_available":
        return f"- {fix_id:22} {HOW[state.how]}{f': {state.detail}' if state.detail else ''}"
    engines = [engine for engine in state.engines if engine.engine != TRAINER]
    reported = sum(state.met(engine) for engine in engines)
    whole = state.effective not in ("", "mixed")
    sign = "◐" if not whole else ("●" if state.effective in BY_ID[fix_id].repairs else "○")
    since = min((engine.since_version for engine in state.engines if engine.since_version >= 0), default=None)
    parts = [
        f"{sign} {fix_id:22} {state.requested:3} {reported}/{len(engines)}",
        "and the trainer" if state.settled and len(engines) < len(state.engines) else "",
        f"v{since}" if since is not None else "",
        HOW[state.how],
        f"by {state.by}" if state.by else "",
        "" if state.settled else f"(engines report: {state.effective or 'nothing yet'})",
        state.detail,
    ]
    return "  ".join(part for part in parts if part)
