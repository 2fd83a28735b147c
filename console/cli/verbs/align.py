"""`driftline fix align`: the fixes and syncs that bring the backend home, in order, watched, and set back again."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from console.aligning import effect, record
from console.aligning.course import Course
from console.aligning.effect import Change
from console.aligning.plan import SYNC, Alignment, Setting, cost, plan, undo, when, without
from console.aligning.wanted import other_actions, wanted
from console.connect.backfill import PAGE, decode_frames, frames_between, recent_frames
from console.connect.commands import send_command
from console.connect.live_source import first_token_seq
from console.connect.newest_tokens import newest_tokens
from console.connect.resolve import connect_client, live_run
from console.diagnosis.looks import of_model
from console.diagnosis.model import Diagnosis
from console.errors import FAILED, OK, TIMEOUT, USAGE, CommandError
from console.formatting import to_json
from console.status.fix_effects import effect_document, effect_line, owner
from console.status.progress import Progress
from console.status.summary import Summary, summarise
from driftline.catalog.fixes import BY_ID
from driftline.catalog.metrics import resolve
from driftline.client import Client, ClientError
from driftline.frames import Ack, Command, Effect, Metrics, Stamped
from driftline.text import sanitize

_NAMES: Final = tuple(name for _, name in effect.WATCHED)
_INNER: Final = frozenset({"generation", "share", "alone"})
"""Fields of a setting that are no part of the document: the gain is made of them."""
_ANSWER: Final = 1000
"""Most characters of an answer."""
_LOOK: Final = 0.5
"""Seconds between two looks at the run while its effect is watched."""


def align(args: argparse.Namespace) -> int:
    """Set what the diagnosis of the run asks for: live fixes first, then what a weight sync carries, with one sync.

    The diagnosis is made of the newest token pairs that the run has reported. Where it names no cause, or there are
    none, every fix of the reference set that is not in force is meant. It asks once, on a terminal; elsewhere --yes is
    needed. Then it waits until every engine has reported each value, watches --steps trainer steps, and prints the
    mismatch, clip fraction and reward before and since. --without leaves a fix, or the sync, out; what is expected of
    the others follows. --undo sets the last alignment back, --dry-run only prints.

    Exit codes: 0 done, or nothing to do; 1 refused, failed or not confirmed: what was set by then stays and is named; 4
    not within --timeout.

    --json prints {`title`, `why`, `undoes`, `settings` [{`fix`, `value`, `before`, `effective` (as of the beginning),
    `how`, `named` (its cause was named), `gain` {`nats`, `low`, `high`, `source`} (expected fall of the mismatch in
    nats; "NaN" and "" where it is not known)}], `sync`, `skipped` [{`fix`, `value`, `why`}], `others` [text] (what is
    asked for that no command does), `state` ("dry run", "nothing to do", "applied"), `commands` [{`what`, `state`,
    `detail`}], `changes` {METRIC: {`before`, `after`, `steps` {`before`, `after`}}}, `effects` [object as `effect` in
    `fix list --json`]}. The whole schema is in docs/json.md.
    """
    for name in args.without:
        if name != SYNC and name not in BY_ID:
            raise CommandError(f"--without: there is no fix '{name}'; allowed: {', '.join(BY_ID)}, {SYNC}", USAGE)
    with connect_client(live_run(args.run), "operator") as client:
        snapshot = client.snapshot()
        state = _summary(snapshot.states)
        trainer = state.run is not None
        found = None if args.undo else diagnosis(client)
        made = _undoing(client, snapshot.head, state, trainer) if args.undo else plan(
            state.fixes, state.effects, wanted(found), trainer=trainer
        )  # fmt: skip
        made = without(made, args.without)
        others = other_actions(found)
        numbers = _newest_steps(client, snapshot.head)
        if not args.json or not args.yes:
            for line in lines(made, others, numbers.sync_s):
                print(line, file=sys.stderr if args.json else sys.stdout)
        if made.empty or args.dry_run:
            return _print(args, made, others, "nothing to do" if made.empty else "dry run")
        _confirm(made, args)
        course = Course(made, max(numbers.step, state.run.step if state.run is not None else -1))
        _carry_out(client, args, course, snapshot.head)
        changes = _watch(client, args, course, numbers, snapshot.head + 1)
        effects = _effects(client, made)
    return _print(args, made, others, "applied", course, changes, effects)


def diagnosis(client: Client) -> Diagnosis | None:
    """What the newest token pairs of a live run say; None where it has reported none."""
    # A frame that cannot be read says nothing; the others do.
    watch, model = newest_tokens(client, partial(first_token_seq, client), lambda _error: None)
    return of_model(watch, model) if watch.tokens else None


def _summary(states: tuple[Stamped, ...]) -> Summary:
    return summarise(frame for _, frame in decode_frames(list(states)))


def _undoing(client: Client, head: int, state: Summary, trainer: bool) -> Alignment:
    """What sets the alignment that stands back. Raises CommandError where none does."""
    noted = record.found(_commands_backwards(client, head))
    if noted is None:
        raise CommandError("fix align --undo: no alignment of this run stands: none was made, or it was undone")
    return undo(noted, state.fixes, trainer=trainer)


def _commands_backwards(client: Client, head: int) -> Iterator[Command]:
    """The commands of the journal, newest first."""
    progress = Progress(plain=False)
    end = head + 1
    try:
        while end > 1:
            start = max(1, end - PAGE)
            progress.update(f"looking for the last alignment: {head - start + 1:,} of {head:,} frames")
            for _, frame in reversed(decode_frames(frames_between(client, start, end))):
                if isinstance(frame, Command):
                    yield frame
            end = start
    finally:
        progress.done()


def lines(made: Alignment, others: list[str], sync_s: float | None) -> Iterator[str]:
    """What would be done, for people."""
    yield f"{made.title} ({sanitize(made.why)})"
    for one in made.settings:
        gain = "" if made.undoes else f"  expected {one.gain}"
        hidden = "" if one.named else "  (cause not ruled out; a larger one may hide it)"
        yield f"  {one.fix:22} {one.before} -> {one.value:8} {when(one, sync=made.sync):20}{gain}{hidden}"
    if made.sync:
        gain = f"  expected {made.sync_gain}" if made.sync_gain.source else ""
        yield f"  {'sync weights':22} on every engine, with what waits for it{gain}"
    if made.together:
        yield f"  expected together {made.together}"
    for left in made.skipped:
        yield f"  left out: {left.fix} {left.value}: {sanitize(left.why)}"
    for text in others:
        yield f"  also asked for: {sanitize(text)}"
    if not made.empty:
        yield f"  cost: {cost(made, sync_s)}"


def _confirm(made: Alignment, args: argparse.Namespace) -> None:
    """Ask once, unless --yes was given. Raises CommandError."""
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{made.title}: not confirmed, nothing was set; --yes does it without asking")
    # On stderr: stdout may be read by a program (--json).
    question = "set back" if made.undoes else "align"
    print(f"{question} now? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline(_ANSWER).strip().lower() not in ("y", "yes"):
        raise CommandError(f"{made.title}: not confirmed, nothing was set")


def _carry_out(client: Client, args: argparse.Namespace, course: Course, head: int) -> None:
    """Send every command in its turn and wait for it. Raises CommandError, and names what was set by then."""
    standing = None
    if not course.made.undoes:
        recent = recent_frames(client, head, lambda _found: False)
        standing = record.found(frame for _, frame in reversed(decode_frames(recent)) if isinstance(frame, Command))
    once = argparse.Namespace(wait=False, timeout=args.timeout, take_over=args.take_over)
    send_command(client, once, "mark", record.mark(course.made, standing), course.made.title)
    once.take_over = False  # taken by now
    until, code = time.monotonic() + args.timeout, FAILED
    progress = Progress(plain=False)
    try:
        while due := course.due():
            numbers = []
            for order in due:
                try:
                    values = dict(order.args)
                    sent = send_command(client, once, order.verb, values, order.what, order.generation)
                except CommandError as error:
                    course.refused(order, str(error))
                    code = error.exit_code
                    break
                numbers.append(sent.id)
                course.sent(order, sent.id)
            progress.update(f"{', '.join(order.what for order in due)}: sent")
            for number in numbers:
                code = code if _wait(client, number, course, until) else TIMEOUT
    finally:
        progress.done()
    if course.error:
        text = f"{course.made.title}: {course.standing}; driftline fix align --undo sets back what was set"
        raise CommandError(text, code)


def _wait(client: Client, number: str, course: Course, until: float) -> bool:
    """Follow a command to its end; False where none came in time."""
    try:
        ack = client.wait(number, max(until - time.monotonic(), 0.1))
    except ClientError as error:
        course.heard(number, "failed", f"no final answer: {error}")
        return time.monotonic() < until
    course.heard(number, ack.state, ack.detail)
    return True


class _Numbers:
    """The watched metrics of a run as its frames come."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = {name: [] for name in _NAMES}
        self.sync_s: float | None = None
        """Seconds that the newest sync took."""
        self.step = -1
        """The newest step."""

    def take(self, frame: Metrics) -> None:
        """Take in a step."""
        self.step = max(self.step, frame.step)
        for name, value in frame.values.items():
            known = resolve(name)
            if known in self.points:
                self.points[known].append((frame.step, value))
            elif known == "sync/total_s":
                self.sync_s = value


