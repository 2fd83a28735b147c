"""`driftline bridge`: a vLLM server without the plugin as an engine of a run."""

from __future__ import annotations

import argparse
import re
import sys
import threading
from pathlib import Path

from console.bridging.bridge import Bridge, NoServerError, Server, look
from console.bridging.pages import DEFAULT_URL, Pages
from console.doctor import checks, facts
from console.doctor.checks import Finding, ServerFact
from console.errors import FAILED, OK, USAGE, CommandError
from console.process.signals import Signals
from driftline import keys, rundir
from driftline.keys import Keys
from driftline.rundir import Connection, RunDir
from driftline.text import sanitize

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOOPBACK = ("localhost", "127.", "::1")


def bridge(args: argparse.Namespace) -> int:
    """Report a vLLM server's state to a run, by its /metrics and, in dev mode, /server_info; take pause, resume and
    reset-cache where the server has endpoints for them.

    Nothing is installed in the server and no fix is switched: `driftline` in its environment does both (joining.md).
    Ends with ctrl-C or SIGTERM, after resuming a pause that an operator has asked for. Exit code 128 + the signal's
    number; 1 where there is no vLLM server; 2 for an address that is none; 3 without a run.
    """
    try:
        pages = Pages(args.url or DEFAULT_URL)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from error
    name = args.name or _name(pages)
    if _NAME.fullmatch(name) is None:
        raise CommandError(f"--name '{name[:80]}': a name is 1 to 64 letters, digits, '.', '_' or '-'", USAGE)
    run, connection, pair = _member(args)
    with Signals() as signals:
        server = _first_look(pages, signals)
        if server is None:
            return signals.exit_code
        made = Bridge(pages, server, name, pair, run, connection)
        try:
            made.start()
            where = run.id if run is not None else connection.run if connection is not None else ""
            print(sanitize(f"{pages.url} (vLLM {made.server.vllm}) joins run {where} as '{name}'"), flush=True)
            if not made.server.acts:
                print("it has no endpoints for pause and resume: it is only looked at", flush=True)
            for finding in _open_endpoints(pages, acts=made.server.acts):
                print(sanitize(f"{finding.verdict}: {finding.text}\n   -> {finding.todo}"), file=sys.stderr, flush=True)
                made.warn(f"{name}: {finding.text}")
            lost = ""
            while not signals.pause(0.5):
                if made.lost != lost:
                    lost = made.lost
                    said = f"{lost}; it is asked again" if lost else f"{pages.url} answers again"
                    print(sanitize(f"driftline: {said}"), file=sys.stderr, flush=True)
        finally:
            made.close()
    return signals.exit_code if signals else OK


def _first_look(pages: Pages, signals: Signals) -> Server | None:
    """What the server is; None where a signal came first: some pages take half a minute. Raises CommandError."""
    found: list[Server | NoServerError] = []

    def ask() -> None:
        try:
            found.append(look(pages))
        except NoServerError as error:
            found.append(error)

    asking = threading.Thread(target=ask, name="bridge-look", daemon=True)
    asking.start()
    while asking.is_alive():
        asking.join(0.05)
        if signals:
            return None
    if isinstance(found[0], NoServerError):
        raise CommandError(sanitize(str(found[0])), FAILED) from found[0]
    return found[0]


def _name(pages: Pages) -> str:
    """`engine-8000`; of another machine `engine-HOST-8000`."""
    host = "" if pages.host.startswith(_LOOPBACK) else f"{re.sub(r'[^A-Za-z0-9._-]+', '-', pages.host)[:40]}-"
    return f"engine-{host}{pages.port}"


def _member(args: argparse.Namespace) -> tuple[RunDir | None, Connection | None, Keys]:
    """The run and the key to join it with. Raises RunError, CommandError."""
    if args.run and args.run.endswith(".json"):
        if not args.key:
            raise CommandError("--run is a connection file; --key must name a producer's key file beside it", USAGE)
        return None, rundir.read_connection(Path(args.run)), keys.load_file(Path(args.key))
    run = rundir.find(args.run)
    return run, None, keys.load_file(Path(args.key)) if args.key else keys.load(run, "engine")


def _open_endpoints(pages: Pages, *, acts: bool) -> list[Finding]:
    """What doctor says of the server's control endpoints, where they are reachable for others than its owner."""
    if not acts:
        return []
    here = [fact for fact in facts.vllm_servers() if fact.port == pages.port]
    known = here if pages.host.startswith(_LOOPBACK) and here else [ServerFact(0, pages.host, pages.port, control=True)]
    return [finding for finding in checks.servers(known) if finding.verdict != "ok"]
