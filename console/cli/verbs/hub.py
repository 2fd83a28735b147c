"""`driftline simulate` and `driftline hub`: a hub in the foreground, synthetic or for a trainer of yours."""

from __future__ import annotations

import argparse
import shlex
import sys

from console.connect.resolve import local_run_dir
from console.errors import OK, CommandError
from console.launch.preflight import make_run
from console.launch.supervisor import Supervisor
from console.process.signals import Signals
from driftline.config import HubConfig
from driftline.rundir import RUN_VARIABLE, RunDir


def simulate(args: argparse.Namespace) -> int:
    """A synthetic run with the course of the demonstration that obeys commands; no engine, trainer or model behind it.

    It is labelled as synthetic everywhere: its id, RunState.synthetic, status, tail, exported files. Exit code 0 after
    --steps or `driftline stop`, 130 after ctrl-C.
    """
    made = make_run("synthetic")
    with Signals() as signals, Supervisor(made) as supervisor:
        if not supervisor.start_hub(synthetic=True, cancelled=signals.__bool__):
            return signals.exit_code
        print(
            f"run {made.id}  {made.path}\n"
            f"SYNTHETIC: curves made up on the spot, no engine behind them; obeys fix, sync, pause, resume and stop\n"
            f"look:   driftline attach {made.id} --operate\n"
            f"ctrl-C ends it",
            flush=True,
        )
        from console.simulate.run import Simulator

        with Simulator(made, steps=args.steps, rate=args.rate, engines=args.engines, seed=args.seed) as simulator:
            while not signals and not simulator.ended:
                simulator.run_once(command_wait(args.rate))
                _say(supervisor.keep_hub())
    return signals.exit_code if signals else OK


def command_wait(rate: float) -> float:
    """Longest wait for a command in seconds: at most half a step, or the wait itself would limit the rate of steps."""
    return min(0.05, 0.5 / rate)


def hub(args: argparse.Namespace) -> int:
    """A hub for a trainer that is started elsewhere; prints the run's id and the line its environment needs.

    A hub that dies is started again. Exit code 130 after ctrl-C, 1 when the hub could not start.
    """
    made = _directory(args)
    with Signals() as signals, Supervisor(made) as supervisor:
        if not supervisor.start_hub(_settings(args), cancelled=signals.__bool__):
            return signals.exit_code
        path = shlex.quote(str(made.path))  # these lines are there to be copied into a shell
        print(
            f"run {made.id}\n"
            f"in your trainer's environment:  export {RUN_VARIABLE}={path}\n"
            f"look:                           driftline attach {path}\n"
            f"ctrl-C ends the hub; go on with it: driftline hub --run {path}",
            flush=True,
        )
        while not signals.pause(0.2):
            _say(supervisor.keep_hub())
    return signals.exit_code


def _say(news: str) -> None:
    if news:
        print(f"driftline: {news}", file=sys.stderr, flush=True)


def _settings(args: argparse.Namespace) -> HubConfig:
    return HubConfig(bind=args.bind, keep_gb=args.keep_gb, keep_hours=args.keep_hours, compact=args.compact)


def _directory(args: argparse.Namespace) -> RunDir:
    if args.run is None:
        return make_run(args.name)
    found = local_run_dir(args.run, "hub")
    if found.live():
        raise CommandError(f"run {found.id} has a hub already (pid {found.connection().pid})")
    return found
