"""`driftline parity`: train the reference, the defaults and a repaired run, judge them and draw the figure.

On the real engine, one run after the other. Only the step of the switch is scripted.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np

from console.cli.verbs.compare import print_comparison
from console.demo import operator as play
from console.demo.report import DemoReport
from console.errors import FAILED, OK, USAGE, CommandError
from console.launch.foreground import Session
from console.launch.preflight import load_config, make_run
from console.parity import experiment
from console.parity.chart import chart
from console.parity.experiment import Planned, Shown, plan, to_toml
from console.parity.figure import svg
from console.parity.judge import fewest
from console.parity.report import closing, corrected, title
from console.parity.rules import load
from console.parity.runs import Run, read_run
from console.parity.stages import table
from console.process import ending
from console.process.signals import Signals
from driftline import environments
from driftline.client import Client, ClientError, attach
from driftline.config import Config
from driftline.frames import Frame, Stamped, Verb
from driftline.rundir import RunDir

REFERENCE: Final = Path("configs") / "reference.toml"
WIDTHS: Final = (80, 140)
"""Columns of the figure in a terminal, at least and at most."""
LABELS: Final = {
    "reference": "reference, all fixes on",
    "defaults": "vLLM's defaults",
    "repaired": "defaults, then repaired live",
}


def parity(args: argparse.Namespace) -> int:
    """Train all runs, print the verdicts, write the figure to --out.

    Exit code 0 when a seed of the reference passes against the others, the defaults fail, and the repaired run passes
    on the steps after the switch; 1 with a sentence when one of them does not.
    """
    path = _reference(args.config)
    config = load_config(path)
    out = Path(args.out)
    if args.seeds < 2:
        raise CommandError("--seeds: at least 2, or no seed can be compared with another", USAGE)
    if args.switch >= args.steps:
        raise CommandError(f"--switch {args.switch}: must come before the last of --steps {args.steps}", USAGE)
    if args.steps < (needed := args.switch + fewest(load(), settles=True)):
        why = f"{needed - args.switch} steps after the switch at {args.switch} are the fewest that can be judged"
        raise CommandError(f"--steps {args.steps}: at least {needed}: {why}", USAGE)
    if not config.fixes:
        raise CommandError(f"{path}: fixes: the reference must name the fixes to be switched", USAGE)
    if out.is_dir() or not out.parent.is_dir():
        raise CommandError(f"--out {out}: {'is a directory' if out.is_dir() else 'there is no such directory'}", USAGE)
    runs, seconds = [], []
    for named in filter(None, (config.engine.environment, args.candidate)):
        _check_environment(named)
    planned = plan(config, steps=args.steps, switch_at=args.switch, seeds=args.seeds, candidate=args.candidate or "")
    print(
        f"{len(planned)} runs of {args.steps} steps, one after the other: {args.seeds} seeds of the reference, "
        f"vLLM's defaults, and one whose fixes go on live after step {args.switch}"
        + (f"; all but the reference in {args.candidate}" if args.candidate else "")
        + (", and there one with its fixes on from the start and one a layer" if args.candidate else ""),
        flush=True,
    )
    for i, one in enumerate(planned):
        began = time.monotonic()
        code, made = _train_with_retry(one, f"[{i + 1}/{len(planned)}] {one.name}, seed {one.config.run.seed}")
        if code != OK:
            return code
        runs.append(read_run(made))
        seconds.append(time.monotonic() - began)
        print(_time_taken(runs[-1], seconds[-1]) + _time_left(seconds, len(planned) - len(runs)), flush=True)
    return _print_results(planned, runs, args.switch, out, _labels(config, args.candidate))


def _labels(config: Config, candidate: str | None) -> dict[str, str]:
    """The legend of the figure."""
    if not candidate:
        return LABELS
    return {
        "reference": f"{config.engine.environment or 'this vLLM'}, the reference",
        "defaults": f"{candidate}, its defaults",
        "fixed": "fixes on",
        "repaired": "repaired live",
    }


def _check_environment(named: str) -> None:
    try:
        environments.check(environments.find(named, os.environ))
    except environments.EnvironmentUnusableError as error:
        raise CommandError(str(error), USAGE) from error


def _time_taken(run: Run, seconds: float) -> str:
    """How long a run took, and for what, by its own measurements."""
    parts = {
        name: float(np.nansum(run.series[name].values)) for name in ("time/step_s", "time/wait_s") if name in run.series
    }
    stepping, waiting = parts.get("time/step_s", 0.0), parts.get("time/wait_s", 0.0)
    rest = seconds - stepping
    of_steps = f"{stepping:.0f} s of steps, {waiting:.0f} s of them waiting for rollouts"
    return f"took {seconds:.0f} s: {of_steps}; {rest:.0f} s to start and end"


def _time_left(seconds: Sequence[float], runs: int) -> str:
    """Estimated time of the remaining runs, from the mean of those done."""
    if not runs:
        return ""
    minutes = fmean(seconds) * runs / 60
    return f"; {runs} more {'run' if runs == 1 else 'runs'}, about {max(minutes, 1):.0f} min"


def _reference(given: str | None) -> Path:
    if given is not None:
        return Path(given)
    for place in (REFERENCE, Path(__file__).parents[2] / REFERENCE):
        if place.is_file():
            return place
    raise CommandError(f"{REFERENCE} is neither here nor beside the package; name one with --config", USAGE)


def _make_run(one: Planned) -> RunDir:
    made = make_run(one.name)
    made.config.write_text(to_toml(one.config), encoding="utf-8")
    return made


class _NoStepError(CommandError):
    """A run that ended before its first step."""


def _train_with_retry(one: Planned, what: str) -> tuple[int, RunDir]:
    """Train one run of the experiment; its exit code and where it is recorded. Raises CommandError.

    An engine's start needs ports, memory and minutes, and may fail on a busy machine: it is tried once more, in a
    directory of its own. A run that fails after its first step is not repeated.
    """
    try:
        return _train_once(one, what)
    except _NoStepError as failure:
        print(
            f"driftline: the run ended before its first step; trying once more: {failure}", file=sys.stderr, flush=True
        )
        return _train_once(one, f"{what}, second try")


def _train_once(one: Planned, what: str) -> tuple[int, RunDir]:
    made = _make_run(one)
    print(f"\n{what}: run {made.id}  {made.path}", flush=True)
    report = DemoReport()
    try:
        return _train_run(made, one, report), made
    except CommandError as failure:
        if failure.exit_code == FAILED and not report.steps:
            raise _NoStepError(str(failure), FAILED) from failure
        raise


def _train_run(made: RunDir, one: Planned, report: DemoReport) -> int:
    clients: list[Client] = []

    def send(verb: Verb, values: dict[str, str]) -> str:
        try:
            if not clients:
                clients.append(Client(*attach(made, "operator")))
            return clients[0].command(verb, values, timeout=play.COMMAND_TIMEOUT)
        except ClientError as error:
            raise CommandError(f"the {verb} of the experiment: {error}") from error

    operator = play.Operator(report, send, one.switch_at, play.print_action) if one.switch_at is not None else None

    def hook(_stamped: Stamped, frame: Frame) -> None:
        report.add_frame(frame)
        if operator is not None:
            operator.handle_frame(frame)

    try:
        with Signals() as signals, Session(made, signals, hook=hook) as session:
            if not session.start(one.config.hub, steps=None):
                return signals.exit_code
            code = session.watch()
    finally:
        for client in clients:
            client.close()
    if code == OK and operator is not None and not operator.done:
        raise CommandError(f"the run ended before its fixes were on: {operator.stage}", FAILED)
    return code


def _print_results(
    planned: Sequence[Planned], runs: Sequence[Run], switch_at: int, out: Path, labels: dict[str, str]
) -> int:
    rules = load()
    of: dict[str, list[Run]] = {}
    for one, run in zip(planned, runs, strict=True):
        of.setdefault(one.name, []).append(run)
    references, (defaults,), (repaired,) = of["reference"], of["defaults"], of["repaired"]
    (fixed,) = of.get("fixed", [None])
    stages = [(one.stage, run) for one, run in zip(planned, runs, strict=True) if one.stage]
    shown = experiment.judge(references, defaults, repaired, rules, switch_at, fixed, stages)
    for heading, comparison in (
        ("a seed of the reference against the others", shown.seed),
        ("vLLM's defaults against the reference", shown.defaults),
        (f"repaired at step {switch_at}, judged on the steps after it", shown.repaired),
        *([("with the fixes on from the start", shown.fixed)] if shown.fixed is not None else []),
    ):
        print(f"\n{heading}\n")
        print_comparison(comparison)
    panels = experiment.panels(references, defaults, repaired, rules, fixed=fixed)
    print()
    columns = min(max(shutil.get_terminal_size().columns, WIDTHS[0]), WIDTHS[1])
    print("\n".join(chart(panels, labels, switch_at, columns)))
    note = (
        f"Means of {rules.window} steps; faint, single steps. Band of {len(references)} seeds: at most "
        f"{rules.alpha:.0%} of healthy runs leave it for good, over all metrics and steps together."
    )
    picture = svg(
        panels,
        heading=_heading(shown),
        labels=labels,
        mark=switch_at,
        note=note,
    )
    _write(out, picture)
    if shown.ladder:
        print("\nlayer by layer, each with those above it; means of the second half of the steps\n")
        print("\n".join(table(references, shown.ladder)) + "\n")
    print("\n".join(_summary(shown)))
    print(f"\nfigure: {out}", flush=True)
    if shown.missing:
        raise CommandError("; ".join(shown.missing), FAILED)
    return OK


def _summary(shown: Shown) -> list[str]:
    """The three verdicts as lines, each with the required verdict if it differs."""
    width = max(len(name) for name, _, _ in shown.rows)
    return [
        f"{name:<{width}}  {closing(found)}{'' if found.verdict == wanted else f'  (needs: {wanted})'}"
        for name, found, wanted in shown.rows
    ]


def _heading(shown: Shown) -> str:
    repaired = shown.repaired
    if repaired.verdict != "pass":
        failed = [title(judged.metric) for judged in repaired.metrics if judged.verdict == "fail"]
        most = len(failed) > len(repaired.metrics) / 2 or not failed
        verdict = repaired.verdict if most else f"all but {', '.join(failed)} back on the reference"
        return f"Repaired live: {verdict}{corrected(repaired)}"
    home = "back on the reference" if repaired.home is None else f"home since step {repaired.home}"
    return f"Repaired live, {home}{corrected(repaired)}"


def _write(out: Path, text: str) -> None:
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        with ending.temporary(temporary):
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(out)
    except OSError as error:
        raise CommandError(f"{out}: cannot be written: {error.strerror}") from error
