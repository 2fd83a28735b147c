"""The arithmetic of an active round: shares that sum to the whole, processed from raw, tensors by their version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.weights.publish import entry
from trainer.learn.held import compare
from trainer.learn.versions import WeightStore
from trainer.measure.attribution import LAYERS, Chain, processed, reads_cache, shares

RNG = np.random.default_rng(3)
TOKENS, LENGTH = 480, 12


def chain(**errors: Any) -> Chain:
    """A healthy chain, and in it errors by the link at which they go away; each is added to every link before."""
    truth = -RNG.exponential(1.0, TOKENS)
    links = ("recorded", "usual", "plain", "uncached")
    sides = {name: truth.copy() for name in (*links, "reported", "own", "trained", "steady", "even", "held")}
    for name, error in errors.items():
        if name in links:
            for link in links[: links.index(name) + 1]:
                sides[link] = sides[link] + error
        elif name == "held":
            for link in (*links, "held"):
                sides[link] = sides[link] + error
        else:
            sides[name] = sides[name] + error
    owner = np.repeat(np.arange(TOKENS // LENGTH), LENGTH)
    return Chain(sequence=owner, straddles=np.zeros(TOKENS, dtype=bool), **sides)


@pytest.mark.parametrize(
    ("where", "layer"),
    [
        ("recorded", "data"), ("usual", "semantics"), ("plain", "inference path"), ("held", "weight update"),
        ("uncached", "numerics"), ("reported", "staleness"),
    ],
)  # fmt: skip
def test_a_lone_error_is_its_layers_share(where: str, layer: str) -> None:
    found = shares([chain(**{where: RNG.normal(0, 0.3, TOKENS)})], np.random.default_rng(0))
    assert found.nats[layer] == pytest.approx(found.total, abs=1e-12)
    assert sum(abs(nats) for name, nats in found.nats.items() if name != layer) < 1e-12
    assert found.low[layer] < found.nats[layer] < found.high[layer]


def test_shares_sum_to_the_whole_and_are_what_repairing_in_order_changes() -> None:
    errors = {name: RNG.normal(0.1, scale, TOKENS) for name, scale in (("usual", 0.4), ("plain", 0.2), ("held", 0.1))}
    one = chain(**errors)
    found = shares([one], np.random.default_rng(0))
    assert sum(found.nats.values()) == pytest.approx(found.total, abs=1e-12)
    assert found.total == pytest.approx(np.abs(sum(errors.values())).mean())
    after_semantics = np.abs(errors["plain"] + errors["held"]).mean()
    assert found.total - found.nats["semantics"] == pytest.approx(after_semantics)
    after_path = np.abs(errors["held"]).mean()
    assert found.nats["inference path"] == pytest.approx(after_semantics - after_path)
    assert tuple(found.nats) == LAYERS


def test_dropout_is_numerics_and_another_temperature_of_the_trainer_semantics() -> None:
    one = chain()
    noise = RNG.normal(0, 0.3, TOKENS)
    dropped = Chain(**{**one.__dict__, **{name: getattr(one, name) + noise for name in ("reported", "own", "trained")}})
    found = shares([dropped], np.random.default_rng(0))
    assert found.nats["numerics"] == pytest.approx(found.total, abs=1e-12)
    names = ("reported", "own", "trained", "steady")
    other = Chain(**{**one.__dict__, **{name: getattr(one, name) + noise for name in names}})
    found = shares([other], np.random.default_rng(0))
    assert found.nats["semantics"] == pytest.approx(found.total, abs=1e-12)


def test_what_is_lost_of_a_response_that_lived_through_an_update_is_the_paths() -> None:
    one = chain(recorded=RNG.normal(0, 0.3, TOKENS))
    straddling = Chain(**{**one.__dict__, "straddles": np.ones(TOKENS, dtype=bool)})
    found = shares([straddling], np.random.default_rng(0))
    assert found.nats["inference path"] == pytest.approx(found.total)
    assert found.nats["data"] == 0.0


@pytest.mark.parametrize("grown", [0.8, 1.2, 3.0])
def test_a_fault_that_has_grown_since_its_tokens_were_sampled_is_no_fault_of_the_data(grown: float) -> None:
    error = RNG.normal(0, 0.3, TOKENS)
    one = chain(held=error * grown)
    then = Chain(**{**one.__dict__, "recorded": one.recorded + error * (1 - grown)})
    found = shares([then], np.random.default_rng(0))
    assert found.nats["weight update"] == pytest.approx(found.total)
    assert found.total == pytest.approx(np.abs(error).mean())
    assert found.nats["data"] == 0.0


def test_a_token_without_a_number_is_left_out_and_none_at_all_is_an_error() -> None:
    one = chain(usual=np.full(TOKENS, 0.5))
    one.uncached[: TOKENS // 2] = np.nan
    found = shares([one], np.random.default_rng(0))
    assert found.tokens == TOKENS // 2
    assert found.total == pytest.approx(0.5)
    one.uncached[:] = np.nan
    with pytest.raises(ValueError, match="no token"):
        shares([one], np.random.default_rng(0))


def test_an_interval_holds_the_share_of_many_probes_in_most_of_them() -> None:
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        # Tokens of one sequence are alike: an interval over tokens would be far too narrow.
        error = np.repeat(rng.normal(0.5, 0.2, TOKENS // LENGTH), LENGTH)
        found = shares([chain(usual=error)], np.random.default_rng(seed))
        held += found.low["semantics"] <= 0.5 <= found.high["semantics"]
    assert held >= 85


@pytest.mark.parametrize("temperature", [0.6, 0.7, 1.0, 1.3])
def test_processed_logprobs_follow_from_raw_ones_of_the_candidates(temperature: float) -> None:
    logits = torch.tensor(RNG.normal(0, 3, (40, 500)))
    token = torch.tensor(RNG.integers(0, 500, 40))
    raw, wanted = logits.log_softmax(-1), (logits / temperature).log_softmax(-1)
    top = logits.topk(64, dim=-1)
    scaled = logits / temperature
    rest = torch.expm1(scaled.logsumexp(-1) - (top.values / temperature).logsumexp(-1))
    columns = torch.cat([raw.gather(1, token[:, None]), raw.gather(1, top.indices)], dim=1)
    found = processed(columns.numpy(), temperature, rest.numpy())
    assert found == pytest.approx(wanted.gather(1, token[:, None])[:, 0].numpy(), abs=1e-9)


# -- tensors -----------------------------------------------------------------------------------------------------------


def store(versions: int = 4) -> WeightStore:
    found = WeightStore(8)
    for version in range(versions):
        generator = torch.Generator().manual_seed(version)
        names = [f"model.layers.{layer}.{part}.weight" for layer in (0, 1) for part in ("q", "up", "norm")]
        found.publish(version, {name: torch.randn(4, 4, generator=generator) for name in (*names, "lm_head.weight")})
    return found


def entries(weights: dict[str, torch.Tensor]) -> dict[str, tuple[str, tuple[int, ...], int]]:
    return {name: tuple(entry(tensor)) for name, tensor in weights.items()}  # type: ignore[misc]


def test_an_engine_that_holds_what_it_says_has_no_differing_tensor() -> None:
    kept = store()
    found = compare(entries(kept.get(3) or {}), 3, kept)
    assert found is not None
    assert (found.differing, found.compared, found.text, found.known) == ((), 7, "", True)


def test_a_layer_of_an_older_version_is_named_with_it() -> None:
    kept = store()
    new, old = kept.get(3) or {}, kept.get(1) or {}
    mixed = {name: old[name] if ".layers.1." in name else tensor for name, tensor in new.items()}
    found = compare(entries(mixed), 3, kept)
    assert found is not None
    assert found.text == "model.layers.1 (3 tensors) of version 1, not 3"
    assert found.known
    real = found.weights(new, kept)
    assert all(torch.equal(real[name], tensor) for name, tensor in mixed.items())


def test_a_missed_sync_is_all_tensors_of_one_version() -> None:
    kept = store()
    found = compare(entries(kept.get(2) or {}), 3, kept)
    assert found is not None
    assert found.text == "all 7 tensors of version 2"


def test_swapped_layers_are_named_as_each_other() -> None:
    kept = store()
    new = kept.get(3) or {}
    other = {"0": "1", "1": "0"}
    swapped = {
        name: new[name.replace(f"layers.{name[13]}", f"layers.{other[name[13]]}")] if "layers" in name else tensor
        for name, tensor in new.items()
    }
    found = compare(entries(swapped), 3, kept)
    assert found is not None
    assert "model.layers.0 (3 tensors) with the weights of model.layers.1" in found.text
    assert "model.layers.1 (3 tensors) with the weights of model.layers.0" in found.text
    assert found.known


def test_a_tensor_of_no_kept_version_is_not_known() -> None:
    kept = store()
    new = dict(kept.get(3) or {})
    new["lm_head.weight"] = torch.zeros(4, 4)
    found = compare(entries(new), 3, kept)
    assert found is not None
    assert found.text == "lm_head (1 tensor) of no kept version"
    assert not found.known
    assert compare(entries(new), 9, kept) is None


def test_rollouts_that_are_sampled_past_the_cache_are_known_by_their_scores() -> None:
    uncached = -RNG.exponential(1.0, TOKENS)
    stale, penalty = RNG.normal(0, 0.3, TOKENS), RNG.normal(0, 0.1, TOKENS)
    plain = uncached + stale
    assert reads_cache(plain, plain, uncached), "as cached prefixes have it"
    assert reads_cache(plain + penalty, plain, uncached)
    assert not reads_cache(uncached, plain, uncached)
    assert not reads_cache(uncached + penalty, plain, uncached), "what else the sampling does is its own part"
    assert reads_cache(uncached, uncached, uncached), "nothing differs: as it is usual"
    plain[0] = np.nan
    assert not reads_cache(uncached, plain, uncached)
