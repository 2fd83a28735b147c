"""What an engine is made of, without one: epochs, holds, the digest of held weights, the transport's choice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftline.config import EngineConfig, SamplingConfig
from engine.actor.actor import EngineActor
from engine.actor.epochs import Epochs, label, stamps
from engine.actor.host import Span
from engine.actor.launch import EngineSpec
from engine.actor.pause_reasons import PauseReasons
from engine.types import EngineError, Sequence
from engine.weights import publish, transport
from engine.weights.verify import LoadCheck

# -- epochs ---------------------------------------------------------------------------------------------------------


def test_labels_become_versions_and_epochs() -> None:
    versions, epochs = stamps([Span("3.1", 0, 2), Span("3.-1", 2, 3), Span("12.2", 3, 5)], 5)
    assert versions.tolist() == [3, 3, 3, 12, 12]
    assert epochs.tolist() == [1, 1, -1, 2, 2]
    assert (versions.dtype, epochs.dtype) == (np.int32, np.int32)
    assert [array.tolist() for array in stamps([], 0)] == [[], []]


@pytest.mark.parametrize(
    "spans", [[Span("3.1", 0, 2)], [Span("default", 0, 3)], [Span("3", 0, 3)], [Span("a.1", 0, 3)]]
)
def test_a_token_without_a_label_of_ours_is_an_error(spans: list[Span]) -> None:
    with pytest.raises(ValueError, match=r"carry no label|not a VERSION|invalid literal"):
        stamps(spans, 3)


def test_an_epoch_is_a_stretch_without_a_change() -> None:
    epochs = Epochs(4)
    epochs.describe({"a": "off"})
    epochs.request_began(1)
    assert (epochs.label, epochs.between, epochs.following) == ("4.0", "4.-1", "4.1")
    assert epochs.all_described([0, -1])
    assert not epochs.all_described([1])  # which the core may stamp already
    epochs.enter({"a": "on"})
    assert epochs.enter_if_changed({"a": "on"}) is False
    assert epochs.enter_if_changed({"a": "off"}) is True
    assert epochs.label == label(4, 2)
    assert epochs.states([2, 0, -1]) == {0: {"a": "off"}, 2: {"a": "off"}}


def test_a_response_of_an_epoch_that_is_just_beginning_waits_for_its_states() -> None:
    """vLLM stamps the new epoch, and may even end a response in it, before the switch that began it has heard."""
    spec = EngineSpec("engine-0", 0, EngineConfig(), SamplingConfig(), "", "float32", {}, "")

    async def scene() -> dict[int, dict[str, str]]:
        actor = EngineActor(spec)
        actor._epochs.describe({"a": "off"})
        two = np.array([0, 1], np.int32)
        sequence = Sequence(two, np.zeros(2, np.float32), two, two, "stop")
        async with actor._lock:
            asked = asyncio.create_task(actor._states([sequence]))
            await asyncio.sleep(0)
            assert not asked.done()
            actor._epochs._began[1] = 0  # the response's own request
            actor._epochs.enter({"a": "on"})
        return await asked

    assert asyncio.run(scene()) == {0: {"a": "off"}, 1: {"a": "on"}}


@given(st.lists(st.sampled_from(["begin", "end", "switch"]), max_size=200))
def test_no_request_loses_an_epoch_and_none_is_kept_that_no_request_needs(actions: list[str]) -> None:
    epochs, open_requests, number = Epochs(0), {}, 0
    epochs.describe({"n": "0"})
    for action in actions:
        if action == "begin":
            number += 1
            epochs.request_began(number)
            open_requests[number] = epochs.epoch
        elif action == "end" and open_requests:
            request = next(iter(open_requests))
            began = open_requests.pop(request)
            reachable = range(began, epochs.epoch + 1)
            assert epochs.states(reachable) == {epoch: {"n": str(epoch)} for epoch in reachable}
            epochs.request_ended(request)
        elif action == "switch":
            epochs.enter({"n": str(epochs.epoch + 1)})
        oldest = min(open_requests.values(), default=epochs.epoch)
        assert len(epochs) == epochs.epoch - oldest + 1


# -- holds ----------------------------------------------------------------------------------------------------------


def test_an_engine_stands_until_every_reason_is_gone() -> None:
    holds = PauseReasons()
    assert not holds.active
    assert holds.pause(0.0)
    holds.held, holds.damaged = True, "a load failed"
    assert holds.resume()
    assert holds.release()
    assert holds.active
    holds.damaged = ""
    assert not holds.active


def test_pausing_twice_renews_the_lease_and_ending_twice_does_nothing() -> None:
    holds = PauseReasons()
    assert (holds.pause(10.0), holds.pause(20.0)) == (True, False)
    assert (holds.lease_left(12.0), holds.lease_left(25.0)) == (8.0, 0.0)
    assert (holds.resume(), holds.resume(), holds.release()) == (True, False, False)
    assert holds.lease_left(12.0) is None
    holds.pause(0.0)
    assert holds.lease_left(12.0) is None  # without a lease


# -- the digest -----------------------------------------------------------------------------------------------------


def some_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"a": torch.randn(3, 4), "b": torch.randn(5).bfloat16(), "c": torch.tensor(2), "d": torch.zeros(0, 2)}


CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "a bit": lambda w: w["a"].view(torch.int32)[2, 3].bitwise_xor_(1),
    "a name": lambda w: w.update(e=w.pop("a")),
    "a dtype": lambda w: w.update(b=w["b"].view(torch.int16)),
    "a shape": lambda w: w.update(a=w["a"].reshape(4, 3)),
    "an empty tensor": lambda w: w.pop("d"),
    "two tensors' places": lambda w: w.update(a=w["a"].t().contiguous().t().roll(1, 0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_digest_knows_every_difference(change: str) -> None:
    changed = some_weights()
    CHANGES[change](changed)
    assert publish.digest(changed) != publish.digest(some_weights())


def test_a_digest_is_of_the_content_not_of_its_layout() -> None:
    same = {name: tensor.clone() for name, tensor in reversed(some_weights().items())}
    same["a"] = torch.nn.Parameter(same["a"].t().contiguous().t())
    assert publish.digest(same) == publish.digest(some_weights())


def test_a_long_tensor_has_one_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = publish.crc(some_weights()["a"])
    monkeypatch.setattr(publish, "_PIECE", 7)
    assert publish.crc(some_weights()["a"]) == whole


def test_a_segment_is_held_against_the_trainers_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.weights.shared_memory.FOLDER", tmp_path)
    sent = some_weights()
    with publish.publish(sent) as manifest:
        assert publish.verify_segment(manifest, publish.digest(sent)).keys() == sent.keys()
        with (tmp_path / manifest["segment"]).open("r+b") as segment:
            segment.seek(manifest["offsets"][1])
            segment.write(b"\xff")
        with pytest.raises(ValueError, match=r"the segment's digest is .*, the trainer's"):
            publish.verify_segment(manifest, publish.digest(sent))


# -- what is held ---------------------------------------------------------------------------------------------------


class Packing:
    """As vLLM's CPU build: the weight is packed for the kernel and the original dropped."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        layer.packed = layer.weight.detach().clone()
        layer.weight = torch.nn.Parameter(torch.empty(0))


