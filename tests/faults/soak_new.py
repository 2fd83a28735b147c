"""Faults of a soak that came with the rule that nothing a watcher does ends, blinds or poisons a run.

As in soak_old.py: each is bounded, waits until it has been noticed, and takes its harm back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket as tcp
import subprocess
import sys
from typing import Final

from driftline.client import Client, ClientError, attach
from driftline.journal.journal import segments
from driftline.keys import add, load, revoke
from driftline.producer.probe import Probe
from tests.faults.soak_world import World
from tests.unit.hubs import PATIENCE

NAMES, NAMES_A_STEP = 4000, 20
SILENT: Final = 300
ODD: Final = 50


def journal_renamed(world: World) -> None:
    """Renamed, noticed, put back."""
    away = world.run.path / "away"
    world.run.journal.rename(away)
    try:
        _lost(world)
    finally:
        away.rename(world.run.journal)
    _found(world)


def journal_replaced(world: World) -> None:
    """Renamed for good, and an empty directory in its place."""
    world.run.journal.rename(world.aside())
    _lost(world)
    world.run.journal.mkdir(mode=0o700)
    _found(world)


def journal_removed(world: World) -> None:
    """Removed, and an empty directory made. Closed segments keep a second name, so that all can be counted at the end;
    what is in the open one has to be saved by the hub."""
    aside = world.aside()
    aside.mkdir()
    for path in segments(world.run.journal)[:-1]:
        os.link(path, aside / path.name)
    while world.run.journal.exists():
        shutil.rmtree(world.run.journal, ignore_errors=True)  # the hub may be making a file in it
    _lost(world)
    world.run.journal.mkdir(mode=0o700)
    _found(world)


def journal_read_only(world: World) -> None:
    """Made read-only and given back; for root by an attribute of the directory."""
    folder = world.run.journal
    folder.chmod(0o500)
    attribute = os.access(folder, os.W_OK)
    try:
        if attribute:
            subprocess.run(["chattr", "+i", str(folder)], check=True, timeout=PATIENCE)
        _lost(world)
    finally:
        if attribute:
            subprocess.run(["chattr", "-i", str(folder)], check=True, timeout=PATIENCE)
        folder.chmod(0o700)
    _found(world)


def run_renamed(world: World) -> None:
    """The whole run directory, and back."""
    away = world.run.path.with_name("moved")
    world.run.path.rename(away)
    try:
        _lost(world)
    finally:
        away.rename(world.run.path)
    _found(world)


def clock_jumps(world: World) -> None:
    """The hub's wall clock goes an hour ahead, then an hour back: who holds the lease keeps it."""
    with Client(*attach(world.run, "operator")) as client:
        client.take_lease()
        for jump in ("3600", "-3600"):
            with world.flag("clock", jump):
                world.rest(2.0)
                ahead, _ = client.clock()
                assert abs(ahead - float(jump)) < 600, "the clock has jumped"
                assert client.renew_lease(), "the lease goes by the monotonic clock"
        client.release_lease()


def odd_frames(world: World) -> None:
    """Frames with numbers outside their ranges, by a producer that checks nothing; the refusals are counted."""
    with Probe("odd", world.run, keys="odd") as probe:
        for body in (chosen := world.rolls.sample(world.odd_bodies, ODD)):
            probe._ring.add(body)
        assert probe.flush(2 * PATIENCE)
    world.odd_sent += len(chosen)


def growing_names(world: World) -> None:
    """A producer whose names grow with its steps."""
    with Probe("names", world.run, keys="names") as probe:
        for step in range(NAMES // NAMES_A_STEP):
            first = step * NAMES_A_STEP
            probe.emit({f"grown/{world.rolls.random()}/{first + i}": 1.0 for i in range(NAMES_A_STEP)}, step=step)
        assert probe.flush(2 * PATIENCE)


def key_revoked(world: World) -> None:
    """Of an operator who holds the lease and follows: cut off, and the lease is free."""
    key = f"former-{world.rolls.randrange(10**9)}"
    add(world.run, key, "operator", key)
    there, keys = world.run.connection(), load(world.run, key)

    def refused(client: Client) -> bool:
        try:
            client.ping(1.0)
        except ClientError:
            return True
        return False

    with Client(there, keys) as client:
        world.until(lambda: not refused(client), "the new key to be known")
        client.take_lease()
        revoke(world.run, key)
        world.until(lambda: refused(client), "the revoked key to be refused")
        with Client(*attach(world.run, "operator")) as other:

            def free() -> bool:
                with contextlib.suppress(ClientError):
                    return not other.take_lease() or other.holds_lease
                return False

            world.until(free, "the lease to be free")
            other.release_lease()


def compaction_killed(world: World) -> None:
    """And started again by the supervisor."""
    children = world.supervisor._children
    pid = children["compact"].pid
    children["compact"].kill()
    world.until(lambda: children["compact"].pid != pid and children["compact"].poll() is None, "another", 120.0)


def connection_endless(world: World) -> None:
    """`connection.json` is /dev/zero for a while: a verb says so at once."""
    file = world.run.connection_file
    kept = file.with_name("kept.json")
    file.rename(kept)
    file.symlink_to("/dev/zero")
    try:
        command = [sys.executable, "-m", "console.cli", "status", "--run", str(world.run.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert str(file) in done.stderr + done.stdout, "it names the file"
    finally:
        kept.replace(file)


def connections_silent(world: World) -> None:
    """They are made and say nothing; the hub lets go of them, and serves the others."""
    silent = []
    try:
        for number in range(SILENT):
            ports = world.ports()
            silent.append(tcp.create_connection(("127.0.0.1", ports[number % len(ports)]), timeout=PATIENCE))
        with Client(*attach(world.run, "viewer")) as client:
            for _ in range(20):
                client.ping(PATIENCE)
        world.rest(5.0)
    finally:
        for one in silent:
            one.close()


def audit_removed(world: World) -> None:
    """The hub puts it back."""
    world.run.audit.unlink()
    world.until(world.run.audit.exists, "the audit log")


def _lost(world: World) -> None:
    world.until(lambda: "journal lost" in world.follower.degraded, "consoles to hear that the journal is lost")


def _found(world: World) -> None:
    world.until(lambda: not world.follower.degraded, "the all-clear")
