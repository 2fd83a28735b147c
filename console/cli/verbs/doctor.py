"""`driftline doctor`: checks of this machine and of a run."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from itertools import chain

import zmq

from console.connect.backfill import decode_frames
from console.connect.target import Target, find_target
from console.doctor import checks, facts
from console.doctor.checks import ClockFact, Finding, JoinedFact
from console.errors import FAILED, OK, CommandError
from console.formatting import to_json
from console.status import supervision
from console.status.engine_config import joined_as
from console.status.summary import Summary, summarise
from driftline.client import Client, ClientError, next_beacon
from driftline.rundir import RunError, runs_root
from driftline.text import natural, sanitize

PULSE_SECONDS = 2.0


def run_checks(args: argparse.Namespace) -> int:
    """Check a run (named, or the newest live one if there is any) and this machine; change nothing.

    One line a check: `ok`, `warn` or `fail`, the finding, and what to do. Exit code 1 if anything fails, else 0.
    --json prints {`run` (null: none was checked), `verdict`, `checks` [{`check`, `verdict` (ok, warn, fail), `text`,
    `todo`}]}. Checks: keys, hub, clock, gate (an unknown key must be refused), joined (who
    reports, and how), disk, filesystem, journal, supervisor,
    libzmq, ray, vllm, terminal, colours, utf-8, run.
    """
    run = _find_run(args)
    findings = []
    try:
        for finding in chain(check_run(run) if run is not None else check_no_run(), check_machine()):
            findings.append(finding)
            if not args.json:
                _print_finding(finding)
    finally:
        if run is not None:
            run.close()
    if args.json:
        print(to_json(checks.document(run.id if run is not None else None, findings)))
    return FAILED if checks.worst(findings) == "fail" else OK


def _print_finding(finding: Finding) -> None:
    """Print at once, because the next check may have to wait for a hub that hangs."""
    print(sanitize(f"{finding.verdict:4}  {finding.check:10}  {finding.text}"), flush=True)
    if finding.todo:
        print(sanitize(f"{'':16}  -> {finding.todo}"), flush=True)


def _find_run(args: argparse.Namespace) -> Target | None:
    try:
        return find_target(args.run, key=args.key)
    except RunError:
        if args.run is not None:
            raise
        return None


def check_no_run() -> Iterator[Finding]:
    """Without a run, check the folder of runs."""
    yield Finding("run", "ok", f"no live run in {runs_root()}; only this machine is checked")
    yield from checks.disk(facts.disk(runs_root()))


def check_run(run: Target) -> Iterator[Finding]:
    """Check a run's files and its hub."""
    directory = run.directory
    if directory is not None:
        yield from checks.permissions(list(facts.paths(directory)), os.geteuid())
        yield from checks.disk(facts.disk(directory.path))
        yield from checks.journal(facts.journal(directory))
    else:
        yield Finding("keys", "ok", "the run's files are on another machine: run doctor there to check them")
    if (care := supervision.look(directory)) is not None:
        hub = supervision.hub_text(care, time.time())
        yield checks.supervisor(checks.SupervisorFact(care.record.pid, care.alive, hub))
    if not run.live():
        yield Finding("run", "warn", f"run {run.id} is not live: its hub was not checked", "see: driftline list")
        return
    yield from _check_hub(run)


def _check_hub(run: Target) -> Iterator[Finding]:
    yield from checks.gates(list(facts.gates(run.connection())))
    try:
        keys = run.credentials("viewer")
    except (RunError, CommandError) as error:
        yield Finding("keys", "fail", str(error), "another key: --key FILE")
        return
    beacon = next_beacon(run.connection(), keys, PULSE_SECONDS)
    yield checks.hub(beacon.degraded if beacon is not None else None, beacon.crowded if beacon is not None else "")
    try:
        with Client(run.connection(), keys) as client:
            client.ping()  # the first round trip pays for the handshake
            yield checks.clock(ClockFact(*client.clock()))
            snapshot = client.snapshot()
            yield Finding("run", "ok", f"run {run.id}: this key has the role {snapshot.role}")
            yield from checks.joined(
                joined_facts(summarise(frame for _, frame in decode_frames(list(snapshot.states))))
            )
    except ClientError as error:
        yield Finding("run", "fail", str(error), "another key: --key FILE; see: driftline keys list")


def joined_facts(summary: Summary) -> list[JoinedFact]:
    """The trainer and the engines of a run, in natural order, as they describe themselves and the hub their keys."""
    run = summary.run
    facts = []
    if run is not None:
        how = " in ".join(word for word in (run.via, run.framework) if word) or "its own probe"
        facts.append(JoinedFact("trainer", how, run.status, 0.0))
    for name in sorted(summary.engines, key=natural):
        engine = summary.engines[name]
        kind = f"{engine.backend} vLLM {engine.vllm}".strip() if engine.vllm else engine.backend
        how = ", ".join(word for word in (joined_as(engine), kind) if word)
        facts.append(JoinedFact(name, how, engine.phase, engine.since))
    return facts


def check_machine() -> Iterator[Finding]:
    """Check this machine, independent of a run."""
    yield checks.library(zmq.zmq_version_info(), curve=zmq.has("curve"))
    yield from checks.ray(facts.ray_nodes(), facts.ray_version(), os.environ.get("RAY_AUTH_MODE", "").lower())
    yield from checks.servers(facts.vllm_servers())
    yield from checks.terminal(facts.terminal())
