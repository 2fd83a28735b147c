"""The edges of a session: early stops, rollouts that are not what was asked for, and syncs that fail."""

from __future__ import annotations

import signal

import msgspec
import numpy as np
import pytest
import torch

from driftline.catalog.fixes import BY_ID
from driftline.config import ModelConfig, RolloutConfig, SyncConfig, TaskConfig
from driftline.frames import Command, EngineFix, Event
from engine import EngineError, Group, Sequence, SyncReport
from tests.unit.trainer_fakes import RecordingProbe, desk, first_state
from trainer import session
from trainer.control.sync_driver import SyncDriver
from trainer.errors import TrainerError
from trainer.learn import tiny_model
from trainer.learn.lm_head import Head
from trainer.learn.policy import Policy
from trainer.learn.tasks import ReverseDigits
from trainer.learn.versions import WeightStore
from trainer.measure.fix_states import UNKNOWN, States
from trainer.report import Reporter
from trainer.rollouts import Rollouts


class Answers:
    """A pool whose answers are given in advance."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def _next(self) -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def sync(self, weights, version, **policy) -> object:
        self.policy = policy
        return self._next()

    def fix_states(self) -> dict[str, list[EngineFix]]:
        return {fix_id: [EngineFix("engine-0", "off", "live")] for fix_id in BY_ID}

    def take(self, timeout) -> object:
        return self._next()

    def submit(self, request) -> None:
        pass


def driver(*answers: object) -> tuple[SyncDriver, RecordingProbe, Answers]:
    probe, store = RecordingProbe(), WeightStore(2)
    store.publish(3, {})
    policy = Policy(
        tiny_model.make_model(ModelConfig(hidden=32, layers=1, heads=2), seed=0, max_length=32),
        temperature=1.0,
        fp32_head=False,
        dtype=torch.float32,
    )
    config = SyncConfig(timeout=5.0, resume="barrier", retries=1)
    pool = Answers(*answers)
    made = desk(pool, store, Reporter(probe, first_state()), Head(policy, "fix"), config=config)
    return made.syncs, probe, pool


def test_a_stop_before_the_engines_are_up_becomes_a_sigterm_and_later_ones_a_command(monkeypatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(session.os, "kill", lambda pid, number: sent.append(number))
    inbox = session.Inbox()
    inbox.put_command(Command("a", "sync"))
    inbox.put_command(Command("b", "stop"))
    inbox.open()
    inbox.put_command(Command("c", "stop"))
    assert sent == [signal.SIGTERM]
    assert inbox.early_stops == ["b"]
    assert [inbox.commands.get_nowait().id for _ in range(2)] == ["a", "c"]


def test_an_engine_that_refused_its_weights_is_an_error_event_and_the_run_goes_on() -> None:
    good = SyncReport("engine-0", True, 2, 3, 10.0, 0.1, 0.2, 0.1, 0.4, 8, 0)
    bad = SyncReport("engine-1", False, 2, 2, 10.0, 0.3, 0.0, 0.0, 0.3, 8, 0, "no room; version 2 serves on")
    syncs, probe, pool = driver([good, bad])
    assert syncs.sync(3, "trainer").reports == [good, bad]
    assert pool.policy == {"timeout": 5.0, "barrier": True, "retries": 1}
    event = probe.of(Event)[-1]
    assert (event.kind, event.level) == ("sync.failed", "error")
    assert "engine-1: no room; version 2 serves on" in event.text
    assert syncs.take_latest() == {
        "sync/pause_s": 0.3, "sync/load_s": 0.2, "sync/verify_s": 0.0, "sync/reset_s": 0.0, "sync/resume_s": 0.1,
        "sync/total_s": 0.4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "says"),
    [(EngineError("engine-0: its process died"), "its process died"), (TimeoutError(), "within 5 s")],
)
def test_a_dead_or_silent_engine_is_one_sentence(error: BaseException, says: str) -> None:
    syncs, probe, _ = driver(error)
    with pytest.raises(EngineError, match=says):
        syncs.sync(3, "trainer")
    assert probe.of(Event)[-1].kind == "sync.failed"
    assert syncs.take_latest() == {}


def group(number: int, samples: int, versions: tuple[int, int] = (0, 0), epochs: tuple[int, int] = (0, 0)) -> Group:
    counts = np.array([versions, epochs], np.int32)
    one = Sequence(np.array([5, 1], np.int32), np.zeros(2, np.float32), *counts, "stop")
    states = {0: dict.fromkeys(BY_ID, "off"), 3: dict.fromkeys(BY_ID, "on")}
    return Group(number, "engine-0", [1], [one] * samples, 0.0, 0.0, states)


def test_the_oldest_completed_groups_come_first_and_the_rest_waits() -> None:
    task = ReverseDigits(TaskConfig(), tiny_model.make_tokenizer(), seed=0)
    pool = Answers([group(2, 2)], [group(0, 2), group(1, 2)])
    rollouts = Rollouts(pool, task, RolloutConfig(prompts=2, samples=2, ahead=1), next_prompt=0, states=States())
    rollouts.submit_prompts()
    assert rollouts.next_prompt == 3
    assert rollouts.take_batch(0.0, 0) is None
    assert [rollout.prompt.index for rollout in rollouts.take_batch(0.0, 0).rollouts] == [2, 0]
    assert rollouts.waiting == 1
    rollouts.submit_prompts()
    assert rollouts.next_prompt == 5


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(group(9, 2), "group 9, which is not in flight"), (group(0, 1), "1 samples for group 0, 2 were asked for")],
)
def test_a_group_that_was_not_asked_for_is_one_sentence(wrong: Group, says: str) -> None:
    task = ReverseDigits(TaskConfig(), tiny_model.make_tokenizer(), seed=0)
    config = RolloutConfig(prompts=1, samples=2, ahead=0)
    rollouts = Rollouts(Answers([wrong]), task, config, next_prompt=0, states=States())
    rollouts.submit_prompts()
    with pytest.raises(TrainerError, match=says):
        rollouts.take_batch(0.0, 0)


def rollouts_of(config: RolloutConfig, *answers: object) -> Rollouts:
    task = ReverseDigits(TaskConfig(), tiny_model.make_tokenizer(), seed=0)
    rollouts = Rollouts(Answers(*answers), task, config, next_prompt=0, states=States())
    rollouts.submit_prompts()
    return rollouts


def test_stale_groups_are_dropped_and_replaced_or_kept_and_counted_either_way() -> None:
    config = RolloutConfig(prompts=2, samples=2, ahead=1, max_lag=2, stale="drop")
    groups = [group(0, 2, (3, 5)), group(1, 2, (4, 5)), group(2, 2, (2, 2))]
    rollouts = rollouts_of(config, groups, [group(3, 2, (6, 6))], [])
    assert rollouts.take_batch(0.0, 6) is None, "two of three have a token of a version below 4"
    assert rollouts.waiting == 1
    rollouts.submit_prompts()
    assert rollouts.next_prompt == 5
    taken = rollouts.take_batch(0.0, 6)
    assert [rollout.prompt.index for rollout in taken.rollouts] == [1, 3]
    assert (taken.stale, taken.dropped) == (2, 2)
    kept = rollouts_of(msgspec.structs.replace(config, stale="keep"), groups).take_batch(0.0, 6)
    assert [rollout.prompt.index for rollout in kept.rollouts] == [0, 1]
    assert (kept.stale, kept.dropped) == (1, 0)
    never = rollouts_of(msgspec.structs.replace(config, max_lag=-1), groups).take_batch(0.0, 1_000)
    assert (never.stale, never.dropped) == (0, 0)


def test_every_token_knows_the_fix_state_that_sampled_it() -> None:
    config = RolloutConfig(prompts=1, samples=2, ahead=0)
    rollouts = rollouts_of(config, [group(0, 2, epochs=(0, 3))])
    sample = rollouts.take_batch(0.0, 0).rollouts[0].samples[0]
    assert sample.states == (0, 1)
    between = rollouts_of(config, [group(0, 2, epochs=(-1, 7))])
    assert between.take_batch(0.0, 0).rollouts[0].samples[0].states == (UNKNOWN, UNKNOWN)
