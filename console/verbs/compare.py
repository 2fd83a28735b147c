"""`driftline compare`: is a run at parity with its reference, and if not, since when and why."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from console.outcome import NOT_ENOUGH_DATA, NOT_PARITY, OK, USAGE, Failure
from console.parity import report
from console.parity.cause import causes
from console.parity.judge import Comparison, Verdict
from console.parity.judge import compare as judge
from console.parity.rules import DEFAULT, Rules, RulesError, load
from console.parity.runs import Run, SourceError, open_run
from console.plain import to_json

CODES: Final[dict[Verdict, int]] = {"pass": OK, "fail": NOT_PARITY, "not enough data": NOT_ENOUGH_DATA}


def compare(args: argparse.Namespace) -> int:
    """Judge the last run named against those before it; exit code 0 pass, 5 fail, 6 not enough data.

    Columns: `out since`, the first step out of the band for good; `back`, the step at which the run had come home
    after its last excursion; `at step`, `run`, `reference` and `distance`: where it was farthest off, means over the
    window, distance in standard deviations of a healthy run around the reference.

    --json prints one object: `verdict` (pass, fail, not enough data), `run`, `references` [id], `synthetic` (bool),
    `spread` (measured from several references, or assumed from the rules), `alpha`, `window` (steps), `from`, `until`,
    `home` (first step from which every metric stayed home, or null), `metrics` [{`metric`, `verdict`, `steps`
    (compared), `first`, `back`, `excursions` [{`first`, `last` (null: not over), `side` (above, below)}], `worst`
    (step), `value`, `reference`, `difference` (in units), `distance`, `distance_last` (in spreads), `reason`, `cause`
    (null, or {`kind`: mismatch, aftermath, staleness or drift, `fixes` [id], `text`})}]. Steps that do not exist are
    null; NaN and infinities are strings.
    """
    if len(args.runs) < 2:
        raise Failure("compare needs at least two runs: REFERENCE... RUN", USAGE)
    if args.start is not None and args.until is not None and args.until < args.start:
        raise Failure(f"--until {args.until} is before --from {args.start}", USAGE)
    rules = _rules(args)
    *references, run = _open(args.runs)
    comparison = judge(references, run, rules, start=args.start, until=args.until)
    show(comparison, json=args.json)
    return CODES[comparison.verdict]


def show(comparison: Comparison, *, json: bool = False) -> None:
    """Print a comparison."""
    why = causes(comparison)
    if json:
        print(to_json(report.document(comparison, why)), flush=True)
    else:
        print("\n".join(report.lines(comparison, why)), flush=True)


def _rules(args: argparse.Namespace) -> Rules:
    try:
        rules = load(Path(args.rules) if args.rules else DEFAULT)
        return rules.only(name for part in args.metrics for name in part.split(",")) if args.metrics else rules
    except RulesError as error:
        raise Failure(str(error), USAGE) from error


def _open(names: list[str]) -> list[Run]:
    try:
        return [open_run(name) for name in names]
    except SourceError as error:
        raise Failure(str(error), USAGE) from error
