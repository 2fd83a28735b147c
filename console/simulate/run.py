"""A synthetic run behind a real hub: it sends made-up curves through a real Probe and obeys real commands.

For learning the console and for its tests. There is no engine behind it; every state it sends is labelled as synthetic.
"""

from __future__ import annotations

import contextlib
import math
import queue
import time
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from console.simulate.curves import OFFSET, Curves
from console.simulate.tokens import Answers
from driftline.catalog.fixes import BY_ID, OFF, ON
from driftline.clocks import by_wall, passed
from driftline.frames import Command, EngineFix, EngineState, FixState, How, RunState, Span
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from driftline.text import plural

STATE_EVERY: Final = 0.5
SYNC_EVERY: Final = 2
"""Steps between the automatic syncs."""
REPORT_DELAY: Final = 0.15
"""Seconds from one engine's report to the next, so that a fix is seen half way."""
LEASE: Final = 600.0
WEIGHTS: Final = 64_000_000
"""Reported bytes of the weights, which do not exist."""
NOT_HERE: Final = "the synthetic feed has no scheduler"


class Simulator:
    """Call `run_once` from one thread until `ended`."""

    def __init__(self, run: RunDir, *, steps: int, rate: float, engines: int, seed: int) -> None:
        self._probe = Probe("trainer", run)
        self._run_id, self._steps, self._period = run.id, steps, 1.0 / rate
        self._curves = Curves(seed)
        self._answers = Answers(seed)
        self._step = self._version = 0
        self._synced = dict.fromkeys((f"engine-{i}" for i in range(engines)), 0)
        self._fixes = {fix: self._first_state(fix) for fix in BY_ID}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._at_sync: list[Callable[[], None]] = []
        self._paused_by, self._lease_end = "", 0.0
        self._last_sync = self._curves.phases()
        self._next_step = time.monotonic() + self._period
        self._next_state = 0.0
        self._stopping = False
        self.ended = False
        self._probe.event("run.synthetic", "SYNTHETIC feed: no engine, no trainer, no model behind it", "warn")
        for state in self._fixes.values():
            self._probe.send(state)

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._send_state("finished")
        self._probe.close(5.0)

    def run_once(self, seconds: float) -> None:
        """Wait for a command for at most `seconds`, then run the actions that are due."""
        with contextlib.suppress(queue.Empty):
            self._execute(self._probe.commands.get(timeout=seconds))
        now = time.monotonic()
        due = [action for at, action in self._later if at <= now]
        self._later = [(at, action) for at, action in self._later if at > now]
        for action in due:
            action()
        if self._paused_by and passed(self._lease_end):
            self._probe.event("run.lease", f"the lease of {self._paused_by} has ended: resumed", "warn", self._step)
            self._paused_by = ""
        if now >= self._next_state:
            self._next_state = now + STATE_EVERY
            self._send_state()
        if now >= self._next_step and not self._paused_by:
            self._next_step = max(self._next_step + self._period, now)
            self._advance()
        # Reports that are still due are sent before the end.
        self.ended = not self._later and (self._stopping or 0 < self._steps <= self._step)

    def _advance(self) -> None:
        if 0 < self._steps <= self._step:
            return
        self._step += 1
        self._version += 1
        if self._version % SYNC_EVERY == 0:
            self._sync(f"s{self._version}", "trainer")
        on = {fix for fix in OFFSET if self._fixes[fix].effective == ON}
        lag = sum(self._version - version for version in self._synced.values()) / len(self._synced)
        values = self._curves.step(on, lag=lag, engines=len(self._synced), sync_s=self._last_sync)
        labels = {"policy/clip_fraction": "ppo", "policy/entropy": "synthetic"}
        self._probe.emit(values, step=self._step, version=self._version, labels=labels)
        said = self._answers.step(self._version, self._synced, values["mismatch/abs_diff_mean"])
        self._probe.tokens(step=self._step, version=self._version, **said)

    def _sync(self, name: str, by: str) -> None:
        now = time.time()
        slowest = (0.0, 0.0, 0.0)
        taken = 0.0
        for engine, before in self._synced.items():
            phases = self._curves.phases()
            slowest = max(slowest, phases, key=sum)
            pause, load, resume = phases
            start = now
            seconds = {"pause": pause, "load": load, "verify": load / 8, "reset": pause / 50, "resume": resume}
            for phase, each in seconds.items():
                self._span(name, engine, phase, start, each, before)
                start += each
            self._span(name, engine, "total", now, start - now, before)
            taken = max(taken, start - now)
            self._synced[engine] = self._version
        self._last_sync = slowest
        text = f"v{self._version} on {plural(len(self._synced), 'engine')} in {taken:.3f} s"
        self._probe.event("sync.done", text, "info", self._step, sync=name, by=by, version=self._version)
        waiting, self._at_sync = self._at_sync, []
        for action in waiting:
            action()

    def _span(self, name: str, engine: str, phase: str, start: float, seconds: float, before: int) -> None:
        results = {"verify": f"synthetic-{self._version}", "reset": "freed"}
        self._probe.send(
            Span(
                name, engine, phase, start, seconds, before, self._version, self._step, bytes=WEIGHTS, in_flight=16,
                straddling=16 * (20 + self._version % 7), result=results.get(phase, ""),
            )
        )  # fmt: skip

    def _execute(self, command: Command) -> None:
        self._probe.ack(command.id, "accepted")
        match command.verb:
            case "fix.set":
                self._set_fix(command, command.args["fix"], command.args["value"])
            case "sync":
                self._sync(command.id, command.issuer)
                data = {"sync": command.id, "version": self._version}
                self._probe.ack(command.id, "applied", f"{len(self._synced)} engines at v{self._version}", data)
            case "pause":
                self._paused_by, self._lease_end = command.issuer, time.monotonic() + LEASE
                self._applied(command, f"until resumed, at most {LEASE:.0f} s")
            case "resume":
                self._paused_by = ""
                self._applied(command)
            case "stop":
                self._stopping = True
                self._applied(command)
            case "mark":
                self._applied(command)
            case "correction.set":
                self._probe.ack(command.id, "refused", "a synthetic feed has no objective to correct")
            case "shadow.set":
                self._probe.ack(command.id, "refused", "a synthetic feed has no engine that could score")
            case "diagnose":
                self._probe.ack(command.id, "refused", "a synthetic feed has no engine and no trainer to ask")

    def _applied(self, command: Command, detail: str = "") -> None:
        self._send_state()
        self._probe.ack(command.id, "applied", detail)

    def _set_fix(self, command: Command, fix: str, value: str) -> None:
        if "engine" in command.args:
            self._probe.ack(command.id, "refused", "the engines of a synthetic feed are switched together")
            return
        how = self._how(fix)
        if how == "not_available":
            self._probe.ack(command.id, "refused", f"{fix}: not available here: {NOT_HERE}")
            return
        old = self._fixes[fix]
        self._fixes[fix] = replace(
            old, requested=value, generation=old.generation + 1, by=command.issuer, time=time.time()
        )
        self._probe.send(self._fixes[fix])
        if how == "next_sync":
            self._at_sync.append(lambda: self._report_all(command, fix, value))
        else:
            self._report_all(command, fix, value)

    def _report_all(self, command: Command, fix: str, value: str) -> None:
        names = list(self._synced)
        for i, engine in enumerate(names):
            last = engine == names[-1]

            def report(engine: str = engine, last: bool = last) -> None:
                self._report(fix, engine, value)
                if last:
                    self._probe.ack(command.id, "applied", f"{value} on {len(names)}/{len(names)} engines")

            self._later.append((time.monotonic() + REPORT_DELAY * (i + 1), report))

    def _how(self, fix: str) -> How:
        return "not_available" if BY_ID[fix].how == "engine_restart" else BY_ID[fix].how

    def _first_state(self, fix: str) -> FixState:
        how = self._how(fix)
        engines = tuple(EngineFix(engine, OFF, how) for engine in self._synced)
        return FixState(fix, OFF, 0, "config", time.time(), how, engines, NOT_HERE if how == "not_available" else "")

    def _report(self, fix: str, engine: str, value: str) -> None:
        old = self._fixes[fix]
        now = EngineFix(engine, value, old.how, self._version, self._step)
        engines = tuple(now if one.engine == engine else one for one in old.engines)
        self._fixes[fix] = replace(old, engines=engines, time=time.time())
        self._probe.send(self._fixes[fix])

    def _send_state(self, status: str = "") -> None:
        now = time.time()
        word = status or ("stopping" if self._stopping else "paused" if self._paused_by else "running")
        self._probe.send(
            RunState(
                self._run_id,
                word,  # type: ignore[arg-type]  # one of the words of RunStatus by construction
                self._step,
                self._steps,
                self._version,
                now,
                objective="ppo",
                model="synthetic",
                temperature=0.7,
                synthetic=True,
                detail="synthetic feed",
                paused_by=self._paused_by,
                lease_until=by_wall(self._lease_end) if self._paused_by else 0.0,
            )
        )
        phase = "paused" if self._paused_by else "running"
        for number, (engine, version) in enumerate(self._synced.items()):
            # A slow wave, so that a history has something to show; none of it is measured.
            wave = math.sin(now / 9.0 + number)
            self._probe.send(
                EngineState(
                    engine,
                    phase,  # type: ignore[arg-type]  # one of the words of Phase by construction
                    version,
                    now,
                    running=0 if self._paused_by else 16,
                    kv_use=0.12 + 0.04 * wave,
                    prefix_hit_rate=0.0 if self._fixes["prefix-cache-off"].effective == ON else 0.62,
                    tokens_per_s=0.0 if self._paused_by else 950.0 + 120.0 * wave,
                    backend="synthetic",
                    detail="synthetic",
                )
            )
