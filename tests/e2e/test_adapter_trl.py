"""The TRL adapter on real trainers of TRL's, without an engine: what it says where something is not there.

With an engine: tests/e2e/test_join_trl.py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from driftline.adapters import trl as adapter
from driftline.client import Client, attach
from driftline.config import ModelConfig
from driftline.frames import Ack, Event, Frame, Metrics, RunState, Tokens, floats
from tests.unit.hubs import PATIENCE, Hub, until
from trainer.learn.tiny_model import make_model, make_tokenizer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None,
    reason="TRL is not installed here; it is in constraints.txt, which make venv installs",
)
OPTIONS: dict[str, Any] = {
    "max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 4, "report_to": [],
    "logging_steps": 1, "save_strategy": "no", "use_cpu": True, "bf16": False, "disable_tqdm": True, "beta": 0.1,
    "temperature": 0.5, "model_init_kwargs": {"dtype": "float32"},
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("DRIFTLINE_RUN", "DRIFTLINE_KEY", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    hub = Hub(tmp_path)
    try:
        hub.start()
        yield hub
    finally:
        hub.end()


@pytest.fixture
def client(hub: Hub) -> Iterator[Client]:
    with Client(*attach(hub.run)) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its tokenizer on disk, where TRL looks for them."""
    folder = tmp_path_factory.mktemp("model")
    make_model(ModelConfig(), seed=0, max_length=128).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    MODEL.append(str(folder))
    return folder


MODEL: list[str] = []


def made(folder: Path, kind: str = "GRPO", **more: Any) -> Any:
    """A trainer as its users make it: of GRPO or RLOO."""
    # Here, not above: TRL takes seconds to import, and has vLLM's log say less in every process that it is imported in.
    import trl
    from datasets import Dataset

    config = getattr(trl, f"{kind}Config")
    trainer = getattr(trl, f"{kind}Trainer")
    return trainer(
        model=MODEL[-1],
        reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
        args=config(output_dir=str(folder / "out"), **OPTIONS | more),
        train_dataset=Dataset.from_dict({"prompt": [f"say {n}" for n in range(8)]}),
    )


def said(client: Client) -> list[Frame]:
    return [one.frame() for one in client.page(1).frames]


def texts(client: Client, kind: str) -> list[str]:
    return [one.text for one in said(client) if isinstance(one, Event) and one.kind == kind]


def test_without_a_run_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFTLINE_RUN", raising=False)
    trainer = made(tmp_path)
    callbacks = list(trainer.callback_handler.callbacks)
    assert not adapter.attach(trainer).active
    assert trainer.callback_handler.callbacks == callbacks
    assert "_generate_and_score_completions" not in vars(trainer)


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_a_run_without_an_engine_says_what_is_not_recorded(hub: Hub, client: Client, tmp_path: Path, kind: str) -> None:
    trainer = made(tmp_path, kind)
    adapter.attach(trainer, run=hub.run.path)
    command = client.command("sync", {}, timeout=PATIENCE)
    trainer.train()
    assert "there is no engine to send weights to" in client.wait(command, PATIENCE).detail
    until(lambda: any(isinstance(one, RunState) and one.status == "finished" for one in said(client)), "its end")
    numbers = [one for one in said(client) if isinstance(one, Metrics)]
    assert {one.step for one in numbers} == {1, 2}
    assert numbers[0].values.keys() >= {"reward/mean", "policy/entropy", "loss", "num_tokens"}
    assert texts(client, "adapter.not-recorded") == [adapter.NO_PAIRS]
    assert not texts(client, "adapter.failed")
    assert not texts(client, "adapter.hook-missing")
    states = [one for one in said(client) if isinstance(one, RunState)]
    assert (states[-1].step, states[-1].steps, states[-1].temperature) == (2, 2, 0.5)


def output(**more: Any) -> dict[str, Any]:
    """What TRL gives of two sequences: one padded, one with a tool's answer and a logprob that vLLM did not have."""
    return {
        "prompt_ids": torch.tensor([[0, 5], [6, 7]]),
        "prompt_mask": torch.tensor([[0, 1], [1, 1]]),
        "completion_ids": torch.tensor([[11, 12, 0, 0], [13, 14, 15, 16]]),
        "completion_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]),
        "tool_mask": torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1]]),
        "old_per_token_logps": torch.tensor([[-1.0, -2.0, 0.0, 0.0], [-1.5, -9.0, -2.5, -3.5]], dtype=torch.bfloat16),
        "sampling_per_token_logps": torch.tensor([[-1.0, -2.25, 0.0, 0.0], [-1.5, 0.0, float("nan"), -3.5]]),
        **more,
    }


