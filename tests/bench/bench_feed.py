"""A flood for a minute: 10^6 token pairs/s and 50,000 points/s into a console with tokens on, keys pressed meanwhile.

Producer, hub and console are processes of their own, over real sockets with CURVE. The console is the real app on a
terminal of 140x40 that counts bytes; it shows the tokens screen for the first half and the live screen for the second.
A key counts as answered when what it changed has been sent to the terminal. Nothing may be lost: every step is in the
console's series, and it has taken as many tokens as were sent. `SECONDS=10` makes it shorter.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from textual import events

from console.connect.live_source import LiveSource
from console.connect.target import LocalRun
from console.tui.app import ConsoleApp
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from tests.bench.terminal import painted, started
from tests.unit.hubs import Hub, numbers_key

SECONDS: Final = float(os.environ.get("SECONDS", "60"))
TOKENS_RATE, POINTS_RATE = 1_000_000, 50_000
TOKENS, POINTS = 4096, 30
SEQUENCES: Final = 32
WANTED_KEY_S: Final = 0.100
KEYS: Final = {"tokens": ("down", "up", "n", "N"), "live": ("plus", "minus", "left_square_bracket", "s", "right")}


def produce(path: Path) -> None:
    """Send for SECONDS at both rates, then say how much it was."""
    run = RunDir(path)
    rng = np.random.default_rng(1)
    rollout = rng.normal(-1, 0.5, TOKENS).astype(np.float32)
    ints = np.arange(TOKENS, dtype=np.int32)
    arrays = {
        "ids": ints, "seq": ints // (TOKENS // SEQUENCES), "position": ints % (TOKENS // SEQUENCES),
        "token_version": np.full(TOKENS, 3, np.int32), "rollout": rollout,
        "trainer": (rollout + rng.normal(0, 0.02, TOKENS)).astype(np.float32),
    }  # fmt: skip
    engines = tuple(f"engine-{at % 2}" for at in range(SEQUENCES))
    values = {"reward/mean": 0.5, "policy/entropy": 1.0} | {f"m/{at}": at / 3 for at in range(POINTS - 2)}
    frames = steps = late = 0
    with Probe("trainer", run) as metrics, Probe("engine-0", run, keys=numbers_key(run)) as tokens:
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < SECONDS:
            moved = False
            if frames * TOKENS < now * TOKENS_RATE:
                tokens.tokens(step=frames // 50, version=3, **arrays, engines=engines)
                frames, moved = frames + 1, True
            if steps * POINTS < now * POINTS_RATE:
                metrics.emit(values, step=steps)
                steps, moved = steps + 1, True
            if not moved:
                time.sleep(0.0005)
            elif now - frames * TOKENS / TOKENS_RATE > 1.0:
                late += 1
        done = metrics.flush(60.0) and tokens.flush(60.0)
        dropped = metrics.stats.dropped + tokens.stats.dropped
    print(frames * TOKENS, steps, dropped, late, int(done), flush=True)


async def watch(app: ConsoleApp, producer: subprocess.Popen[str]) -> list[float]:
    """Press keys at random moments until the producer is done; seconds from each press to its paint."""
    running = await started(app, (140, 40))
    while app.live not in app.screen_stack:
        await asyncio.sleep(0.01)
    dice = random.Random(7)
    answers = []
    begin = time.monotonic()
    screen = ""
    while producer.poll() is None:
        wanted = "tokens" if time.monotonic() - begin < SECONDS / 2 else "live"
        if wanted != screen:
            screen = wanted
            app.call_next(app.action_screen, "tokens" if screen == "tokens" else "live")  # among the app's own messages
            await asyncio.sleep(1.0)
        key = dice.choice(KEYS[screen])
        app.post_message(events.Key(key, key if len(key) == 1 else None))
        await asyncio.sleep(dice.uniform(0.05, 0.25))
        for _ in range(2):  # freezes the view and thaws it: what is seen of it is a word in the header
            frozen = app.current.frozen
            pressed = time.perf_counter()
            app.post_message(events.Key("space", " "))
            while app.current.frozen == frozen:
                await asyncio.sleep(0.001)
            await painted(app)
            answers.append(time.perf_counter() - pressed)
    deadline = time.monotonic() + 60
    while (app.source.link().behind or app.source.tokens_behind) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    # What has been received waits in a queue before it is taken in: it is lost only when nothing more comes of it.
    before = -1
    while before != (taken := app.showing.tokens.taken) and time.monotonic() < deadline:
        before = taken
        await asyncio.sleep(1.0)
    app.exit()
    await running
    return answers


def main() -> int:
    """Run it; 0 when nothing was lost and keys were answered in time."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        hub = Hub(Path(folder))
        producer = None
        try:
            hub.start()
            source = LiveSource(LocalRun(hub.run), operate=False)
            app = ConsoleApp(source, run=hub.run, sixteen=False)
            refused = source.tokens(True)
            if refused:
                raise SystemExit(f"bench: no tokens: {refused}")
            app.showing.tokens_asked = True
            producer = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.bench_feed", str(hub.run.path)], stdout=subprocess.PIPE, text=True
            )
            cpu = time.process_time()
            answers = asyncio.run(watch(app, producer))
            cpu = time.process_time() - cpu
            memory = psutil.Process().memory_info().rss / 2**20
            assert producer.stdout is not None
            tokens, steps, dropped, late, done = map(int, producer.stdout.read().split())
            source.close()
        finally:
            hub.end()
            if producer is not None and producer.poll() is None:
                producer.kill()
                producer.wait()
    taken = app.showing.tokens.taken
    points = len(app.model.metrics.steps("m/0"))
    answers.sort()
    p50, p99 = answers[len(answers) // 2], answers[int(0.99 * len(answers))]
    held = f"{tokens / SECONDS:,.0f} token pairs/s, {steps * POINTS / SECONDS:,.0f} points/s for {SECONDS:.0f} s"
    print(f"  {held}; producer late at {late} frames, dropped {dropped}, {'all' if done else 'NOT all'} acknowledged")
    print(f"  console: {tokens - taken} tokens lost, {steps - points} steps lost; "
          f"{cpu / SECONDS:.0%} of a core, {memory:.0f} MiB")  # fmt: skip
    print(f"  {len(answers)} keys: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
    print(f"  wanted: nothing lost, p99 below {WANTED_KEY_S * 1e3:.0f} ms")
    return 0 if taken == tokens and points == steps and not dropped and p99 < WANTED_KEY_S else 1


if __name__ == "__main__":
    produce(Path(sys.argv[1]))
