"""`driftline watch`: the sentinels without a screen, for CI, tmux and scripts. Alarms as lines, as they come and go."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from console.cli.verbs import on_disk
from console.cli.verbs.sentinels import read_alerts, read_rules
from console.cli.verbs.tail import ENDED, GONE
from console.connect.resolve import live, open_target
from console.connect.target import Target
from console.errors import ALARM, FAILED, NO_RUN, OK, TIMEOUT, CommandError
from console.formatting import clock, to_json
from console.sentinels.alarm import Alarm
from console.sentinels.notify import Alerts, Ringer, Runner
from console.sentinels.rules import Rules
from console.sentinels.watch import Sentinels
from console.status.link_health import BEHIND_FRAMES, STALE_AFTER, Link
from console.store.model import RunModel
from driftline.client import ClientError, Feed
from driftline.rundir import RunDir
from driftline.text import sanitize

BATCH: Final = 500
LOOK_SECONDS: Final = 0.25
"""Seconds between two checks."""


def watch(args: argparse.Namespace) -> int:
    """Print alarms as they are raised and cleared, until the run ends or for --seconds; an ended run from its journal.

    Of a live run the alarms that stand come first, those cleared before are left out; of an ended one all are printed.
    --once prints those that stand now (at the end, of an ended run) and ends.

    --json prints one object a line: `number`, `rule`, `level` (warn, error), `state` (raised, cleared), `subject` (a
    metric, an engine or ""), `step`, `value`, `limit`, `text`, `time`, `cleared_step` (-1 while raised),
    `cleared_time`, `cleared_text`, `acknowledged`. NaN and infinities are strings.

    Exit code 0; with --exit-code 7 when an alarm that was printed is or was raised; 1 when the run failed; 1, 3 or 4
    when nothing was received from it, so that no alarm is known.
    """
    rules = read_rules(args.rules)
    alerts = read_alerts(args)
    out = Printer(as_json=args.json)
    with open_target(args) as run:
        on_disk.print_lacks(on_disk.lacks_of(run))
        if live(run):
            code = _follow_run(run, rules, out, alerts, once=args.once, limit=args.seconds)
        elif run.directory is not None:
            code = _follow_journal(run.directory, rules, out, once=args.once)
        else:
            raise CommandError(f"run {run.id} is not live, and its journal is on another machine", NO_RUN)
    if args.exit_code and out.raised:
        return ALARM
    return code


class Printer:
    """Alarms as lines of text or of JSON; counts those that were raised."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self.raised = 0
        self._labelled = False

    def show(self, alarm: Alarm) -> None:
        """Print one."""
        self.raised += alarm.state == "raised"
        if self._json:
            print(to_json(alarm.document()), flush=True)
            return
        sign = "ok" if alarm.state == "cleared" else "!!" if alarm.level == "error" else " !"
        print(f"{clock(alarm.cleared_time or alarm.time)} {sign} {sanitize(alarm.line)}", flush=True)

    def label(self, model: RunModel) -> None:
        """Print once that a run is synthetic, if it is."""
        if not self._labelled and model.run is not None and model.run.synthetic:
            self._labelled = True
            self.note("SYNTHETIC feed: no engine, no trainer, no model behind it")

    def note(self, text: str) -> None:
        """Print a text that is not an alarm, on stderr."""
        print(f"driftline: {sanitize(text)}", file=sys.stderr, flush=True)


def _follow_journal(run: RunDir, rules: Rules, out: Printer, *, once: bool) -> int:
    """The sentinels over a journal, on the hub's clock."""
    model, sentinels = RunModel(), Sentinels(rules)
    here = Link(True, 0.0)
    looked = 0.0
    for stamped in on_disk.read_frames(run):
        # The frames before this one are judged at its time, before it is applied: it ends a silence.
        if stamped.time - looked >= LOOK_SECONDS:
            looked = stamped.time
            _print_alarms(out, sentinels.update(model, stamped.time, here), once)
        model.apply(stamped)
    changed = sentinels.update(model, model.last_time or 0.0, here)
    out.label(model)
    _print_alarms(out, changed, once)
    if once:
        _print_alarms(out, sentinels.standing, False)
    status = model.run.status if model.run is not None else ""
    return FAILED if status == "failed" else OK


def _print_alarms(out: Printer, alarms: list[Alarm], once: bool) -> None:
    for alarm in alarms:
        if not once:
            out.show(alarm)


def _follow_run(run: Target, rules: Rules, out: Printer, alerts: Alerts, *, once: bool, limit: float | None) -> int:
    try:
        feed = Feed(run.connection(), run.credentials("viewer"), refresh=run.connection)
    except ClientError as error:
        raise CommandError(str(error)) from error
    runner = Runner(alerts.command, run.id, out.note) if alerts.command else None
    try:
        return _follow(run, feed, Sentinels(rules), out, Ringer(alerts, run.id), runner, once=once, limit=limit)
    finally:
        feed.close()
        if runner is not None:
            runner.close()


def _follow(
    run: Target,
    feed: Feed,
    sentinels: Sentinels,
    out: Printer,
    ringer: Ringer,
    runner: Runner | None,
    *,
    once: bool,
    limit: float | None,
) -> int:
    model = RunModel()
    began = time.monotonic()
    caught_up, silent_since, asked = False, None, False
    while limit is None or time.monotonic() - began < limit:
        feed.wait(LOOK_SECONDS)
        frames = feed.drain(BATCH)
        for stamped in frames:
            if stamped.seq <= model.head:
                model.rewind(stamped.seq - 1)
            model.apply(stamped)
        status = feed.status
        link = Link(status.connected or status.head > 0, status.age, status.behind, status.error)
        now = time.monotonic()
        changed = sentinels.update(model, now, link)
        if not caught_up:
            if len(frames) == BATCH or not status.connected or status.behind > BEHIND_FRAMES:
                _give_up_on_silence(run, status.age, status.error, once=once)
                if status.age > STALE_AFTER and not asked:
                    asked = True
                    out.note(f"run {run.id} is silent: waiting for its hub, no alarm is known until it answers")
                continue
            caught_up = True
            changed = sorted(sentinels.standing, key=lambda alarm: alarm.number)
        out.label(model)
        for alarm in changed:
            out.show(alarm)
        if once:
            return OK
        new_alarms = sentinels.take_new_alarms(link)
        if sys.stderr.isatty():
            sys.stderr.write(ringer.output(new_alarms, sentinels.standing, now))
            sys.stderr.flush()
        if runner is not None:
            runner.send(new_alarms)
        ended = model.run.status if model.run is not None and model.run.status in ENDED else ""
        if ended and status.behind == 0 and len(frames) < BATCH:
            return OK if ended == "finished" else FAILED
        silent_since = None if not status.stale or run.live() else silent_since or now
        if silent_since is not None and now - silent_since > GONE:
            raise CommandError(f"run {run.id} has ended without reporting an end: its hub is gone")
    if not caught_up:
        text = f"run {run.id} could not be followed to its newest step within {limit:g} s: its alarms are not known"
        raise CommandError(text, TIMEOUT)
    return OK


def _give_up_on_silence(run: Target, age: float, error: str, *, once: bool) -> None:
    """Raise CommandError if the hub is gone, or silent while one answer is asked for (--once)."""
    if age > GONE and (once or not run.live()):
        code = FAILED if run.live() else NO_RUN
        raise CommandError(f"run {run.id} is silent{': ' + error if error else ''}; its alarms are not known", code)
