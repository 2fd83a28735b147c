"""A line that is typed into: every key is its own from the one that opened it on."""

from __future__ import annotations

from textual.events import Key

from console.tui.widgets.cell_widget import CellWidget


class TypingLine(CellWidget, can_focus=True):
    """Takes the keys while it is open. Subclasses say what a key does, and stop those that they take."""

    is_open = False

    def take_keys(self) -> None:
        """Have the keys from now on: not with the next message, as `focus` does."""
        self.screen.set_focus(self, scroll_visible=False)

    def on_key(self, event: Key) -> None:
        """What a key does. The app hands over those that came in one burst with the key that opened the line."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass
