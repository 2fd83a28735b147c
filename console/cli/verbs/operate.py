"""`driftline sync`, `pause`, `resume`, `reset-cache` and `digest`: commands to a live run."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from console.connect.backfill import decode_frames, frames_between
from console.connect.commands import send_command
from console.connect.resolve import connect_client, live_run
from console.errors import OK
from console.formatting import to_json
from driftline.client import Client
from driftline.frames import Frame, RunState, Span, Verb
from driftline.text import natural

PHASES: Final = ("pause", "load", "verify", "reset", "resume", "total")
ACK_FIELDS: Final = ("held_s", "aborted", "attempts", "verified")
"""Fields of a sync that are only in its acknowledgement, not in its spans."""
PRINTED: Final[frozenset[Verb]] = frozenset({"cache.reset", "digest"})
"""Commands that are sent for their answers."""
RESULTS: Final = {"verify": "digest", "reset": "reset"}
"""Name of a phase's result in the output."""

Row = dict[str, Any]


def sync(args: argparse.Namespace) -> int:
    """Sync weights on every engine. With --wait: print the phases of each.

    A sync during a sync waits its turn and is then carried out. While `fp32-lm-head` waits for a sync, it is made at
    the end of the trainer's step, because the trainer's head changes with the engines'.

    --json prints {`command`, `state`, `detail`, `data`, `version` (the trainer's), `engines` [{`engine`,
    `version_before`, `version_after`, `pause_s`, `load_s`, `verify_s`, `reset_s`, `resume_s`, `total_s`, `held_s` (how
    long generation stood still), `bytes`, `gb_per_s` (of the load), `in_flight` (sequences at the pause), `straddling`
    (tokens that those had before it), `aborted` (sequences that it cut short), `digest` (of the weights that the engine
    now holds, equal to the trainer's), `verified` ("held": the digest is of what serves, "received": some could only be
    checked as they arrived), `reset` (of the prefix cache: kept, freed, refused), `attempts`, `ok`, `detail`}]}; null
    where the run did not report it. `data` is the same, flat: `sync`, `version`, `ENGINE.load_s` and so on.
    The whole schema is in docs/json.md.
    """
    with connect_client(live_run(args.run), "operator") as client:
        head = client.snapshot().head
        order = send_command(client, args, "sync", {}, "sync")
        if order.ack is None:
            print(to_json(order.document()) if args.json else "sync: queued")
            return OK
        frames = frames_between(client, head + 1, client.snapshot().head + 1)
        engines = phases(
            (frame for _, frame in decode_frames(frames)), str(order.ack.data.get("sync", "")), order.ack.data
        )
        # The run's state comes a few times a second; what the sync itself reported may be newer.
        reported = int(order.ack.data.get("version", -1))
        version = max(_trainer_version(client), reported, *(engine["version_after"] for engine in engines))
    if args.json:
        print(to_json(order.document() | {"version": version, "engines": engines}))
        return OK
    for engine in engines:
        timed = [(phase, engine[f"{phase}_s"]) for phase in PHASES if engine[f"{phase}_s"] is not None]
        times = "  ".join(f"{phase} {seconds:.3f} s" for phase, seconds in timed)
        extra = f"  {engine['gb_per_s']:.2f} GB/s" if engine["gb_per_s"] else ""
        extra += f"  cache {engine['reset']}" if engine["reset"] else ""
        extra += f"  digest {engine['digest'][:12]}" if engine["digest"] else ""
        print(f"{engine['engine']}  v{engine['version_before']} -> v{engine['version_after']}  {times}{extra}")
    print(f"sync applied{f': {order.ack.detail}' if order.ack.detail else ''}; trainer v{version}")
    return OK


def phases(frames: Iterable[Frame], sync_id: str, ack_data: Mapping[str, Any] = MappingProxyType({})) -> list[Row]:
    """Spans of one sync as one row an engine; an empty `sync_id` takes the first sync there is.

    `ack_data` is the data of the acknowledgement: `engine-0.held_s` and so on.
    """
    rows: dict[str, Row] = {}
    for span in frames:
        if not isinstance(span, Span) or (sync_id and span.sync != sync_id):
            continue
        sync_id = sync_id or span.sync
        row = rows.setdefault(
            span.engine,
            {
                "engine": span.engine,
                "version_before": span.version_before,
                "version_after": span.version_after,
                **{f"{phase}_s": None for phase in PHASES},
                **{name: ack_data.get(f"{span.engine}.{name}") for name in ACK_FIELDS},
                "bytes": 0,
                "gb_per_s": None,
                "in_flight": 0,
                "straddling": 0,
                "digest": None,
                "reset": None,
                "ok": True,
                "detail": "",
            },
        )
        row[f"{span.phase}_s"] = span.seconds
        row["version_after"] = max(row["version_after"], span.version_after)
        for name in ("bytes", "in_flight", "straddling"):
            row[name] = max(row[name], getattr(span, name))
        if span.phase == "load" and span.bytes and span.seconds:
            row["gb_per_s"] = span.bytes / span.seconds / 1e9
        if span.result and span.phase in RESULTS:
            row[RESULTS[span.phase]] = span.result
        row["ok"] = row["ok"] and span.ok
        row["detail"] = span.detail or row["detail"]
    return [rows[engine] for engine in sorted(rows, key=natural)]


def pause(args: argparse.Namespace) -> int:
    """Pause generation on every engine. The run resumes by itself when the lease of the pause ends."""
    return _send_simple(args, "pause")


def resume(args: argparse.Namespace) -> int:
    """Resume generation on every engine."""
    return _send_simple(args, "resume")


def reset_cache(args: argparse.Namespace) -> int:
    """Empty the prefix cache of every engine that has joined by itself, and print what each came back with."""
    return _send_simple(args, "cache.reset")


def digest(args: argparse.Namespace) -> int:
    """Print a checksum of the weights that each engine holds, of those that have joined by themselves."""
    return _send_simple(args, "digest")


def _send_simple(args: argparse.Namespace, verb: Verb) -> int:
    with connect_client(live_run(args.run), "operator") as client:
        ack = send_command(client, args, verb, {}, verb).ack
    detail = f": {ack.detail}" if ack is not None and ack.detail else ""
    if ack is not None and ack.data.get("renewed"):
        detail = ": it was paused already, its lease is renewed"
    print(f"{verb}: {'queued' if ack is None else 'applied'}{detail}")
    for line in engine_lines(ack.data if ack is not None and verb in PRINTED else {}):
        print(line)
    return OK


def engine_lines(data: Mapping[str, Any]) -> list[str]:
    """What each engine answered, a line an engine; `data` has it flat: `engine-0.digest` and so on."""
    engines: dict[str, list[str]] = {}
    for key, value in data.items():
        engine, dot, name = key.rpartition(".")
        if dot:
            engines.setdefault(engine, []).append(f"{name} {value}")
    return [f"{engine}  {'  '.join(parts)}" for engine, parts in engines.items()]


def _trainer_version(client: Client) -> int:
    states = [frame for _, frame in decode_frames(list(client.snapshot().states))]
    return max((state.version for state in states if isinstance(state, RunState)), default=-1)
