"""What is checked of one environment: real engines of it, joined to a real hub that runs in this one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from console.environments import place, plan
from console.environments.known import Known
from console.environments.place import Record
from driftline.catalog.fixes import BY_ID
from driftline.client import Client, attach
from tests.compat.rows import Cell, Row
from tests.e2e import join_support as joins
from tests.e2e.join_support import Script, Server, Stream
from tests.e2e.test_join import Run, switch_while_it_samples
from tests.unit.hubs import Hub

LEASE_S: Final = 3
START_S: Final = 900.0
"""An environment's first start reads gigabytes from the disk, and compiles every module that it imports."""
SERVE: Final = "`vllm serve`"
SYNC: Final = "`LLM`, its core inside"
CACHED: Final = list(range(2, 2 + 3 * 32))
"""A prompt of three blocks, which a second request reads from the prefix cache."""


def check(known: Known, environment: Path, folder: Path, say: Callable[[str], None]) -> Row:
    """One line of the table. Raises nothing of what an engine does wrong: that stands in the row."""
    record = place.record(environment)
    assert record is not None, f"{environment} is not made"
    row = Row(record.vllm.partition("+")[0], record.torch)
    hub = Hub(folder)
    hub.start()
    try:
        with Client(*attach(hub.run)) as client:
            run = Run(hub, client, folder, joins.model_with_tokenizer(folder / "model"))
            _served(run, record, environment, row, say)
            _synchronous(run, record, environment, row, say)
    finally:
        hub.end()
    return row


def _environ(run: Run, record: Record, name: str, **more: str) -> dict[str, str]:
    return joins.environment(
        run.folder, record.vllm, DRIFTLINE_RUN=str(run.hub.run.path), DRIFTLINE_ENGINE=name,
        DRIFTLINE_PAUSE_LEASE=str(LEASE_S), VLLM_WORKER_MULTIPROC_METHOD="spawn", **{**more, **record.variables},
    )  # fmt: skip


def _served(run: Run, record: Record, environment: Path, row: Row, say: Callable[[str], None]) -> None:
    """Every check, on `vllm serve`, which is an `AsyncLLM` with its core in a process of its own."""
    name = "engine-serve"
    env = _environ(run, record, name, VLLM_SERVER_DEV_MODE="1")
    server = Server(run.model_path, env, run.folder / "serve.log", str(plan.interpreter(environment)))
    try:
        server.wait(START_S)
        row.hosts.append(SERVE)
        of_engine = _Checks(run, server, name, row)
        for title, act in of_engine.all().items():
            before = time.monotonic()
            try:
                row.cells[title] = act()
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                row.cells[title] = Cell("fails", " ".join(str(error).split())[:300] or type(error).__name__)
            cell = row.cells[title]
            say(f"{row.version} {title}: {cell.word} {cell.why} ({time.monotonic() - before:.0f} s)")
    except AssertionError as error:
        row.cells.setdefault("join", Cell("fails", " ".join(str(error).split())[-300:]))
        say(f"{row.version}: {error}")
    finally:
        server.end()


