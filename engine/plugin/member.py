"""One engine core as a member of a run: its probe, its reports, and the commands that it is asked for.

Three threads stand beside vLLM's: the probe's sender, one that reports, one that carries commands out. None of them
touches vLLM but through `CoreHandle`. Nothing raises out of here.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, TypeVar

from msgspec.structs import replace

from driftline import clocks
from driftline.catalog.fixes import ON
from driftline.frames import AckState, Command, Data, EngineFix, EngineState, FixState, Phase
from driftline.producer.probe import Probe
from engine.errors import EngineError
from engine.plugin import report
from engine.plugin.core import CoreHandle
from engine.plugin.environment import Membership, NameClaim
from engine.plugin.log import LOG
from engine.plugin.report import Facts

HEARTBEAT_S: Final = 0.5
READ_BACK_S: Final = 30.0
"""How often the workers are asked for their facts: a framework may have changed them."""
WARNINGS: Final = 8
"""Different sentences that an engine's log gets of what could not be reported."""
TICK_S: Final = 0.5
"""How long the probe's thread rests where it is not woken: each look takes a step's time from the engine."""
HOST: Final = socket.gethostname()
RING_BYTES: Final = 8 * 1024 * 1024
"""An engine sends states and answers only."""

log = logging.getLogger(LOG)
T = TypeVar("T")


