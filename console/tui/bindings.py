"""One table of keys: dispatch, footer and help are made from it.

Capitals act on the run, everything else changes the view only.
"""

from __future__ import annotations

from textual.binding import Binding, BindingType

from console.settings.keys import KEYS, Where


def bindings(*places: Where) -> list[BindingType]:
    """The table's entries of some places, as Textual takes them; a later place goes before an earlier one."""
    return [
        Binding(",".join(key.keys), key.action, key.description, show=False, id=f"{key.where}.{key.id}")
        for where in reversed(places)
        for key in KEYS
        if key.where == where
    ]