def _synchronous(run: Run, record: Record, environment: Path, row: Row, say: Callable[[str], None]) -> None:
    """A synchronous `LLM` with its core in its own process: that it joins, and that a switch changes what it returns.

    Commands are carried out there when the caller steps it. With a core of its own it would be the served one again.
    """
    name = "engine-sync"
    env = _environ(run, record, name, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    script = Script(run.model_path, env, run.folder / "sync.log", str(plan.interpreter(environment)))
    try:
        script.wait()
        script.sample(CACHED)
        switch_while_it_samples(run, script, name)
        row.hosts.append(SYNC)
        say(f"{row.version} {SYNC}: joins, switched on and off")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        row.cells["join"] = Cell("fails", f"{SYNC}: {' '.join(str(error).split())[-300:]}")
        say(f"{row.version} {SYNC}: {error}")
    finally:
        script.end()


class _Checks:
    """The checks of one engine, in an order in which each leaves it as it was."""

    def __init__(self, run: Run, server: Server, name: str, row: Row) -> None:
        self._run, self._server, self._name, self._row = run, server, name, row

    def all(self) -> dict[str, Callable[[], Cell]]:
        """By the name of their column."""
        return {
            "join": self.joins,
            "processed-logprobs": self.logprobs,
            "prefix-cache-off": self.prefix_cache,
            "cache.reset": self.reset,
            "digest": self.digest,
            "pause": self.pause,
            "inflight-keep": self.inflight,
            "async-scheduling-off": lambda: self.reported("async-scheduling-off"),
            "fp32-lm-head": lambda: self.reported("fp32-lm-head"),
        }

    def joins(self) -> Cell:
        """State and every fix are reported, from the process of the core and of no other."""
        run, name = self._run, self._name
        run.until(lambda: len(run.fixes(name)) == len(BY_ID), "every fix")
        run.until(lambda: run.fixes(name)["processed-logprobs"].effective, "what its workers say")
        state = run.engine(name)
        assert state is not None
        assert state.phase == "running"
        assert state.vllm.partition("+")[0] == self._row.version, state.vllm
        assert state.backend == "cpu"
        assert state.pid not in (0, self._server.process.pid), "the core has a process of its own"
        assert state.node
        for words in ("logprobs raw_logprobs", "body float32", "prefix cache on", "sampling defaults"):
            assert words in state.settings, state.settings
        log = self._server.log.read_text()
        assert log.count("driftline: this engine joins") == 1, "the core's process joins, and no other"
        return Cell("works")

    def logprobs(self) -> Cell:
        """Switched under a stream of requests: what comes back is as the switch says, against a torch forward."""
        switch_while_it_samples(self._run, self._server, self._name)
        return Cell("works")

    def prefix_cache(self) -> Cell:
        """One prompt over and over is read from the cache, and no longer after the switch, and again after it."""
        run, name = self._run, self._name
        stream = Stream(self._server, run.model, CACHED)
        stream.start()
        try:
            self._until_hits(lambda rate: rate > 0.5, "hits of the prefix cache")
            for value, hit in (("on", False), ("off", True)):
                ack = run.ask("fix.set", fix="prefix-cache-off", value=value)
                assert ack.state == "applied", ack
                self._until_hits((lambda rate: rate > 0.5) if hit else (lambda rate: rate == 0), f"hits after {value}")
                assert run.fixes(name)["prefix-cache-off"].effective == value
        finally:
            stream.end()
        return Cell("works")

    def _until_hits(self, true: Callable[[float], bool], what: str) -> None:
        def found() -> bool:
            state = self._run.engine(self._name)
            return state is not None and state.tokens_per_s > 0 and true(state.prefix_hit_rate)

        self._run.until(found, what)

    def reset(self) -> Cell:
        """An idle engine's prefix cache is emptied, and says so."""
        ack = self._run.ask("cache.reset")
        assert (ack.state, ack.data[f"{self._name}.reset"]) == ("applied", "freed"), ack
        return Cell("works")

    def digest(self) -> Cell:
        """Twice the same over the same weights."""
        first, second = self._run.ask("digest"), self._run.ask("digest")
        assert first.state == "applied", first
        assert len(str(first.data[f"{self._name}.digest"])) == 64
        assert first.data == second.data
        packed, whole = (int(first.data[f"{self._name}.{key}"]) for key in ("packed", "parameters"))
        return Cell("works", f"of {whole} parameters {packed} are packed and not in it" if packed else "")

    def pause(self) -> Cell:
        """An operator's pause holds a request back, ends by his resume, and another one by its lease."""
        run, name = self._run, self._name
        assert run.ask("pause").state == "applied"
        run.until(lambda: (one := run.engine(name)) and one.phase == "paused", "it to stand still")
        stream = Stream(self._server, run.model)
        stream.start()
        try:
            run.until(lambda: (one := run.engine(name)) and one.running + one.waiting > 0, "a request to be held")
            assert not stream.answers, "it answers while it is paused"
            assert run.ask("resume").state == "applied"
            stream.after(0.0, 1)
        finally:
            stream.end()
        paused = run.ask("pause")
        assert float(paused.data[f"{name}.lease_until"]) > paused.time
        run.until(
            lambda: any(event.kind == "joined.resumed" and name in event.text for event in run.events()), "its lease"
        )
        self._server.sample(CACHED)
        return Cell("works")

    def inflight(self) -> Cell:
        """How the framework paused it, here by vLLM's own endpoint; and an operator's pause outlasts that."""
        run, name = self._run, self._name
        assert run.fixes(name)["inflight-keep"].effective == "", "not known before the first"
        self._server.post("/pause?mode=keep&clear_cache=false")
        run.until(lambda: run.fixes(name)["inflight-keep"].effective == "on", "how it was paused")
        refused = run.ask("resume")
        assert refused.state in ("refused", "failed"), "what the framework holds no operator lets go"
        self._server.post("/resume")
        run.until(lambda: (one := run.engine(name)) and one.phase == "running", "it to go on")
        self._server.sample(CACHED)
        return Cell("reports only", run.fixes(name)["inflight-keep"].detail.partition("; ")[2])

    def reported(self, fix: str) -> Cell:
        """A fix that is read back and not switched from here, with its reason."""
        found = self._run.fixes(self._name)[fix]
        assert found.how == "not_available"
        assert found.effective in ("on", "off"), found
        return Cell("reports only", found.detail)
