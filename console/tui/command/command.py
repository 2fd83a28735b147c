"""A command of the command line: its words, how they are read, and its effect on the console.

The commands are in `console.tui.command.table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from console.tui.host import Host

Args = TypeVar("Args")


class GrammarError(ValueError):
    """A line that cannot be carried out; one sentence."""


@dataclass(frozen=True)
class Known:
    """Everything that can be named just now; made by `console.tui.control.known`."""

    fixes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)
    """The requested value of each fix."""
    runs: Sequence[str] = ()
    shown: str = ""
    """The run on show."""
    references: Sequence[str] = ()
    themes: Sequence[str] = ()
    step: int = -1
    switches: Sequence[int] = ()
    """The steps after which a fix was another than before, oldest first."""


Words = Sequence[str]
Candidates = Callable[[Known, Words], Sequence[str]]


@dataclass(frozen=True)
class Command(Generic[Args]):
    """One entry. `usage` is what follows the name; `candidates` gives, for the words before it, the next word."""

    name: str
    usage: str
    summary: str
    read: Callable[[Known, Words], Args]
    """The arguments from the words after the name. Raises GrammarError."""
    run: Callable[[Host, Args], None]
    """Its effect, given those arguments."""
    candidates: Candidates = lambda _known, _words: ()
    needs: bool = False
    """Whether it cannot do without a word after it."""
    acts_on_run: bool = False
    about: Callable[[Known, Words], str] = lambda _known, _words: ""
    """A note about the words so far, for the end of the line; "" for how the command is used."""

    @property
    def shown(self) -> str:
        """As help and palette write it."""
        return f":{self.name} {self.usage}".rstrip()

    def request(self, known: Known, words: Words) -> Request:
        """The command with its arguments. Raises GrammarError."""
        return Request(self, self.read(known, words))


@dataclass(frozen=True)
class Request:
    """A command and the arguments that were read for it."""

    command: Command[Any]
    args: object

    def perform(self, host: Host) -> None:
        """Do it."""
        self.command.run(host, self.args)


def one_of(word: str, allowed: Sequence[str], what: str) -> str:
    """The word itself, or the only allowed one that begins with it. Raises GrammarError."""
    if word in allowed:
        return word
    begun = [name for name in allowed if name.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    if not allowed:
        raise GrammarError(f"no {what} is known yet")
    names = ", ".join(begun or allowed)
    raise GrammarError(f"'{word}' could be: {names}" if begun else f"unknown {what} '{word}'; one of: {names}")


def at_most(words: Words, count: int, name: str) -> None:
    """Raises GrammarError for more than `count` words."""
    if len(words) > count:
        room = "nothing" if count == 0 else "one word" if count == 1 else f"{count} words"
        raise GrammarError(f":{name} takes {room} more; '{words[count]}' is too many")


def required(words: Words, name: str, usage: str) -> str:
    """The first word. Raises GrammarError where there is none."""
    if not words:
        raise GrammarError(f":{name} needs {usage}")
    return words[0]