class Copying:
    """As vLLM's CPU build with embeddings: the weight stays, the kernel gets a packed copy."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        layer.packed = layer.weight.detach().clone()


class Layer(torch.nn.Module):
    def __init__(self, rows: int, sizes: list[int] | None = None, vocabulary: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(rows, 2))
        if sizes:
            self.output_partition_sizes = sizes
        if vocabulary:
            self.org_vocab_size = vocabulary


class Model(torch.nn.Module):
    """A vLLM model in small: a padded embedding, a fused and packed projection, a norm, tied heads under two names."""

    packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}  # noqa: RUF012  as vLLM's models have it

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = Layer(8, vocabulary=5), Layer(3)
        self.attn = torch.nn.Module()
        self.attn.qkv_proj = Layer(6, sizes=[4, 1, 1])
        self.attn.qkv_proj.quant_method = Packing()
        self.lm_head = Layer(8, vocabulary=5)
        self.lm_head.weight = self.embed.weight  # tied
        self.lm_head.quant_method = Copying()
        self.lm_head.quant_method.process_weights_after_loading(self.lm_head)
        self.dropped: set[str] = set()

    def reload(self) -> None:
        """What initialize_layerwise_reload does: the parameters get their loading shapes back."""
        if not self.attn.qkv_proj.weight.numel():
            self.attn.qkv_proj.weight = torch.nn.Parameter(torch.zeros(6, 2))

    @torch.no_grad()
    def load_weights(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        starts, got = {"q": 0, "k": 4, "v": 5}, 0
        fused = self.attn.qkv_proj
        for name, tensor in tensors:
            if name in self.dropped:
                continue
            if name.startswith("attn."):
                start = starts[name[5]]
                fused.weight[start : start + len(tensor)] = tensor
                got += len(tensor)
                if got == 6:
                    fused.quant_method.process_weights_after_loading(fused)
            elif name in ("embed.weight", "norm.weight"):
                getattr(self, name.split(".")[0]).weight[: len(tensor)] = tensor


def checkpoint(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    rows = {"embed": 5, "norm": 3, "attn.q_proj": 4, "attn.k_proj": 1, "attn.v_proj": 1}
    return {f"{name}.weight": torch.randn(count, 2).to(dtype) for name, count in rows.items()}


def loaded(model: Model | Turning, sent: dict[str, torch.Tensor], *, exact: bool = True) -> LoadCheck:
    load = LoadCheck(model, exact)
    model.reload()
    with load.checking():
        model.load_weights(iter(sent.items()))
    return load


def test_fused_padded_and_packed_weights_are_seen_as_the_trainer_has_them() -> None:
    model, sent = Model(), checkpoint()
    for _ in range(2):  # the second time from the packed state
        load = loaded(model, sent)
        result = load.result()
        assert (result.digest, result.verified, result.problem) == (publish.digest(sent), "held", "")
        assert load.bytes == sum(tensor.numel() * 4 for tensor in sent.values())
        sent = {name: tensor + 1 for name, tensor in sent.items()}
    assert "load_weights" not in vars(model)  # the look is over
    assert vars(model.attn.qkv_proj.quant_method) == {}


@pytest.mark.parametrize("name", checkpoint())
def test_a_tensor_that_a_loader_drops_is_noticed(name: str) -> None:
    model, sent = Model(), checkpoint()
    loaded(model, sent)
    moved = {name: tensor + 1 for name, tensor in sent.items()}
    model.dropped = {name}
    result = loaded(model, moved).result()
    assert result.problem or result.digest != publish.digest(moved)


@pytest.mark.parametrize("name", checkpoint())
def test_a_tensor_that_never_came_is_named(name: str) -> None:
    sent = checkpoint()
    del sent[name]
    problem = loaded(Model(), sent).result().problem
    assert problem == f"no weights came for 1 parameters, among them {name}"


def test_a_layer_that_was_not_processed_does_not_hold_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sent = Model(), checkpoint()
    loaded(model, sent)
    monkeypatch.setattr(model, "dropped", {"attn.v_proj.weight"})  # so that the packed layer is never complete
    result = loaded(model, {name: tensor + 1 for name, tensor in sent.items()}).result()
    assert result.lost == ["attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"]
    assert result.problem == "3 tensors were not taken up by the model, among them attn.k_proj.weight"


def test_a_tied_layer_follows_the_one_that_was_loaded() -> None:
    model, sent = Model(), checkpoint()
    result = loaded(model, sent).result()
    assert (result.digest, result.problem) == (publish.digest(sent), "")
    assert torch.equal(model.lm_head.packed[:5], sent["embed.weight"])
    both = {**sent, "lm_head.weight": sent["embed.weight"]}
    assert loaded(model, both).result().digest == publish.digest(both)


def test_weights_that_change_after_they_came_are_noticed() -> None:
    model, sent = Model(), checkpoint()
    load = loaded(model, sent)
    with torch.no_grad():
        model.norm.weight[0, 0] += 1
    assert load.result().digest != publish.digest(sent)


def test_a_cast_to_the_models_dtype_is_followed() -> None:
    model, sent = Model(), checkpoint(torch.bfloat16)
    load = loaded(model, sent)
    result = load.result()
    assert (result.digest, result.verified) == (publish.digest(sent), "held")
    with torch.no_grad():
        model.norm.weight[0, 0] += 1
    assert load.result().digest != publish.digest(sent)


def test_what_cannot_be_compared_is_said_to_be_received() -> None:
    sent = checkpoint()
    sliced = loaded(Model(), sent, exact=False).result()
    assert (sliced.digest, sliced.verified, sliced.problem) == (publish.digest(sent), "received", "")
    unknown = {**sent, "nonsense.weight": torch.ones(2)}
    result = loaded(Model(), unknown).result()
    assert (result.digest, result.verified, result.loose) == (publish.digest(unknown), "received", ["nonsense.weight"])


class Turning(torch.nn.Module):
    """As vLLM's GPT-2, whose checkpoint has every matrix transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.square = Layer(4), Layer(2)

    def reload(self) -> None:
        """Nothing is packed."""

    @torch.no_grad()
    def load_weights(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in tensors:
            getattr(self, name.split(".")[0]).weight.copy_(tensor.t())


def test_a_square_matrix_that_the_loader_transposes_is_not_taken_for_a_damaged_one() -> None:
    torch.manual_seed(1)
    sent = {"wide.weight": torch.randn(2, 4), "square.weight": torch.randn(2, 2)}
    result = loaded(Turning(), sent).result()
    assert (result.digest, result.verified, result.problem) == (publish.digest(sent), "received", "")


# -- transport ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "gpus", "cuda", "kind"),
    [
        ("auto", 0.0, False, "shm"),
        ("auto", 0.0, True, "shm"),
        ("auto", 1.0, False, "shm"),
        ("auto", 0.4, True, "ipc"),
        ("auto", 1.0, True, "nccl"),
        ("shm", 1.0, True, "shm"),
        ("ipc", 1.0, True, "ipc"),
        ("nccl", 2.0, True, "nccl"),
    ],
)
def test_the_transport_follows_configuration_and_hardware(wanted: str, gpus: float, cuda: bool, kind: str) -> None:
    config = EngineConfig(transport=wanted, gpus=gpus)  # type: ignore[arg-type]
    assert transport.choose(config, cuda=cuda) == kind


