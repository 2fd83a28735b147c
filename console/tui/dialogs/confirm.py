"""The confirmation of a command: its effect before it is sent, then its progress in the journal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Final, Literal

from textual.events import Key

from console.store.model import CommandLife
from console.tui.dialogs.dialog import Dialog, buttons
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.present.plans import Plan
from console.tui.present.results import results
from driftline.frames import AckState

Stage = Literal["asking", "sending", "sent", "failed"]

_LIFE: Final[tuple[AckState, ...]] = ("queued", "sent", "accepted", "applied")
RESULT_LINES: Final = 5
_BAD: Final[frozenset[AckState]] = frozenset({"failed", "refused", "expired"})


def not_held() -> str:
    """The clause of a run that no other session holds."""
    return ""


class ConfirmScreen(Dialog[None]):
    """Asks, sends, and then shows the life of the command; closing it does not stop the command."""

    preferred_width = 70

    def __init__(
        self,
        glyphs: Glyphs,
        plan: Plan,
        send: Callable[[Plan, ConfirmScreen], None],
        life: Callable[[str], CommandLife | None],
        held_by: Callable[[], str] = not_held,
    ) -> None:
        """`held_by` names another session that holds the lease, as a clause, "" for none; then acting takes over."""
        super().__init__(glyphs)
        self.plan = plan
        self.heading = plan.title
        self.stage: Stage = "asking"
        self.go = False
        """True while the button that acts is selected; Cancel is until the operator moves."""
        self.typed = ""
        self.note = ""
        """Why Enter did nothing, if it did nothing."""
        self.take_over = False
        """Whether the operator was asked for taking over, and said yes."""
        self.command_id = ""
        self.error = ""
        self._send = send
        self._life = life
        self._held_by = held_by
        self._held = ""

    @property
    def hint(self) -> str:  # type: ignore[override]  # fixed words elsewhere, here they follow the stage
        if self.stage == "asking":
            return "← → choose  enter  esc cancel"
        return "esc close" if self.over else "esc close; the command goes on"

    @property
    def life(self) -> CommandLife | None:
        """The life of the command in the journal, None while there is none."""
        return self._life(self.command_id) if self.command_id else None

    @property
    def over(self) -> bool:
        """True once nothing more will happen."""
        life = self.life
        return self.stage == "failed" or (life is not None and life.done)

    @property
    def held_by(self) -> str:
        """The other session that holds the lease, as a clause; from the model, or from the hub's refusal."""
        return self._held_by() or self._held

    @property
    def worded(self) -> bool:
        """Whether the word that the plan asks for has been typed."""
        return self.typed == self.plan.word

    def lines(self, width: int) -> list[list[Text]]:
        plan = self.plan
        lines: list[list[Text]] = [[]]
        facts = [
            ("target", plan.target, Ink.BRIGHT),
            ("now" if self.stage == "asking" else "before", plan.now, Ink.TEXT),
            ("effect", plan.effect, Ink.TEXT),
            ("cost", plan.cost, Ink.WARN),
        ]
        held_by = self.held_by
        if held_by and self.stage == "asking":
            facts.append(("held", f"{held_by}: take over? The holder is notified, and it is audited", Ink.ALARM))
        for word, text, ink in facts:
            wrapped = textwrap.wrap(text, max(width - 9, 10)) or [""]
            lines.append([(f"{word:<8} ", Ink.DIM), (wrapped[0], ink)])
            lines += [[(" " * 9, Ink.DIM), (part, ink)] for part in wrapped[1:]]
        lines.append([])
        if self.stage == "asking":
            if plan.word:
                lines += [self._word(), [(self.note and f"         {self.note}", Ink.WARN)]]
            action = f"{'take over and ' if self.held_by else ''}{plan.title}"
            lines.append(buttons(self.glyphs, width, action, on_action=self.go))
        else:
            lines += self._progress(width)
        return lines

    def _word(self) -> list[Text]:
        rest = "" if self.worded else "▁" if self.glyphs.name != "ascii" else "_"
        ink = Ink.OK if self.worded else Ink.BRIGHT
        return [("type     ", Ink.DIM), (self.plan.word, Ink.WARN), ("  ", Ink.DIM), (f"{self.typed}{rest}", ink)]

    def _progress(self, width: int) -> list[list[Text]]:
        if self.stage == "failed":
            return [[(part, Ink.ALARM)] for part in textwrap.wrap(self.error, width)]
        life = self.life
        state: AckState | None = life.state if life is not None else None
        reached = {ack.state for ack in life.acks} if life is not None else set()
        line: list[Text] = []
        for step in _LIFE:
            # A state that came implies those before it, reported or not.
            passed = step in reached or (state in _LIFE and _LIFE.index(step) < _LIFE.index(state))
            if life is not None and step == "queued":
                passed = True
            ink = (Ink.OK if step == "applied" else Ink.TEXT) if passed else Ink.DIM
            if line:
                line.append((f" {self.glyphs.arrow} ", Ink.DIM))
            line.append((step, Ink.ACCENT if step == state and step != "applied" else ink))
        if state in _BAD:
            line += [(f" {self.glyphs.arrow} ", Ink.DIM), (str(state), Ink.ALARM)]
        lines = [line]
        detail = life.acks[-1].detail if life is not None and life.acks else ""
        if life is None:
            detail = "sending" if self.stage == "sending" else "sent, waiting for the journal"
        ink = Ink.ALARM if state in _BAD else Ink.DIM
        lines += [[(part, ink)] for part in textwrap.wrap(detail, width)[:4]]
        if life is not None and life.done and life.acks[-1].data:
            shown = [part for line_ in results(life.acks[-1].data) for part in textwrap.wrap(line_, width)]
            lines += [[(part, Ink.TEXT)] for part in shown[:RESULT_LINES]]
        return lines

    def on_key(self, event: Key) -> None:
        """Take the letters of the word; other keys are those of every dialog."""
        if self.stage != "asking" or not self.plan.word:
            return
        if event.key == "backspace":
            self.typed = self.typed[:-1]
        elif event.is_printable and event.character:
            # More than the word needs is kept short: it is wrong anyway, and must not push the box apart.
            self.typed = (self.typed + event.character)[: len(self.plan.word) + 8]
        else:
            return
        event.stop()
        event.prevent_default()
        self.fit_box()

    def action_switch(self) -> None:
        if self.stage == "asking":
            self.go = not self.go
            self.fit_box()

    def action_choose(self) -> None:
        if self.stage == "asking" and self.go and not self.worded:
            self.note = f"type {self.plan.word} first: this throws work away"
            self.fit_box()
        elif self.stage != "asking" or not self.go:
            self.dismiss(None)
        else:
            self.take_over = bool(self.held_by)
            self.stage = "sending"
            self._send(self.plan, self)
            self.fit_box()

    def sent(self, command_id: str) -> None:
        """The hub has taken the command under this id."""
        self.stage, self.command_id = "sent", command_id
        if self.plan.closes:
            self.dismiss(None)
        else:
            self.fit_box()

    def held(self, by: str) -> None:
        """The hub says that another session holds the run: asked again, with taking over on the button."""
        self.stage, self.go, self._held = "asking", False, by
        self.fit_box()

    def failed(self, error: str) -> None:
        """The command was not taken."""
        self.stage, self.error = "failed", error
        self.fit_box()
