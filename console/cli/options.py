"""What the arguments of several verbs share: the parser, common options, values with limits."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn, TypeVar

from console import errors

MARKERS = ("braille", "block", "ascii")
THEMES = ("auto", "dark", "light", "okabe-ito", "contrast", "dark-16", "light-16", "mono")
WAIT = 60.0
T = TypeVar("T", int, float)


class Parser(argparse.ArgumentParser):
    """Errors as one sentence with a prefix, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(errors.USAGE, f"driftline: {message}; see: {self.prog} --help\n")


def add_verb(group: argparse._SubParsersAction[Parser], name: str, target: str, text: str) -> Parser:
    """Add a verb to a group; `target` is the module of `console.cli.verbs` and the function in it, "" for a group."""
    end = "" if text.endswith("?") else "."
    parser = group.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}{end}")
    if target:
        parser.set_defaults(verb=f"console.cli.verbs.{target}")
    return parser


def add_run(parser: Parser) -> None:
    """--run."""
    parser.add_argument(
        "--run", metavar="RUN", help="id, path or ssh://... (default: $DRIFTLINE_RUN, else the newest live run)"
    )


def add_key(parser: Parser) -> None:
    """--key."""
    parser.add_argument("--key", metavar="FILE", help="a key file instead of the run's own (default $DRIFTLINE_KEY)")


def add_json(parser: Parser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="output as JSON, for programs")


def add_alarm_options(parser: Parser) -> None:
    """What is done with an alarm."""
    parser.add_argument("--rules", metavar="FILE", help="TOML over the packaged rules of the sentinels")
    parser.add_argument("--bell", action="store_true", help="ring the terminal's bell when an alarm is raised")
    parser.add_argument("--notify", action="store_true", help="have the terminal notify (OSC 9) of a raised alarm")
    text = "run a program, without a shell, for each raised alarm; its text is the last argument"
    parser.add_argument("--on-alarm", metavar="CMD", help=text)


def add_wait(parser: Parser, until: str) -> None:
    """--wait and --timeout; `until` says what for."""
    parser.add_argument("--wait", action="store_true", help=f"wait {until}")
    parser.add_argument(
        "--timeout", type=above_zero, default=WAIT, metavar="S", help=f"give up after S seconds (default {WAIT:.0f})"
    )


def add_take_over(parser: Parser) -> None:
    """--take-over."""
    parser.add_argument("--take-over", action="store_true", help="act even while another session has the lease")


def add_screen_options(parser: Parser) -> None:
    """How a screen is drawn."""
    # The defaults come from the operator's configuration: `_configure`.
    parser.add_argument(
        "--marker", choices=MARKERS, help=f"characters that charts are drawn with (default {MARKERS[0]})"
    )
    parser.add_argument("--fps", type=fps, metavar="N", help="redraws a second at most (default 4)")


def add_theme(parser: Parser) -> None:
    """--theme."""
    parser.add_argument("--theme", choices=THEMES, help="colours (default auto: by the terminal)")


def natural(text: str) -> int:
    """A whole number from 0 up. Raises ArgumentTypeError, as the next ones do."""
    return _number(text, int, "a whole number from 0 up", lambda value: value >= 0)


def positive(text: str) -> int:
    """A whole number from 1 up."""
    return _number(text, int, "a whole number from 1 up", lambda value: value >= 1)


def fps(text: str) -> int:
    """Redraws a second."""
    return _number(text, int, "a whole number from 1 to 30", lambda value: 1 <= value <= 30)


def above_zero(text: str) -> float:
    """A finite number above 0."""
    return _number(text, float, "a number above 0", lambda value: 0 < value < float("inf"))


def _number(text: str, kind: type[T], allowed: str, fits: Callable[[T], bool]) -> T:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not {allowed}")
    return value
