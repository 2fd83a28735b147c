"""Acting on the run on show: what has to be asked, the confirmation, the command, and how it ended.

Nothing of the console changes a run but this, and nothing here does so without a confirmation, but for a mark in the
journal, which changes nothing in the run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from console.connect.source import LeaseHeldError, SourceError
from console.parity.gate import needs_consent
from console.store.model import CommandLife
from console.tui.control.aligning import Aligning
from console.tui.dialogs.confirm import ConfirmScreen
from console.tui.dialogs.dialog import Dialog
from console.tui.dialogs.picker import GateScreen, correction_list, fix_list, value_list
from console.tui.present import lease, plans
from console.tui.present.corrections import advice, correction_view, verdict_now
from console.tui.present.fix_rows import FixRow, fix_rows
from console.tui.present.plans import Plan, RefusedError
from console.tui.present.rounds import plan_round
from console.tui.watch.watched_run import Watch
from driftline.catalog.fixes import BY_ID

if TYPE_CHECKING:
    from console.tui.host import Host


class Acting:
    """Everything here is the app's thread, but what is said to be a worker's."""

    def __init__(self, app: Host) -> None:
        """`app` has the run on show, its screens and workers."""
        self._app = app
        self._following: dict[str, tuple[Watch, str]] = {}
        """Commands of this console that are not over, by id: their run, and what they are called."""
        self._aligning = Aligning(app)

    # -- asking

    def ask_fix(self, fix_id: str | None, value: str | None = None) -> None:
        """Confirm the switch of one fix, after a choice where none is given, to a value where one is given."""
        if not self._may_act():
            return
        if fix_id is not None and value is not None:
            self._confirm(lambda: plans.plan_fix(self._app.model, fix_id, value))
            return
        if fix_id is not None:
            self._ask_value(fix_id)
            return

        def rows() -> list[FixRow]:
            return fix_rows(self._app.model, self._app.glyphs)

        def chosen(fix: str | None) -> None:
            if fix is not None:
                self._ask_value(fix)

        self._app.push_screen(fix_list(self._app.glyphs, rows), chosen)

    def _ask_value(self, fix_id: str) -> None:
        """Confirm the switch of a fix to its other value, after a choice where there are several."""
        state = self._app.model.fixes.get(fix_id)
        if state is None or not plans.available(state) or len(BY_ID[fix_id].values) == 2:
            self._confirm(lambda: plans.plan_fix(self._app.model, fix_id))
            return

        def chosen(value: str | None) -> None:
            if value is not None:
                self._confirm(lambda: plans.plan_fix(self._app.model, fix_id, value))

        self._app.push_screen(value_list(self._app.glyphs, state), chosen)

    def ask_correction(self, value: str | None = None) -> None:
        """Confirm a correction of the objective, after a choice where none is given; twice while the backend fails."""
        app = self._app
        if not self._may_act():
            return

        def chosen(value: str | None) -> None:
            if value is None:
                return
            with app.drawing():
                verdict = verdict_now(app.model)
            if not needs_consent(value, verdict):
                self._confirm(lambda: plans.plan_correction(app.model, value, verdict))
                return

            def consented(yes: bool | None) -> None:
                if yes:
                    self._confirm(lambda: plans.plan_correction(app.model, value, verdict))

            app.push_screen(GateScreen(app.glyphs, advice(value, verdict)), consented)

        if value is not None:
            chosen(value)
        elif not (app.model.run and app.model.run.correction):
            app.say("refused: this run's trainer says nothing of corrections", "warn")
        else:
            with app.drawing():
                view = correction_view(app.model)
            app.push_screen(correction_list(app.glyphs, view), chosen)

    def ask_shadow(self, share: float) -> None:
        """Confirm a share of shadow scoring."""
        if self._may_act():
            self._confirm(lambda: plans.plan_shadow(self._app.model, share))

    def ask_align(self, *, undo: bool = False) -> None:
        """Confirm an alignment: the fixes and syncs that the diagnosis asks for; `undo`: setting the last one back."""
        self._aligning.ask(undo=undo)

    def ask_round(self) -> None:
        """Confirm an active round; where one waits or is under way, cancel it: that takes nothing away."""
        if not self._may_act():
            return
        newest = self._app.model.rounds.newest
        if newest is None or newest.over:
            self._confirm(lambda: plan_round(self._app.model))
        else:
            self._in_background(partial(self._cancel_round, self._app.showing, newest.id))

    def ask_sync(self) -> None:
        """Confirm a weight sync."""
        if self._may_act():
            self._confirm(lambda: plans.plan_sync(self._app.model))

    def ask_pause(self) -> None:
        """Confirm a pause, or the end of one."""
        if self._may_act():
            self._confirm(lambda: plans.plan_pause(self._app.model))

    def ask_stop(self) -> None:
        """Confirm the end of the run, with a word typed."""
        if self._may_act():
            self._confirm(lambda: plans.plan_stop(self._app.model))

    def mark(self, text: str) -> None:
        """Note something in the journal of the run on show; it changes nothing in the run and needs no hold on it."""
        if self._may_act():
            self._in_background(partial(self._mark, self._app.showing, text))

    def _may_act(self) -> bool:
        try:
            self._check()
        except RefusedError as error:
            self._app.say(str(error), "warn")
            return False
        return True

    def _check(self) -> None:
        source = self._app.source
        plans.check(source.operator, source.link(), self._app.model)

    def _confirm(self, make: Callable[[], Plan]) -> None:
        app = self._app
        try:
            with app.lock:
                plan = make()
        except RefusedError as error:
            app.say(str(error), "warn")
            return
        if len(app.watches) > 1:
            plan = replace(plan, target=f"run {app.source.run}: {plan.target}")
        app.push_screen(ConfirmScreen(app.glyphs, plan, self._send, self._life, self._held_by))

    def _held_by(self) -> str:
        """The other session that holds the lease, as a clause; "" where there is none."""
        session = self._app.source.session
        writer = lease.other(self._app.model, session)
        return "" if writer is None else lease.holds(writer, session)

    def _life(self, command_id: str) -> CommandLife | None:
        return self._app.model.commands.get(command_id)

    # -- sending

    def _send(self, plan: Plan, dialog: ConfirmScreen) -> None:
        """Send a confirmed plan, unless the feed has gone stale while it was being read."""
        try:
            self._check()
        except RefusedError as error:
            dialog.failed(str(error))
            return
        self._in_background(partial(self._command, self._app.showing, plan, dialog))

    def _in_background(self, send: Callable[[], None]) -> None:
        self._app.run_worker(send, group="command", thread=True)

    def _command(self, watch: Watch, plan: Plan, dialog: ConfirmScreen) -> None:
        """A worker's: it waits for the hub."""
        call = self._app.call_from_thread
        try:
            if dialog.take_over:
                watch.source.take_lease()
            command_id = watch.source.command(plan.verb, plan.args, plan.generation)
        except LeaseHeldError as error:
            call(self._held, dialog, str(error))
        except SourceError as error:
            call(self._refused, dialog, str(error))
        else:
            call(self._sent, watch, dialog, command_id)

    def _cancel_round(self, watch: Watch, number: str) -> None:
        """A worker's: it waits for the hub."""
        try:
            watch.source.command("diagnose", {"cancel": number}, -1)
        except SourceError as error:
            self._app.call_from_thread(self._app.say, str(error), "error")
        else:
            self._app.call_from_thread(self._app.say, "the active round is being cancelled")

    def _mark(self, watch: Watch, text: str) -> None:
        """A worker's: it waits for the hub."""
        try:
            watch.source.command("mark", {"text": text}, -1)
        except SourceError as error:
            self._app.call_from_thread(self._app.say, str(error), "error")
        else:
            self._app.call_from_thread(self._app.say, f"marked: {text}")

    def _held(self, dialog: ConfirmScreen, error: str) -> None:
        """Another session took the lease while the operator was reading: ask again, for taking over."""
        if dialog.is_mounted:
            with self._app.lock:
                dialog.held(error.partition(";")[0])
        else:
            self._app.say(error, "warn")

    def _refused(self, dialog: ConfirmScreen, error: str) -> None:
        self._app.say(error, "error")
        if dialog.is_mounted:
            with self._app.lock:
                dialog.failed(error)

    def _sent(self, watch: Watch, dialog: ConfirmScreen, command_id: str) -> None:
        self._following[command_id] = (watch, dialog.plan.title)
        if dialog.is_mounted:
            with self._app.lock:
                dialog.sent(command_id)

    # -- how it ended

    def report_outcomes(self) -> None:
        """Say in the footer how commands ended whose dialog was closed before that; alignments go on from here."""
        self._aligning.advance()
        app = self._app
        open_ = app.screen.command_id if isinstance(app.screen, ConfirmScreen) else ""
        for command_id, (watch, title) in list(self._following.items()):
            life = watch.model.commands.get(command_id)
            if life is None or not life.done:
                continue
            if command_id == open_:
                del self._following[command_id]
            elif not isinstance(app.screen, Dialog):  # the footer is behind a dialog: it waits
                del self._following[command_id]
                where = "" if watch is app.showing else f" of {watch.source.run}"
                detail = life.acks[-1].detail
                text = f"{title}{where}: {life.state}{f', {detail}' if detail else ''}"
                app.notice.show(text, "info" if life.state == "applied" else "error")
