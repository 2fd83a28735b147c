"""`driftline tail`: one line for each step and event, as they come. Also what a headless `run` prints."""

from __future__ import annotations

import argparse
import time
from typing import Final

from console.cli.verbs import on_disk
from console.connect.backfill import decode_frames, recent_frames
from console.connect.resolve import connect_client, live, open_target
from console.connect.target import Target
from console.errors import FAILED, NO_RUN, OK, CommandError
from console.formatting import clock
from console.status.link_health import Link, banner
from console.status.step_lines import Lines
from driftline.client import ClientError, Feed, FeedStatus
from driftline.frames import FrameError, Metrics, RunState, Stamped
from driftline.rundir import RunDir
from driftline.text import sanitize

HISTORY: Final = 10
"""Steps of the past to print first."""
GONE: Final = 10.0
"""Seconds without a hub after which a run has ended: a hub that is restarted is back sooner."""
ENDED: Final = frozenset({"finished", "failed"})


def tail(args: argparse.Namespace) -> int:
    """Follow a live run until it ends or for --seconds; print an ended one whole.

    Exit code 0; 1 when the run ended as failed or its hub went away without reporting an end.
    """
    with open_target(args) as run:
        on_disk.print_lacks(on_disk.lacks_of(run))
        if live(run):
            return _follow(run, args.seconds)
        if run.directory is None:
            raise CommandError(f"run {run.id} is not live, and its journal is on another machine", NO_RUN)
        return _print_journal(run.directory)


def _print_journal(run: RunDir) -> int:
    lines, status = Lines(), ""
    for stamped in on_disk.read_frames(run):
        status = print_frame(lines, stamped) or status
    # A trainer that only emits metrics never reports how it ended.
    return OK if status in ("finished", "") else FAILED


def _follow(run: Target, seconds: float | None) -> int:
    with connect_client(run, "viewer") as client:
        snapshot = client.snapshot()
        synthetic = run.connection().synthetic
        before = recent_frames(client, snapshot.head, lambda found: sum(map(_is_step, found)) >= HISTORY)
    since = _nth_last_step(before) or snapshot.head + 1
    lines = Lines(synthetic=synthetic)
    for stamped, frame in decode_frames(list(snapshot.states)):
        texts = list(lines.format(stamped, frame))
        # The engines' states are recorded in `lines` now, so that a repetition is not printed as a change.
        if isinstance(frame, RunState):
            print(*texts, sep="\n", flush=True)
    try:
        feed = Feed(run.connection(), run.credentials("viewer"), since=since, refresh=run.connection)
    except ClientError as error:
        raise CommandError(str(error)) from error
    try:
        return _print_feed(run, feed, lines, None if seconds is None else time.monotonic() + seconds)
    finally:
        feed.close()


def _print_feed(run: Target, feed: Feed, lines: Lines, until: float | None) -> int:
    status, gone_at, word = "", None, ""
    while until is None or time.monotonic() < until:
        feed.wait(0.2)
        for stamped in feed.drain():
            status = print_frame(lines, stamped) or status
        if status in ENDED:
            return OK if status == "finished" else FAILED
        word = _print_hub_state(run, feed.status, word)
        # A hub that has just sent a frame is alive; pinging a remote one would cost a round trip.
        if not feed.status.stale or run.live():
            gone_at = None
            continue
        gone_at = gone_at or time.monotonic()
        if time.monotonic() - gone_at > GONE:
            if not status:
                return OK
            logs = f"; see {run.directory.logs}" if run.directory is not None else ""
            raise CommandError(f"run {run.id} has ended without reporting an end: its hub is gone{logs}")
    return OK


def _print_hub_state(run: Target, status: FeedStatus, before: str) -> str:
    """Print the banner of the connection to the run when its word changes; return the word."""
    link = Link(True, status.age, status.behind, status.error, status.degraded, run.note())
    found = banner(None, link, [], None)
    word = found.word if found is not None else ""
    if word != before:
        text = f"!! {found.word}: {found.text}" if found is not None else "   hub: connected again, no frame was missed"
        print(f"{clock(time.time())} {sanitize(text)}", flush=True)
    return word


def print_frame(lines: Lines, stamped: Stamped) -> str:
    """Print the lines of one frame; return the run's status if the frame is one, else ""."""
    try:
        frame = stamped.frame()
    except FrameError:
        # A kind of a newer producer; the other frames are printed all the same.
        return ""
    for text in lines.format(stamped, frame):
        print(text, flush=True)
    return frame.status if isinstance(frame, RunState) else ""


def _is_step(stamped: Stamped) -> bool:
    try:
        return isinstance(stamped.frame(), Metrics)
    except FrameError:
        return False


def _nth_last_step(stamped: list[Stamped]) -> int | None:
    steps = [one.seq for one in stamped if _is_step(one)]
    return steps[-HISTORY:][0] if steps else (stamped[0].seq if stamped else None)
