"""What the engines of a pool need to report to a run by themselves, and what is known of all of them at a moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from driftline.frames import EngineState
from driftline.keys import Keys, producer_keys
from driftline.rundir import Connection, RunDir
from engine.actor.stats import pool_stats
from engine.pool.members import Fleet
from engine.types import EngineError, EngineSample, PoolStats

STATS_S: Final = 2.0


def report_to(run: RunDir, names: Sequence[str]) -> tuple[Connection | None, dict[str, Keys]]:
    """The connection for engines of these names, None where the run has no hub, and a key of its own for each.

    Raises RunError.
    """
    if not run.connection_file.exists():
        return None, {}
    return run.connection(), producer_keys(run, names, "engine")


async def stats(fleet: Fleet) -> PoolStats:
    """See EnginePool.stats. On the pool's own thread."""
    samples = dict(await fleet.ask_all(lambda actor: actor.sample.remote(), STATS_S, fatal=False))
    befores, afters = [], []
    for name in fleet.names:
        member = fleet.members[name]
        sample = samples.get(member, member.base)
        if isinstance(sample, EngineError):
            sample = member.base
        if not member.serves or sample is None:
            if member.shown is None:
                continue
            absent = _absent(member.shown, dead=member.status == "dead")
            befores.append(absent)
            afters.append(absent)
            continue
        befores.append(member.base or sample)
        afters.append(sample)
        member.base, member.shown = sample, sample.state
    return pool_stats(befores, afters)


def _absent(shown: EngineState, *, dead: bool) -> EngineSample:
    phase = "dead" if dead else "restarting"
    return EngineSample(msgspec.structs.replace(shown, phase=phase, running=0, waiting=0, kv_use=0.0), 0, 0, 0)
