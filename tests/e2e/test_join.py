"""Engines of other people's programs join a run by themselves: seen, switched, paused and read by its console's hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from transformers import Qwen2ForCausalLM

from console.connect.backfill import frames_between
from driftline.catalog.fixes import BY_ID
from driftline.client import Client, RefusedError, attach
from driftline.config import EngineConfig
from driftline.frames import Ack, EngineFix, EngineState, Event, FixState, Frame
from engine.cluster.ray_cluster import Cluster
from engine.plugin import POOL_VARIABLE
from engine.plugin.worker import METHODS
from engine.weights.transport import TRANSFER_ENGINES
from tests.e2e import another_account
from tests.e2e import engine_support as support
from tests.e2e import join_support as joins
from tests.e2e.join_support import Engine, Script, Server, Stream
from tests.faults.scale import FULL
from tests.unit.hubs import Hub, until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

LIMIT_S = support.LIMIT_S


class Run(NamedTuple):
    """A hub with one client, and the folder and model of the engines that join it."""

    hub: Hub
    client: Client
    folder: Path
    model: Qwen2ForCausalLM

    @property
    def model_path(self) -> Path:
        return self.folder / "model"

    def frames(self) -> list[Frame]:
        return [one.frame() for one in self.client.snapshot().states]

    def engine(self, name: str = "engine-0") -> EngineState | None:
        return next((one for one in self.frames() if isinstance(one, EngineState) and one.engine == name), None)

    def fixes(self, name: str = "engine-0") -> dict[str, EngineFix]:
        return {
            state.fix: one
            for state in self.frames()
            if isinstance(state, FixState)
            for one in state.engines
            if one.engine == name
        }

    def ask(self, verb: Any, **arguments: str) -> Ack:
        return self.client.wait(self.client.command(verb, arguments, timeout=LIMIT_S), LIMIT_S)

    def events(self) -> list[Event]:
        stamped = frames_between(self.client, 1, self.client.snapshot().head + 1)
        return [frame for one in stamped if isinstance(frame := one.frame(), Event)]

    def until(self, true: Callable[[], object], what: str) -> None:
        until(true, what, LIMIT_S)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("join")
    hub = Hub(folder)
    hub.start()
    try:
        with Client(*attach(hub.run)) as client:
            yield Run(hub, client, folder, joins.model_with_tokenizer(folder / "model"))
    finally:
        hub.end()


def switch_while_it_samples(run: Run, engine: Engine, name: str) -> None:
    """The one thing that every kind of host has to show: a fix goes on and off again under a stream of requests."""
    run.until(
        lambda: len(run.fixes(name)) == len(BY_ID) and run.fixes(name)["processed-logprobs"].effective, "a report"
    )
    assert run.fixes(name)["processed-logprobs"].effective == "off", "vLLM's default"
    stream = Stream(engine, run.model)
    stream.start()
    try:
        assert {one.kind for one in stream.after(0.0)} == {"raw"}
        for value, kind in (("on", "processed"), ("off", "raw")):
            ack = run.ask("fix.set", fix="processed-logprobs", value=value)
            assert ack.state == "applied", ack
            assert {one.kind for one in stream.after(time.monotonic())} == {kind}
            assert run.fixes(name)["processed-logprobs"].effective == value
    finally:
        stream.end()
    assert {one.kind for one in stream.answers} <= {"raw", "processed", "neither"}
    assert sum(one.kind == "neither" for one in stream.answers) <= 2, "at most what was under way at a switch"


def check_state(run: Run, name: str) -> EngineState:
    """What every joined engine reports of itself."""
    state = run.engine(name)
    assert state is not None
    import vllm

    assert (state.phase, state.backend, state.vllm) == ("running", "cpu", vllm.__version__)
    assert state.pid not in (0, os.getpid())
    assert state.node
    for words in ("logprobs ", "head float32, body float32", "prefix cache on", "sampling defaults"):
        assert words in state.settings
    fixes = run.fixes(name)
    assert "--hf-overrides" in fixes["fp32-lm-head"].detail
    assert fixes["async-scheduling-off"].how == "not_available"
    return state


def test_vllm_serve(run: Run) -> None:
    env = joins.environment(
        run.folder, DRIFTLINE_RUN=str(run.hub.run.path), DRIFTLINE_PAUSE_LEASE="3", VLLM_WORKER_MULTIPROC_METHOD="spawn"
    )
    server = Server(run.model_path, env, run.folder / "serve.log")
    try:
        server.wait()
        switch_while_it_samples(run, server, "engine-0")
        check_state(run, "engine-0")
        with pytest.raises(RefusedError, match=r"fp32-lm-head cannot be switched in this run.*--hf-overrides"):
            run.ask("fix.set", fix="fp32-lm-head", value="off")

        # One prompt over and over: its blocks are read from the cache, until they are not.
        prompt = list(range(2, 2 + 3 * 32))
        stream = Stream(server, run.model, prompt)
        stream.start()
        try:
            run.until(lambda: (run.engine() or pytest.fail("gone")).prefix_hit_rate > 0.5, "hits of the prefix cache")
            assert run.ask("fix.set", fix="prefix-cache-off", value="on").state == "applied"
            run.until(lambda: (one := run.engine()) and one.tokens_per_s and not one.prefix_hit_rate, "no more hits")
            assert run.fixes()["prefix-cache-off"].effective == "on"
            assert run.ask("fix.set", fix="prefix-cache-off", value="off").state == "applied"
            run.until(lambda: (run.engine() or pytest.fail("gone")).prefix_hit_rate > 0.5, "hits again")
        finally:
            stream.end()
        reset = run.ask("cache.reset")
        assert (reset.state, reset.data["engine-0.reset"]) == ("applied", "freed")
        first, second = run.ask("digest"), run.ask("digest")
        assert first.state == "applied"
        assert len(str(first.data["engine-0.digest"])) == 64
        assert first.data == second.data, "the same weights"

        paused = run.ask("pause")
        assert paused.state == "applied"
        assert float(paused.data["engine-0.lease_until"]) > paused.time
        run.until(lambda: any(event.kind == "joined.resumed" for event in run.events()), "the lease to run out")
        run.until(lambda: (run.engine() or pytest.fail("gone")).phase == "running", "it to go on")
        server.sample(list(range(2, 40)))
        log = server.log.read_text()
        assert log.count("driftline: this engine joins") == 1, "the core's process joins, and no other"
    finally:
        server.end()
    run.until(lambda: (run.engine() or pytest.fail("gone")).phase == "dead", "its last report")
    # vLLM kills a core that has not ended by itself in time; the hub reports that in its place.
    assert (run.engine() or pytest.fail("gone")).detail.startswith(("shut down", "was not heard for 10 s"))


def serves_while_its_hub_is_dead(run: Run, engine: Engine) -> None:
    """The hub dies and comes back under a stream of requests; commands reach the engine afterwards as before."""
    run.hub.kill()
    before = time.monotonic()
    stream = Stream(engine, run.model)
    stream.start()
    assert stream.after(before), "an engine does not wait for its hub"
    run.hub.start()
    run.until(lambda: run.ask("fix.set", fix="processed-logprobs", value="on").state == "applied", "it to be back")
    assert {one.kind for one in stream.after(time.monotonic())} == {"processed"}
    stream.end()


@pytest.mark.skipif(
    another_account.possible(), reason="test_another_account.py does all of this as another user, who can be made here"
)
def test_a_synchronous_llm_of_another_machine(run: Run) -> None:
    """By a copied connection file and key, as on another machine; the hub dies and comes back meanwhile."""
    elsewhere = run.folder / "elsewhere"
    elsewhere.mkdir()
    for source in (run.hub.run.connection_file, run.hub.run.keys / "engine.key"):
        copy = elsewhere / source.name
        copy.touch(0o600)
        copy.write_bytes(source.read_bytes())
    env = joins.environment(
        run.folder,
        DRIFTLINE_RUN=str(elsewhere / "connection.json"),
        DRIFTLINE_KEY=str(elsewhere / "engine.key"),
        DRIFTLINE_ENGINE="engine-sync",
        VLLM_WORKER_MULTIPROC_METHOD="fork",
    )
    script = Script(run.model_path, env, run.folder / "sync.log")
    try:
        script.wait()
        switch_while_it_samples(run, script, "engine-sync")
        check_state(run, "engine-sync")
        serves_while_its_hub_is_dead(run, script)
    finally:
        script.end()


def test_an_async_llm_in_a_ray_actor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    env = joins.environment(run.folder)
    for name in ("PYTHONPATH", "TORCH_COMPILE_DISABLE"):
        monkeypatch.setenv(name, env[name])
    cluster = Cluster()
    try:
        cluster.start(EngineConfig(count=1, cpus=1.0))
        import ray

        mine = env | {"DRIFTLINE_RUN": str(run.hub.run.path), "DRIFTLINE_ENGINE": "engine-ray"}
        actor: Any = ray.remote(joins.AsyncHost).options(num_cpus=1, max_concurrency=100).remote(mine)

        def call(method: str, *args: Any) -> Any:
            return ray.get(getattr(actor, method).remote(*args), timeout=joins.START_S)

        cluster.track_process(call("start", str(run.model_path)))
        cluster.track_process()

        class InActor:
            def sample(self, prompt: list[int]) -> joins.Answer:
                answer: joins.Answer = call("sample", prompt)
                return answer

        switch_while_it_samples(run, InActor(), "engine-ray")
        check_state(run, "engine-ray")

        # The framework's pause for a weight update, inside an operator's: the operator's outlasts it.
        assert run.fixes("engine-ray")["inflight-keep"].effective == ""
        paused = run.ask("pause")
        assert paused.state == "applied"
        assert float(paused.data["engine-ray.lease_until"]) > time.time()
        call("pause")
        call("label", "7")
        call("resume")
        run.until(lambda: run.fixes("engine-ray")["inflight-keep"].effective == "on", "how the framework pauses")
        run.until(lambda: (state := run.engine("engine-ray")) and (state.phase, state.version) == ("paused", 7), "7")
        waiting = actor.sample.remote(list(range(2, 40)))
        assert ray.wait([waiting], timeout=1.0)[0] == [], "it stands still"
        assert run.ask("resume").state == "applied"
        ray.get(waiting, timeout=LIMIT_S)
        run.until(lambda: (state := run.engine("engine-ray")) and state.phase == "running", "it to run")

        # And the other way round: an operator's resume does not let an engine go that its framework holds.
        call("pause")
        assert run.ask("pause").state == "applied"
        resumed = run.ask("resume")
        assert "its framework holds it paused" in resumed.detail
        run.until(lambda: (run.engine("engine-ray") or pytest.fail("gone")).phase == "paused", "its next report")
        call("resume")
        call("sample", list(range(2, 40)))
        call("close")
    finally:
        cluster.stop()


def test_a_core_in_its_caller_s_process(run: Run) -> None:
    """As where VLLM_ENABLE_V1_MULTIPROCESSING=0 is set: commands are carried out when the caller steps it."""
    if not FULL:
        pytest.skip(
            "one more start of an engine takes half a minute, and test_join_trl.py has such a core as well; "
            "`make faults` runs it"
        )
    env = joins.environment(
        run.folder,
        DRIFTLINE_RUN=str(run.hub.run.path),
        DRIFTLINE_ENGINE="engine-inside",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )
    script = Script(run.model_path, env, run.folder / "inside.log")
    try:
        script.wait()
        script.sample(list(range(2, 40)))
        switch_while_it_samples(run, script, "engine-inside")
        state = run.engine("engine-inside")
        assert state is not None
        assert state.pid == script.process.pid
    finally:
        script.end()


def test_on_a_version_that_it_does_not_know_it_only_reports(run: Run) -> None:
    """The real engine under another number: nothing of it is wrapped; it says of itself what it was configured with."""
    env = joins.environment(
        run.folder,
        DRIFTLINE_RUN=str(run.hub.run.path),
        DRIFTLINE_ENGINE="engine-99",
        PRETEND="0.99.0",
        VLLM_WORKER_MULTIPROC_METHOD="fork",
    )
    script = Script(run.model_path, env, run.folder / "unknown.log")
    try:
        script.wait()
        run.until(lambda: len(run.fixes("engine-99")) == len(BY_ID), "its fixes")
        state = run.engine("engine-99")
        assert state is not None
        assert state.vllm == "0.99.0"
        assert "it only reports here" in state.detail
        assert run.fixes("engine-99")["processed-logprobs"].effective == "", "not read back, so not claimed"
        assert run.fixes("engine-99")["prefix-cache-off"].effective == "off"
        stream = Stream(script, run.model)
        stream.start()
        assert {one.kind for one in stream.after(0.0)} == {"raw"}
        with pytest.raises(RefusedError, match="only reports here"):
            run.ask("fix.set", fix="processed-logprobs", value="on")
        assert run.ask("pause").state == "refused"
        assert {one.kind for one in stream.after(time.monotonic())} == {"raw"}
        stream.end()
    finally:
        script.end()


LOADING = """
import json, os, sys
from vllm import plugins
import vllm.engine.arg_utils  # what all of vLLM's processes import first; not yet what the plugin waits for
for variables in map(json.loads, sys.argv[1:]):
    sys.stdout.flush()
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    os.environ.update(variables)
    for _ in range(2):
        plugins.plugins_loaded = False
        plugins.load_general_plugins()
    ours = "engine.plugin" in sys.modules
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.worker.worker_base import WorkerBase
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory as factory
    wraps, loop = 0, EngineCoreProc.run_busy_loop
    while loop is not None:
        wraps, loop = wraps + hasattr(loop, "_driftline"), getattr(loop, "__wrapped__", None)
    methods = sorted(name for name in dir(WorkerBase) if name.startswith("driftline"))
    transfers = sorted(name for name in factory._registry if name.startswith("driftline"))
    print("loaded", json.dumps([ours, wraps, methods, transfers]), flush=True)
    os._exit(0)
