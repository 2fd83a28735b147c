"""The whole loop over a policy sampler (no engine): the numbers of a run, its frames, checkpoints and resumption."""

from __future__ import annotations

import copy
import queue
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from driftline.catalog import metrics
from driftline.config import Config, ModelConfig, RolloutConfig, SamplingConfig, TaskConfig, TrainerConfig
from driftline.frames import Command, Event, RunState
from driftline.rundir import RunDir
from tests.unit.hubs import until
from tests.unit.trainer_fakes import PolicySampler, RecordingProbe, desk, first_state
from trainer import checkpoint
from trainer.control.command_thread import CommandThread
from trainer.errors import TrainerError
from trainer.learn import models, tiny_model
from trainer.learn.policy import Policy
from trainer.loop import Loop
from trainer.report import Reporter, pick_rows
from trainer.setup import build

CONFIG = Config(
    model=ModelConfig(hidden=32, layers=1, heads=2, warm_start_batches=2),
    task=TaskConfig(digits=2, prefix=4),
    rollout=RolloutConfig(prompts=3, samples=4, ahead=2),
    sampling=SamplingConfig(temperature=0.7, max_tokens=4),
    trainer=TrainerConfig(threads=1, keep_versions=2),
    fixes={"fp32-lm-head": "on"},
)


class Run:
    """A loop over a policy sampler in a run directory of its own."""

    def __init__(self, path: Path, config: Config = CONFIG, *, resume: bool = False) -> None:
        self.said: list[str] = []
        self.setup = build(config, RunDir(path), resume=resume, digest="abc", on_progress=self.said.append)
        policy = self.setup.policy
        twin = Policy(
            copy.deepcopy(policy.model), temperature=policy.temperature, fp32_head=True, dtype=self.setup.dtype
        )
        twin.load(self.setup.reference)
        self.pool = PolicySampler(twin, max_tokens=4, eos=self.setup.tokenizer.eos_token_id)
        self.pool.shadow_share = 0.5
        self.pool.fixes.update(config.fixes)
        self.probe = RecordingProbe()
        self.report = Reporter(self.probe, first_state(), self.setup.tokenizer)
        self.desk = desk(self.pool, self.setup.store, self.report, self.setup.head, config.fixes)
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        parts = self.pool, self.desk.syncs
        self.control = CommandThread(
            self.commands, *parts, self.desk.fixes, self.report, lease=60.0, correction=config.correction.value
        )
        self.loop = Loop(config, RunDir(path), self.setup, *parts, self.control, self.desk.fixes, self.report)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("run"))
    run.loop.run(5)
    return run


def test_every_step_has_every_number_of_the_catalogue(run: Run) -> None:
    assert [m.step for m in run.probe.metrics] == [1, 2, 3, 4, 5]
    assert [m.version for m in run.probe.metrics] == [0, 1, 2, 3, 4]
    for frame in run.probe.metrics:
        assert set(metrics.BY_NAME) <= set(frame.values)
        assert np.isfinite(list(frame.values.values())).all()
    assert frame.labels["policy/clip_fraction"] == "ppo"


def test_a_sampler_of_the_same_weights_has_no_mismatch_and_older_tokens_are_stale(run: Run) -> None:
    for frame in run.probe.metrics:
        assert frame.values["mismatch/abs_diff_max"] < 1e-4
        assert frame.values["mismatch/ess"] == pytest.approx(1, abs=1e-4)
    assert run.probe.metrics[0].values["staleness/abs_diff_mean"] == 0
    assert run.probe.metrics[-1].values["async/version_lag_mean"] > 0
    assert run.probe.metrics[-1].values["staleness/abs_diff_mean"] > 1e-3


