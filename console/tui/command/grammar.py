"""The command line's language: from a line to the command that it asks for, and what could stand at the caret. Pure.

A line is words between blanks. `parse` gives a request or one sentence that says what is wrong and what is allowed;
`complete` gives what could stand where the caret is. The commands are in `console.tui.command.table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from console.tui.command.command import GrammarError, Known, Request
from console.tui.command.table import ALIASES, COMMANDS

BY_NAME: Final = {command.name: command for command in COMMANDS}


def parse(line: str, known: Known) -> Request | None:
    """The request of a line, None for an empty one. Raises GrammarError.

    A name may be shortened as long as it is the only one that begins so; those of commands that act on the run may
    not, because a half-typed word must not act.
    """
    words = line.split()
    if not words:
        return None
    name = words[0].removeprefix(":")
    name = ALIASES.get(name, name)
    if name not in BY_NAME:
        begun = [command.name for command in COMMANDS if name and command.name.startswith(name)]
        if len(begun) != 1 or BY_NAME[begun[0]].acts_on_run:
            raise GrammarError(f"no command '{name}'; {_did_you_mean(begun)}")
        name = begun[0]
    return BY_NAME[name].request(known, words[1:])


def _did_you_mean(begun: Sequence[str]) -> str:
    return f"there are: {', '.join(begun)}" if begun else "tab or :help shows what there is"


@dataclass(frozen=True)
class Completion:
    """Candidates for the word at the caret, which begins at `start`."""

    start: int
    candidates: tuple[str, ...] = ()

    @property
    def common(self) -> str:
        """The longest common beginning of all candidates."""
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
    """A hint for the end of the line: how the command is used."""
    words = line.split()
    if not words:
        return "a command; tab completes, ↑ ↓ earlier ones, esc leaves"
    command = BY_NAME.get(ALIASES.get(words[0].removeprefix(":"), words[0].removeprefix(":")))
    if command is None:
        begun = complete(words[0], len(words[0]), known).candidates
        return "  ".join(begun)
    return command.about(known, words[1:]) or f"{command.usage}  {command.summary}".strip()