def _newest_steps(client: Client, head: int) -> _Numbers:
    def enough(found: list[Stamped]) -> bool:
        return sum(isinstance(frame, Metrics) for _, frame in decode_frames(found)) >= effect.WINDOW

    numbers = _Numbers()
    for _, frame in decode_frames(recent_frames(client, head, enough)):
        if isinstance(frame, Metrics):
            numbers.take(frame)
    return numbers


def _watch(client: Client, args: argparse.Namespace, course: Course, numbers: _Numbers, start: int) -> list[Change]:
    """Follow the run until --steps steps have come since, it ends, or --timeout has passed once more.

    `start`: the first frame that `numbers` has not taken in. Which steps came since is read from the order of frames: a
    run may be a step further before this console hears that the last command was applied.
    """
    until = time.monotonic() + args.timeout
    waited = set(course.sent_ids)
    progress = Progress(plain=False)
    try:
        while True:
            head = client.snapshot().head
            for _, frame in decode_frames(frames_between(client, start, head + 1)):
                if isinstance(frame, Metrics):
                    numbers.take(frame)
                elif isinstance(frame, Ack) and frame.state == "applied":
                    waited.discard(frame.id)
                if not waited:
                    course.look(numbers.step)
            start = head + 1
            changes = effect.changes(numbers.points, course.begun, course.ended)
            after = max((one.steps_after for one in changes), default=0)
            progress.update(f"{effect.sentence(changes)}; {after} of {args.steps} steps")
            if after >= args.steps or time.monotonic() > until or not _running(client):
                return changes
            time.sleep(_LOOK)
    finally:
        progress.done()


