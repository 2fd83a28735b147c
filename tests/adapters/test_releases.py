"""Each adapter on the real functions of the newest release of its framework and of those before, on a real hub.

`make adapters` installs the releases; without them these tests are skipped and say so. The last prints the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.client import Client, attach
from driftline.frames import Ack, Event, Frame, Metrics, RunState, Span, Tokens
from tests.adapters.environments import RELEASES, SLOWEST_START, Release, Training
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

every_release = pytest.mark.parametrize("release", RELEASES, ids=lambda one: one.name)
newest = pytest.mark.parametrize(
    "release", [one for one in RELEASES if one.version in ("0.9.1", "0.11.2", "0.4.0")], ids=lambda one: one.name
)
TABLE: dict[str, dict[str, str]] = {}
SHORT = {"verl": "verl", "openrlhf": "OpenRLHF", "skyrl": "SkyRL"}


class Joined:
    """A framework's training in a run, and an operator beside it."""

    def __init__(self, hub: Hub, release: Release, stack: ExitStack, tmp: Path, mode: str, without: str = "") -> None:
        self.training = Training(release, hub.run.path, tmp / "framework.log", mode, without)
        stack.callback(self.training.close)
        self.client = stack.enter_context(Client(*attach(hub.run)))
        self._said: list[Frame] = []
        self._next = 1

    def frames(self, kind: type[Any]) -> list[Any]:
        while (page := self.client.page(self._next, timeout=PATIENCE)).frames:
            self._said += [one.frame() for one in page.frames]
            self._next = page.next
        return [frame for frame in self._said if isinstance(frame, kind)]

    def events(self, kind: str) -> list[Event]:
        return [event for event in self.frames(Event) if event.kind == kind]

    def steps_until(self, condition: Callable[[], object], what: str) -> None:
        """One step after the other until it holds: a framework comes to its boundary at its own place in the next."""
        deadline = time.monotonic() + PATIENCE + SLOWEST_START
        while not condition():
            assert time.monotonic() < deadline, f"no {what}: {self.training.said[-3000:]}"
            self.training.step()
            soon = time.monotonic() + 0.5
            while time.monotonic() < soon and not condition():
                time.sleep(0.02)

    def acks(self, command: str) -> list[Ack]:
        return [ack for ack in self.frames(Ack) if ack.id == command]

    def asked(self, verb: Any) -> str:
        """A command that waits for the boundary."""
        command = self.client.command(verb, {}, timeout=PATIENCE + SLOWEST_START)
        until(lambda: any(ack.detail for ack in self.acks(command)), f"{verb} to reach the trainer")
        return command

    def state(self) -> RunState:
        return self.frames(RunState)[-1]

    def mismatch(self) -> list[Metrics]:
        return [one for one in self.frames(Metrics) if "mismatch/abs_diff_mean" in one.values]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def hub(tmp_path: Path, stack: ExitStack) -> Hub:
    hub = Hub(tmp_path)
    hub.start()
    stack.callback(hub.end)
    return hub


def needs(release: Release) -> None:
    if release.missing:
        pytest.skip(release.missing)


def works(release: Release, *columns: str) -> None:
    TABLE.setdefault(release.name, {}).update(dict.fromkeys(columns, "works"))


