"""The task, its tokenizer and the tiny model, as a consumer of the saved directory sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from driftline.config import Config, ModelConfig, RunConfig, TaskConfig
from trainer.errors import TrainerError
from trainer.learn import models, tiny_model
from trainer.learn.tasks import Prompt, ReverseDigits

SMALL = ModelConfig(hidden=32, layers=1, heads=2)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_model.make_tokenizer()


def test_text_survives_the_tokenizer_character_by_character(tokenizer) -> None:
    text = "Reverse 0123456789 = aZ~\n"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


def test_prompts_share_the_prefix_and_only_the_prefix(tokenizer) -> None:
    task = ReverseDigits(TaskConfig(digits=6, prefix=32), tokenizer, seed=1)
    prompts = [task.prompt(i) for i in range(50)]
    assert {p.ids[:32] for p in prompts} == {prompts[0].ids[:32]}
    assert len({p.ids for p in prompts}) == 50
    assert all(len(p.ids) == 32 + 7 for p in prompts)
    assert all(p.answer == p.text[:-1][::-1] for p in prompts)


def test_prompts_are_a_function_of_seed_and_index(tokenizer) -> None:
    def texts(seed: int) -> list[str]:
        task = ReverseDigits(TaskConfig(), tokenizer, seed)
        return [task.prompt(i).text for i in range(20)]

    assert texts(3) == texts(3)
    assert texts(3) != texts(4)


@pytest.mark.parametrize(
    ("given", "reward"),
    [
        ("654321", 1.0),
        ("654320", 5 / 6),
        ("123456", 0.0),
        ("65", 2 / 6),
        ("", 0.0),
        ("6543219", 1.0),
        ("x54321", 5 / 6),
    ],
)
def test_reward_is_the_share_of_digits_in_their_places(tokenizer, given: str, reward: float) -> None:
    task = ReverseDigits(TaskConfig(digits=6), tokenizer, seed=0)
    prompt = Prompt(index=0, ids=(), text="123456=", answer="654321")
    response = tokenizer.encode(given, add_special_tokens=False)
    assert task.reward(prompt, response) == pytest.approx(reward)
    ended = [*response, tokenizer.eos_token_id, *response]
    assert task.length(ended) == len(response) + 1
    assert task.reward(prompt, ended) == pytest.approx(reward)


def test_the_right_answer_gets_the_whole_reward_and_ends(tokenizer) -> None:
    task = ReverseDigits(TaskConfig(digits=9), tokenizer, seed=5)
    for index in range(10):
        prompt = task.prompt(index)
        answer = task.answer_ids(prompt)
        assert task.reward(prompt, answer) == 1.0
        assert task.length(answer) == len(answer) == 10


def test_a_saved_model_loads_again_with_the_same_weights_and_tokens(tmp_path: Path, tokenizer) -> None:
    model = tiny_model.make_model(SMALL, seed=7, max_length=64)
    models.export(model, tokenizer, tmp_path / "m", torch.float32)
    again, tokens = models.load_path(tmp_path / "m")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dict(again.named_parameters())[name])
    assert tokens.encode("12=", add_special_tokens=False) == tokenizer.encode("12=", add_special_tokens=False)
    assert tokens.eos_token_id == tokenizer.eos_token_id


def test_saving_in_bfloat16_leaves_the_master_weights_alone(tmp_path: Path, tokenizer) -> None:
    model = tiny_model.make_model(SMALL, seed=7, max_length=64)
    before = {n: p.clone() for n, p in model.named_parameters()}
    models.export(model, tokenizer, tmp_path / "m", torch.bfloat16)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    again, _ = models.load_path(tmp_path / "m")
    assert all(torch.equal(before[n].bfloat16().float(), p) for n, p in again.named_parameters())


def test_seed_decides_the_weights() -> None:
    def first(seed: int) -> torch.Tensor:
        return next(tiny_model.make_model(SMALL, seed=seed, max_length=64).parameters())

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_model_path_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    config = Config(run=RunConfig(), model=ModelConfig(path=str(tmp_path / "no-such-model")))
    with pytest.raises(TrainerError, match=r"model\.path: .*no-such-model is not a Hugging Face model directory") as e:
        models.load(config)
    assert "\n" not in str(e.value)


def test_a_broken_model_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TrainerError, match="cannot be loaded") as e:
        models.load_path(tmp_path)
    assert "\n" not in str(e.value)