@pytest.mark.parametrize("wanted", ["ipc", "nccl"])
def test_a_transport_that_is_not_there_is_refused(wanted: str) -> None:
    config = EngineConfig(transport=wanted, gpus=1.0)  # type: ignore[arg-type]
    sentence = f"engine.transport = {wanted} is not available here: "
    with pytest.raises(EngineError, match=sentence + "this process sees no CUDA device"):
        transport.choose(config, cuda=False)
    with pytest.raises(EngineError, match=sentence + r"engine\.gpus = 0"):
        transport.choose(EngineConfig(transport=wanted), cuda=True)  # type: ignore[arg-type]


@pytest.fixture
def segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("engine.weights.shared_memory.FOLDER", tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def test_shared_memory_offers_one_segment_to_all(segments: Path) -> None:
    sent = some_weights()
    shared = transport.SharedMemory()
    with shared.publish(sent, ["engine-0", "engine-1"]) as updates:
        assert updates["engine-0"] is updates["engine-1"]
        assert dict(publish.read(updates["engine-0"])).keys() == sent.keys()
    shared.close()


def test_cuda_handles_travel_as_plain_values() -> None:
    from engine.weights.transfer_ipc import plain, restored

    args = (
        torch.Tensor, torch.Size([2, 3]), (3, 1), 0, torch.storage.TypedStorage, torch.bfloat16, 0, b"handle", 12, 0,
        False, b"counter", 0, b"event", True,
    )  # fmt: skip
    values = plain(args)
    assert all(isinstance(value, int | bool | bytes | str | list | type(None)) for value in values)
    assert restored(values) == args
    with pytest.raises(ValueError, match="14 values; 15 were expected"):
        plain(args[:-1])
    with pytest.raises(ValueError, match="not the description"):
        restored([*values[:5], "system", *values[6:]])
