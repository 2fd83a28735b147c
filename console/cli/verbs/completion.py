"""`driftline completion`: a script for the shell that completes verbs, options, their values and names of runs.

Made by shtab from the parser itself, so the two cannot differ.
"""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any, Final, cast

import shtab

from console.cli.arguments import build
from console.errors import OK
from console.settings import file
from driftline.catalog.corrections import CORRECTIONS
from driftline.catalog.fixes import FIXES
from driftline.rundir import RUNS_VARIABLE

_RUNS: Final = "driftline_runs"
DEFAULT_RUNS: Final = "runs"
# Lists folders without starting Python, so that tab answers at once. ROOT: the configured folder of runs.
_LIST: Final = (
    'r=${DRIFTLINE_RUNS:-}; [ -n "$r" ] || r=ROOT; '
    'for d in "$r"/*/journal; do [ -d "$d" ] && d="${d%/journal}" && echo "${d##*/}"; done'
)
_FISH: Final = (
    'for d in (test -n "$DRIFTLINE_RUNS"; and echo $DRIFTLINE_RUNS; or echo ROOT)/*/journal; basename (dirname $d); end'
)
_PREAMBLE: Final = {
    "bash": f'_{_RUNS}() {{ compgen -W "$({_LIST})" -- "$1"; }}',
    "zsh": f'_{_RUNS}() {{ local -a found; found=("${{(@f)$({_LIST})}}"); compadd -a found; }}',
    "fish": f"function _{_RUNS}; {_FISH}; end",
}
_WORDS: Final = {
    ("driftline fix set", "id"): [fix.id for fix in FIXES],
    ("driftline fix set", "value"): sorted({value for fix in FIXES for value in fix.values}),
    ("driftline correction set", "value"): [correction.id for correction in CORRECTIONS],
}
"""Arguments that take an entry of a catalogue; the verbs themselves report other values with their own message."""
_COMPLETE: Final = {"bash": f"_{_RUNS}", "zsh": f"_{_RUNS}", "fish": f"(_{_RUNS})"}


def completion(args: argparse.Namespace) -> int:
    """Print the script; for bash: eval "$(driftline completion bash)"."""
    parser = build()
    _mark(parser)
    root = shlex.quote(_configured_runs())
    preamble = {shell: text.replace("ROOT", root) for shell, text in _PREAMBLE.items()}
    print(shtab.complete(parser, shell=args.shell, preamble=cast("Any", preamble)))  # its own type says str
    return OK


def _configured_runs() -> str:
    """The configured folder of runs, for use without $DRIFTLINE_RUNS; the default if the configuration is wrong."""
    try:
        found = file.load({name: value for name, value in os.environ.items() if name != RUNS_VARIABLE})
    except file.ConfigError:
        return DEFAULT_RUNS
    return found.settings.runs or DEFAULT_RUNS


def _mark(parser: argparse.ArgumentParser) -> None:
    """Set the completion of every argument by its metavar."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _mark(child)
        elif action.metavar == "RUN":
            action.complete = _COMPLETE  # type: ignore[attr-defined]  # shtab's own attribute
        elif action.metavar in ("FILE", "CONFIG", "PATH"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # as above
        elif action.metavar == "FOLDER":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # as above
        elif words := _WORDS.get((parser.prog, action.dest)):
            action.choices = words
