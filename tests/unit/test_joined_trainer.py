"""The producer `trainer` of another framework, over a real hub: its reports, what it is asked for, what goes wrong."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline import keys
from driftline.adapters.joined_trainer import JoinedTrainer
from driftline.adapters.ranks import own_rank
from driftline.adapters.releases import untested
from driftline.client import Client, attach
from driftline.frames import Ack, Event, Frame, Metrics, RunState, Span, Tokens
from driftline.keys import load_file, make_run_keys
from driftline.pairs.pairs import of_padded
from driftline.producer import sender
from driftline.rundir import create
from tests.unit.hubs import PATIENCE, Hub, until


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def hub(tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Hub:
    for name in ("DRIFTLINE_RUN", "DRIFTLINE_KEY", "DRIFTLINE_PAUSE_LEASE", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    hub = Hub(tmp_path)
    stack.callback(hub.end)
    hub.start()
    return hub


def joined(stack: ExitStack, hub: Hub, **more: Any) -> JoinedTrainer:
    """A trainer of a framework of this test's, which the hub has welcomed."""
    trainer = JoinedTrainer("Frame", "1.2", ("1.1", "1.2"), run=hub.run.path, **more)
    stack.callback(trainer.close)
    until(lambda: trainer.connected, "the hub to welcome it")
    return trainer


def operator(stack: ExitStack, hub: Hub) -> Client:
    return stack.enter_context(Client(*attach(hub.run)))


def said(client: Client) -> list[Frame]:
    return [one.frame() for one in client.page(1).frames]


def events(client: Client, kind: str) -> list[Event]:
    return [frame for frame in said(client) if isinstance(frame, Event) and frame.kind == kind]


def event(client: Client, kind: str) -> Event:
    until(lambda: events(client, kind), f"an event {kind}")
    return events(client, kind)[-1]


def state(client: Client) -> RunState:
    return [frame for frame in said(client) if isinstance(frame, RunState)][-1]


def acks(client: Client, command: str) -> list[tuple[str, str]]:
    return [(one.state, one.detail) for one in said(client) if isinstance(one, Ack) and one.id == command]


def asked(client: Client, verb: Any, args: dict[str, str] | None = None, *, timeout: float = PATIENCE) -> str:
    """A command that has come to the trainer."""
    command = client.command(verb, args or {}, timeout=timeout)
    until(lambda: any(detail for _, detail in acks(client, command)), f"{verb} to reach the trainer")
    return command


class Loop:
    """A trainer's loop on a thread of its own: `step` lets it end one step."""

    def __init__(self, trainer: JoinedTrainer, **ways: Any) -> None:
        self.trainer, self.ways = trainer, ways
        self.at = 0
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            self.trainer.boundary(self.at + 1, **self.ways)
            self.at += 1

    def step(self) -> None:
        self._go.release()


# -- what it reports --------------------------------------------------------------------------------------------------


