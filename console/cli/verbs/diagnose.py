"""`driftline diagnose`: the cause of a mismatch, named, with how sure that is and what to do."""

from __future__ import annotations

import argparse
import sys

from console.cli.verbs import on_disk
from console.connect.backfill import REACH
from console.connect.commands import send_command
from console.connect.newest_tokens import newest_tokens
from console.connect.resolve import connect_client, live, open_target
from console.connect.target import Target
from console.diagnosis import active, looks
from console.diagnosis.facts import facts_of
from console.diagnosis.model import Diagnosis
from console.diagnosis.recorded import diagnose_run, token_frames
from console.diagnosis.report import document, lines
from console.diagnosis.watch import Watch
from console.errors import CAUSE, FAILED, NO_RUN, NOT_ENOUGH_DATA, OK, UNEXPLAINED, CommandError
from console.formatting import to_json
from console.recorded import frames
from console.store.load import load
from console.store.model import RunModel
from driftline.frames import FrameError
from driftline.rundir import RunDir
from driftline.text import sanitize


def diagnose(args: argparse.Namespace) -> int:
    """Print the answer in one sentence, the evidence for and against it, what else it may be, and what to do.

    By the token pairs and states that are recorded, and by the newest active round for as long as that counts (see
    docs/active-round.md); nothing is asked of the run. Of a live run as far as it is recorded now; of one on another
    machine by its newest frames. With --active the run's trainer and engines first score some of
    their newest tokens again, in several ways: what that will cost is said before, what it has cost after, and nothing
    is trained, sent, switched or sampled for it. Then `active` holds its figures and `cost`.

    --json prints one object: `run` and the fields of `console.diagnosis.model.Diagnosis`: `verdict` (normal, cause,
    unknown, "not enough data"), `sentence`, `certainty` (0 to 1), `named` (names of causes, the larger first), `ranked`
    (array of {`name`, `cause` (null for none and unknown), `probability`, `supporting`, `opposing` (arrays of
    {`instrument`, `figure`, `text`, `llr`, `unit`}), `where`, `since`}), `ruled_out`, `normal` {`floor`, `seen`,
    `text`, `source`}, `missing` (what was not recorded), `attribution` (null, or {`total`, `shares` [{`layer`,
    `nats`, `low`, `high`}], `method`, `tokens`, `note`}; shares sum to the total), `profiles`, `readings`,
    `actions`, `tokens`, `steps`, `seen`. NaN and infinities are strings.

    Exit code 0 where nothing is wrong beyond the numeric floor, 8 where a cause is named, 9 where something is wrong
    that no known cause explains, 6 where there are too few token pairs to say.
    """
    with open_target(args, ended=True) as run:
        on_disk.print_lacks(on_disk.lacks_of(run))
        figures = _figures(args, run) if args.active else {}
        if figures:
            watch, model = _seen_in_directory(run.directory) if run.directory is not None else _seen_by_hub(run)
            found = looks.diagnose(watch, facts_of(model), figures)
        else:
            found = _of_directory(run.directory) if run.directory is not None else _of_hub(run)
        name = run.id
    if args.json:
        round_made = {"active": {**figures, "cost": active.cost(figures)}} if figures else {}
        print(to_json({"run": name} | document(found) | round_made))
    else:
        print("\n".join(sanitize(line) for line in lines(found)))
        if figures:
            print(f"active round: {sanitize(active.cost(figures))}")
    codes = {"normal": OK, "cause": CAUSE, "unknown": UNEXPLAINED}
    return codes.get(found.verdict, NOT_ENOUGH_DATA)


def _of_directory(run: RunDir) -> Diagnosis:
    try:
        return diagnose_run(run)
    except frames.unreadable() as error:
        raise CommandError(frames.damaged(run), FAILED) from error


def _figures(args: argparse.Namespace, run: Target) -> dict[str, str | float | int | bool]:
    """The answer of an active round. Raises CommandError: 1 refused or failed, 3 where the run is not live, 4 no answer
    in time."""
    if not live(run):
        raise CommandError(f"run {run.id} is not live: its trainer and engines cannot be asked", NO_RUN)
    args.wait = True
    with connect_client(run, "operator") as client:
        order = send_command(client, args, "diagnose", {"tokens": str(args.tokens)}, "active round")
    return dict(order.ack.data) if order.ack is not None else {}


def _seen_in_directory(run: RunDir) -> tuple[Watch, RunModel]:
    watch = Watch()
    try:
        for frame in token_frames(run):
            watch.feed(frame)
        return watch, load(run).model
    except frames.unreadable() as error:
        raise CommandError(frames.damaged(run), FAILED) from error


def _of_hub(run: Target) -> Diagnosis:
    return looks.of_model(*_seen_by_hub(run))


def _say_damaged(error: FrameError) -> None:
    print(f"driftline: a frame was left out: {sanitize(str(error))}", file=sys.stderr)


def _seen_by_hub(run: Target) -> tuple[Watch, RunModel]:
    if not live(run):
        raise CommandError(f"run {run.id} is not live, and its journal is on another machine", NO_RUN)
    with connect_client(run, "viewer") as client:
        return newest_tokens(client, lambda head: max(1, head - REACH), _say_damaged)
