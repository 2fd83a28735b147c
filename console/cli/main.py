"""The `driftline` command: dispatch and exit codes. The arguments are in `console.cli.arguments`.

A verb's module is imported only when it is asked for, so `--help`, `--version` and `list` cost an interpreter start,
and nothing but `attach` (and `run` or `demo` on a terminal, through it) ever imports a screen.

Exit codes: 0 done; 1 a command failed, was refused or expired, or a run failed; 2 bad
arguments or configuration; 3 no such run, or no live one; 4 `--wait` timed out; 5 a run is not at parity with its
reference, 6 not enough data to say so; 7 a sentinel has raised an alarm (`watch --exit-code`); 8 a cause was
named, 9 no known cause explains a mismatch (`diagnose`); 129 a terminal that was
closed (SIGHUP), 130 ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from console import errors
from console.cli.arguments import build
from console.errors import CommandError
from console.process import ending
from driftline.rundir import RUNS_VARIABLE, RunError
from driftline.text import sanitize


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    with ending.installed():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    _repair_streams()
    try:
        with ending.deferred():
            args = build(sys.argv[1:] if argv is None else argv).parse_args(argv)
            _configure(args)
            module, _, function = str(args.verb).partition(":")
            verb: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(module), function)
        code = verb(args)
        sys.stdout.flush()
        return code
    except ending.SignalledError as signalled:
        return signalled.exit_code
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except Exception as error:  # noqa: BLE001  `_failed` raises again what is not for the operator
        # What a signal interrupts may fail because of that.
        return ending.exit_code() or _failed(error)


def _failed(error: Exception) -> int:
    """The exit code for an error that is reported in a sentence; raises any other."""
    try:
        raise error
    except CommandError as failure:
        return _fail(str(failure), failure.exit_code)
    except RunError as error:
        return _fail(str(error), errors.NO_RUN)
    except BrokenPipeError:
        # The reader of the pipe (head, less) has ended.
        _discard_stdout()
        return errors.OK
    except OSError as error:
        # Errors of the system, wherever they occur: a full disk, a file of another user.
        _discard_stdout()
        return _fail(f"{error.filename or 'cannot go on'}: {(error.strerror or str(error)).lower()}", errors.FAILED)


def _repair_streams() -> None:
    """Replace closed streams (`<&-`, `>&-`) by /dev/null: else the next file opened would get their descriptor.

    Characters that the terminal's encoding cannot show are written as escapes instead of raising an error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _discard_stdout() -> None:
    """Redirect stdout to /dev/null if it cannot be flushed: Python flushes it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _configure(args: argparse.Namespace) -> None:
    """Fill in configured values for options that were not given. Raises CommandError for a file that is wrong."""
    if str(args.verb).startswith(("console.cli.verbs.config:", "console.cli.verbs.completion:")):
        return  # they read the file themselves, and must work when it is wrong
    from console.settings import file

    screen = hasattr(args, "marker")
    if not screen and not os.environ.get(file.CONFIG_VARIABLE) and not file.path(os.environ).exists():
        return
    try:
        found = file.load(os.environ, {name: getattr(args, name, None) for name in ("theme", "marker", "fps")})
        if screen:
            file.check_keys(found)
    except file.ConfigError as error:
        raise CommandError(str(error), errors.USAGE) from error
    settings = found.settings
    if settings.runs:
        os.environ[RUNS_VARIABLE] = settings.runs
    if screen:
        args.marker, args.fps, args.settings = settings.marker, settings.fps, settings
    if hasattr(args, "on_alarm"):
        args.bell, args.notify = args.bell or settings.notify.bell, args.notify or settings.notify.notify
        args.on_alarm = args.on_alarm or settings.notify.on_alarm or None


def _fail(message: str, code: int) -> int:
    if message:
        # It may quote a path, or text of a model or of another machine.
        print(f"driftline: {sanitize(message).rstrip('.')}", file=sys.stderr)
    return code
