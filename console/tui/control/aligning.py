"""Alignments under way: asked once, sent in order, watched, and set back.

Everything here is the app's thread, but what is said to be a worker's: those wait for the hub. An alignment goes on
when its dialog is closed and when another run is on show.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from console.aligning import effect, record
from console.aligning.course import Course
from console.aligning.effect import Change
from console.aligning.wanted import other_actions
from console.connect.source import SourceError
from console.tui.dialogs.align import AlignScreen
from console.tui.dialogs.dialog import Dialog
from console.tui.present import alignment, lease, plans
from console.tui.present.plans import RefusedError
from console.tui.watch.watched_run import Watch

if TYPE_CHECKING:
    from console.tui.host import Host

_LOOKED: Final = 64
"""Newest steps whose numbers are read."""


@dataclass(eq=False)
class _Running:
    """An alignment of one run. `dialog` may be closed by now."""

    watch: Watch
    course: Course
    dialog: AlignScreen
    note: dict[str, str]
    """The arguments of the mark that goes before it."""
    changes: list[Change] = field(default_factory=list)
    """What came of it so far."""
    sending: bool = False
    """Whether a worker is sending for it."""
    shown: bool = False
    """Whether its own dialog has said how it ended."""


class Aligning:
    """Alignments of the watched runs."""

    def __init__(self, app: Host) -> None:
        self._app = app
        self._running: list[_Running] = []

    def ask(self, *, undo: bool = False) -> None:
        """Ask for the alignment that the diagnosis of the run on show asks for, or for setting the last one back."""
        app = self._app
        watch = app.showing
        try:
            plans.check(app.source.operator, app.source.link(), app.model)
            if any(one.watch is watch and not one.course.over for one in self._running):
                raise RefusedError("refused: an alignment of this run is under way")
            with app.lock:
                made = alignment.back(app.model) if undo else alignment.asked_for(app.model, watch.diagnosing.found)
            if made is None:
                raise RefusedError("there is no alignment to undo in what this console has seen of the run")
        except RefusedError as error:
            app.say(str(error), "warn")
            return
        others = [] if undo else other_actions(watch.diagnosing.found)
        app.push_screen(
            AlignScreen(
                app.glyphs, made, lambda: watch.model, partial(self._start, watch), self._changes, others=others,
                run=app.source.run if len(app.watches) > 1 else "", held_by=self._held_by,
                undo=lambda: self.ask(undo=True),
            )
        )  # fmt: skip

    def _held_by(self) -> str:
        session = self._app.source.session
        writer = lease.other(self._app.model, session)
        return "" if writer is None else lease.holds(writer, session)

    def _changes(self, course: Course) -> list[Change]:
        """What came of it, as of the last look."""
        return next((one.changes for one in self._running if one.course is course), [])

    def _look(self, running: _Running) -> None:
        """Read what came of it; the model is held still for it."""
        metrics, course = running.watch.model.metrics, running.course
        points = {}
        with running.watch.lock:
            for _, metric in effect.WATCHED:
                found = metrics.points(metric)
                steps, values = found.steps[-_LOOKED:].tolist(), found.values[-_LOOKED:].tolist()
                points[metric] = list(zip(steps, values, strict=True))
        fresh = effect.changes(points, course.begun, course.ended)
        # What was before it may have left the steps that are looked at.
        before = {one.metric: one for one in running.changes}
        running.changes = [
            replace(one, before=known.before, steps_before=known.steps_before) if known is not None else one
            for one in fresh
            for known in (before.get(one.metric),)
        ]

    # -- starting

    def _start(self, watch: Watch, dialog: AlignScreen) -> None:
        """Begin a confirmed alignment, unless the feed has gone stale while it was being read."""
        source = watch.source
        try:
            plans.check(source.operator, source.link(), watch.model)
        except RefusedError as error:
            dialog.failed(str(error))
            return
        course = Course(dialog.made, watch.model.step)
        with watch.lock:
            note = record.mark(dialog.made, alignment.standing(watch.model))
        running = _Running(watch, course, dialog, note, sending=True)
        self._look(running)
        self._running.append(running)
        dialog.begun(course)
        self._app.run_worker(partial(self._begin, running), group="command", thread=True)

    def _begin(self, running: _Running) -> None:
        """A worker's: note what is about to be done, then send what is due."""
        source = running.watch.source
        try:
            if running.dialog.take_over:
                source.take_lease()
            source.command("mark", running.note, -1)
        except SourceError as error:
            self._app.call_from_thread(self._not_begun, running, str(error))
            return
        self._send(running)

    def _not_begun(self, running: _Running, error: str) -> None:
        running.course.error, running.sending = error, False
        self.advance()

    # -- going on

    def advance(self) -> None:
        """Take in what the runs have reported, send what is due, and say how it ended where the dialog is closed."""
        for running in list(self._running):
            course, model = running.course, running.watch.model
            for number in course.ids:
                life = model.commands.get(number)
                for ack in life.acks if life is not None else ():
                    course.heard(number, ack.state, ack.detail)
            course.look(model.step)
            self._look(running)
            if not running.sending and not course.over:
                running.sending = True
                self._app.run_worker(partial(self._send, running), group="command", thread=True)
            if course.over and (course.watched or course.error or course.made.undoes):
                self._end(running)

    def _send(self, running: _Running) -> None:
        """A worker's: send the commands that are due, in order."""
        course, call = running.course, self._app.call_from_thread
        for order in call(course.due):
            try:
                number = running.watch.source.command(order.verb, dict(order.args), order.generation)
            except SourceError as error:
                call(course.refused, order, str(error))
                break
            call(course.sent, order, number)
        call(self._sent, running)

    def _sent(self, running: _Running) -> None:
        running.sending = False
        self._app.refresh_view()

    def _end(self, running: _Running) -> None:
        app = self._app
        if app.screen is running.dialog:
            running.shown = True  # it says so itself
        if isinstance(app.screen, Dialog):
            return  # the footer is behind it
        self._running.remove(running)
        if running.shown:
            return
        where = "" if running.watch is app.showing else f" of {running.watch.source.run}"
        text = alignment.closing(running.course, running.changes)
        app.notice.show(f"{text}{where}", "error" if running.course.error else "info")
