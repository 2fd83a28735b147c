"""Policy, versions and warm start on tiny models: numbers against the model's own logits in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from driftline.config import ModelConfig, TaskConfig, TrainerConfig
from trainer.errors import TrainerError
from trainer.learn import policy as policy_module
from trainer.learn import tiny_model
from trainer.learn.batch import Batch, Sample, collate
from trainer.learn.correction import Correction
from trainer.learn.objective import group_advantages
from trainer.learn.policy import Policy
from trainer.learn.tasks import ReverseDigits
from trainer.learn.update import Updater
from trainer.learn.versions import Scorer, WeightStore
from trainer.learn.warm_start import warm_start

SMALL = ModelConfig(hidden=32, layers=2, heads=2)
T = 0.7


def uncorrected(batch: Batch) -> Correction:
    """What no correction makes of a step: the objective divides by the engine's logprobs, every weight is one."""
    return Correction(batch.rollout, None, {})


def make_policy(seed: int = 0, *, scale: float = 4.0, **options) -> Policy:
    """A policy whose logits are spread enough to matter (`scale` on the head)."""
    model = tiny_model.make_model(SMALL, seed=seed, max_length=128)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(scale * 5)
    return Policy(model, **{"temperature": T, "fp32_head": True, "dtype": torch.float32, **options})


def make_samples(lengths, seed: int = 0, version: int = 0) -> list[Sample]:
    generator = torch.Generator().manual_seed(seed)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 90, (n,), generator=generator).tolist())

    return [Sample(ids(5 + n % 3), ids(n), (-1.0,) * n, (version,) * n, 0.5, "engine-0", "") for n in lengths]


