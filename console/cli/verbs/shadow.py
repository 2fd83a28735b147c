"""`driftline shadow`: which share of the sampled groups another engine of the pool scores as well."""

from __future__ import annotations

import argparse
from typing import Any

from console.connect.backfill import decode_frames, recent_frames
from console.connect.commands import send_command
from console.connect.resolve import connect_client, live_run
from console.errors import OK, USAGE, CommandError
from console.formatting import short, to_json
from driftline.catalog import shadow
from driftline.client import Client
from driftline.frames import Metrics, RunState, Stamped


def show(args: argparse.Namespace) -> int:
    """Show the wanted share and the newest numbers of shadow scoring.

    --json prints {`share` (null where the trainer says nothing of it), `by`, `step` (of the numbers, null for none),
    `values` {NAME: NUMBER}, `pairs` (text)}.
    """
    with connect_client(live_run(args.run), "viewer") as client:
        document = _document(client)
    if args.json:
        print(to_json(document))
        return OK
    share = document["share"]
    print("this run's trainer says nothing of shadow scoring" if share is None else _wanted(share, document["by"]))
    if document["step"] is not None:
        print(f"step {document['step']}{', ' + document['pairs'] if document['pairs'] else ''}:")
        for name, value in document["values"].items():
            print(f"  {name:<28} {short(value)}")
    return OK


def set_share(args: argparse.Namespace) -> int:
    """Have another engine score this share of the groups from now on. Without --wait: 0 once the hub has accepted it.

    --json prints {`command`, `state`, `detail`, `data` {`share`}}.
    """
    try:
        share = shadow.share(args.share)
    except shadow.BadShareError as error:
        raise CommandError(str(error), USAGE) from error
    with connect_client(live_run(args.run), "operator") as client:
        order = send_command(client, args, "shadow.set", {"share": f"{share:g}"}, f"shadow {share:g}")
    if args.json:
        print(to_json(order.document()))
    else:
        print(f"shadow {share:g}: {'queued' if order.ack is None else 'in force'}")
    return OK


def _wanted(share: float, by: str) -> str:
    what = f"{share:g} of the groups are to be scored by another engine" if share else "no group is scored"
    return f"{what}{f', by {by}' if by else ''}"


def _document(client: Client) -> dict[str, Any]:
    snapshot = client.snapshot()
    run = next((one for _, one in decode_frames(list(snapshot.states)) if isinstance(one, RunState)), None)

    def enough(found: list[Stamped]) -> bool:
        return any(isinstance(frame, Metrics) for _, frame in decode_frames(found))

    frames = [frame for _, frame in decode_frames(recent_frames(client, snapshot.head, enough))]
    newest = next((frame for frame in reversed(frames) if isinstance(frame, Metrics)), None)
    values = {name: value for name, value in (newest.values if newest else {}).items() if name.startswith("shadow/")}
    return {
        "share": run.shadow_share if run is not None and run.shadow_share >= 0 else None,
        "by": run.shadow_by if run is not None else "",
        "step": newest.step if newest is not None and values else None,
        "values": values,
        "pairs": newest.labels.get("shadow/abs_diff_mean", "") if newest is not None else "",
    }
