"""One vLLM server as a producer of a run: its state, its fixes, and the commands that its own endpoints can take.

The main thread waits for signals; two others ask the server, so that one which does not answer holds nothing up.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from console.bridging import server_state
from console.bridging.pages import PageError, Pages
from console.bridging.server_state import Config, Load
from driftline import clocks
from driftline.frames import Command, Data, EngineState, Phase
from driftline.keys import Keys
from driftline.producer.probe import Probe
from driftline.rundir import Connection, RunDir

EVERY_S: Final = 1.0
"""How often the server is asked for its metrics: each time it writes out some hundred numbers."""
INFO_S: Final = 30.0
"""For `/server_info`, which looks at the whole machine when it is asked first."""
LEASE_S: Final = 600.0
"""How long a pause lasts at most, as that of an engine that joined by itself."""
END_S: Final = 0.7
"""Of the end: for the server to resume, and for the hub to take the last word."""
RING_BYTES: Final = 8 * 1024 * 1024
SWITCH_ON: Final = "start the server with VLLM_SERVER_DEV_MODE=1 (which opens these endpoints to all who reach it)"


class NoServerError(Exception):
    """There is no vLLM server at the address; the message is a sentence."""


@dataclass(frozen=True)
class Server:
    """What a server is: asked once, and again when it is back. `acts`: it has endpoints for pause and resume."""

    vllm: str
    config: Config
    acts: bool


def look(pages: Pages) -> Server:
    """Ask a server what it is. Raises NoServerError."""
    try:
        version = pages.json("/version")
    except PageError as error:
        if error.status or "no JSON" in str(error):
            raise NoServerError(f"{pages.url} answers, but is no vLLM server: {error}") from error
        raise NoServerError(f"{pages.url}: {error}") from error
    vllm = version.get("version") if isinstance(version, dict) else None
    if not isinstance(vllm, str):
        raise NoServerError(f"{pages.url} answers, but is no vLLM server: GET /version names no version")
    _load(pages)
    return Server(vllm[:40], _config(pages), _paused(pages) is not None)


def _load(pages: Pages) -> Load:
    try:
        found = server_state.load(pages.text("/metrics"))
    except PageError as error:
        raise NoServerError(f"{pages.url}: {error}") from error
    if found is None:
        raise NoServerError(f"{pages.url} answers, but GET /metrics has nothing of vLLM's (--disable-log-stats?)")
    return found


def _config(pages: Pages) -> Config:
    try:
        return server_state.config(pages.json("/server_info?config_format=json", seconds=INFO_S))
    except PageError as error:
        return Config() if error.status in (404, 405) else Config(problem=f"not recorded: {error}")


def _paused(pages: Pages) -> bool | None:
    """Whether the server is paused; None where it does not say."""
    try:
        answer = pages.json("/is_paused")
    except PageError:
        return None
    paused = answer.get("is_paused") if isinstance(answer, dict) else None
    return paused if isinstance(paused, bool) else None


class Bridge:
    """`server` is what `look` has found at `pages`, `name` the engine's in the run, `run` and `connection` a Probe's.

    Asks the server each `every` seconds; a pause ends after `lease` seconds.
    """

    def __init__(
        self, pages: Pages, server: Server, name: str, keys: Keys, run: RunDir | None,
        connection: Connection | None = None, *, every: float = EVERY_S, lease: float = LEASE_S,
    ) -> None:  # fmt: skip
        self.name, self._pages, self._every, self._lease = name, pages, every, lease
        self.server = server
        self.lost = ""
        """Why the server does not answer, as a clause; "" while it does."""
        self._since = time.time()
        self._held = False
        """Whether an operator's pause is in force."""
        self._lease_ends = 0.0
        self._acting = threading.Lock()
        """One thing is asked of the server's pause at a time."""
        self._before: tuple[float, Load] | None = None
        self._connected = False
        self._ended = threading.Event()
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._verbs: dict[str, Callable[[Command], tuple[str, Data]]] = {
            "cache.reset": self._cache_reset, "pause": self._pause, "resume": self._resume,
        }  # fmt: skip
        self._probe = Probe(
            name, run, keys=keys, connection=connection, ring_bytes=RING_BYTES, on_command=self._commands.put
        )
        self._threads = [
            threading.Thread(target=self._reporting, name="bridge-report", daemon=True),
            threading.Thread(target=self._obeying, name="bridge-act", daemon=True),
        ]

    def start(self) -> None:
        """Report from now on, and take commands."""
        for thread in self._threads:
            thread.start()

    @property
    def connected(self) -> bool:
        """True while the hub answers."""
        return self._probe.connected

    def warn(self, text: str) -> None:
        """Note in the run what an operator should know of the server."""
        self._probe.event("bridge.open", text, "warn")

    def close(self) -> None:
        """Let go of the server, resumed if an operator's pause holds it, and of the run; within two seconds."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._commands.put(None)
        words = "the bridge has ended; the server goes on"
        if self._held:
            resumed = threading.Thread(target=self._let_go, daemon=True)
            resumed.start()
            resumed.join(END_S)
            words = "the bridge has ended; the server goes on" + ("" if not self._held else ", and is still paused")
        self._probe.send(self._state("dead", self._before[1] if self._before else Load(), (0.0, 0.0), words))
        self._probe.close(timeout=END_S)

    def _let_go(self) -> None:
        try:
            self._pages.post("/resume", seconds=END_S)
        except PageError:
            return
        self._held = False

    # -- reports

    def _reporting(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            self._report()
            self._end_lease()
            self._ended.wait(max(self._every - (time.monotonic() - began), 0.0))

    def _report(self) -> None:
        try:
            if self.lost:
                self.server = look(self._pages)
                self._probe.event("bridge.back", f"{self.name}: {self._pages.url} answers again")
                self.lost, self._before = "", None
                if not _paused(self._pages):  # a server that was started again is held by nothing
                    self._held, self._lease_ends = False, 0.0
                self._connected = False  # another server may be set otherwise
            found = _load(self._pages)
        except NoServerError as error:
            if not self.lost:
                self._probe.event("bridge.lost", f"{self.name}: {error}", "warn")
            self.lost = str(error)  # the newest: a request that its end cut off is followed by "Connection refused"
            if not self._ended.is_set():
                detail = f"its server does not answer: {self.lost}"[:400]
                self._probe.send(self._state("restarting", Load(), (0.0, 0.0), detail))
            return
        now = time.monotonic()
        before, self._before = self._before, (now, found)
        speeds = server_state.rates(before[1], found, now - before[0]) if before is not None else (0.0, 0.0)
        phase: Phase = "paused" if self.server.acts and _paused(self._pages) else "running"
        if self._ended.is_set():
            return
        self._probe.send(self._state("syncing" if found.updating else phase, found, speeds, ""))
        connected, before_it = self._probe.connected, self._connected
        self._connected = connected
        if connected and not before_it:
            for state in server_state.fixes(self.name, self.server.config, time.time()):
                self._probe.send(state)

    def _state(self, phase: Phase, found: Load, speeds: tuple[float, float], detail: str) -> EngineState:
        config = self.server.config
        return EngineState(
            engine=self.name, phase=phase, version=-1, time=time.time(), running=found.running, waiting=found.waiting,
            kv_use=found.kv_use, prefix_hit_rate=speeds[1], tokens_per_s=speeds[0], preemptions=found.preempted,
            node=self._pages.host, backend=config.backend, vllm=self.server.vllm, detail=detail,
            settings=server_state.settings(config), via="bridge", since=self._since,
        )  # fmt: skip

    # -- commands

    def _obeying(self) -> None:
        while (command := self._commands.get()) is not None:
            act = self._verbs.get(command.verb)
            if act is None:
                self._probe.ack(command.id, "refused", f"{command.verb}: {server_state.FIXED}")
                continue
            self._probe.ack(command.id, "accepted")
            try:
                with self._acting:
                    detail, data = act(command)
            except _RefusedError as error:
                self._probe.ack(command.id, "refused", str(error))
            except PageError as error:
                refused = error.status in (404, 405)
                words = f"this server has no such endpoint: {SWITCH_ON}" if refused else str(error)
                self._probe.ack(command.id, "refused" if refused else "failed", words)
            else:
                self._probe.ack(command.id, "applied", detail, data)

    def _post(self, command: Command, page: str) -> Any:
        return self._pages.post(page, seconds=max(0.1, command.deadline - time.time()))

    def _cache_reset(self, command: Command) -> tuple[str, Data]:
        answer = self._post(command, "/reset_prefix_cache")
        freed = bool(answer.get("success")) if isinstance(answer, dict) else False
        words = "every block is gone" if freed else "requests in flight hold blocks: nothing was reset"
        return f"reset_prefix_cache() returned {str(freed).lower()}: {words}", {
            "reset": "freed" if freed else "refused"
        }

    def _pause(self, command: Command) -> tuple[str, Data]:
        self._require_acts()
        renewed = self._held
        if not renewed and _paused(self._pages):
            raise _RefusedError("its framework holds it paused; a bridge cannot hold it beyond that")
        self._post(command, "/pause?mode=keep&clear_cache=false")
        self._held, until = True, time.time() + self._lease
        self._lease_ends = time.monotonic() + self._lease
        return "", {"lease_until": until, "renewed": renewed}

    def _resume(self, command: Command) -> tuple[str, Data]:
        self._require_acts()
        if not self._held:
            raise _RefusedError("no operator has paused it")
        if self._updating():
            raise _RefusedError("a weight update is under way: half-loaded weights must not serve")
        self._post(command, "/resume")
        self._held, self._lease_ends = False, 0.0
        return "", {}

    def _end_lease(self) -> None:
        if not clocks.passed(self._lease_ends) or self._updating():
            return
        with self._acting:
            if not clocks.passed(self._lease_ends):
                return  # it was renewed meanwhile
            try:
                self._pages.post("/resume")
            except PageError:
                return  # asked again with the next report
            self._held, self._lease_ends = False, 0.0
        self._probe.event("joined.resumed", f"{self.name}: the lease of its pause ran out")

    def _updating(self) -> bool:
        try:
            return _load(self._pages).updating
        except NoServerError:
            return False

    def _require_acts(self) -> None:
        if not self.server.acts:
            raise _RefusedError(f"this server has no endpoints for pause and resume: {SWITCH_ON}")


class _RefusedError(Exception):
    """What the bridge does not do, as the sentence for the operator."""
