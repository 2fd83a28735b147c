"""The kinds of faults of a soak, and the order in which they come."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from driftline.frames import Frame, encode
from tests.faults.soak_new import (
    audit_removed,
    clock_jumps,
    compaction_killed,
    connection_endless,
    connections_silent,
    growing_names,
    journal_read_only,
    journal_removed,
    journal_renamed,
    journal_replaced,
    key_revoked,
    odd_frames,
    run_renamed,
)
from tests.faults.soak_old import (
    SERIES,
    command_repeated,
    console_killed,
    console_stopped,
    disk_fails,
    feed_renewed,
    garbage,
    hub_hangs,
    hub_killed,
    hub_killed_in_a_series,
    hub_stopped,
    hub_stopped_then_killed,
    joins,
    mutated_requests,
    network_cut,
    pages_not_read,
    producer_killed,
    readers_stopped,
    second_hub,
)
from tests.faults.soak_world import World
from tests.unit.odd_frames import in_range

Fault = Callable[[World], None]
ENDING: Final[tuple[Fault, ...]] = (hub_killed, hub_stopped_then_killed, hub_killed_in_a_series)
"""After these there is another hub process."""
HEAPING: Final[tuple[Fault, ...]] = (growing_names,)
"""What these leave is held by name, in hub and console: at the beginning, where memory may still grow."""
OLD: Final[tuple[Fault, ...]] = (
    hub_stopped, hub_hangs, second_hub, disk_fails, feed_renewed, console_stopped, console_killed, producer_killed,
    readers_stopped, pages_not_read, joins, network_cut, garbage, mutated_requests, command_repeated,
)  # fmt: skip
NEW: Final[tuple[Fault, ...]] = (
    journal_renamed, journal_replaced, journal_removed, journal_read_only, run_renamed, clock_jumps, odd_frames,
    key_revoked, compaction_killed, connection_endless, connections_silent, audit_removed,
)  # fmt: skip


QUICK: Final[tuple[Fault, ...]] = (hub_stopped, feed_renewed, garbage, journal_renamed, odd_frames, network_cut)
"""Those of a soak of less than a minute."""


def in_turn(faults: tuple[Fault, ...], rolls: random.Random) -> Iterator[Fault]:
    """Every fault once in a random order, then again in another one."""
    while True:
        yield from rolls.sample(faults, len(faults))


def refused_bodies(frames: Sequence[Frame]) -> list[bytes]:
    """Bodies that are frames of this schema with a number outside its range."""
    return [encode(frame) for frame in frames if not in_range(frame)]


__all__ = ["ENDING", "HEAPING", "NEW", "OLD", "QUICK", "SERIES", "Fault", "hub_killed", "hub_killed_in_a_series"]