def scoring(trainer: Any, given: Any) -> None:
    """Have the trainer's method return this, as within its training."""
    trainer.model.train()
    trainer._generate_and_score_completions = lambda inputs: given


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_token_pairs_leave_out_what_no_engine_sampled(
    hub: Hub, client: Client, tmp_path: Path, stack: ExitStack
) -> None:
    trainer = made(tmp_path)
    given = output()
    scoring(trainer, given)
    stack.callback(adapter.attach(trainer, run=hub.run.path).close)
    assert trainer._generate_and_score_completions([]) is given
    until(lambda: any(isinstance(one, Tokens) for one in said(client)), "the tokens")
    (tokens,) = [one for one in said(client) if isinstance(one, Tokens)]
    assert sorted(floats(tokens.rollout)) == [-3.5, -2.25, -1.5, -1.0]
    assert tokens.step == 1
    assert tokens.prompts[0] == trainer.processing_class.decode([5]), "without its padding"
    (numbers,) = [one for one in said(client) if isinstance(one, Metrics)]
    assert numbers.values["mismatch/abs_diff_mean"] == 0.25 / 4
    assert "temperature of 0.5 is applied" in texts(client, "pairs.kind")[0]
    assert texts(client, "pairs.left-out") == ["left out so far: 1 tokens whose logprob is no finite number"]


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"sampling_per_token_logps": None}, "adapter.not-recorded", "use_vllm=False"),
        ({"old_per_token_logps": None}, "adapter.not-recorded", "vllm_importance_sampling_correction=False"),
        ({"completion_ids": torch.zeros(2, 3)}, "adapter.failed", "wanted [B, T] = [2, 3]"),
        ({"completion_mask": "gone"}, "adapter.failed", "pairs: AttributeError"),
    ],
)
def test_an_output_of_another_form_is_an_event_and_goes_on_to_trl(
    hub: Hub, client: Client, tmp_path: Path, stack: ExitStack, more: dict[str, Any], kind: str, words: str
) -> None:
    trainer = made(tmp_path)
    given = output(**more)
    scoring(trainer, given)
    stack.callback(adapter.attach(trainer, run=hub.run.path).close)
    for _ in range(2):
        assert trainer._generate_and_score_completions([]) is given
    until(lambda: any(words in text for text in texts(client, kind)), words)
    assert len([text for text in texts(client, kind) if words in text]) == 1


def test_an_evaluation_gives_no_pairs(hub: Hub, client: Client, tmp_path: Path, stack: ExitStack) -> None:
    trainer = made(tmp_path)
    scoring(trainer, output())
    stack.callback(adapter.attach(trainer, run=hub.run.path).close)
    trainer.model.eval()
    trainer._generate_and_score_completions([])
    trainer.model.train()
    trainer._generate_and_score_completions([])
    until(lambda: any(isinstance(one, Tokens) for one in said(client)), "the tokens")
    assert len([one for one in said(client) if isinstance(one, Metrics)]) == 1


def test_hooks_that_are_gone_are_named(
    hub: Hub, client: Client, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = made(tmp_path)
    monkeypatch.delattr(type(trainer), "_generate_and_score_completions")
    trainer.use_vllm = True
    stack.callback(adapter.attach(trainer, run=hub.run.path).close)
    until(lambda: len(texts(client, "adapter.hook-missing")) == 2, "both")
    first, second = texts(client, "adapter.hook-missing")
    assert "_generate_and_score_completions is not there, so that there are no token pairs" in first
    assert "vllm_generation.sync_weights is not there, so that syncs are not seen" in second


def test_another_rank_is_inert(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made(tmp_path)
    monkeypatch.setattr(type(trainer.accelerator), "process_index", property(lambda _: 3))
    assert not adapter.attach(trainer, run=hub.run.path).active


def test_a_sync_of_several_processes_is_refused(
    hub: Hub, client: Client, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = made(tmp_path)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", property(lambda _: 4))

    class Generation:
        def sync_weights(self) -> None:
            raise AssertionError("one process alone")

    trainer.use_vllm, trainer.vllm_generation = True, Generation()
    joined = adapter.attach(trainer, run=hub.run.path)
    stack.callback(joined.close)
    command = client.command("sync", {}, timeout=PATIENCE)
    until(lambda: joined.connected, "it to join")
    ends = [one for one in trainer.callback_handler.callbacks if type(one).__name__ == "DriftlineCallback"]

    def refused() -> bool:
        ends[0].on_step_end(trainer.args, trainer.state, trainer.control)
        return any(isinstance(one, Ack) and one.state == "refused" for one in said(client))

    until(refused, "an answer")
    assert "4 processes train together" in client.wait(command, PATIENCE).detail