def test_a_run_from_its_first_frame_to_its_last(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    assert state(client).status == "starting"
    assert event(client, "adapter.joined").text == f"Frame 1.2 joins run {hub.run.id} as 'trainer'"
    trainer.describe(steps=20, model="tiny", temperature=0.7, objective="grpo")
    trainer.boundary(3)
    until(lambda: state(client).step == 3, "the step")
    assert (state(client).status, state(client).steps, state(client).temperature) == ("running", 20, 0.7)
    trainer.close()
    until(lambda: state(client).status == "finished", "the end")
    trainer.metrics({"reward": 1.0}, step=4)
    trainer.boundary(4)
    assert not trainer.active


def test_known_names_get_the_catalogues_and_a_label_and_all_others_stay(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    logs = {
        "reward": np.float32(0.5),
        "kl": 0.1,
        "clip_ratio/region_mean": 0.2,
        "entropy": 1.0,
        "what/ever": 3,
        "name": "x",
    }
    trainer.metrics(logs, step=1)
    until(lambda: any(isinstance(one, Metrics) for one in said(client)), "the numbers")
    (sent,) = [one for one in said(client) if isinstance(one, Metrics)]
    assert sent.values == {
        "reward/mean": 0.5,
        "policy/kl_ref": 0.1,
        "policy/clip_fraction": 0.2,
        "policy/entropy": 1.0,
        "what/ever": 3.0,
    }
    assert sent.labels == {"policy/clip_fraction": "active"}


def batch(**more: Any) -> Any:
    ids = np.array([[5, 6, 7], [8, 9, 0]])
    rollout = np.array([[-1.0, -2.0, -0.5], [-1.0, -3.0, 0.0]])
    train = np.array([[-1.1, -2.0, -0.5], [-1.0, -3.0, -4.0]])
    return of_padded(ids, rollout, train, np.ones_like(ids), **more)


@pytest.mark.parametrize(
    ("logprob", "temperature", "version", "label"),
    [
        ("old", 1.0, 4, ""),
        ("old", None, 4, "no temperature"),
        ("proximal", 0.7, 4, ""),
        ("proximal", 0.7, 3, "with staleness"),
        ("proximal", 0.7, -1, "with staleness if async"),
        ("current", 0.7, 4, "with drift"),
    ],
)
def test_token_pairs_give_numbers_tokens_and_what_they_are(
    stack: ExitStack, hub: Hub, logprob: Any, temperature: float | None, version: int, label: str
) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    for _ in range(2):
        trainer.pairs(
            batch(version=version),
            step=4,
            version=4,
            logprob=logprob,
            temperature=temperature,
            pieces=lambda one: f"<{one}>",
        )
    until(lambda: len([one for one in said(client) if isinstance(one, Tokens)]) == 2, "the tokens")
    first = next(one for one in said(client) if isinstance(one, Metrics))
    assert first.values["mismatch/abs_diff_max"] == pytest.approx(0.1)
    assert first.values["mismatch/abs_diff_mean"] == pytest.approx(0.1 / 5)
    assert first.labels.get("mismatch/abs_diff_mean", "") == label
    tokens = next(one for one in said(client) if isinstance(one, Tokens))
    assert (tokens.n, tokens.version) == (5, 4)
    assert set(tokens.pieces) == {"<5>", "<6>", "<7>", "<8>", "<9>"}
    (kind,) = events(client, "pairs.kind")
    assert logprob in kind.text
    assert ("0.7" in kind.text) == (temperature == 0.7)
    (left,) = events(client, "pairs.left-out")
    assert "1 tokens at the end of a sequence whose engine logprob is a placeholder" in left.text


def test_a_frameworks_number_keeps_its_name_where_the_pairs_give_the_same(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    trainer.pairs(batch(), step=1, logprob="old", temperature=1.0)
    trainer.metrics({"sampling/sampling_logp_difference/mean": 0.5}, step=1)
    trainer.metrics({"mismatch/abs_diff_mean": 0.6}, step=1)
    until(lambda: len([one for one in said(client) if isinstance(one, Metrics)]) == 3, "the numbers")
    first, second, third = [one.values for one in said(client) if isinstance(one, Metrics)]
    assert first["mismatch/abs_diff_mean"] == pytest.approx(0.02)
    assert second == {"log/sampling/sampling_logp_difference/mean": 0.5}
    assert third == {"log/mismatch/abs_diff_mean": 0.6}


def test_syncs_leave_spans_an_event_and_a_version(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    assert trainer.version == -1
    with trainer.sync(7) as going, going.phase("load"), trainer.sync(7):
        pass
    assert trainer.version == 7
    done = event(client, "sync.done")
    assert (done.data["version"], done.data["sync"]) == (7, "sync-1")
    spans = [one for one in said(client) if isinstance(one, Span)]
    assert [(one.phase, one.engine, one.version_before, one.version_after, one.ok) for one in spans] == [
        ("load", "pool", -1, 7, True),
        ("total", "pool", -1, 7, True),
    ]
    until(lambda: state(client).version == 7, "the version")


def test_a_sync_that_fails_is_recorded_and_raised(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    with trainer.sync(1):
        pass
    with pytest.raises(RuntimeError, match="NCCL"), trainer.sync(2):
        raise RuntimeError("NCCL is gone")
    failed = event(client, "sync.failed")
    assert failed.level == "error"
    assert failed.text == "v2: RuntimeError: NCCL is gone"
    last = [one for one in said(client) if isinstance(one, Span)][-1]
    assert (last.ok, last.version_before, last.version_after) == (False, 1, 1)
    assert trainer.version == 1


# -- what it is asked for ---------------------------------------------------------------------------------------------


def test_a_sync_is_made_at_the_boundary(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    made: list[int] = []

    def send() -> None:
        with trainer.sync(5):
            made.append(5)

    trainer.boundary(4, sync=send)
    command = asked(client, "sync")
    assert acks(client, command)[-1] == ("sent", "waits for the trainer's step boundary")
    assert not made
    trainer.boundary(5, sync=send)
    ack = client.wait(command, PATIENCE)
    assert (ack.state, ack.data["sync"], ack.data["version"], made) == ("applied", "sync-1", 5, [5])
    trainer.boundary(6, sync=send)
    assert made == [5]


def test_a_sync_that_an_operator_asked_for_and_that_fails_does_not_end_the_training(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)

    def send() -> None:
        with trainer.sync(5):
            raise ConnectionError("the server is away")

    command = asked(client, "sync")
    trainer.boundary(5, sync=send)
    ack = client.wait(command, PATIENCE)
    assert (ack.state, ack.detail) == ("failed", "ConnectionError: the server is away")
    assert event(client, "sync.failed").text == "v5: ConnectionError: the server is away"


def test_what_the_framework_has_no_way_to_do_is_refused_with_the_reason(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    sync, stop = asked(client, "sync"), asked(client, "stop")
    trainer.boundary(1, no_sync="it has no engine to send to")
    assert client.wait(sync, PATIENCE).detail == "it has no engine to send to"
    assert client.wait(stop, PATIENCE).detail == "the framework gives no way to end the training at its step boundary"
    fix = client.command("fix.set", {"fix": "processed-logprobs", "value": "on"}, timeout=PATIENCE)
    assert "none has joined this run" in client.wait(fix, PATIENCE).detail
    correction = client.command("correction.set", {"value": "tis"}, timeout=PATIENCE)
    assert client.wait(correction, PATIENCE).detail == "the objective is Frame 1.2's own: set it in its configuration"
    resume = client.command("resume", {}, timeout=PATIENCE)
    assert client.wait(resume, PATIENCE).detail == "the run is not paused"


def test_a_mark_needs_no_boundary(stack: ExitStack, hub: Hub) -> None:
    joined(stack, hub)
    client = operator(stack, hub)
    mark = client.command("mark", {"text": "here"}, timeout=PATIENCE)
    assert client.wait(mark, PATIENCE).state == "applied"
    assert event(client, "mark").text == "here"


def test_a_request_whose_deadline_passes_within_a_step_is_not_carried_out(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    made: list[int] = []
    command = asked(client, "sync", timeout=1.0)
    until(lambda: acks(client, command)[-1][0] == "expired", "its deadline")
    trainer.boundary(1, sync=lambda: made.append(1))
    assert not made


def test_a_pause_holds_the_loop_until_it_is_resumed(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    synced: list[int] = []
    loop = Loop(trainer, sync=lambda: synced.append(1))
    pause = asked(client, "pause")
    loop.step()
    ack = client.wait(pause, PATIENCE)
    assert ack.state == "applied"
    assert ack.data["lease_until"] > time.time()
    until(lambda: state(client).status == "paused", "the pause")
    assert state(client).paused_by == "operator local"
    assert loop.at == 0
    # A sync during a pause is made: its weights stand still.
    sync = client.command("sync", {}, timeout=PATIENCE)
    assert client.wait(sync, PATIENCE).state == "applied"
    assert synced == [1]
    renewed = client.wait(client.command("pause", {}, timeout=PATIENCE), PATIENCE)
    assert renewed.data["renewed"]
    until(lambda: state(client).lease_until == renewed.data["lease_until"], "the longer lease")
    assert loop.at == 0
    assert client.wait(client.command("resume", {}, timeout=PATIENCE), PATIENCE).state == "applied"
    until(lambda: loop.at == 1, "the loop to go on")
    until(lambda: state(client).status == "running", "the state")
    assert event(client, "run.resumed").text == "by operator local"


def test_a_pause_ends_with_its_lease(stack: ExitStack, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_PAUSE_LEASE", "1")
    trainer, client = joined(stack, hub), operator(stack, hub)
    loop = Loop(trainer)
    asked(client, "pause")
    loop.step()
    until(lambda: loop.at == 1, "the lease to end")
    assert event(client, "run.resumed").text == "its lease ran out"
    until(lambda: state(client).status == "running", "the state")


def test_a_resume_before_the_boundary_takes_the_pause_back(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    pause = asked(client, "pause")
    assert client.wait(client.command("resume", {}, timeout=PATIENCE), PATIENCE).state == "applied"
    assert client.wait(pause, PATIENCE).state == "failed"
    trainer.boundary(1)
    assert state(client).status != "paused"


def test_a_stop_ends_a_pause_and_the_training(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    stopped: list[bool] = []
    loop = Loop(trainer, stop=lambda: stopped.append(True))
    asked(client, "pause")
    loop.step()
    until(lambda: state(client).status == "paused", "the pause")
    stop = client.command("stop", {}, timeout=PATIENCE)
    assert client.wait(stop, PATIENCE).state == "applied"
    assert stopped == [True]
    until(lambda: loop.at == 1, "the loop to go on")


def test_a_signal_comes_through_a_pause(stack: ExitStack, hub: Hub) -> None:
    """A paused loop on the main thread is interrupted as any other."""
    # Where the tests run in the background of a shell, ctrl-C is ignored, and would rightly stay so.
    stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
    trainer, client = joined(stack, hub), operator(stack, hub)
    asked(client, "pause")

    def interrupt() -> None:
        until(lambda: state(client).status == "paused", "the pause")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        trainer.boundary(1)
    thread.join()
    until(lambda: state(client).status == "running", "the state after it")
    assert event(client, "run.resumed").text == "the training was interrupted"


def test_what_waits_at_the_end_has_failed(stack: ExitStack, hub: Hub) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    sync = asked(client, "sync")
    trainer.close("out of memory")
    assert client.wait(sync, PATIENCE).detail == "the run has ended"
    assert (state(client).status, state(client).detail) == ("failed", "out of memory")


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_without_a_run_it_is_inert(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("DRIFTLINE_RUN", raising=False)
    with caplog.at_level(logging.INFO):
        trainer = JoinedTrainer("Frame", "9.9", ("1.0",))
    trainer.metrics({"a": 1.0}, step=1)
    trainer.pairs(batch(), step=1, logprob="old", temperature=1.0)
    trainer.boundary(1, sync=lambda: pytest.fail("no operator"))
    with trainer.sync(1):
        pass
    trainer.hook_missing("a hook", "there is no number")
    trainer.close()
    assert [one.getMessage() for one in caplog.records] == ["driftline: inert, because DRIFTLINE_RUN names no run"]


def test_a_key_of_another_run_is_one_sentence_here_and_an_event_there(
    stack: ExitStack, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = create(tmp_path, "other")
    make_run_keys(other)
    trainer = JoinedTrainer("Frame", run=hub.run.connection_file, key=other.keys / "trainer.key")
    stack.callback(trainer.close)
    client = operator(stack, hub)
    assert "its key is not one of this run's" in event(client, "hub.refused").text
    until(lambda: "the hub does not know this key" in caplog.text, "the line in the log")
    for step in range(3):
        trainer.boundary(step)
    assert not trainer.connected
    assert caplog.text.count("does not know this key") == 1


def test_a_key_that_may_not_be_the_trainer_is_an_event(
    stack: ExitStack, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = JoinedTrainer("Frame", run=hub.run.path, key=hub.run.keys / "engine.key")
    stack.callback(trainer.close)
    until(lambda: "may not produce as 'trainer'" in caplog.text, "the line in the log")
    assert "may not produce as 'trainer'" in event(operator(stack, hub), "hub.refused").text


def test_another_version_of_the_wire_is_one_sentence_here_and_an_event_there(
    stack: ExitStack, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sender, "SCHEMA", 99)
    trainer = JoinedTrainer("Frame", run=hub.run.path)
    stack.callback(trainer.close)
    until(lambda: "schema 99, this hub speaks 1" in caplog.text, "the line in the log")
    trainer.boundary(1)
    assert not trainer.connected
    assert "schema 99, this hub speaks 1" in event(operator(stack, hub), "hub.refused").text


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "DRIFTLINE_RUN is a connection file; DRIFTLINE_KEY must name a key file beside it"),
        ({"key": "{run}/connection.json"}, "not a key file"),
        ({"run": "/nowhere/run"}, "no run '/nowhere/run'"),
    ],
)
def test_what_cannot_be_read_leaves_it_inert(
    hub: Hub, files: dict[str, str], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"run": str(hub.run.connection_file)} | {name: one.format(run=hub.run.path) for name, one in files.items()}
    trainer = JoinedTrainer("Frame", **given)
    assert not trainer.active
    assert sentence in caplog.text


def test_another_machines_trainer_joins_by_a_connection_file_and_a_key(
    stack: ExitStack, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.add(hub.run, "far", "producer", "trainer", kinds=("trainer",))
    assert load_file(hub.run.keys / "far.key")
    monkeypatch.setenv("DRIFTLINE_RUN", str(hub.run.connection_file))
    monkeypatch.setenv("DRIFTLINE_KEY", str(hub.run.keys / "far.key"))
    trainer = JoinedTrainer("Frame")
    stack.callback(trainer.close)
    until(lambda: trainer.connected, "the hub to welcome it")
    assert state(operator(stack, hub)).run == hub.run.id


def test_a_hook_that_is_gone_is_a_line_and_an_event_once(
    stack: ExitStack, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    for _ in range(3):
        trainer.hook_missing("Trainer.score", "there are no token pairs")
    text = "Frame 1.2: Trainer.score is not there, so that there are no token pairs"
    assert event(client, "adapter.hook-missing").text == text
    assert len(events(client, "adapter.hook-missing")) == 1
    assert caplog.text.count(text) == 1


@pytest.mark.parametrize(
    ("installed", "why"),
    [
        ("1.10.4", ""),
        ("1.12", ""),
        ("1.13.0.dev0", "1.13.0.dev0 is newer than what this adapter was tested with (1.10.1 to 1.12.0)"),
        ("1.9.9", "1.9.9 is older than what this adapter was tested with (1.10.1 to 1.12.0)"),
        ("", ""),
    ],
)
def test_releases_are_compared_as_numbers(installed: str, why: str) -> None:
    assert untested(installed, ("1.12.0", "1.10.1")) == why


def test_a_release_that_was_not_tested_gives_what_it_can(
    stack: ExitStack, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = JoinedTrainer("Frame", "3.0", ("1.1", "1.2"), run=hub.run.path)
    stack.callback(trainer.close)
    client = operator(stack, hub)
    assert "3.0 is newer than what this adapter was tested with (1.1 to 1.2)" in event(client, "adapter.untested").text
    assert caplog.text.count("3.0 is newer") == 1
    trainer.metrics({"reward": 1.0}, step=1)
    until(lambda: any(isinstance(one, Metrics) for one in said(client)), "the numbers")


def test_an_error_of_a_hook_is_said_once_and_goes_no_further(
    stack: ExitStack, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, client = joined(stack, hub), operator(stack, hub)
    for _ in range(3):
        trainer.pairs("no pairs", step=1, logprob="old", temperature=1.0)  # type: ignore[arg-type]  # what a changed framework might give
        with trainer.guard("score"):
            batch(rewards=[1.0])
    until(lambda: len(events(client, "adapter.failed")) == 2, "both errors")
    assert "rewards: 1 of them for 2 sequences" in events(client, "adapter.failed")[1].text
    assert caplog.text.count("cannot be reported") == 2
    trainer.metrics({"reward": 1.0}, step=1)
    until(lambda: any(isinstance(one, Metrics) for one in said(client)), "the numbers")


def test_the_hub_may_be_away(stack: ExitStack, hub: Hub) -> None:
    trainer = joined(stack, hub)
    hub.kill()
    for step in range(5):
        trainer.metrics({"reward": 1.0}, step=step)
        trainer.boundary(step)
    hub.start()
    client = operator(stack, hub)
    # There is no state at first.
    until(
        lambda: [frame.step for frame in said(client) if isinstance(frame, RunState)][-1:] == [4],
        "what was sent meanwhile",
    )


def test_all_ranks_but_the_first_are_inert(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_RUN", str(hub.run.path))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert own_rank() == (1, 4)
    trainer = JoinedTrainer("Frame")
    assert not trainer.active
    assert trainer.world == 4
    assert JoinedTrainer("Frame", rank=1).active is False


def test_ranks_of_odd_environments() -> None:
    assert own_rank({}) == (0, 1)
    assert own_rank({"RANK": "x", "WORLD_SIZE": "0"}) == (0, 1)
