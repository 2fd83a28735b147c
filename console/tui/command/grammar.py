"""The command line's language: one typed table of commands, and pure functions from a line to what it asks for.

A line is words between blanks. `parse` gives an action or one sentence that says what is wrong and what is allowed;
`complete` gives what could stand where the caret is. What an action does is in `console.tui.control.perform`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from console.tui.command.intents import (
    Action,
    Export,
    Goto,
    JudgeFrom,
    Mark,
    Open,
    Order,
    Overlay,
    SetFix,
    ShowScreen,
    Steps,
    SwitchRun,
    UseMarker,
    UseReference,
    UseTheme,
    Verb,
)

FORMATS: Final = ("parquet", "csv", "ndjson", "arrow")
OFF: Final = "off"
_RANGE: Final = re.compile(r"^(\d*)(?:\.\.|:)(\d*)$")


class GrammarError(ValueError):
    """A line that cannot be carried out; one sentence."""


@dataclass(frozen=True)
class Known:
    """What there is to name just now; made from the model by the app."""

    fixes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)
    """What each fix is wanted to be just now."""
    runs: Sequence[str] = ()
    shown: str = ""
    """The run on show."""
    screens: Sequence[str] = ()
    themes: Sequence[str] = ()
    markers: Sequence[str] = ()
    tables: Sequence[str] = ()
    references: Sequence[str] = ()
    step: int = -1
    switches: Sequence[int] = ()
    """The steps after which a fix was another than before, oldest first."""


Words = Sequence[str]
Candidates = Callable[[Known, Words], Sequence[str]]


@dataclass(frozen=True)
class Command:
    """One entry. `usage` is what follows the name; `candidates` gives, for the words before it, the next word."""

    name: str
    usage: str
    summary: str
    parse: Callable[[Known, Words], Action]
    candidates: Candidates = lambda _known, _words: ()
    needs: bool = False
    """Whether it cannot do without a word after it."""
    acts_on_run: bool = False
    about: Callable[[Known, Words], str] = lambda _known, _words: ""
    """What is to be known of the words so far, for the end of the line; "" says how the command is used."""

    @property
    def shown(self) -> str:
        """As help and palette write it."""
        return f":{self.name} {self.usage}".rstrip()


def _one_of(word: str, allowed: Sequence[str], what: str) -> str:
    """The one that is meant: the word itself, or the only one that begins with it."""
    if word in allowed:
        return word
    begun = [name for name in allowed if name.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    if not allowed:
        raise GrammarError(f"no {what} is known yet")
    names = ", ".join(begun or allowed)
    raise GrammarError(f"'{word}' {'could be' if begun else f'is no {what}; there are'}: {names}")


def _at_most(words: Words, count: int, name: str) -> None:
    if len(words) > count:
        room = "nothing" if count == 0 else "one word" if count == 1 else f"{count} words"
        raise GrammarError(f":{name} takes {room} more; '{words[count]}' is too many")


def _required(words: Words, name: str, usage: str) -> str:
    if not words:
        raise GrammarError(f":{name} needs {usage}")
    return words[0]


def _fix(known: Known, words: Words) -> Action:
    _at_most(words, 2, "fix")
    if not words:
        return SetFix()
    fix = _one_of(words[0], list(known.fixes), "fix")
    if len(words) == 1:
        return SetFix(fix)
    values = known.fixes[fix]
    if words[1] not in values:
        raise GrammarError(f"{fix} cannot be '{words[1]}'; it can be: {', '.join(values)}")
    return SetFix(fix, words[1])


def _order(verb: Verb) -> Callable[[Known, Words], Action]:
    def parse(_known: Known, words: Words) -> Action:
        _at_most(words, 0, verb)
        return Order(verb)

    return parse


def _open(what: Literal["alarms", "help", "runs", "quit"]) -> Callable[[Known, Words], Action]:
    def parse(_known: Known, words: Words) -> Action:
        _at_most(words, 0, what)
        return Open(what)

    return parse


def _export(known: Known, words: Words) -> Action:
    rest = list(words)
    table = "metrics"
    steps: tuple[int | None, int | None] = (None, None)
    kind = _one_of(rest.pop(0), FORMATS, "format") if rest else FORMATS[0]
    if rest and rest[0] != "steps":
        table = _one_of(rest.pop(0), known.tables, "table")
    if rest:
        if rest.pop(0) != "steps" or len(rest) != 1:
            raise GrammarError("steps are written: steps A..B, for example steps 100..200 or steps 100..")
        steps = _steps(rest[0])
    return Export(kind, table, steps)


def _steps(word: str) -> Steps:
    found = _RANGE.match(word)
    if found is None or word in ("..", ":"):
        raise GrammarError(f"'{word}' is no range of steps; it is written A..B, A.. or ..B")
    first, last = (int(part) if part else None for part in found.groups())
    if first is not None and last is not None and first > last:
        raise GrammarError(f"steps {first}..{last}: the first is above the last")
    return first, last


def _goto(known: Known, words: Words) -> Action:
    _at_most(words, 1, "goto")
    word = _required(words, "goto", "a step")
    if not (word.isascii() and word.isdigit()):
        raise GrammarError(f"'{word}' is no step; a step is a whole number from 0 up")
    step = int(word)
    if 0 <= known.step < step:
        raise GrammarError(f"step {step} has not been; the newest is {known.step}")
    return Goto(step)


def _judge(known: Known, words: Words) -> Action:
    _at_most(words, 2, "judge")
    word = _one_of(_required(words, "judge", "all, or from STEP"), ("from", "all"), "way to judge")
    if word == "all":
        _at_most(words, 1, "judge")
        return JudgeFrom(None)
    if len(words) == 1 or words[1] == "switch":
        if not known.switches:
            raise GrammarError("no fix has been switched in this run; :judge from STEP judges from any step on")
        return JudgeFrom("switch")
    goto = _goto(known, words[1:])
    assert isinstance(goto, Goto), "it reads nothing else"
    return JudgeFrom(goto.step)


def _judge_words(known: Known, words: Words) -> Sequence[str]:
    if not words:
        return ("from", "all")
    if len(words) > 1 or words[0] != "from" or not known.switches:
        return ()
    return ["switch", *dict.fromkeys(str(step) for step in reversed(known.switches))]


def _named(
    name: str, what: str, allowed: Callable[[Known], Sequence[str]], make: Callable[[str], Action]
) -> Callable[[Known, Words], Action]:
    def parse(known: Known, words: Words) -> Action:
        _at_most(words, 1, name)
        return make(_one_of(_required(words, name, f"a {what}"), allowed(known), what))

    return parse


def _overlay(known: Known, words: Words) -> Action:
    _at_most(words, 1, "overlay")
    word = _required(words, "overlay", "a run or off")
    if word == OFF:
        return Overlay("")
    others = _others(known)
    if not others:
        raise GrammarError("no other run is watched; several are: driftline attach RUN RUN")
    return Overlay(_one_of(word, others, "other watched run"))


def _reference(_known: Known, words: Words) -> Action:
    _at_most(words, 1, "reference")
    word = _required(words, "reference", "a run or off")
    return UseReference("" if word == OFF else word)


def _mark(_known: Known, words: Words) -> Action:
    _required(words, "mark", "a text")
    return Mark(" ".join(words))


def _others(known: Known) -> list[str]:
    return [run for run in known.runs if run != known.shown]


def _first(of: Callable[[Known], Sequence[str]]) -> Candidates:
    """Candidates for the first word only."""
    return lambda known, words: () if words else of(known)


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
    told = f"{' | '.join(values)}{f', wanted {now} now' if now else ''}"
    return f"{told}; without a value the other one" if len(values) == 2 else told


def _export_words(known: Known, words: Words) -> Sequence[str]:
    if not words:
        return FORMATS
    if words[-1] == "steps":
        return [f"0..{known.step}"] if known.step >= 0 else ()
    if "steps" in words:
        return ()
    return [*known.tables, "steps"] if len(words) == 1 else ["steps"]


COMMANDS: Final[tuple[Command, ...]] = (
    Command("fix", "[ID [VALUE]]", "switch a fix, live on every engine", _fix, _fix_words, acts_on_run=True,
            about=_fix_about),
    Command("sync", "", "sync weights: pause, load, resume", _order("sync"), acts_on_run=True),
    Command("pause", "", "pause generation", _order("pause"), acts_on_run=True),
    Command("resume", "", "resume generation", _order("resume"), acts_on_run=True),
    Command("stop", "", "end the run in good order", _order("stop"), acts_on_run=True),
    Command("mark", "TEXT", "note something in the run's journal, at this step", _mark, needs=True, acts_on_run=True),
    Command("goto", "STEP", "bring a step into view", _goto, needs=True),
    Command("screen", "NAME", "show a screen", _named("screen", "screen", lambda known: known.screens, ShowScreen),
            _first(lambda known: known.screens), needs=True),
    Command("run", "NAME", "show another watched run",
            _named("run", "watched run", lambda known: known.runs, SwitchRun), _first(_others), needs=True),
    Command("runs", "", "list the watched runs", _open("runs")),
    Command("overlay", "NAME|off", "another watched run over the charts", _overlay,
            _first(lambda known: [*_others(known), OFF]), needs=True),
    Command("reference", "RUN|off", "a recorded run behind the charts", _reference,
            _first(lambda known: [*known.references, OFF]), needs=True),
    Command("judge", "from STEP | all", "parity from a step on, or of the whole run", _judge, _judge_words,
            needs=True),
    Command("alarms", "", "list the alarms", _open("alarms")),
    Command("export", "[FORMAT] [TABLE] [steps A..B]", "write a table to a file", _export, _export_words),
    Command("theme", "NAME", "change the look", _named("theme", "theme", lambda known: known.themes, UseTheme),
            _first(lambda known: known.themes), needs=True),
    Command("marker", "NAME", "what charts are drawn with",
            _named("marker", "marker", lambda known: known.markers, UseMarker),
            _first(lambda known: known.markers), needs=True),
    Command("help", "", "keys, commands and symbols", _open("help")),
    Command("quit", "", "leave the console; the run goes on", _open("quit")),
)  # fmt: skip
"""In the order in which help and palette show them."""

BY_NAME: Final = {command.name: command for command in COMMANDS}
_ALIASES: Final = {"q": "quit", "?": "help", "h": "help"}


def parse(line: str, known: Known) -> Action | None:
    """What a line asks for, None for an empty one. Raises GrammarError.

    A name may be shortened as long as it is the only one that begins so; those of commands that act on the run may
    not, because a half-typed word must not act.
    """
    words = line.split()
    if not words:
        return None
    name = words[0].removeprefix(":")
    name = _ALIASES.get(name, name)
    if name not in BY_NAME:
        begun = [command.name for command in COMMANDS if name and command.name.startswith(name)]
        if len(begun) != 1 or BY_NAME[begun[0]].acts_on_run:
            raise GrammarError(f"no command '{name}'; {_did_you_mean(begun)}")
        name = begun[0]
    return BY_NAME[name].parse(known, words[1:])


def _did_you_mean(begun: Sequence[str]) -> str:
    return f"there are: {', '.join(begun)}" if begun else "tab or :help shows what there is"


@dataclass(frozen=True)
class Completion:
    """What could stand where the caret is: `start` is where its word begins."""

    start: int
    candidates: tuple[str, ...] = ()

    @property
    def common(self) -> str:
        """What all candidates begin with."""
        if not self.candidates:
            return ""
        first, last = min(self.candidates), max(self.candidates)
        for i, char in enumerate(first):
            if i >= len(last) or last[i] != char:
                return first[:i]
        return first


def complete(line: str, caret: int, known: Known) -> Completion:
    """Candidates for the word before the caret."""
    before = line[:caret]
    start = before.rfind(" ") + 1
    word, words = before[start:], before[:start].split()
    if not words:
        lead = 1 if word.startswith(":") else 0
        names = tuple(command.name for command in COMMANDS if command.name.startswith(word[lead:]))
        return Completion(start + lead, names)
    command = BY_NAME.get(words[0].removeprefix(":"))
    if command is None:
        return Completion(start)
    options = command.candidates(known, words[1:])
    return Completion(start, tuple(option for option in options if option.startswith(word)))


def hint(line: str, known: Known) -> str:
    """What may follow, for the end of the line: how the command is used."""
    words = line.split()
    if not words:
        return "a command; tab completes, ↑ ↓ earlier ones, esc leaves"
    command = BY_NAME.get(_ALIASES.get(words[0].removeprefix(":"), words[0].removeprefix(":")))
    if command is None:
        begun = complete(words[0], len(words[0]), known).candidates
        return "  ".join(begun)
    return command.about(known, words[1:]) or f"{command.usage}  {command.summary}".strip()
