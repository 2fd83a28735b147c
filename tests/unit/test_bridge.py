"""The bridge to a vLLM server without the plugin: its pages, what is made of them, and servers that are none.

The servers here are small HTTP servers of the test's (`http_pages.py`); the real one is in tests/e2e/test_join.py.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from console.bridging import bridge as bridging
from console.bridging import pages as page_module
from console.bridging import server_state
from console.bridging.bridge import Bridge, NoServerError, look
from console.bridging.pages import PageError, Pages
from console.bridging.prometheus import samples
from console.bridging.server_state import Config
from driftline.catalog.fixes import BY_ID
from driftline.client import Client, RefusedError
from driftline.frames import Ack, EngineFix, EngineState, Event, FixState
from driftline.keys import load
from driftline.testing import InProcessHub, until
from tests import signals
from tests.unit.http_pages import CONFIG, METRICS, PageServer, Vllm, endless, sends

COUNTS = {"tokens": 100.0, "queries": 10.0, "hits": 5.0}


def start(server: Vllm, hub: InProcessHub, **options: float) -> Bridge:
    pages = Pages(server.url)
    made = Bridge(pages, look(pages), "engine-b", load(hub.run, "engine"), hub.run, every=0.05, **options)
    before = reports(hub)
    made.start()
    until(lambda: reports(hub) >= before + len(BY_ID), "its fixes, with which it has joined")
    return made


def reports(hub: InProcessHub) -> int:
    return sum(isinstance(one, FixState) for one in hub.frames("engine-b"))


@pytest.fixture
def hub() -> Iterator[InProcessHub]:
    with InProcessHub() as hub:
        yield hub


@pytest.fixture
def client(hub: InProcessHub) -> Iterator[Client]:
    with hub.client() as client:
        yield client


def states(hub: InProcessHub) -> list[EngineState]:
    return [one for one in hub.frames("engine-b") if isinstance(one, EngineState)]


def state(hub: InProcessHub) -> EngineState | None:
    return next(reversed(states(hub)), None)


def in_phase(hub: InProcessHub, phase: str) -> None:
    until(lambda: (one := state(hub)) is not None and one.phase == phase, f"phase {phase}")


def fixes(hub: InProcessHub) -> dict[str, EngineFix]:
    return {one.fix: one.engines[0] for one in hub.frames("engine-b") if isinstance(one, FixState)}


def events(hub: InProcessHub) -> list[str]:
    return [one.kind for one in hub.frames("engine-b") if isinstance(one, Event)]


def ask(client: Client, verb: str) -> Ack:
    return client.wait(client.command(verb, {}), 30.0)  # type: ignore[arg-type]  # a test's word


# -- pages


def test_numbers_by_name_whatever_the_labels_are() -> None:
    found = samples(METRICS % COUNTS, "vllm:")
    assert found["vllm:num_requests_running"] == [3.0]
    assert found["vllm:generation_tokens_total"] == [100.0]
    assert "python_info" not in found
    assert "vllm:broken" not in found
    assert "vllm:nan" not in found


@pytest.mark.parametrize(
    "text", ["", "\x00", "vllm:", "vllm:x", "vllm:x{", 'vllm:x{a="', "vllm:x 1e999", "vllm:x{} 1 2 3", "vllm:" * 10_000]
)
def test_odd_text_gives_numbers_or_nothing(text: str) -> None:
    assert all(len(values) == 1 for values in samples(text, "vllm:").values())
    assert server_state.load("no such names") is None


def test_load_and_rates() -> None:
    first, second = (
        server_state.load(METRICS % COUNTS),
        server_state.load(METRICS % {"tokens": 300, "queries": 30, "hits": 20}),
    )
    assert first is not None
    assert second is not None
    assert (first.running, first.waiting, first.kv_use, first.preempted) == (3, 2, 0.25, 1)
    assert server_state.rates(first, second, 2.0) == (100.0, 0.75)
    assert server_state.rates(second, first, 2.0) == (0.0, 0.0), "the server was started again"


def test_a_configuration_says_what_it_says_and_nothing_else() -> None:
    found = server_state.config(CONFIG)
    assert (
        server_state.settings(found)
        == "logprobs raw_logprobs; head not reported, body bfloat16; prefix cache on; async scheduling on"
    )
    said = {one.fix: (one.effective, one.engines[0].detail) for one in server_state.fixes("e", found, 1.0)}
    assert said["processed-logprobs"][0] == "off"
    assert said["prefix-cache-off"][0] == "off"
    assert "a bridge switches nothing" in said["prefix-cache-off"][1]
    assert said["fp32-lm-head"] == ("", server_state.NOT_SAID)
    assert said["inflight-keep"] == ("", server_state.NOT_SAID)
    nothing = {one.engines[0].effective for one in server_state.fixes("e", Config(), 1.0)}
    assert nothing == {""}, "never a healthy value that no server has reported"


@pytest.mark.parametrize("page", [None, [], {}, {"vllm_config": 3}, {"vllm_config": {"model_config": {"dtype": 7}}}])
def test_an_odd_configuration_says_nothing(page: object) -> None:
    assert server_state.config(page) == Config()


# -- servers that are none


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://127.0.0.1", "is no address of a server: http://HOST:PORT"),
        ("127.0.0.1:8000", "is no address of a server"),
        ("http://", "is no address of a server"),
        ("http://127.0.0.1:99999", "is no address of a server"),
        ("http://[::1", "is no address of a server"),
        ("http://me:secret@127.0.0.1:8000", "no name and no query"),
        ("http://127.0.0.1:8000/?a=1", "no name and no query"),
    ],
)
def test_what_is_no_address_is_refused_in_a_sentence(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Pages(url)
    assert "secret" not in str(caught.value)


def test_an_address_may_have_a_path_below_which_the_pages_are() -> None:
    with PageServer({"GET /below/version": {"version": "1"}}) as server:
        assert Pages(f"{server.url}/below/").json("/version") == {"version": "1"}


ELSEWHERE = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/version\r\nContent-Length: 0\r\n\r\n"
DRIP = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        ({}, "answers, but is no vLLM server: GET /version gave 404"),
        ({"GET /version": "hello"}, "answers, but is no vLLM server: GET /version gave no JSON"),
        ({"GET /version": ["0.32.0"]}, "answers, but is no vLLM server: GET /version names no version"),
        ({"GET /version": {"version": "1"}, "GET /metrics": "x 1"}, "GET /metrics has nothing of vLLM's"),
        ({"GET /version": {"version": "1"}}, "GET /metrics gave 404"),
        ({"GET /version": sends(ELSEWHERE)}, "GET /version sends elsewhere, which is not followed"),
        ({"GET /version": sends(b"SSH-2.0-OpenSSH_9.6\r\n")}, "was not answered by HTTP: BadStatusLine"),
        ({"GET /version": sends(b"")}, "no answer|was not answered by HTTP"),
        ({"GET /version": endless(DRIP, b" ", 0.01)}, r"GET /version was not answered within 0.5 s"),
        ({"GET /version": endless(b"HTTP/1.1 200 OK\r\n", b"X", 0.01)}, r"GET /version was not answered within 0.5 s"),
        ({"GET /version": endless(b"", b"", 0.01)}, r"GET /version was not answered within 0.5 s"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_server_that_is_none_of_vllm_s_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, pages: dict[str, object], words: str
) -> None:
    ask = Pages._ask
    monkeypatch.setattr(Pages, "_ask", lambda self, method, page, seconds: ask(self, method, page, min(seconds, 0.5)))
    with PageServer(pages) as server, pytest.raises(NoServerError, match=words) as caught:
        look(Pages(server.url))
    assert str(caught.value).startswith(server.url)


def test_more_bytes_than_any_page_has_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MOST_BYTES", 1 << 20)
    flood = endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x" * 65536, 0.0)
    with PageServer({"GET /metrics": flood}) as server, pytest.raises(PageError, match="gave more than 1 MiB"):
        Pages(server.url).text("/metrics")


def test_nothing_at_the_address_is_a_sentence() -> None:
    with PageServer({}) as server:
        url = server.url
    with pytest.raises(NoServerError, match=f"{url}: no answer: Connection refused"):
        look(Pages(url))


# -- a bridge


def test_a_server_in_dev_mode_is_an_engine_of_the_run(hub: InProcessHub, client: Client) -> None:
    with Vllm() as server:
        bridge = start(server, hub)
        in_phase(hub, "running")
        found = state(hub)
        assert found is not None
        assert (found.vllm, found.backend, found.via, found.key) == ("0.32.0", "cpu", "bridge", "producer engine-*")
        assert (found.running, found.waiting, found.kv_use, found.preemptions) == (3, 2, 0.25, 1)
        server.counts |= {"tokens": 900.0, "queries": 110.0, "hits": 105.0}
        until(
            lambda: any(isinstance(one, EngineState) and one.tokens_per_s > 0 for one in hub.frames("engine-b")),
            "a rate",
        )
        assert fixes(hub)["processed-logprobs"].effective == "off"
        with pytest.raises(RefusedError, match="a bridge switches nothing"):
            client.command("fix.set", {"fix": "processed-logprobs", "value": "on"})

        reset = ask(client, "cache.reset")
        assert (reset.state, reset.data["engine-b.reset"]) == ("applied", "freed")
        assert ask(client, "resume").detail == "no operator has paused it"
        assert ask(client, "pause").state == "applied"
        assert "POST /pause?mode=keep&clear_cache=false" in server.asked
        in_phase(hub, "paused")
        assert ask(client, "resume").state == "applied"
        in_phase(hub, "running")
        assert ask(client, "digest").state == "refused"
        bridge.close()
        last = state(hub)
        assert last is not None
        assert (last.phase, last.detail) == ("dead", "the bridge has ended; the server goes on")


def test_without_dev_mode_it_only_looks_and_says_what_to_switch_on(hub: InProcessHub, client: Client) -> None:
    with Vllm(dev=False) as server:
        bridge = start(server, hub)
        in_phase(hub, "running")
        assert {one.effective for one in fixes(hub).values()} == {""}
        assert {one.detail for one in fixes(hub).values()} == {server_state.NO_DEV_MODE}
        for verb in ("pause", "resume", "cache.reset"):
            ack = ask(client, verb)
            assert ack.state == "refused"
            assert "VLLM_SERVER_DEV_MODE=1" in ack.detail
        bridge.close()


def test_a_pause_ends_with_its_lease_and_with_the_bridge(hub: InProcessHub, client: Client) -> None:
    with Vllm() as server:
        bridge = start(server, hub, lease=0.3)
        in_phase(hub, "running")
        assert ask(client, "pause").state == "applied"
        until(lambda: "joined.resumed" in events(hub), "the end of the lease")
        assert not server.paused
        bridge.close()
        bridge = start(server, hub)
        assert ask(client, "pause").state == "applied"
        bridge.close()
        assert not server.paused, "an operator's pause does not outlast what would end it"


def test_what_a_framework_holds_paused_or_loads_is_not_let_go(hub: InProcessHub, client: Client) -> None:
    with Vllm() as server:
        bridge = start(server, hub)
        in_phase(hub, "running")
        server.paused = True
        assert "its framework holds it paused" in ask(client, "pause").detail
        server.paused = False
        assert ask(client, "pause").state == "applied"
        server.pages["GET /metrics"] = METRICS % COUNTS + "vllm:rl_weight_update_operations_in_flight 1\n"
        assert "a weight update is under way" in ask(client, "resume").detail
        in_phase(hub, "syncing")
        assert server.paused
        server.pages["GET /metrics"] = METRICS % COUNTS
        assert ask(client, "resume").state == "applied"
        bridge.close()


def test_a_server_that_goes_and_comes_back_is_said_once_each(hub: InProcessHub, client: Client) -> None:
    server = Vllm()
    bridge = start(server, hub)
    in_phase(hub, "running")
    server.close()
    in_phase(hub, "restarting")
    # The first reason is another one where a request was under way.
    until(lambda: (lost := state(hub)) is not None and "Connection refused" in lost.detail, "the reason")
    assert bridge.lost
    server = Vllm(server.port)
    try:
        server.pages["GET /version"] = {"version": "0.33.0"}
        in_phase(hub, "running")
        back = state(hub)
        assert back is not None
        assert back.vllm in ("0.32.0", "0.33.0")
        until(lambda: events(hub) == ["bridge.lost", "bridge.back"], "one event each")
        assert ask(client, "cache.reset").state == "applied"
    finally:
        bridge.close()
        server.close()


# -- the verb


def run(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "console.cli", "bridge", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=signals.restore_defaults
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_verb_joins_and_ends_by_a_signal(hub: InProcessHub, number: signal.Signals) -> None:
    with Vllm() as server:
        process = run(server.url, "--run", str(hub.run.path), "--name", "engine-b")
        try:
            until(lambda: state(hub) is not None or process.poll() is not None, "its first state")
            process.send_signal(number)
            out, err = process.communicate(timeout=30.0)
        finally:
            process.kill()
        assert process.returncode == 128 + number, err
        assert f"{server.url} (vLLM 0.32.0) joins run {hub.run.id} as 'engine-b'" in out
        assert "pause, resume and weight updates without a key" in err
        in_phase(hub, "dead")


def test_a_signal_while_the_server_hangs_ends_it(hub: InProcessHub) -> None:
    with PageServer({"GET /version": endless(b"", b"", 0.05)}) as server:
        process = run(server.url, "--run", str(hub.run.path))
        try:
            until(lambda: server.asked or process.poll() is not None, "its question")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(30.0)
            took = time.monotonic() - began
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 128 + signal.SIGTERM
        assert took < page_module.SECONDS, "it does not wait for the answer"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("gopher://x",), 2, "is no address of a server"),
        (("http://127.0.0.1:1",), 1, "no answer"),
        (("http://127.0.0.1:1", "--name", "a b"), 2, "a name is 1 to 64 letters"),
        (("http://127.0.0.1:1", "--run", "nothing.json"), 2, "--key must name a producer's key file"),
    ],
)
def test_bad_words_are_one_sentence_and_an_exit_code(
    hub: InProcessHub, arguments: tuple[str, ...], code: int, words: str
) -> None:
    more = () if "--run" in arguments else ("--run", str(hub.run.path))
    process = run(*arguments, *more)
    out, err = process.communicate(timeout=60.0)
    assert process.returncode == code, err
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not out


def test_limits_are_such_that_an_end_takes_less_than_two_seconds() -> None:
    assert 2 * bridging.END_S < 2.0