def _running(client: Client) -> bool:
    run = _summary(client.snapshot().states).run
    return run is None or run.status not in ("stopping", "finished", "failed")


def _effects(client: Client, made: Alignment) -> list[Effect]:
    """The measured effects of what was set, each once."""
    effects = _summary(client.snapshot().states).effects
    firsts = dict.fromkeys(owner(effects, one.fix) for one in made.settings if one.fix in effects)
    return [effects[first] for first in firsts]


def _print(
    args: argparse.Namespace,
    made: Alignment,
    others: list[str],
    state: str,
    course: Course | None = None,
    changes: list[Change] | None = None,
    effects: list[Effect] | None = None,
) -> int:
    changes, effects = changes or [], effects or []
    if args.json:
        measured = {"effects": list(map(effect_document, effects))}
        print(to_json(document(made, others, state, course, changes) | measured))
        return OK
    if course is None:
        return OK
    for order in course.orders:
        print(f"{order.what}: {course.state(order)}{f', {course.detail(order)}' if course.detail(order) else ''}")
    print(effect.sentence(changes))
    for one in effects:
        print(effect_line(one))
    return OK


def _setting(one: Setting) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name not in _INNER}


def document(
    made: Alignment, others: list[str], state: str, course: Course | None, changes: list[Change]
) -> dict[str, Any]:
    """The result as plain values."""
    orders = course.orders if course is not None else []
    return {
        "title": made.title,
        "why": made.why,
        "undoes": made.undoes,
        "settings": [_setting(one) for one in made.settings],
        "sync": made.sync,
        "skipped": [asdict(one) for one in made.skipped],
        "others": others,
        "state": state,
        "commands": [
            {"what": order.what, "state": course.state(order), "detail": course.detail(order)}
            for order in orders
            if course is not None
        ],
        "changes": effect.documents(changes),
    }
