"""`driftline run` and `driftline demo`: start a run and stay in the foreground with it until it ends."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from console.demo import operator as play
from console.demo.frame_thread import FrameThread
from console.demo.report import DemoReport, table, verdict
from console.errors import FAILED, OK, CommandError
from console.launch import background
from console.launch.console_child import ConsoleChild, on_terminal
from console.launch.foreground import Hook, Session
from console.launch.preflight import check_name, load_config, make_run
from console.process.signals import Signals
from driftline.client import Client, ClientError, attach
from driftline.config import Config
from driftline.frames import Frame
from driftline.rundir import RunDir, RunError

HINT_AT = 15
"""Step of the demonstration at which the console shows what to press: by then the defaults have visibly gone wrong."""
PERSON_FACTOR = 2
"""Factor on the number of steps when a person switches the fixes."""


def run(args: argparse.Namespace) -> int:
    """Start a run from a TOML file; exit code 0 when its trainer ended well, 1 when it failed, 130 after ctrl-C.

    On a terminal the console opens over it, able to operate. Quitting the console leaves the run going, with its
    lines in its place; ctrl-C there ends the run. Without a terminal, or with --headless: the lines from the start.
    Should this process be killed, the run ends in order: the trainer finishes its step and writes a checkpoint.

    With --detach the run is on its own once it runs, and this command ends with code 0: neither a closed terminal nor
    the death of its supervisor ends it. `driftline stop` does.
    """
    path = Path(args.config)
    config = load_config(path)
    name = check_name(args.name or config.run.name)
    screen = not args.headless and on_terminal()
    made = make_run(name, path)
    print(f"run {made.id}  {made.path}", flush=True)
    if args.detach:
        background.start(made, steps=args.steps)
        with Signals() as signals:
            return background.follow(made, signals)
    return _run_in_foreground(made, config, args, steps=args.steps, screen=screen)


def demo(args: argparse.Namespace) -> int:
    """The demonstration: vLLM's defaults go wrong, the fixes restore reward and parity.

    On a terminal a person switches the fixes in the console. Without one the fixes go on at step 45 of 90 by
    command, one sync by hand follows, and exit code 1 means that the run did not recover as required.
    """
    path = play.find_config(args.config)
    config = load_config(path)
    by_hand = not args.headless and on_terminal()
    made = make_run(config.run.name, path)
    print(f"run {made.id}  {made.path}", flush=True)
    report = DemoReport()
    if by_hand:
        return _run_with_person(made, config, args, report)
    return _run_with_operator(made, config, args, report)


def _run_with_person(made: RunDir, config: Config, args: argparse.Namespace, report: DemoReport) -> int:
    print(
        "This run starts with vLLM's defaults and goes wrong within a minute: reward\n"
        "sinks; clip fraction, entropy and mismatch rise. The console opens once the\n"
        "engine is up. There, 5 names the cause, and three keys bring the run home:\n"
        "A, right, enter switch the fixes on in order and sync the weights once.\n"
        "u sets them back. F switches a single fix, q leaves the console.",
        flush=True,
    )
    hints = [f"press A: align, which brings run {made.id} home; 5 says what is wrong"]

    def handle(frame: Frame) -> None:
        report.add_frame(frame)
        if hints and report.step >= HINT_AT and report.switched is None:
            _send_hint(made, hints.pop())

    steps = PERSON_FACTOR * min(play.STEPS, config.run.steps)
    with FrameThread(handle) as frames:
        code = _run_in_foreground(made, config, args, steps=steps, screen=True, hook=lambda _stamped, f: frames.put(f))
    _print_report(made, report)
    return code


def _send_hint(made: RunDir, text: str) -> None:
    # A failed hint must not end the run: a hub that is being restarted just now does not show it.
    with contextlib.suppress(ClientError, RunError), Client(*attach(made, "operator")) as client:
        client.command("mark", {"text": text})


def _run_with_operator(made: RunDir, config: Config, args: argparse.Namespace, report: DemoReport) -> int:
    steps = min(play.STEPS, config.run.steps)
    switch_at = min(play.SWITCH_AT, steps // 2)
    print(
        f"{steps} steps: vLLM's defaults, at step {switch_at} every available fix on, then one sync by hand",
        flush=True,
    )
    sender = play.Sender(lambda: Client(*attach(made, "operator")))
    operator = play.Operator(report, sender.send, switch_at, play.print_action)

    def handle(frame: Frame) -> None:
        report.add_frame(frame)
        operator.handle_frame(frame)

    with FrameThread(handle, cancel=sender.cancel) as frames:
        code = _run_in_foreground(made, config, args, steps=steps, screen=False, hook=lambda _stamped, f: frames.put(f))
    _print_report(made, report)
    if code != OK:
        return code
    if not operator.done:
        raise CommandError(f"the run ended during the demonstration's stage '{operator.stage}'", FAILED)
    result = verdict(report)
    if result is None:
        raise CommandError("the run ended too soon after the switch to judge it", FAILED)
    if not result.passed:
        raise CommandError(f"demo check failed: {result}", FAILED)
    print(f"demo check passed: {result}", flush=True)
    return OK


def _run_in_foreground(
    made: RunDir, config: Config, args: argparse.Namespace, *, steps: int | None, screen: bool, hook: Hook | None = None
) -> int:
    with Signals() as signals, Session(made, signals, hook=hook) as session:
        if not session.start(config.hub, steps=steps):
            return signals.exit_code
        if not screen:
            return session.watch()
        return session.watch(
            ConsoleChild([str(made.path), "--operate", "--marker", args.marker, "--fps", str(args.fps)])
        )


def _print_report(made: RunDir, report: DemoReport) -> None:
    if not report.steps:
        return
    from console.export import ExportError, export

    print()
    for text in table(report):
        print(text)
    print()
    try:
        exported = export(made, made.snapshots / "metrics.parquet")
    except ExportError as error:
        raise CommandError(str(error)) from error
    print(f"snapshot: {exported.path} ({exported.rows} rows, {exported.columns} columns)", flush=True)
