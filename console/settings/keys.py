"""The table of keys: the action of each key on each screen. `console.settings.keymap` moves entries to other keys."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Where = Literal[
    "everywhere", "screens", "live", "tokens", "sync", "fixes", "parity", "engines", "events", "replay",
    "dialog", "align", "alarms", "runs", "help",
]  # fmt: skip
"""`screens` are the keys that every screen over a run has; then those of each screen, and of some dialogs."""

Part = Literal["charts", "lists", ""]
"""What several screens have, with the same keys on each."""


class Key(msgspec.Struct, frozen=True):
    """One entry. `keys` are Textual's names; `shown` is the displayed name; `footer` is its word in the footer, if any,
    beside `footer_key` where one entry stands for a pair."""

    id: str
    keys: tuple[str, ...]
    shown: str
    description: str
    action: str
    where: Where
    footer: str = ""
    acts_on_run: bool = False
    footer_key: str = ""
    played: str = ""
    """Its word in the footer of a recording, where that has it beside the keys of `replay`."""


class Tab(msgspec.Struct, frozen=True):
    """One screen: its key, its name in bindings and commands, its word in the footer, what it is for, what it has."""

    key: str
    id: Where
    word: str
    description: str
    has: Part = ""


TABS: Final[tuple[Tab, ...]] = (
    Tab("1", "live", "live", "live: clip, KL, entropy, reward, mismatch, lag; fixes, engines, events", "charts"),
    Tab("2", "tokens", "tokens", "tokens: the worst in their text, how they differ, the sequences that stand out"),
    Tab(
        "3", "sync", "sync", "sync: pause, load, verify, reset, resume of every engine; versions and their lag", "lists"
    ),
    Tab("4", "fixes", "fixes", "fixes: what each does, its measured effect, who did what"),
    Tab(
        "5",
        "parity",
        "cause",
        "cause: what a mismatch comes from, how sure, what to do; parity",
        "charts",
    ),
    Tab(
        "6", "engines", "engines", "engines: scheduler, KV use, prefix hits, preemptions, tokens a second, GPU", "lists"
    ),
    Tab("7", "events", "events", "events: all that happened, filtered, with its data", "lists"),
)
"""The screens that there are, in the order of their keys."""


def _shared(
    part: Part, id: str, keys: tuple[str, ...], shown: str, description: str, action: str,
    footer: str = "", footer_key: str = "",
) -> tuple[Key, ...]:  # fmt: skip
    """One entry for every screen that has a part: in key maps it keeps a name for each, PLACE.ID."""
    return tuple(
        Key(id, keys, shown, description, action, tab.id, footer, footer_key=footer_key)
        for tab in TABS
        if tab.has == part
    )


KEYS: Final[tuple[Key, ...]] = (
    Key("fix", ("F",), "F", "switch a fix on or off, live on every engine", "act_fix", "screens", "fix", True),
    Key("align", ("A",), "A", "align: the fixes and syncs that are asked for, in order, asked once", "act_align",
        "screens", "align", True),
    Key("sync", ("S",), "S", "sync weights: pause, load, resume on every engine", "act_sync", "screens", "sync", True),
    Key("pause", ("P",), "P", "pause or resume generation", "act_pause", "screens", "pause", True),
    Key("freeze", ("space",), "space", "freeze the view; play or stop a recording", "freeze", "screens", "freeze",
        played="play"),
    Key("export", ("e",), "e", "export the metrics as Parquet", "export", "screens", "export"),
    Key("evidence", ("b",), "b", "evidence: tables, pictures, config, audit, summary in one folder", "app.evidence",
        "screens"),
    Key("enlarge", ("enter",), "enter", "enlarge the focused pane", "enlarge", "screens", "enlarge"),
    Key("back", ("escape",), "esc", "one level out", "back", "screens"),
    Key("left", ("left", "h"), "← h", "pane or crosshair to the left", "move('left')", "screens"),
    Key("down", ("down", "j"), "↓ j", "pane, fix or event below", "move('down')", "screens"),
    Key("up", ("up", "k"), "↑ k", "pane, fix or event above", "move('up')", "screens"),
    Key("right", ("right", "l"), "→ l", "pane or crosshair to the right", "move('right')", "screens"),
    Key("next", ("tab",), "tab", "next pane", "app.focus_next", "screens"),
    Key("previous", ("shift+tab",), "shift+tab", "previous pane", "app.focus_previous", "screens"),
    Key("table", ("v",), "v", "the parity table, or back to the cause", "other_view", "parity", "parity"),
    Key("round", ("D",), "D", "measure the cause: an active round; while one is under way: cancel it", "act_round",
        "parity", "measure", True),
    Key("reference", ("r",), "r", "choose the reference runs", "reference", "parity", "reference"),
    Key("since", ("s",), "s", "judge from the last switch of a fix on, or the whole run (:judge from STEP)",
        "since_switch", "parity", "since switch"),
    Key("log", ("y",), "y", "log axis of the chart", "log", "parity", "log"),
    *_shared("charts", "zoom_in", ("plus", "equals_sign"), "+", "zoom in, all charts", "zoom(0.5)"),
    *_shared("charts", "zoom_out", ("minus",), "-", "zoom out, all charts", "zoom(2.0)", "zoom", "+-"),
    *_shared("charts", "pan_left", ("left_square_bracket",), "[", "pan to older steps", "pan(-0.25)"),
    *_shared("charts", "pan_right", ("right_square_bracket",), "]", "pan to newer steps", "pan(0.25)", "pan", "[]"),
    *_shared("charts", "all", ("0",), "0", "show the whole run", "show_all"),
    Key("follow", ("f",), "f", "follow the newest steps", "follow", "live", "follow"),
    Key("follow", ("f",), "f", "follow the newest steps", "follow", "parity"),
    Key("log", ("y",), "y", "log axis of the focused chart", "log", "live", "log"),
    Key("smooth", ("s",), "s", "smoothing: off, moving average 0.6, 0.9, 0.99", "smooth", "live", "smooth"),
    Key("unit", ("x",), "x", "x axis: steps, time, tokens", "unit", "live"),
    *_shared("charts", "crosshair", ("c",), "c", "crosshair with values, linked over all charts", "crosshair"),
    Key("overlay", ("o",), "o", "another watched run over the charts: the next one, or none", "overlay", "live"),
    Key("order", ("o",), "o", "order: the catalogue's, or by measured effect", "order", "fixes", "order"),
    Key("measure", ("v",), "v", "show effects in mismatch, clip fraction, KL", "measure", "fixes", "metric"),
    Key("older", ("N",), "N", "the sync before", "older", "sync"),
    Key("newer", ("n",), "n", "the sync after", "newer", "sync", "sync", footer_key="n N"),
    Key("first", ("g", "home"), "g", "the oldest sync", "first", "sync"),
    Key("last", ("G", "end"), "G", "the newest sync, and follow", "last", "sync", "newest"),
    Key("failed", ("x",), "x", "the failed sync before", "failed", "sync", "failed"),
    Key("copy", ("Y",), "Y", "copy the sync's figures (OSC 52 and a file)", "copy", "sync", "copy"),
    Key("next_worst", ("n",), "n", "next worst token that matches the filter", "worse(1)", "tokens", "worst",
        footer_key="nN"),
    Key("previous_worst", ("N",), "N", "the worst token before it", "worse(-1)", "tokens"),
    Key("first_worst", ("g", "home"), "g", "the worst token, whichever that is from now on", "end(False)", "tokens"),
    Key("last_worst", ("G", "end"), "G", "the last of the worst that are ranked", "end(True)", "tokens"),
    Key("outliers", ("o",), "o", "sequences that stand out, or back to tokens", "outliers", "tokens", "sequences"),
    Key("order", ("s",), "s", "sequences by mean, largest, or summed difference", "order", "tokens"),
    Key("filter", ("slash",), "/", "filter by engine, step, version, lag, position, id, d, |d|, reward, text, prompt",
        "filter", "tokens", "filter"),
    Key("step", ("t",), "t", "the token's step: on the live charts, and a recording goes to it", "show_step", "tokens"),
    Key("copy", ("Y",), "Y", "copy the token with its text: clipboard (OSC 52) and a file", "copy", "tokens", "copy"),
    Key("order", ("o",), "o", "order: name, tokens/s, KV use, waiting, behind", "order", "engines", "order"),
    Key("reverse", ("r",), "r", "the other way round", "reverse", "engines"),
    Key("differences", ("d",), "d", "what differs between the engines' configurations", "differences", "engines",
        "differ"),
    Key("map", ("m",), "m", "the map, one cell an engine, or the table", "map", "engines", "map"),
    Key("window", ("t",), "t", "histories: the last minutes, or the whole run", "window", "engines", "window"),
    Key("first", ("g", "home"), "g", "the first engine", "first", "engines"),
    Key("last", ("G", "end"), "G", "the last engine", "last", "engines"),
    Key("copy", ("Y",), "Y", "copy the engine's figures (OSC 52 and a file)", "copy", "engines", "copy"),
    Key("filter", ("slash",), "/", "filter: level>=warn kind=sync words", "filter", "events", "filter"),
    Key("unfold", ("u",), "u", "routine syncs: one line, or each its own", "unfold", "events", "unfold"),
    Key("first", ("g", "home"), "g", "the oldest event", "first", "events"),
    Key("last", ("G", "end"), "G", "the newest event, and follow", "last", "events", "newest"),
    Key("step", ("t",), "t", "the event's step: on the live charts, and a recording goes to it", "show_step",
        "events", "to step"),
    Key("open", ("enter",), "enter", "the whole event with its data", "open", "events", "open"),
    Key("export", ("e",), "e", "export the filtered events", "export_events", "events"),
    Key("copy", ("Y",), "Y", "copy the event's line (OSC 52 and a file)", "copy", "events", "copy"),
    *_shared("lists", "page_up", ("pageup",), "pgup", "a page up", "page(-1)"),
    *_shared("lists", "page_down", ("pagedown",), "pgdn", "a page down", "page(1)"),
    *(Key(tab.id, (tab.key,), tab.key, tab.description, f"screen('{tab.id}')", "everywhere") for tab in TABS),
    Key("command", ("colon",), ":", "command line; tab completes", "command", "everywhere", "command"),
    Key("palette", ("ctrl+p",), "ctrl+p", "palette: find a command or a key by a few letters", "palette", "everywhere"),
    Key("runs", ("w",), "w", "which run: the watched runs, and their alarms", "runs", "everywhere"),
    Key("alarms", ("exclamation_mark",), "!", "alarms: what the sentinels have raised", "alarms", "everywhere"),
    Key("help", ("question_mark",), "?", "this help", "help", "everywhere", "help"),
    Key("quit", ("q",), "q", "leave the console; the run goes on", "leave", "everywhere", "quit"),
    Key("step_back", ("comma",), ",", "one step back in a recording", "replay('back')", "replay"),
    Key("step_on", ("full_stop",), ".", "one step on in a recording", "replay('on')", "replay", "step",
        footer_key=",."),
    Key("slower", ("less_than_sign",), "<", "play a recording at half the speed", "replay('slower')", "replay"),
    Key("faster", ("greater_than_sign",), ">", "play a recording at twice the speed", "replay('faster')", "replay",
        "speed", footer_key="<>"),
    Key("choose", ("enter",), "enter", "choose", "choose", "dialog"),
    Key("cancel", ("escape",), "esc", "close without acting", "close", "dialog"),
    Key("switch", ("left", "right", "h", "l", "tab", "shift+tab"), "← →", "other button", "switch", "dialog"),
    Key("prev", ("up", "k"), "↑ k", "line above", "line(-1)", "dialog"),
    Key("succ", ("down", "j"), "↓ j", "line below", "line(1)", "dialog"),
    Key("undo", ("u",), "u", "set an alignment back, once it is through", "undo", "align"),
    Key("overlay", ("o",), "o", "draw the run over the charts, or take it away", "overlay", "runs"),
    Key("find", ("slash",), "/", "find in the help", "find", "help"),
    Key("page_up", ("pageup", "ctrl+u"), "pgup", "a page up", "page(-1)", "help"),
    Key("page_down", ("pagedown", "ctrl+d", "space"), "pgdn", "a page down", "page(1)", "help"),
    Key("mark", ("space",), "space", "mark one of several", "mark", "dialog"),
    Key("seen", ("a",), "a", "mark the alarm as seen: its bell is silent", "acknowledge", "alarms"),
    Key("seen_all", ("asterisk",), "*", "mark all alarms as seen", "acknowledge(True)", "alarms"),
)  # fmt: skip
