"""Runs with weight syncs, failing and straggling engines, for the sync, engines and events screens."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from driftline.frames import EngineState, Event, Frame, Span
from tests.tui.synthetic import START, FakeSource, engines, history, metrics, run_state

WEIGHTS = 64_000_000


def spans(
    name: str, engine: str, at: float, versions: tuple[int, int], step: int, *, slow: float = 1.0, failed: str = "",
    digest: str = "", reset: str = "freed", held: int = 16, weights: int = WEIGHTS,
) -> list[Span]:  # fmt: skip
    """What the trainer sends for one engine of one sync."""
    seconds = {"pause": 0.031, "load": 0.064 * slow, "verify": 0.006, "reset": 0.0007, "resume": 0.0021}
    before, after = versions
    results = {"verify": digest or f"{after:08x}beef", "reset": reset}
    made, start = [], at
    for phase, each in seconds.items():
        made.append(
            Span(
                name, engine, phase, start, each, before, before if failed else after, step, weights, held, not failed,
                failed, held * 20, results.get(phase, ""),
            )
        )  # fmt: skip
        start += each
    last = msgspec.structs.replace(made[0], phase="total", seconds=start - at, start=at, result="")
    return [*made, last]


def sync(
    number: int, *, count: int = 2, step: int | None = None, reported: bool = True, **changes: object
) -> list[Frame]:
    """One sync over `count` engines, `changes` for its last one, and the trainer's event of it."""
    step = number * 2 if step is None else step
    at = START + number * 4.0
    frames: list[Frame] = []
    for place in range(count):
        slow = 1.0 + 0.03 * ((place * 7 + number) % 11)
        options = {"slow": slow} | (changes if place == count - 1 else {})
        frames += spans(f"sync-{number}", f"engine-{place}", at, (number - 1, number), step, **options)  # type: ignore[arg-type]
    failed = str(changes.get("failed", ""))
    if reported and failed:
        text = f"v{number}: engine-{count - 1}: {failed}"
        data: dict[str, str | float | int | bool] = {"sync": f"sync-{number}", "by": "trainer"}
        frames.append(Event(at + 0.2, "error", "sync.failed", text, step, data))
    elif reported:
        data = {"sync": f"sync-{number}", "by": "trainer", "version": number, "bytes": WEIGHTS}
        frames.append(Event(at + 0.2, "info", "sync.done", f"v{number} on {count} engines in 0.104 s", step, data))
    return frames


def many(count: int) -> list[EngineState]:
    """Engines in unlike states: one dead, one that syncs, others busy."""
    made = []
    for place, state in enumerate(engines(count)):
        changes: dict[str, object] = {
            "version": 37 - place % 3, "running": 16 + place % 5, "waiting": place % 7,
            "kv_use": (place * 37 % 100) / 100, "tokens_per_s": 900.0 + 13 * (place * 29 % 31),
            "pid": 4000 + place, "node": f"node-{place // 8}",
        }  # fmt: skip
        if place == 5:
            changes |= {"phase": "dead", "detail": "killed by signal 9", "tokens_per_s": 0.0}
        if place == 2:
            changes |= {"phase": "syncing", "detail": "load"}
        made.append(msgspec.structs.replace(state, **changes))
    return made


def synced(syncs: int = 37) -> FakeSource:
    source = FakeSource()
    source.feed([frame for frame in history(74) if not (isinstance(frame, Event) and frame.kind == "sync.done")])
    for number in range(1, syncs + 1):
        source.feed(sync(number, slow=3.1) if number % 9 == 0 else sync(number))
    source.feed(beats(24))
    return source


def beats(count: int, number: int = 2) -> Iterable[Frame]:
    """Reports of the engines, half a second apart."""
    for beat in range(count):
        for place, state in enumerate(engines(number)):
            yield msgspec.structs.replace(
                state, time=START + 160 + beat * 0.5, tokens_per_s=900.0 + 90 * ((beat + 3 * place) % 5),
                kv_use=0.1 + 0.03 * ((beat + place) % 7), running=12 + (beat + place) % 5, version=37 - place,
            )  # fmt: skip


def failed() -> FakeSource:
    source = synced(20)
    source.feed(sync(21, failed="the digest differs from the trainer's; it stays paused on v20", digest="0badf00d"))
    source.feed([msgspec.structs.replace(engines()[1], version=20, phase="paused", detail="damaged by a sync")])
    return source


def large() -> FakeSource:
    source = FakeSource()
    source.feed([run_state(74), *(metrics(step) for step in range(1, 75))])
    for number in range(30, 38):
        source.feed(sync(number, count=64, slow=4.0))
    source.feed(many(64))
    return source
