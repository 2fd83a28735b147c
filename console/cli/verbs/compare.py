"""`driftline compare`: is a run at parity with its reference, and if not, since when and why."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Final

from console.errors import NOT_ENOUGH_DATA, NOT_PARITY, OK, USAGE, CommandError
from console.formatting import to_json
from console.parity import report
from console.parity.cause import causes
from console.parity.judge import Comparison, Verdict
from console.parity.judge import compare as judge
from console.parity.rules import DEFAULT, Rules, RulesError, load
from console.parity.runs import Run, SourceError, open_run
from driftline.text import sanitize

CODES: Final[dict[Verdict, int]] = {"pass": OK, "fail": NOT_PARITY, "not enough data": NOT_ENOUGH_DATA}


def compare(args: argparse.Namespace) -> int:
    """Judge the last run named against those before it; exit code 0 pass, 5 fail, 6 not enough data.

    Columns: `steps`, those judged, and how many where some are missing; `out at`, the first step out of the band for
    good; `back`, the step at which the run had returned to the band after its last excursion; `of band`, the level that
    the run held for a window's steps, in half-widths of the band, which is what the verdict rests on; `worst`, the step
    of it, with `run` and `reference` there, means over the window.

    --json prints one object: `verdict` (pass, fail, not enough data), `run`, `references` [id], `synthetic` (bool),
    `spread` (measured from several references, or assumed from the rules), `alpha`, `window` (steps), `from`, `until`,
    `home` (first step from which every metric stayed in the band, or null), `reason` (what the comparison as a whole
    lacks, or ""), `unrecorded` [metric that no run has], `apart` {metric: how many times the rules' spread the
    references are apart, where that is more than the rules allow for}, `corrections` of the objective that were on in
    the steps judged [{`run`, `id`, `first`, `last` (null: to its end)}], `missing` {run: [what its journal lacks]},
    `metrics` [{`metric`, `verdict`, `steps`
    (compared), `since`, `until` (the first and last of them), `first`, `back`, `excursions` [{`first`, `last` (null: it
    goes on), `side` (above, below)}], `worst` (step), `value`, `reference`, `difference` (in units), `distance`,
    `distance_last` (in half-widths of the band), `reason`, `bursts` [{`first`, `last`, `steps`, `peak` (in units),
    `side`}], `sees` (null, or {`level`, `low`, `high`}: the reference's median, and the nearest that a shift would have
    had to take it to be seen; null: none), `cause` (null, or {`kind`: mismatch, aftermath, staleness, drift or unknown,
    `fixes` [id], `text`})}]. Steps that do not exist are null; NaN and infinities are strings.
    """
    if len(args.runs) < 2:
        raise CommandError("compare needs at least two runs: REFERENCE... RUN", USAGE)
    if args.start is not None and args.until is not None and args.until < args.start:
        raise CommandError(f"--until {args.until} is before --from {args.start}", USAGE)
    rules = _rules(args)
    *references, run = _open(args.runs)
    for text in dict.fromkeys(f"{one.id}: {lack}" for one in (*references, run) for lack in one.missing):
        print(f"driftline: {sanitize(text)}", file=sys.stderr)
    comparison = judge(references, run, rules, start=args.start, until=args.until)
    print_comparison(comparison, json=args.json)
    return CODES[comparison.verdict]


def print_comparison(comparison: Comparison, *, json: bool = False) -> None:
    """Print a comparison."""
    why = causes(comparison)
    if json:
        print(to_json(report.document(comparison, why)), flush=True)
        return
    lines = report.lines(comparison, why)
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        lines = [part for line in lines for part in _folded(line, columns)]
    print("\n".join(lines), flush=True)


def _folded(line: str, columns: int) -> list[str]:
    """A sentence wrapped to the terminal's width; a row of the table stays as it is."""
    if len(line) <= columns or "  " in line.strip():
        return [line]
    return textwrap.wrap(line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _rules(args: argparse.Namespace) -> Rules:
    try:
        rules = load(Path(args.rules) if args.rules else DEFAULT)
        return rules.only(name for part in args.metrics for name in part.split(",")) if args.metrics else rules
    except RulesError as error:
        raise CommandError(str(error), USAGE) from error


def _open(names: list[str]) -> list[Run]:
    try:
        return [open_run(name) for name in names]
    except SourceError as error:
        raise CommandError(str(error), USAGE) from error
