"""The table of commands. A new command is one entry: its words, how they are read, and what it does given a `Host`.

Every command that acts on the run asks first, as its key does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from console.export.schema import TABLES
from console.settings.keys import TABS, Where
from console.tui.command.command import Candidates, Command, GrammarError, Known, Words, at_most, one_of, required
from console.tui.paint.glyphs import GLYPHS
from driftline.catalog import shadow

if TYPE_CHECKING:
    from console.tui.host import Host
    from console.tui.watch.watched_run import Watch

FORMATS: Final = ("parquet", "csv", "ndjson", "arrow")
OFF: Final = "off"
SHARES: Final = (".05", ".25", "1", OFF)
_RANGE: Final = re.compile(r"^(\d*)(?:\.\.|:)(\d*)$")

Steps = tuple[int | None, int | None]


def _nothing(name: str) -> Callable[[Known, Words], None]:
    def read(_known: Known, words: Words) -> None:
        at_most(words, 0, name)

    return read


def _named(name: str, what: str, allowed: Callable[[Known], Sequence[str]]) -> Callable[[Known, Words], str]:
    def read(known: Known, words: Words) -> str:
        at_most(words, 1, name)
        return one_of(required(words, name, f"a {what}"), allowed(known), what)

    return read


def _watch(host: Host, run: str) -> Watch:
    return next(watch for watch in host.watches if watch.source.run == run)


def _fix(known: Known, words: Words) -> tuple[str | None, str | None]:
    at_most(words, 2, "fix")
    if not words:
        return None, None
    fix = one_of(words[0], list(known.fixes), "fix")
    if len(words) == 1:
        return fix, None
    values = known.fixes[fix]
    if words[1] not in values:
        raise GrammarError(f"{fix} cannot be '{words[1]}'; it can be: {', '.join(values)}")
    return fix, words[1]


def _fix_words(known: Known, words: Words) -> Sequence[str]:
    if not words:
        return list(known.fixes)
    return known.fixes.get(words[0], ()) if len(words) == 1 else ()


def _fix_about(known: Known, words: Words) -> str:
    """The values of a fix that is named, and which it has; one that is typed is held against them."""
    if not words or words[0] not in known.fixes:
        return ""
    values, now = known.fixes[words[0]], known.wanted.get(words[0], "")
    if len(words) > 1 and words[1] in values:
        return f"it is wanted {now} already" if words[1] == now else f"wanted {now or 'nothing'} now; enter asks first"
    text = f"{' | '.join(values)}{f', wanted {now} now' if now else ''}"
    return f"{text}; without a value the other one" if len(values) == 2 else text


def _align(_known: Known, words: Words) -> bool:
    at_most(words, 1, "align")
    return bool(words) and one_of(words[0], ("undo",), "way to align") == "undo"


def _share(_known: Known, words: Words) -> float:
    at_most(words, 1, "shadow")
    try:
        return shadow.share(required(words, "shadow", "a share"))
    except shadow.BadShareError as error:
        raise GrammarError(str(error)) from error


def _pause(host: Host, _none: None) -> None:
    if _paused(host):
        host.say("generation is paused already; :resume", "warn")
    else:
        host.acting.ask_pause()


def _resume(host: Host, _none: None) -> None:
    if _paused(host):
        host.acting.ask_pause()
    else:
        host.say("generation is not paused", "warn")


def _paused(host: Host) -> bool:
    return host.model.run is not None and host.model.run.status == "paused"


def _mark(_known: Known, words: Words) -> str:
    required(words, "mark", "a text")
    return " ".join(words)


def _goto(known: Known, words: Words) -> int:
    at_most(words, 1, "goto")
    word = required(words, "goto", "a step")
    if not (word.isascii() and word.isdigit()):
        raise GrammarError(f"'{word}' is no step; a step is a whole number from 0 up")
    step = int(word)
    if 0 <= known.step < step:
        raise GrammarError(f"step {step} has not been; the newest is {known.step}")
    return step


def _screens(_known: Known) -> list[str]:
    """The words in the footer, and the names in key maps where those are others."""
    return list(dict.fromkeys(name for tab in TABS for name in (tab.word, tab.id)))


def _show_screen(host: Host, name: str) -> None:
    where: Where = next(tab.id for tab in TABS if name in (tab.word, tab.id))
    host.action_screen(where)


def _others(known: Known) -> list[str]:
    return [run for run in known.runs if run != known.shown]


def _first(of: Callable[[Known], Sequence[str]]) -> Candidates:
    """Candidates for the first word only."""
    return lambda known, words: () if words else of(known)


def _overlay(known: Known, words: Words) -> str:
    at_most(words, 1, "overlay")
    word = required(words, "overlay", "a run or off")
    if word == OFF:
        return ""
    others = _others(known)
    if not others:
        raise GrammarError("no other run is watched; several are: driftline attach RUN RUN")
    return one_of(word, others, "run to overlay")


def _reference(_known: Known, words: Words) -> str:
    at_most(words, 1, "reference")
    word = required(words, "reference", "a run or off")
    return "" if word == OFF else word


def _judge(known: Known, words: Words) -> int | None:
    at_most(words, 2, "judge")
    word = one_of(required(words, "judge", "all, or from STEP"), ("from", "all"), "way to judge")
    if word == "all":
        at_most(words, 1, "judge")
        return None
    if len(words) == 1 or words[1] == "switch":
        if not known.switches:
            raise GrammarError("no fix has been switched in this run; :judge from STEP judges from any step on")
        return known.switches[-1]
    return _goto(known, words[1:])


def _judge_words(known: Known, words: Words) -> Sequence[str]:
    if not words:
        return ("from", "all")
    if len(words) > 1 or words[0] != "from" or not known.switches:
        return ()
    return ["switch", *dict.fromkeys(str(step) for step in reversed(known.switches))]


def _judge_from(host: Host, step: int | None) -> None:
    host.action_screen("parity")
    host.current.judge_from(step)


def _export(_known: Known, words: Words) -> tuple[str, str, Steps]:
    rest = list(words)
    table = "metrics"
    steps: Steps = (None, None)
    kind = one_of(rest.pop(0), FORMATS, "format") if rest else FORMATS[0]
    if rest and rest[0] != "steps":
        table = one_of(rest.pop(0), tuple(TABLES), "table")
    if rest:
        if rest.pop(0) != "steps" or len(rest) != 1:
            raise GrammarError("steps are written: steps A..B, for example steps 100..200 or steps 100..")
        steps = _steps(rest[0])
    return table, kind, steps


def _steps(word: str) -> Steps:
    found = _RANGE.match(word)
    if found is None or word in ("..", ":"):
        raise GrammarError(f"'{word}' is not a range of steps; it is written A..B, A.. or ..B")
    first, last = (int(part) if part else None for part in found.groups())
    if first is not None and last is not None and first > last:
        raise GrammarError(f"steps {first}..{last}: the first is above the last")
    return first, last


def _export_words(known: Known, words: Words) -> Sequence[str]:
    if not words:
        return FORMATS
    if words[-1] == "steps":
        return [f"0..{known.step}"] if known.step >= 0 else ()
    if "steps" in words:
        return ()
    return [*TABLES, "steps"] if len(words) == 1 else ["steps"]


COMMANDS: Final[tuple[Command[Any], ...]] = (
    Command("fix", "[ID [VALUE]]", "switch a fix, live on every engine", _fix,
            lambda host, fix: host.acting.ask_fix(*fix), _fix_words, acts_on_run=True, about=_fix_about),
    Command("shadow", "SHARE|off", "have another engine score this share of the groups", _share,
            lambda host, share: host.acting.ask_shadow(share), _first(lambda _known: SHARES), needs=True,
            acts_on_run=True),
    Command("align", "[undo]", "all fixes and syncs that are asked for; undo: back again", _align,
            lambda host, undo: host.acting.ask_align(undo=undo), _first(lambda _known: ("undo",)), acts_on_run=True),
    Command("measure", "", "an active round, which measures the cause; again: cancel it", _nothing("measure"),
            lambda host, _none: host.acting.ask_round(), acts_on_run=True),
    Command("sync", "", "sync weights: pause, load, resume", _nothing("sync"),
            lambda host, _none: host.acting.ask_sync(), acts_on_run=True),
    Command("pause", "", "pause generation", _nothing("pause"), _pause, acts_on_run=True),
    Command("resume", "", "resume generation", _nothing("resume"), _resume, acts_on_run=True),
    Command("stop", "", "end the run in good order", _nothing("stop"), lambda host, _none: host.acting.ask_stop(),
            acts_on_run=True),
    Command("mark", "TEXT", "note something in the run's journal, at this step", _mark,
            lambda host, text: host.acting.mark(text), needs=True, acts_on_run=True),
    Command("goto", "STEP", "bring a step into view", _goto, lambda host, step: host.goto(step), needs=True),
    Command("screen", "NAME", "show a screen", _named("screen", "screen", _screens), _show_screen, _first(_screens),
            needs=True),
    Command("run", "NAME", "show another watched run", _named("run", "watched run", lambda known: known.runs),
            lambda host, run: host.show_watch(_watch(host, run)), _first(_others), needs=True),
    Command("runs", "", "list the watched runs", _nothing("runs"), lambda host, _none: host.action_runs()),
    Command("overlay", "NAME|off", "another watched run over the charts", _overlay,
            lambda host, run: host.show_overlay(_watch(host, run) if run else None),
            _first(lambda known: [*_others(known), OFF]), needs=True),
    Command("reference", "RUN|off", "a recorded run behind the charts", _reference,
            lambda host, run: host.references.choose((run,) if run else ()),
            _first(lambda known: [*known.references, OFF]), needs=True),
    Command("judge", "from STEP | all", "parity from a step on, or of the whole run", _judge, _judge_from,
            _judge_words, needs=True),
    Command("alarms", "", "list the alarms", _nothing("alarms"), lambda host, _none: host.action_alarms()),
    Command("export", "[FORMAT] [TABLE] [steps A..B]", "write a table to a file", _export,
            lambda host, what: host.exports.table(*what), _export_words),
    Command("theme", "NAME", "change the look", _named("theme", "theme", lambda known: known.themes),
            lambda host, name: host.use_theme(name), _first(lambda known: known.themes), needs=True),
    Command("marker", "NAME", "what charts are drawn with", _named("marker", "marker", lambda _known: tuple(GLYPHS)),
            lambda host, name: host.use_marker(name), _first(lambda _known: tuple(GLYPHS)), needs=True),
    Command("help", "", "keys, commands and symbols", _nothing("help"), lambda host, _none: host.action_help()),
    Command("quit", "", "leave the console; the run goes on", _nothing("quit"),
            lambda host, _none: host.action_leave()),
)  # fmt: skip
"""In the order in which help and palette show them."""

ALIASES: Final = {"q": "quit", "?": "help", "h": "help"}