class Member:
    """A joined engine. `reports_only` is why it may switch nothing, "" where it may; `framework` whose engine it is."""

    def __init__(
        self, to: Membership, claim: NameClaim, core: CoreHandle, reports_only: str = "", *, framework: str = ""
    ) -> None:
        self.name = claim.name
        self._framework, self._joined_at = framework, time.time()
        self._claim, self._core, self._reports_only = claim, core, reports_only
        self._workers = Facts(core.facts())
        """As the workers were read back last; set on the core's thread alone, where switches happen too."""
        self._since: dict[str, int] = {}
        self._sent: dict[str, FixState] = {}
        self._sent_of: Facts | None = None
        """The facts of which `_sent` are the states; None for none."""
        self._settings: tuple[Facts | None, str] = (None, "")
        self._sending = threading.Lock()
        """States of fixes leave in the order in which they were true."""
        self._asked: list[Future[None]] = []
        self._connected = False
        self._warned: set[str] = set()
        self._lease, self._lease_ends = to.lease, 0.0
        self._ended = threading.Event()
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._verbs: dict[str, Callable[[Command], tuple[str, Data]]] = {
            "fix.set": self._fix_set,
            "cache.reset": self._cache_reset,
            "digest": self._digest,
            "pause": self._pause,
            "resume": self._resume,
        }
        self._probe = Probe(
            self.name, to.run, keys=to.keys, connection=to.connection, ring_bytes=RING_BYTES,
            on_command=self._commands.put, tick=TICK_S,
        )  # fmt: skip
        self._threads = [
            threading.Thread(target=self._reporting, name="driftline-report", daemon=True),
            threading.Thread(target=self._acting, name="driftline-act", daemon=True),
        ]

    @property
    def connected(self) -> bool:
        """True while the hub answers."""
        return self._probe.connected

    def start(self) -> None:
        """Report from now on, and take commands."""
        for thread in self._threads:
            thread.start()

    def close(self, why: str) -> None:
        """The engine ends, for this reason; "" is an orderly end. Takes a second where the hub does not answer."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._commands.put(None)
        self._probe.send(self._state(0.0, 0.0, phase="dead", detail=why[:400] or "shut down"))
        self._probe.close(timeout=1.0)
        self._claim.release()

    # -- reports ------------------------------------------------------------------------------------------------------

    def _reporting(self) -> None:
        """Send the state twice a second, and the fixes when they change, until the end."""
        self._guarded(self._core.read_sampling_defaults)
        totals, read_at = self._core.totals, float("-inf")
        before = (time.monotonic(), self._core.generated(), totals.queried, totals.hit)
        while True:
            if time.monotonic() - read_at >= READ_BACK_S:
                read_at = time.monotonic()
                self._guarded(partial(self._ask_core, self._read_back))
            now = (time.monotonic(), self._core.generated(), totals.queried, totals.hit)
            seconds, queried = now[0] - before[0], now[2] - before[2]
            rate = (now[1] - before[1]) / seconds if seconds > 0 else 0.0
            hits = (now[3] - before[3]) / queried if queried else 0.0
            before = now
            self._guarded(partial(self._report, rate, hits))
            self._guarded(self._end_lease)
            if self._ended.wait(HEARTBEAT_S):
                return

    def _report(self, rate: float, hits: float) -> None:
        self._probe.send(self._state(rate, hits))
        self._send_fixes()
        self._probe.wake()

    def _facts(self) -> Facts:
        core = replace(self._core.facts(), reports_only=self._reports_only)
        return replace(self._workers, core=core, since=dict(self._since))

    def _send_fixes(self) -> dict[str, EngineFix]:
        """Send the states that have changed; returns all of them."""
        with self._sending:
            connected, before_it = self._probe.connected, self._connected
            self._connected = connected
            if connected and not before_it:
                self._sent.clear()  # a hub that missed this engine for a while has left its fixes out
                self._sent_of = None
            facts = self._facts()
            if facts == self._sent_of:
                return {fix_id: state.engines[0] for fix_id, state in self._sent.items()}
            self._sent_of = facts
            for state in report.fixes(self.name, facts, time.time()):
                before = self._sent.get(state.fix)
                if before is None or replace(before, time=state.time) != state:
                    self._sent[state.fix] = state
                    self._probe.send(state)
            return {fix_id: state.engines[0] for fix_id, state in self._sent.items()}

    def _state(self, rate: float, hits: float, phase: Phase | None = None, detail: str = "") -> EngineState:
        core = self._core
        running, waiting = core.queue_lengths
        known = self._facts()
        if known != self._settings[0]:
            self._settings = known, report.settings(known)
        return EngineState(
            engine=self.name, phase=phase or ("paused" if core.paused else "running"), version=core.weight_version,
            time=time.time(), running=running, waiting=waiting, kv_use=core.kv_use, prefix_hit_rate=hits,
            tokens_per_s=rate, preemptions=core.totals.preempted, node=HOST, pid=os.getpid(),
            backend=known.core.platform, vllm=known.core.vllm, detail=detail or self._reports_only,
            settings=self._settings[1], via="plugin", framework=self._framework, since=self._joined_at,
        )  # fmt: skip

    def _ask_core(self, act: Callable[[], None]) -> None:
        """Have something done on the core's thread, without waiting, one such thing at a time."""
        if self._reports_only:
            self._workers = replace(self._workers, problem=f"not read back: {self._reports_only}")
        elif all(future.done() for future in self._asked):
            self._asked = [self._core.submit(act)]

    def _read_back(self) -> None:
        try:
            self._workers = self._core.read_workers()
        except Exception as error:  # noqa: BLE001  as a rule: no such method, in a worker without the plugin
            self._workers = replace(self._workers, workers=(), problem=f"its workers cannot be asked: {error}"[:300])

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  a scheduler that changes while it is looked at, a worker that fails
            words = f"{type(error).__name__}: {error}"[:300]
            if not self._ended.is_set() and words not in self._warned and len(self._warned) < WARNINGS:
                self._warned.add(words)
                log.warning("driftline: '%s' cannot be reported in full: %s", self.name, words)

    # -- commands -----------------------------------------------------------------------------------------------------

    def _acting(self) -> None:
        while (command := self._commands.get()) is not None:
            act = self._verbs.get(command.verb)
            if act is None:
                allowed = ", ".join(self._verbs)
                self._ack(command.id, "refused", f"a joined engine knows no '{command.verb}', only {allowed}")
                continue
            self._ack(command.id, "accepted")
            try:
                detail, data = act(command)
            except _RefusedError as error:
                self._ack(command.id, "refused", str(error))
            except Exception as error:  # whatever vLLM raises is the command's result, and the engine goes on
                if not isinstance(error, EngineError):
                    log.exception("driftline: command %s (%s) failed", command.id, command.verb)
                words = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
                self._ack(command.id, "failed", words[:400])
            else:
                self._ack(command.id, "applied", detail, data)

    def _ack(self, id: str, state: AckState, detail: str = "", data: Data | None = None) -> None:
        self._probe.ack(id, state, detail, data)
        self._probe.wake()

    def _between(self, command: Command, act: Callable[[], T]) -> T:
        return self._core.between_steps(act, max(0.1, command.deadline - time.time()))

    def _fix_set(self, command: Command) -> tuple[str, Data]:
        fix_id, value = command.args["fix"], command.args["value"]
        if why := report.refusal(self._facts(), fix_id, value):
            raise _RefusedError(why)

        def switch() -> None:
            if fix_id == "processed-logprobs":
                self._workers = self._core.set_logprobs(report.logprobs_mode(value))
            elif fix_id == "prefix-cache-off":
                self._core.set_skip_reads(value == ON)
            else:
                raise EngineError(f"{fix_id} is reported as switchable, and this plugin has no switch for it")

        before = self._send_fixes()[fix_id].effective
        self._between(command, switch)
        if value != before:
            self._since[fix_id] = self._core.weight_version
        after = self._send_fixes()[fix_id]
        if after.effective != value:
            raise EngineError(f"{fix_id} is {after.effective or 'not known'} after the switch: {after.detail}")
        return after.detail, {"effective": after.effective, "before": before}

    def _cache_reset(self, command: Command) -> tuple[str, Data]:
        self._require_switches()
        freed = self._between(command, self._core.reset_prefix_cache)
        words = "every block is gone" if freed else "requests in flight hold blocks: nothing was reset"
        detail = f"reset_prefix_cache() returned {str(freed).lower()}: {words}"
        return detail, {"reset": "freed" if freed else "refused"}

    def _digest(self, command: Command) -> tuple[str, Data]:
        self._require_switches()
        found = self._between(command, self._core.digest)
        packed, parameters = found["packed"], found["parameters"]
        note = f"; {packed} of {parameters} parameters are packed for the kernel and are not in it" if packed else ""
        return f"{found['digest'][:12]} over {parameters - packed} parameters{note}", found

    def _pause(self, command: Command) -> tuple[str, Data]:
        self._require_switches()
        renewed, until = self._core.held_by_operator, time.time() + self._lease
        held = self._between(command, self._core.pause)
        self._lease_ends = time.monotonic() + self._lease
        return "", {"lease_until": until, "renewed": renewed, "in_flight": held}

    def _resume(self, command: Command) -> tuple[str, Data]:
        self._require_switches()
        if not self._core.held_by_operator:
            raise _RefusedError("no operator has paused it")
        why = self._between(command, self._core.resume)
        self._lease_ends = 0.0
        return why, {}

    def _end_lease(self) -> None:
        if self._lease_ends and clocks.passed(self._lease_ends):
            self._ask_core(self._lease_over)

    def _lease_over(self) -> None:
        if not clocks.passed(self._lease_ends):
            return  # it was renewed meanwhile
        why = self._core.resume()
        self._lease_ends = 0.0
        text = f"{self.name}: the lease of its pause ran out{f'; {why}' if why else ''}"
        self._probe.event("joined.resumed", text)

    def _require_switches(self) -> None:
        if self._reports_only:
            raise _RefusedError(self._reports_only)


class _RefusedError(Exception):
    """What the engine does not do, as the sentence for the operator."""
