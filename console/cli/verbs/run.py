"""`driftline run` and `driftline demo`: start a run and stay in the foreground with it until it ends."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from console.demo import operator as play
from console.demo.report import Story, table, verdict
from console.errors import FAILED, OK, CommandError
from console.launch.console_child import Screen, on_terminal
from console.launch.foreground import Hook, Session
from console.launch.preflight import check_name, checked, make_run
from console.process.signals import Signals
from driftline.client import Client, ClientError, attach
from driftline.config import Config
from driftline.frames import Frame, Stamped, Verb
from driftline.rundir import RunDir, RunError

HINT_AT = 15
"""Step of the demonstration at which the console is told what to press: the defaults have been seen to go wrong."""
PERSON = 2
"""Times as many steps for a person at the keys as for the demonstration that plays itself."""


def run(args: argparse.Namespace) -> int:
    """Start a run from a TOML file; exit code 0 when its trainer ended well, 1 when it failed, 130 after ctrl-C.

    On a terminal the console opens over it, able to operate. Quitting the console leaves the run going, with its
    lines in its place; ctrl-C there ends the run. Without a terminal, or with --headless: the lines from the start.
    """
    path = Path(args.config)
    config = checked(path)
    name = check_name(args.name or config.run.name)
    screen = not args.headless and on_terminal()
    made = make_run(name, path)
    print(f"run {made.id}  {made.path}", flush=True)
    return _foreground(made, config, args, steps=args.steps, screen=screen)


def demo(args: argparse.Namespace) -> int:
    """The article's story, live: vLLM's defaults go wrong, the fixes bring the run home.

    On a terminal a person switches the fixes in the console. Without one the fixes go on at step 45 of 90 by
    command, one sync by hand follows, and exit code 1 says that the run did not come home as promised.
    """
    path = play.find_config(args.config)
    config = checked(path)
    by_hand = not args.headless and on_terminal()
    made = make_run(config.run.name, path)
    print(f"run {made.id}  {made.path}", flush=True)
    story = Story()
    if by_hand:
        return _by_hand(made, config, args, story)
    return _by_itself(made, config, args, story)


def _by_hand(made: RunDir, config: Config, args: argparse.Namespace, story: Story) -> int:
    print(
        "This run starts with vLLM's defaults and goes wrong within a minute: reward\n"
        "sinks; clip fraction, entropy and mismatch rise. The console opens once the\n"
        "engine is up. There, press F and choose: switch on processed-logprobs,\n"
        "prefix-cache-off and fp32-lm-head, and watch the run come home.\n"
        "S syncs weights, q leaves the console.",
        flush=True,
    )
    hints = [f"press F: switch the fixes on and bring run {made.id} home"]

    def hook(_stamped: Stamped, frame: Frame) -> None:
        story.take(frame)
        if hints and story.step >= HINT_AT and story.switched is None:
            _mark(made, hints.pop())

    steps = PERSON * min(play.STEPS, config.run.steps)
    code = _foreground(made, config, args, steps=steps, screen=True, hook=hook)
    _report(made, story)
    return code


def _mark(made: RunDir, text: str) -> None:
    # A hint is not worth a run: a hub that is being restarted just now simply does not show it.
    with contextlib.suppress(ClientError, RunError):
        client = Client(*attach(made, "operator"))
        try:
            client.command("mark", {"text": text})
        finally:
            client.close()


def _by_itself(made: RunDir, config: Config, args: argparse.Namespace, story: Story) -> int:
    steps = min(play.STEPS, config.run.steps)
    switch_at = min(play.SWITCH_AT, steps // 2)
    print(
        f"{steps} steps: vLLM's defaults, at step {switch_at} every available fix on, then one sync by hand",
        flush=True,
    )
    clients: list[Client] = []

    def give(verb: Verb, values: dict[str, str]) -> str:
        try:
            if not clients:
                clients.append(Client(*attach(made, "operator")))
            return clients[0].command(verb, values, timeout=play.COMMAND_TIMEOUT)
        except ClientError as error:
            raise CommandError(f"the demonstration's {verb}: {error}") from error

    operator = play.Operator(story, give, switch_at, play.say)

    def hook(_stamped: Stamped, frame: Frame) -> None:
        story.take(frame)
        operator.take(frame)

    try:
        code = _foreground(made, config, args, steps=steps, screen=False, hook=hook)
    finally:
        for client in clients:
            client.close()
    _report(made, story)
    if code != OK:
        return code
    if not operator.done:
        raise CommandError(f"the run ended while the demonstration was at: {operator.stage}", FAILED)
    judged = verdict(story)
    if judged is None:
        raise CommandError("the run ended too soon after the switch to judge it", FAILED)
    if not judged.home:
        raise CommandError(f"the fixes did not bring the run home as promised: {judged}", FAILED)
    print(f"home: {judged}", flush=True)
    return OK


def _foreground(
    made: RunDir, config: Config, args: argparse.Namespace, *, steps: int | None, screen: bool, hook: Hook | None = None
) -> int:
    with Signals() as signals, Session(made, signals, hook=hook) as session:
        if not session.start(config.hub, steps=steps):
            return signals.exit_code
        if not screen:
            return session.watch()
        return session.watch(Screen([str(made.path), "--operate", "--marker", args.marker, "--fps", str(args.fps)]))


def _report(made: RunDir, story: Story) -> None:
    if not story.steps:
        return
    from console.export import ExportError, export

    print()
    for text in table(story):
        print(text)
    print()
    try:
        report = export(made, made.snapshots / "metrics.parquet")
    except ExportError as error:
        raise CommandError(str(error)) from error
    print(f"snapshot: {report.path} ({report.rows} rows, {report.columns} columns)", flush=True)
