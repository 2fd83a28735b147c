"""The operator's own keys: the one table of bindings with some entries moved to other keys. Pure.

The table stays the source: dispatch (`App.set_keymap`), footer, help and palette are all made from what `mapped` gives.

Rules: an entry is named PLACE.ID, as in `driftline config keys`. A key may not be given to two entries that are
active at the same time, unless the table itself has one screen's key go before the common one. An entry that acts on
the run takes a capital letter, a function key or ctrl+letter: never a lower-case letter or a sign, which is easily
pressed by accident. The other direction is free: a capital that nothing has may be given to a view.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from console.settings.keys import KEYS, Key

_REPLACED: Final = {
    "solidus": "slash",
    "reverse_solidus": "backslash",
    "commercial_at": "at",
    "hyphen_minus": "minus",
    "plus_sign": "plus",
    "low_line": "underscore",
}
"""Textual's own short names of signs, where they differ from Unicode's."""
_NAMED: Final = {
    "esc": "escape", "pgup": "pageup", "pgdn": "pagedown", "del": "delete", "return": "enter",
}  # fmt: skip
_SPECIAL: Final = frozenset(
    "up down left right home end pageup pagedown insert delete enter escape tab space backspace".split()
)
_FUNCTION: Final = re.compile(r"^f([1-9]|1[0-2])$")
_CONTROL: Final = re.compile(r"^ctrl\+[a-z]$")
_TAKEN: Final = {
    "ctrl+c": "leaves the console always",
    "ctrl+q": "leaves the console always",
    "ctrl+s": "stops many terminals",
    "ctrl+b": "is the prefix of tmux",
    "ctrl+a": "is the prefix of screen",
    "ctrl+z": "belongs to the shell",
    "ctrl+i": "is tab for a terminal",
    "ctrl+j": "is enter for many terminals",
    "ctrl+m": "is enter for a terminal",
    "ctrl+h": "is backspace for many terminals",
}
ALLOWED: Final = "one character, F1 to F12, ctrl+letter, shift+tab, or one of: " + ", ".join(sorted(_SPECIAL))


class KeymapError(ValueError):
    """A map of keys that cannot be used: `id` is its entry, the message says what is allowed."""

    def __init__(self, ident: str, message: str) -> None:
        super().__init__(message)
        self.id = ident


def key_name(character: str) -> str:
    """Textual's name of the key that types one character, `!` as `exclamation_mark`, without importing Textual.

    A character that Unicode has no name for is its own.
    """
    if character.isalnum():
        return character
    name = unicodedata.name(character, character).lower().replace("-", "_").replace(" ", "_")
    return _REPLACED.get(name, name)


def mapped(keymap: Mapping[str, str], keys: Sequence[Key] = KEYS) -> tuple[Key, ...]:
    """The table with the entries of `keymap` on its keys. Raises KeymapError."""
    by_id = {ident(key): key for key in keys}
    wanted: dict[str, tuple[str, ...]] = {}
    for name, text in keymap.items():
        if name not in by_id:
            near = [known for known in by_id if known.rpartition(".")[2] == name.rpartition(".")[2]]
            near = near or [known for known in by_id if known.partition(".")[0] == name.partition(".")[0]]
            places = sorted({known.partition(".")[0] for known in by_id})
            words = f"there are: {', '.join(near)}" if near else f"places are: {', '.join(places)}"
            raise KeymapError(name, f"no such entry; {words} (driftline config keys)")
        wanted[name] = tuple(_key(name, word, by_id[name]) for word in text.split())
        if not wanted[name]:
            raise KeymapError(name, f"needs a key: {ALLOWED}")
    table = tuple(_moved(key, wanted.get(ident(key))) for key in keys)
    _refuse_conflicts(table, wanted)
    return table


def ident(key: Key) -> str:
    """The name of an entry in key maps, the id of its binding."""
    return f"{key.where}.{key.id}"


def overrides(keys: Sequence[Key], keymap: Mapping[str, str]) -> dict[str, str]:
    """The keymap for Textual: its names of keys by binding id, for the entries that were moved."""
    return {ident(key): ",".join(key.keys) for key in keys if ident(key) in keymap}


def _moved(key: Key, keys: tuple[str, ...] | None) -> Key:
    if keys is None:
        return key
    shown = " ".join(_shown(one) for one in keys)
    # A footer entry for a pair of keys does not fit a moved key.
    return replace(key, keys=keys, shown=shown, footer_key="")


def _key(name: str, word: str, entry: Key) -> str:
    """Textual's name of a key as the user writes it."""
    if len(word) == 1:
        key = key_name(word)
    else:
        key = _NAMED.get(word.lower(), word.lower())
        if not (key in _SPECIAL or key == "shift+tab" or _FUNCTION.match(key) or _CONTROL.match(key)):
            raise KeymapError(name, f"'{word}' is not a key; allowed: {ALLOWED}")
    if key in _TAKEN:
        raise KeymapError(name, f"'{word}' {_TAKEN[key]}; take another key")
    if entry.acts_on_run and not (_FUNCTION.match(key) or _CONTROL.match(key) or (len(word) == 1 and word.isupper())):
        text = f"'{word}' is too easily pressed for an entry that acts on the run"
        raise KeymapError(name, f"{text}; allowed: a capital letter, F1 to F12, ctrl+letter")
    return key


def _shown(key: str) -> str:
    """A key as it is shown."""
    if _FUNCTION.match(key):
        return key.upper()
    shown = {"escape": "esc", "left": "←", "right": "→", "up": "↑", "down": "↓"}.get(key)
    if shown is not None or key in _SPECIAL or len(key) == 1 or "+" in key:
        return shown or key
    return next((chr(code) for code in range(0x21, 0x7F) if key_name(chr(code)) == key), key)


def _together(one: str, other: str) -> bool:
    """Whether two places can be active at the same time."""
    if one == other:
        return True
    over = {"everywhere", "screens", "replay"}
    return bool({one, other} & over) and not {one, other} & _DIALOGS


_DIALOGS: Final = frozenset({"dialog", "align", "alarms", "runs", "help"})


def _refuse_conflicts(table: Sequence[Key], wanted: Mapping[str, object]) -> None:
    for key in table:
        if ident(key) not in wanted:
            continue
        for other in table:
            if other is key or not _together(key.where, other.where):
                continue
            if shared := set(key.keys) & set(other.keys):
                what = _shown(min(shared))
                text = f"'{what}' is {ident(other)} already ({other.description})"
                raise KeymapError(ident(key), f"{text}; move that too, or take another key")