@torch.no_grad()
def reference(model, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprobs and entropy from the model's own logits, one sequence alone, in float64."""
    double = copy.deepcopy(model).double()
    logits = double(input_ids=torch.tensor([sample.prompt + sample.response])).logits[0].double() / T
    logprobs = torch.log_softmax(logits, -1)
    at = torch.arange(len(sample.prompt) - 1, len(sample.prompt) + len(sample.response) - 1)
    own = logprobs[at, torch.tensor(sample.response)]
    return own, -(logprobs[at].exp() * logprobs[at]).sum(-1)


@pytest.mark.parametrize("budget", [None, 3])
def test_logprobs_and_entropy_are_those_of_each_sequence_alone(monkeypatch, budget) -> None:
    policy = make_policy()
    if budget:
        monkeypatch.setattr(policy_module, "LOGIT_BUDGET", budget * policy.model.config.vocab_size)
    samples = make_samples([7, 1, 4, 6])
    batch = collate(samples, pad_id=0)
    logprobs, entropy = policy.score(batch)
    for row, sample in enumerate(samples):
        want, wanted_entropy = reference(policy.model, sample)
        got = logprobs[row, : len(sample.response)].double()
        assert torch.allclose(got, want, rtol=1e-5, atol=2e-5)
        assert torch.allclose(entropy[row, : len(sample.response)].double(), wanted_entropy, rtol=1e-5, atol=2e-5)


def test_a_head_in_pieces_has_the_same_gradient(monkeypatch) -> None:
    batch = collate(make_samples([6, 3]), pad_id=0)

    def gradient(budget: int) -> torch.Tensor:
        policy = make_policy()
        monkeypatch.setattr(policy_module, "LOGIT_BUDGET", budget)
        logprobs, entropy = policy.score(batch)
        ((logprobs + 0.1 * entropy) * batch.mask).sum().backward()
        return torch.cat([p.grad.flatten() for p in policy.model.parameters()])

    whole, pieces = gradient(2**25), gradient(400)
    assert (whole - pieces).norm() / whole.norm() < 1e-5


def test_a_bfloat16_head_is_visibly_not_a_float32_head() -> None:
    batch = collate(make_samples([8] * 8), pad_id=0)
    right, rough = make_policy().logprobs(batch), make_policy(fp32_head=False).logprobs(batch)
    difference = (right - rough).abs().mean()
    assert 1e-4 < difference < 0.1


def test_a_bfloat16_body_sends_and_scores_bfloat16_weights_and_learns_in_float32() -> None:
    policy = make_policy(dtype=torch.bfloat16)
    weights = policy.weights()
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    batch = collate(make_samples([6] * 6), pad_id=0)
    exact, rounded = make_policy().logprobs(batch), make_policy(dtype=torch.bfloat16)
    rounded.load(weights)
    assert torch.equal(rounded.logprobs(batch), policy.logprobs(batch)), "master and sent weights are one policy"
    assert 1e-4 < (exact - policy.logprobs(batch)).abs().mean() < 0.2
    policy.score(batch)[0].sum().backward()
    assert {p.grad.dtype for p in policy.model.parameters()} == {torch.float32}


def test_the_head_check_knows_a_model_that_bends_its_logits() -> None:
    policy = make_policy()
    text = torch.randint(3, 90, (1, 12))
    policy.check_head(text)
    policy.model.lm_head.register_forward_hook(lambda module, args, out: torch.tanh(out))
    with pytest.raises(TrainerError, match="changes its logits after the last projection"):
        policy.check_head(text)


def test_a_logprob_that_is_not_finite_does_not_count() -> None:
    sample = make_samples([4])[0]
    broken = Sample(sample.prompt, sample.response, (-1.0, float("nan"), float("-inf"), -1.0), (0,) * 4, 0, "", "")
    batch = collate([broken], pad_id=0)
    assert batch.mask.tolist() == [[True, False, False, True]]
    assert torch.isfinite(batch.rollout).all()


def test_weights_round_trip_and_are_a_copy() -> None:
    policy, other = make_policy(1), make_policy(2)
    weights = policy.weights()
    other.load(weights)
    assert all(torch.equal(a, b) for a, b in zip(policy.model.parameters(), other.model.parameters(), strict=True))
    with torch.no_grad():
        next(policy.model.parameters()).zero_()
    assert next(iter(weights.values())).any()


def test_every_token_is_scored_under_the_weights_that_sampled_it() -> None:
    store, policies = WeightStore(keep=3), [make_policy(seed) for seed in range(5)]
    for version, policy in enumerate(policies):
        store.publish(version, policy.weights())
    samples = [
        Sample(s.prompt, s.response, s.logprobs, versions, 0.0, "", "")
        for s, versions in zip(make_samples([4, 4, 4]), [(2, 2, 3, 4), (4, 4, 4, 4), (1, 1, 2, 2)], strict=True)
    ]
    batch = collate(samples, pad_id=0)
    scores = Scorer(make_policy(9), store).score(batch, 4, torch.ones_like(batch.mask))
    own, scored = scores.own, scores.scored
    assert torch.allclose(scores.now[batch.mask], policies[4].logprobs(batch)[batch.mask], atol=1e-5)
    assert scored.tolist() == [[True] * 4, [True] * 4, [False, False, True, True]], "version 1 is not kept any more"
    for version in (2, 3, 4):
        here = scored & (batch.versions == version)
        assert torch.allclose(own[here], policies[version].logprobs(batch)[here], atol=1e-5)


def test_the_store_keeps_only_the_newest_and_refuses_to_go_back() -> None:
    store = WeightStore(keep=2)
    for version in (0, 1, 5):
        store.publish(version, {})
    assert store.newest()[0] == 5
    assert store.get(0) is None
    assert store.get(1) == {}
    with pytest.raises(ValueError, match="not newer"):
        store.publish(5, {})


def test_the_warm_start_learns_and_restores_the_temperature() -> None:
    policy = Policy(
        tiny_model.make_model(SMALL, seed=0, max_length=64), temperature=T, fp32_head=True, dtype=torch.float32
    )
    losses: list[float] = []
    task = ReverseDigits(TaskConfig(digits=2, prefix=4), tiny_model.make_tokenizer(), seed=0)
    warm_start(policy, task, 60, pad_id=0, progress=lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.6 * losses[0]
    assert policy.temperature == T


@pytest.mark.parametrize("name", ["ppo", "gspo"])
def test_an_update_raises_the_probability_of_what_was_rewarded(name: str) -> None:
    policy = make_policy()
    batch = collate(make_samples([5] * 8), pad_id=0)
    before = policy.logprobs(batch)
    batch = type(batch)(**{**batch.__dict__, "rollout": before})
    advantages = group_advantages(torch.tensor([[1.0, 0, 0, 1, 0, 1, 0, 1]]), scale=True)[0]
    pauses: list[int] = []
    update = Updater(policy, TrainerConfig(objective=name, passes=2, lr=1e-3)).step(
        batch, advantages, before, uncorrected(batch), between=lambda: pauses.append(1)
    )
    change = (policy.logprobs(batch) - before).mean(1)
    assert (change * advantages).mean() > 0
    assert update.skipped == 0
    assert len(pauses) == 2
    assert update.values["policy/kl_ref"] > 0, "the second pass is not at the reference any more"
    assert update.values["policy/lr"] == 1e-3


def test_the_policy_s_numbers_agree_with_a_float64_reference() -> None:
    policy, reference_policy = make_policy(), make_policy(3)
    samples = make_samples([5, 2, 7, 1, 6, 3])
    batch = collate(samples, pad_id=0)
    generator = torch.Generator().manual_seed(4)
    noise = 0.4 * torch.randn(batch.rollout.shape, generator=generator)
    batch = type(batch)(**{**batch.__dict__, "rollout": (policy.logprobs(batch) + noise) * batch.mask})
    advantages = torch.randn(len(samples), generator=generator)
    double = copy.deepcopy(policy.model).double()
    loss, low, high, outside, k3_old, k3_ref, entropies, tokens = 0.0, 0, 0, 0, 0.0, 0.0, 0.0, 0
    for row, sample in enumerate(samples):
        new, entropy = reference(policy.model, sample)
        ref, _ = reference(reference_policy.model, sample)
        logits = double(input_ids=torch.tensor([sample.prompt + sample.response])).logits[0] / T
        at = torch.arange(len(sample.prompt) - 1, len(sample.prompt) + len(sample.response) - 1)
        live = torch.log_softmax(logits, -1)[at, torch.tensor(sample.response)]
        a = float(advantages[row])
        for t in range(len(sample.response)):
            old = float(batch.rollout[row, t])
            ratio, r = torch.exp(live[t] - old), math.exp(float(new[t]) - old)
            loss = loss - torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
            low, high, outside = low + (r < 0.8 and a < 0), high + (r > 1.2 and a > 0), outside + (not 0.8 <= r <= 1.2)
            k3_old += r - 1 - math.log(r)
            k3_ref += math.exp(float(ref[t] - new[t])) - 1 - float(ref[t] - new[t])
            entropies, tokens = entropies + float(entropy[t]), tokens + 1
    (loss / tokens).backward()
    want = {
        "policy/clip_fraction": outside / tokens,
        "policy/clip_fraction_low": low / tokens,
        "policy/clip_fraction_high": high / tokens,
        "policy/kl_new_old": k3_old / tokens,
        "policy/kl_ref": k3_ref / tokens,
        "policy/entropy": entropies / tokens,
        "policy/grad_norm": math.sqrt(sum(float(p.grad.square().sum()) for p in double.parameters())),
        "policy/lr": 1e-3,
    }
    config = TrainerConfig(passes=1, lr=1e-3, grad_clip=1e9)
    ref_logprobs = reference_policy.logprobs(batch)
    got = Updater(policy, config).step(batch, advantages, ref_logprobs, uncorrected(batch), between=lambda: None).values
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=1e-5), name
    assert 0 < low < outside
    assert 0 < high < outside


def test_dropout_of_the_model_does_not_reach_the_objective() -> None:
    """GPT-2 drops a tenth by default; engines drop nothing, so on-policy the ratio is exactly one all the same."""
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=96, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=None, eos_token_id=None
    )
    assert min(shape.resid_pdrop, shape.embd_pdrop, shape.attn_pdrop) > 0
    policy = Policy(GPT2LMHeadModel(shape).float().eval(), temperature=T, fp32_head=True, dtype=torch.float32)
    batch = collate(make_samples([5, 2, 7, 1]), pad_id=0)
    own = policy.logprobs(batch)
    batch = type(batch)(**{**batch.__dict__, "rollout": own})
    config = TrainerConfig(passes=1, clip_low=1e-3, clip_high=1e-3)
    got = Updater(policy, config).step(batch, torch.ones(4), own, uncorrected(batch), between=lambda: None).values
    assert got["policy/clip_fraction"] == 0
    assert got["policy/kl_new_old"] == pytest.approx(0, abs=1e-9)


def test_an_update_with_a_gradient_that_is_not_finite_leaves_the_weights_alone() -> None:
    policy = make_policy()
    batch = collate(make_samples([5] * 4), pad_id=0)
    before = policy.weights()
    update = Updater(policy, TrainerConfig(passes=1)).step(
        batch,
        torch.tensor([float("inf"), 0, 0, 0]),
        torch.zeros_like(batch.rollout),
        uncorrected(batch),
        between=lambda: None,
    )
    assert update.skipped == 1
    assert all(torch.equal(before[n], p) for n, p in policy.model.named_parameters())
