"""`driftline status`: one line about a run, for people, tmux status bars and scripts."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import asdict, replace

from console.cli.verbs import on_disk
from console.connect.backfill import decode_frames, recent_frames
from console.connect.resolve import connect_client, open_target
from console.connect.target import Target
from console.errors import FAILED, NO_RUN, OK, CommandError
from console.formatting import to_json
from console.launch import children
from console.status import supervision
from console.status.engine_lines import engine_lines
from console.status.link_health import HOLE, STALE_AFTER, Banner, Link, banner
from console.status.summary import Summary, document, line, summarise
from driftline.client import Client, next_beacon
from driftline.frames import Frame, FrameError, Metrics, Stamped
from driftline.journal.holes import Hole, hole_text, holes, odd_names, odd_text
from driftline.rundir import RunDir
from driftline.text import sanitize

PULSE_SECONDS: Final = 2.0
"""Longest wait for a beacon of the hub, which comes five times a second."""


def status(args: argparse.Namespace) -> int:
    """Print one line; an ended run's last state is read from its journal.

    `demo-7f3a step 812/900 v41 lag 1.2 R .43 KL .02 H 1.9 mm .038 2/2 engines running`: R reward, KL old||new, H
    entropy, mm rollout-against-trainer mean |difference of logprobs|; "!" marks a value the catalogue calls alarming;
    `2 engines ended` once the run has; a fix that only some engines have, or say nothing of: `processed-logprobs on
    3/8, off 3, unknown on 2`; `held by ana@box` at its end: the session that has the lease, if any.

    --engines adds a line for each engine (how it is, whose it is, how it joined), for each fix, and for each key of
    their configurations that differs between them, with the groups of engines that are set alike.

    --json prints one object: `run`, `path`, `live` (bool), `status` (starting, running, paused, stopping, finished,
    failed; "died" for a run whose hub has gone without reporting an end; "unknown" before a trainer has reported),
    `detail`, `synthetic` (bool), `step`, `steps`, `version`, `time` (Unix), `objective`, `model`, `temperature`,
    `paused_by`, `lease_until`, `writer` (the session that has the lease: null, or {`issuer`, `session`, `since`,
    `until`}, Unix times), `config_digest`, `metrics` {`step`, `version`, `values` {name: number}}, `engines` (array of
    objects with the fields of EngineState), `differences` {`engines`, `keys`, `groups` [{`engines`, `values`}], `same`,
    `silent` [{`engines`, `keys`}]}, `fixes` (array of {`id`, `requested`, `effective`, `settled`, `coverage`, `how`,
    `generation`, `by`, `time`, `detail`, `engines`}), `hub_banner` (null, or {`word`, `text`, `level`} as the console's
    banner), `journal` (null where it is on another machine) {`missing` (array of {`first`, `last`: numbers of segments
    that are missing in the middle, `start`, `end`: the frames that were in them}), `odd` (names of files that are no
    segments)}, `supervisor` (null: none by its own wish, ended in order, or on another machine) {`pid`, `alive` (bool:
    false is NO SUPERVISOR on the line), `detached` (bool), `started`, `takeovers` (how often of late a standby became
    the supervisor), `hub_deaths` within the last `hub_window` seconds, `hub_away` (since when the hub is away, null: it
    is there), `hub_next` (when it is started again, null: not waited for)}. NaN and infinities are strings.
    """
    with open_target(args) as run:
        live, problem = run.live(), None
        care, now = supervision.look(run.directory), time.time()
        if live:
            with connect_client(run, "viewer") as client:
                summary = live_summary(client)
            problem = hub_banner(run, summary)
        elif run.directory is not None:
            summary = journal_summary(run.directory)
        else:
            raise CommandError(f"run {run.id} is not live, and its journal is on another machine", NO_RUN)
        # A run whose hub is away goes on all the same.
        alone = trainer_alone(run.directory) if not live and care is not None and not care.alive else 0
        going = live or alone > 0 or (care is not None and care.alive)
        missing, odd = journal_gaps(run.directory) if run.directory is not None else ([], [])
        local = run.directory is not None
        path = str(run.directory.path) if run.directory is not None else str(args.run)
    if args.json:
        words = {"word": problem.word, "text": problem.text, "level": problem.level} if problem is not None else None
        gaps = {"missing": [asdict(hole) for hole in missing], "odd": odd} if local else None
        more = {"live": live, "trouble": words, "journal": gaps, "supervisor": supervision.document(care, now)}
        print(to_json(document(run.id, path, summary, live=going) | more))
    else:
        parts = [line(run.id, summary, live=going), _said(problem)]
        parts += supervision.words(care, now)
        parts.append(f"NO HUB, its trainer (process {alone}) goes on" if alone else "")
        parts += [f"JOURNAL HOLE: {hole_text(hole)}" for hole in missing]
        parts.append(sanitize(f"JOURNAL: {odd_text(odd)}") if odd else "")
        print("  ".join(part for part in parts if part))
        if args.engines:
            print("\n".join(engine_lines(summary, now)))
    return OK


def _said(problem: Banner | None) -> str:
    """The word of a banner; of a hole, which is nothing of the moment, the whole of it."""
    if problem is None:
        return ""
    return f"{problem.word}: {problem.text}" if problem.word == HOLE else problem.word


def trainer_alone(run: RunDir | None) -> int:
    """Process id of a trainer that has neither hub nor supervisor, 0 if it does not live either."""
    trainer = children.find(run, "trainer") if run is not None else None
    return trainer.pid if trainer is not None else 0


def journal_gaps(run: RunDir) -> tuple[list[Hole], list[str]]:
    """Segments missing in the middle of a journal, and names in its folder that are no segment's."""
    try:
        missing = holes(run)
    except OSError as error:
        raise CommandError(f"{run.journal}: cannot be read: {error.strerror or error}", FAILED) from error
    return missing, odd_names(run.journal)


def hub_banner(run: Target, summary: Summary) -> Banner | None:
    """The banner for what is wrong with the hub now, from one beacon of its next_beacon; None if nothing is."""
    beacon = next_beacon(run.connection(), run.credentials("viewer"), PULSE_SECONDS)
    link = Link(True, 0.0 if beacon is not None else PULSE_SECONDS + STALE_AFTER)
    if beacon is None:
        return banner(summary.run, link, [], None)
    # Of a run of this machine the holes are listed from its files.
    missing = sanitize(beacon.missing or "") if run.directory is None else ""
    link = replace(link, degraded=beacon.degraded, missing=missing)
    return banner(summary.run, link, [], None, sanitize(beacon.crowded))


def live_summary(client: Client) -> Summary:
    """State from the hub's snapshot, numbers of the newest step from its last pages."""
    snapshot = client.snapshot()
    frames = [frame for _, frame in decode_frames(list(snapshot.states))]
    last = recent_frames(client, snapshot.head, lambda found: any(_is_metrics(one) for one in found))
    metrics = [frame for _, frame in decode_frames(last) if isinstance(frame, Metrics)]
    return summarise(metrics, summarise(frames))


def journal_summary(run: RunDir) -> Summary:
    """Summary of the whole journal of an ended run."""
    return summarise(_bodies(on_disk.read_frames(run)))


def _bodies(stream: Iterable[Stamped]) -> Iterator[Frame]:
    for stamped in stream:
        try:
            yield stamped.frame()
        except FrameError:
            continue


def _is_metrics(stamped: Stamped) -> bool:
    try:
        return isinstance(stamped.frame(), Metrics)
    except FrameError:
        return False
