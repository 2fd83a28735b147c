"""Runs with engines of several frameworks and versions, and with very many of them, for the tests of the screens."""

from __future__ import annotations

import math

from driftline.catalog.fixes import BY_ID
from driftline.frames import EngineFix, EngineState, FixState, Frame
from tests.tui.synthetic import START, FakeSource, history

RAW = "logprobs raw_logprobs; head bfloat16, body bfloat16; prefix cache on; async scheduling on; cascade attention off"
PROCESSED = RAW.replace("raw_logprobs", "processed_logprobs")
NO_SWITCH = "its framework has no such switch"


def engine(number: int, **changes: object) -> EngineState:
    """One engine that has joined by the plugin."""
    made = {
        "engine": f"engine-{number}", "phase": "running", "version": 41, "time": START, "running": 16, "waiting": 1,
        "kv_use": 0.31, "prefix_hit_rate": 0.5, "tokens_per_s": 940.0 + 7 * number, "node": f"gpu-{number // 8}",
        "pid": 4100 + number, "backend": "cuda", "vllm": "0.32.0", "settings": PROCESSED, "via": "plugin",
        "framework": "verl 0.6.0", "since": START - 600.0, "key": "producer engine-*",
    }  # fmt: skip
    return EngineState(**(made | changes))  # type: ignore[arg-type]  # fields by name


def fix(fix_id: str, values: list[str], how: str = "live", by: str = "") -> FixState:
    """A fix as so many joined engines report it: "" where one does not say."""
    asked = "on" if by else max(sorted(set(values) - {""}), key=values.count)
    engines = tuple(
        EngineFix(f"engine-{place}", value, how if value else "not_available", -1, -1, "" if value else NO_SWITCH)  # type: ignore[arg-type]  # a test's word
        for place, value in enumerate(values)
    )
    return FixState(fix_id, asked, 1 if by else 0, by, START, how, engines)  # type: ignore[arg-type]  # as above


def trainer() -> list[Frame]:
    """What a trainer of another project reports: numbers and events, no fixes and no engines."""
    return [frame for frame in history(40) if not isinstance(frame, FixState | EngineState)]


def mixed() -> FakeSource:
    """Eight engines of two frameworks and a bridge; a fix is on three of them, and unknown on two."""
    source = FakeSource()
    source.feed(trainer())
    others = {"vllm": "0.28.0", "framework": "SkyRL 0.4.1", "settings": RAW}
    states = [engine(number, **(others if number in (3, 4, 5) else {})) for number in range(6)]
    bridge = {"via": "bridge", "framework": "", "settings": "", "vllm": "0.31.1", "pid": 0, "key": "producer engine-*"}
    states += [engine(number, **bridge) for number in (6, 7)]
    source.feed(states, producer="engine-0")
    source.feed([fix("processed-logprobs", ["on", "on", "on", "off", "off", "off", "", ""])], producer="engine-0")
    source.feed([fix("prefix-cache-off", ["off"] * 6 + [""] * 2)], producer="engine-0")
    return source


def off_everywhere(count: int = 8, *, mismatch: bool = True) -> FakeSource:
    """A framework that leaves every fix off, with what a trainer reports of the mismatch, or without a trainer."""
    source = FakeSource()
    if mismatch:
        source.feed(trainer())
    source.feed([engine(number, settings=RAW) for number in range(count)], producer="engine-0")
    hows = {"async-scheduling-off": "not_available", "inflight-keep": "not_available", "fp32-lm-head": "not_available"}
    source.feed([fix(one, ["off"] * count, hows.get(one, "live")) for one in BY_ID], producer="engine-0")
    return source


def many(count: int = 256, reports: int = 3) -> FakeSource:
    """Engines of one run, a few of them slow, behind, syncing, dead or silent."""
    source = FakeSource()
    source.feed(trainer())
    states: list[EngineState] = []
    for number in range(count):
        rate = 900.0 + 180.0 * math.sin(number * 0.7) + 60.0 * math.sin(number * 2.3)
        state = engine(number, tokens_per_s=rate, kv_use=0.2 + 0.001 * number)
        if number % 97 == 13:
            state = engine(number, phase="dead", detail="CUDA error: an illegal memory access", tokens_per_s=0.0)
        elif number % 61 == 7:
            state = engine(number, phase="syncing", version=40, tokens_per_s=rate)
        elif number % 53 == 11:
            state = engine(number, tokens_per_s=210.0)
        elif number % 71 == 30:
            state = engine(number, version=37, tokens_per_s=rate)
        states.append(state)
    silent = {f"engine-{number}" for number in range(count) if number % 101 == 42}
    source.feed([one for one in states if one.engine in silent], producer="engine-0", time=START)
    for report in range(reports):
        later = [one for one in states if one.engine not in silent]
        source.feed(later, producer="engine-0", time=START + 10.0 + report / 2)
    values = ["" if number % 16 == 5 else "on" if number % 3 else "off" for number in range(count)]
    source.feed([fix("processed-logprobs", values)], producer="engine-0", time=START + 12.0)
    return source
