"""Before a command: what it would do. After it: how far it has come, as the journal says and nothing more."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Final, Literal

from console.store.model import CommandLife
from console.tui.actions import Plan
from console.tui.glyphs import Glyphs
from console.tui.screens.dialog import Dialog
from console.tui.theme import Ink
from console.tui.widgets.cells import Text
from driftline.frames import AckState

Stage = Literal["asking", "sending", "sent", "failed"]

_LIFE: Final[tuple[AckState, ...]] = ("queued", "sent", "accepted", "applied")
_BAD: Final[frozenset[AckState]] = frozenset({"failed", "refused", "expired"})


class ConfirmScreen(Dialog[None]):
    """Asks, sends, and then shows the life of the command; closing it does not stop the command."""

    preferred_width = 70

    def __init__(
        self,
        glyphs: Glyphs,
        plan: Plan,
        send: Callable[[Plan, ConfirmScreen], None],
        life: Callable[[str], CommandLife | None],
    ) -> None:
        super().__init__(glyphs)
        self.plan = plan
        self.heading = plan.title
        self.stage: Stage = "asking"
        self.go = False
        """Which button is selected; Cancel until the operator moves."""
        self.command_id = ""
        self.error = ""
        self._send = send
        self._life = life

    @property
    def hint(self) -> str:  # type: ignore[override]  # fixed words elsewhere, here they follow the stage
        if self.stage == "asking":
            return "← → choose  enter  esc cancel"
        return "esc close" if self.over else "esc close; the command goes on"

    @property
    def life(self) -> CommandLife | None:
        """What the journal knows of the command."""
        return self._life(self.command_id) if self.command_id else None

    @property
    def over(self) -> bool:
        """True once nothing more will happen."""
        life = self.life
        return self.stage == "failed" or (life is not None and life.done)

    def lines(self, width: int) -> list[list[Text]]:
        plan = self.plan
        lines: list[list[Text]] = [[]]
        for word, text, ink in (
            ("target", plan.target, Ink.BRIGHT),
            ("now", plan.now, Ink.TEXT),
            ("effect", plan.effect, Ink.TEXT),
            ("cost", plan.cost, Ink.WARN),
        ):
            wrapped = textwrap.wrap(text, max(width - 9, 10)) or [""]
            lines.append([(f"{word:<8} ", Ink.DIM), (wrapped[0], ink)])
            lines += [[(" " * 9, Ink.DIM), (part, ink)] for part in wrapped[1:]]
        lines.append([])
        lines += [self._buttons(width)] if self.stage == "asking" else self._progress(width)
        return lines

    def _buttons(self, width: int) -> list[Text]:
        cancel, go = "  Cancel  ", f"  {self.plan.title}  "
        pad = max(width - len(cancel) - len(go) - 6, 0) // 2
        pointer = self.glyphs.pointer
        return [
            (" " * pad, Ink.TEXT),
            (f"{' ' if self.go else pointer}{cancel}", Ink.DIM if self.go else Ink.BRIGHT),
            ("   ", Ink.TEXT),
            (f"{pointer if self.go else ' '}{go}", Ink.WARN if self.go else Ink.DIM),
        ]

    def _progress(self, width: int) -> list[list[Text]]:
        if self.stage == "failed":
            return [[(part, Ink.ALARM)] for part in textwrap.wrap(self.error, width)]
        life = self.life
        state: AckState | None = life.state if life is not None else None
        reached = {ack.state for ack in life.acks} if life is not None else set()
        line: list[Text] = []
        for step in _LIFE:
            # A state that came implies those before it, whoever skipped saying so.
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
            results = "  ".join(f"{key} {value}" for key, value in life.acks[-1].data.items())
            lines += [[(part, Ink.TEXT)] for part in textwrap.wrap(results, width)[:4]]
        return lines

    def action_switch(self) -> None:
        if self.stage == "asking":
            self.go = not self.go
            self.fit_box()

    def action_choose(self) -> None:
        if self.stage != "asking" or not self.go:
            self.dismiss(None)
        else:
            self.stage = "sending"
            self._send(self.plan, self)
            self.fit_box()

    def sent(self, command_id: str) -> None:
        """The hub has taken the command under this id."""
        self.stage, self.command_id = "sent", command_id
        self.fit_box()

    def failed(self, error: str) -> None:
        """The command was not taken."""
        self.stage, self.error = "failed", error
        self.fit_box()
