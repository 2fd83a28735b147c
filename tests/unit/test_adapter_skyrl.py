"""SkyRL's adapter without SkyRL: which way in a trainer gets, and what it says where something is not there."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.adapters.skyrl import DriftlineCallback, attach, pairs_of
from driftline.client import Client
from driftline.client import attach as to
from driftline.frames import Event, Metrics
from tests.unit.hubs import Hub, until

BATCH = {
    "sequences": np.array([[0, 1, 5, 6], [1, 2, 3, 7]]),
    "loss_mask": np.array([[1.0, 1.0], [0.0, 1.0]]),
    "rollout_logprobs": np.array([[-1.0, -2.0], [0.0, -0.5]]),
    "action_log_probs": np.array([[-1.5, -2.0], [-9.0, -0.5]]),
}


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    for name in ("DRIFTLINE_RUN", "DRIFTLINE_KEY", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:
        yield stack


class Trainer:
    """What SkyRL's trainers have in common, with a loop that fires no events."""

    def __init__(self) -> None:
        self.cfg, self.global_step = types.SimpleNamespace(), 1
        self.tracker = types.SimpleNamespace(log=lambda data, step, commit=False: None, finish=lambda: None)

    def train_critic_and_policy(self, data: Any) -> dict[str, float]:
        return {"policy_loss": 0.5}

    async def train(self) -> None: ...


class Firing(Trainer):
    """One whose loop does."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: list[Any] = []

    def add_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def _fire(self, event: str) -> None: ...

    async def train(self) -> None:
        self._fire("on_train_start")


def test_pairs_are_of_the_last_tokens_and_of_the_mask() -> None:
    pairs = pairs_of(BATCH, 3)
    assert pairs.ids.tolist() == [5, 6, 7]
    assert pairs.seq.tolist() == [0, 0, 1]
    assert pairs.position.tolist() == [0, 1, 0]
    assert set(pairs.version.tolist()) == {3}


def test_without_a_run_a_trainer_stays_as_it_is(stack: ExitStack) -> None:
    trainer, firing = Trainer(), Firing()
    own = trainer.tracker.log
    assert not attach(trainer)
    assert trainer.tracker.log is own
    assert "train_critic_and_policy" not in vars(trainer)
    assert not attach(firing)


def test_events_that_it_does_not_know_are_ignored(stack: ExitStack) -> None:
    callback = DriftlineCallback()
    callback.on_some_new_event(1, 2, 3)
    callback.on_step_end(None, types.SimpleNamespace(batch=None), None)
    with pytest.raises(AttributeError):
        _ = callback.other


def test_a_trainer_that_fires_no_events_is_wrapped_and_says_what_it_lacks(tmp_path: Path, stack: ExitStack) -> None:
    hub = Hub(tmp_path)
    hub.start()
    stack.callback(hub.end)
    client = stack.enter_context(Client(*to(hub.run)))
    trainer, firing = Trainer(), Firing()
    assert attach(firing, run=hub.run.path)
    assert len(firing.callbacks) == 1
    assert attach(trainer, run=hub.run.path)
    assert trainer.train_critic_and_policy(BATCH) == {"policy_loss": 0.5}
    trainer.tracker.log({"policy/policy_entropy": 1.0, "trainer/global_step": 1}, step=1)
    asyncio.run(trainer.train())
    trainer.tracker.finish()

    def said(kind: type[Any]) -> list[Any]:
        return [frame for one in client.page(1).frames if isinstance(frame := one.frame(), kind)]

    until(lambda: any("policy/entropy" in one.values for one in said(Metrics)), "its numbers")
    (mismatch,) = [one for one in said(Metrics) if "mismatch/abs_diff_mean" in one.values]
    assert (mismatch.step, mismatch.version) == (1, 0)
    assert mismatch.values["mismatch/abs_diff_mean"] == pytest.approx(0.5 / 3)
    missing = [event.text for event in said(Event) if event.kind == "adapter.hook-missing"]
    assert [text.partition(": ")[2] for text in missing] == [
        "trainer.dispatch.save_weights_for_sampler is not there, so that syncs are not recorded"
    ]