@every_release
def test_numbers_pairs_syncs_and_requests(release: Release, hub: Hub, stack: ExitStack, tmp_path: Path) -> None:
    needs(release)
    run = Joined(hub, release, stack, tmp_path, "sync")
    run.steps_until(run.mismatch, "pairs")
    joined = run.events("adapter.joined")
    assert [event.text for event in joined] == [
        f"{SHORT[release.package]} {release.version} joins run {hub.run.id} as 'trainer'"
    ]
    assert run.events("adapter.hook-missing") == run.events("adapter.untested") == run.events("adapter.failed") == []

    first = run.mismatch()[0]
    assert (first.step, first.version, first.labels) == (1, 0, {})
    assert first.values["mismatch/abs_diff_mean"] == pytest.approx(0.4 / 5, abs=1e-6)
    tokens = run.frames(Tokens)[0]
    ids = np.frombuffer(tokens.ids, "<i4").tolist()
    assert sorted(ids) == [11, 13, 14, 21, 22]
    positions = dict(zip(ids, np.frombuffer(tokens.position, "<i4").tolist(), strict=True))
    assert positions == {11: 0, 13: 2, 14: 3, 21: 0, 22: 1}
    assert set(np.frombuffer(tokens.token_version, "<i4").tolist()) == {0}
    rollout = dict(zip(ids, np.frombuffer(tokens.rollout, "<f4").tolist(), strict=True))
    assert rollout == pytest.approx({11: -1.0, 13: -0.5, 14: -2.0, 21: -0.25, 22: -1.5})
    assert [event.text for event in run.events("pairs.kind")] == [
        "the trainer's logprob is the old: under the weights that sampled the token; "
        "the sampling temperature of 0.8 is applied on the trainer's side"
    ]
    works(release, "pairs")

    run.steps_until(lambda: any(span.version_after == 1 for span in run.frames(Span)), "a sync of step 1")
    span = next(span for span in run.frames(Span) if span.version_after == 1)
    assert (span.phase, span.ok, span.step) == ("total", True, 1)
    works(release, "spans")

    own = {"verl": "policy/entropy", "openrlhf": "policy/lr", "skyrl": "policy/entropy"}[release.package]
    run.steps_until(lambda: [one for one in run.frames(Metrics) if own in one.values and one.step > 0], own)
    assert run.state().temperature == pytest.approx(0.8)
    works(release, "metrics")

    asked = run.asked("sync")
    run.steps_until(lambda: run.acks(asked)[-1].state == "applied", "answer to the sync")
    answer = run.acks(asked)[-1]
    assert answer.detail.startswith("the engines hold v")
    assert answer.data["version"] == answer.data["step"]
    works(release, "sync request")

    paused = run.asked("pause")
    run.steps_until(lambda: run.state().status == "paused", "pause")
    assert run.acks(paused)[-1].state == "applied"
    at = run.state().step
    run.training.step()
    run.training.step()
    assert (run.state().status, run.state().step) == ("paused", at)
    run.client.command("resume", {}, timeout=PATIENCE)
    until(lambda: run.state().status == "running" and run.state().step > at, "the run to go on")
    works(release, "pause")

    assert run.training.end() == 0, run.training.said[-3000:]
    if release.package != "openrlhf":  # its loop has no place of its own where it ends
        until(lambda: run.state().status == "finished", "the end")


@newest
def test_tokens_that_may_be_older_than_the_weights_are_labelled(
    release: Release, hub: Hub, stack: ExitStack, tmp_path: Path
) -> None:
    needs(release)
    mode = {"verl": "separate_async", "openrlhf": "async", "skyrl": "async"}[release.package]
    run = Joined(hub, release, stack, tmp_path, mode)
    run.steps_until(run.mismatch, "pairs")
    assert set(run.mismatch()[0].labels.values()) == {"with staleness if async"}
    assert set(np.frombuffer(run.frames(Tokens)[0].token_version, "<i4").tolist()) == {-1}
    assert run.training.end() == 0


@newest
def test_without_a_hook_one_sentence_and_the_rest_goes_on(
    release: Release, hub: Hub, stack: ExitStack, tmp_path: Path
) -> None:
    needs(release)
    hook, sentence = {
        "verl": ("verl.utils.debug.metrics:calculate_debug_metrics", "token pairs are not recorded"),
        "openrlhf": (
            "openrlhf.trainer.ppo_trainer:BasePPOTrainer.save_logs_and_checkpoints",
            "no number of its steps is recorded, and no request is carried out",
        ),
        "skyrl": (
            "skyrl.backends.skyrl_train.workers.worker_dispatch:WorkerDispatch.save_weights_for_sampler",
            "syncs are not recorded",
        ),
    }[release.package]
    if release.package == "skyrl":
        pytest.skip("its loop itself calls the function that would be missing: tests/unit/test_adapter_skyrl.py")
    run = Joined(hub, release, stack, tmp_path, "sync", hook)
    run.steps_until(lambda: run.events("adapter.hook-missing"), "sentence")
    run.training.step()
    (event,) = run.events("adapter.hook-missing")
    place = hook.replace(":", ".")
    assert event.text == f"{SHORT[release.package]} {release.version}: {place} is not there, so that {sentence}"
    assert event.level == "warn"
    run.steps_until(lambda: any(span.version_after == 1 for span in run.frames(Span)), "a sync all the same")
    assert run.training.end() == 0
    assert run.training.said.count(sentence) == 1


def test_skyrl_without_logprobs_of_its_own_says_so_once(hub: Hub, stack: ExitStack, tmp_path: Path) -> None:
    release = next(one for one in RELEASES if one.name == "skyrl-0.4.0")
    needs(release)
    run = Joined(hub, release, stack, tmp_path, "skip")
    run.steps_until(lambda: run.state().step >= 3 if run.frames(RunState) else False, "three steps")
    (event,) = run.events("adapter.not-recorded")
    assert event.text.endswith(
        "token pairs are not recorded: the losses of this run are optimised against the engine's logprobs: "
        "SkyRL computes none of its own"
    )
    assert run.mismatch() == []
    assert run.training.end() == 0


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed for docs/frameworks.md; a release that was not run says so."""
    columns = ("metrics", "pairs", "spans", "sync request", "pause")
    with capsys.disabled():
        print("\n| release |", " | ".join(columns), "|")
        for release in RELEASES:
            got = TABLE.get(release.name, {})
            print(f"| {release.name} |", " | ".join(got.get(one, release.missing or "not run") for one in columns), "|")