"""
"""Loads vLLM's plugins twice under each of the given environments, in forks of a process that has imported vLLM."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """By case: whether the plugin is there, how often it wraps a core's loop, and what it has given to the workers.

    No engine is needed for that: the group is loaded the same way in each of vLLM's processes.
    """
    folder = tmp_path_factory.mktemp("plugin")
    cases = {
        "allowed": {"VLLM_PLUGINS": "driftline"},
        "left out": {"VLLM_PLUGINS": "another"},
        "of our pool": {POOL_VARIABLE: "1"},
    }
    env = joins.environment(folder, DRIFTLINE_RUN=str(folder))
    command = [sys.executable, "-c", LOADING, *map(json.dumps, cases.values())]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    found = [line.removeprefix("loaded ") for line in done.stdout.splitlines() if line.startswith("loaded ")]
    assert len(found) == len(cases), done.stderr[-2000:]
    return dict(zip(cases, map(json.loads, found), strict=True))


def test_vllm_itself_loads_it_unless_vllm_plugins_leaves_it_out(loaded: dict[str, list[Any]]) -> None:
    """Twice is as once."""
    assert loaded["allowed"][:2] == [True, 1]
    assert loaded["left out"] == [False, 0, [], []]


def test_in_an_engine_of_our_own_pool_it_only_gives_the_workers_their_methods(loaded: dict[str, list[Any]]) -> None:
    """Also where the environment names a run to join: the actor reports such an engine."""
    assert loaded["of our pool"] == [True, 0, sorted(METHODS), sorted(TRANSFER_ENGINES)]