def test_an_offset_of_the_sampler_s_logprobs_is_mismatch_and_nothing_else(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.pool.offset = -0.25
    run.loop.run(2)
    for frame in run.probe.metrics:
        assert frame.values["mismatch/abs_diff_mean"] == pytest.approx(0.25, abs=1e-4)
        assert frame.values["mismatch/kl_k1"] == pytest.approx(-0.25, abs=1e-4)
    assert run.probe.metrics[0].values["staleness/abs_diff_mean"] == 0


def test_weights_are_synced_every_step_with_rollouts_ahead(run: Run) -> None:
    assert run.pool.syncs == [1, 2, 3, 4, 5]
    assert run.pool.submitted == 5 * 3 + 3 + 2
    assert run.probe.of(RunState)[-1].step == 5
    assert run.probe.of(RunState)[-1].version == 5


def test_at_its_end_the_loop_accounts_for_every_group(run: Run) -> None:
    (account,) = (event.data for event in run.probe.of(Event) if event.kind == "rollouts.account")
    assert account["asked"] == run.pool.submitted
    assert account["trained"] == 5 * 3
    assert account["asked"] == sum(account[what] for what in ("trained", "dropped", "waiting", "outstanding"))
    assert [frame.values["rollout/oldest_groups"] for frame in run.probe.metrics] == [3.0] * 5


def test_token_frames_hold_the_logprobs_of_whole_sequences(run: Run) -> None:
    for call in run.probe.token_calls:
        n = len(call["ids"])
        assert {len(call[k]) for k in ("seq", "position", "token_version", "rollout", "trainer", "pieces")} == {n}
        assert len(call["prompts"]) == len(call["rewards"]) == len(call["engines"]) == len(set(call["seq"].tolist()))
        assert np.allclose(call["rollout"], call["trainer"], atol=1e-4)
        assert call["prompts"][0].endswith("=")


def test_tokens_older_than_what_is_kept_are_reported_not_scored_wrongly(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, rollout=RolloutConfig(prompts=1, samples=2, ahead=6))
    run = Run(tmp_path, config)
    run.loop.run(6)
    lost = [event for event in run.probe.of(Event) if event.kind == "tokens.unscored"]
    assert lost
    assert all(frame.values.get("mismatch/abs_diff_max", 0) < 1e-4 for frame in run.probe.metrics)


def test_a_stop_ends_the_loop_before_the_next_step(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.control.stop()
    run.loop.run(5)
    assert run.loop.step == 0


def test_a_stop_does_not_wait_for_an_engine_that_is_away(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.control.engine_event("engine.restarting", run.pool.names[0])
    thread = threading.Thread(target=lambda: run.loop.run(5))
    thread.start()
    until(lambda: run.loop.step == 1, "the sync after the first update, which waits for the engine")
    run.control.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert run.pool.syncs == []
    run.control.engine_event("engine.restarted", run.pool.names[0])
    assert not run.control.no_engine_up


def test_a_resumed_run_goes_on_where_it_was_with_the_engines_on_its_version(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.loop.run(3)
    first.loop.save()
    again = Run(tmp_path, resume=True)
    assert (again.setup.start.step, again.setup.start.version) == (3, 3)
    assert again.setup.start.next_prompt == first.loop._rollouts.next_prompt
    for name, weight in first.setup.policy.weights().items():
        assert np.array_equal(weight.numpy(), again.setup.policy.weights()[name].numpy())
        assert np.array_equal(first.setup.reference[name].numpy(), again.setup.reference[name].numpy())
    again.loop.run(5)
    assert again.pool.syncs == [3, 4, 5]
    assert [m.step for m in again.probe.metrics] == [4, 5]
    assert again.probe.metrics[0].values["mismatch/abs_diff_max"] < 1e-4


def test_a_local_model_directory_is_trained_as_it_is_and_resumed(tmp_path: Path) -> None:
    path = tmp_path / "some-model"
    models.export(
        tiny_model.make_model(CONFIG.model, seed=4, max_length=64), tiny_model.make_tokenizer(), path, torch.float32
    )
    config = msgspec.structs.replace(CONFIG, model=ModelConfig(path=str(path)))
    run = Run(tmp_path / "run", config)
    assert run.setup.model_path == path
    assert not (tmp_path / "run" / "model").exists()
    assert not any("warm start" in text for text in run.said), "a user's own model is not warmed up unasked"
    run.loop.run(2)
    run.loop.save()
    again = Run(tmp_path / "run", config, resume=True)
    assert again.setup.start.step == 2
    assert all(np.array_equal(again.setup.reference[n], w) for n, w in run.setup.reference.items())


def test_checkpoints_come_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, checkpoint=msgspec.structs.replace(CONFIG.checkpoint, every=2))
    run = Run(tmp_path, config)
    run.loop.run(5)
    run.loop.save()
    run.loop.save()
    names = [p.name for p in checkpoint.complete(RunDir(tmp_path).checkpoints)]
    assert names == ["step-00000005", "step-00000004"]


def test_resuming_without_a_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="no checkpoint to resume from; start without --resume"):
        Run(tmp_path, resume=True)


def test_a_pause_in_the_middle_holds_the_loop_until_it_is_resumed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.control.start()
    thread = threading.Thread(target=lambda: run.loop.run(10_000))
    thread.start()
    try:
        run.probe.wait(lambda: bool(run.probe.metrics))
        run.commands.put(Command("pause", "pause"))
        assert run.probe.answer("pause").state == "applied"
        # A step that was past its last gate still ends; after it nothing moves.
        deadline = time.monotonic() + 30
        while run.loop.step != len(run.probe.metrics) and time.monotonic() < deadline:
            time.sleep(0.01)
        held = run.loop.step
        run.commands.put(Command("resume", "resume"))
        assert run.probe.answer("resume").state == "applied"
        run.probe.wait(lambda: run.loop.step > held + 1)
    finally:
        run.control.stop()
        thread.join(60)
        run.control.close()
    assert not thread.is_alive()


def test_the_worst_sequences_are_picked_first_and_none_twice() -> None:
    size = np.zeros((40, 3))
    size[[7, 21]] = [[9, 9, 9], [5, 5, 5]]
    scored = np.ones((40, 3), dtype=bool)
    scored[3] = False
    rows = pick_rows(size, scored, np.random.default_rng(0))
    assert rows[:2].tolist() == [7, 21]
    assert len(rows) == len(set(rows.tolist())) == 16
    assert 3 not in rows
    assert pick_rows(size, np.zeros_like(scored), np.random.default_rng(0)).size == 0
