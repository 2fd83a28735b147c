"""An active round over a policy sampler (no engine): what each wrong thing is put down to, its bounds, its answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import torch

from console.diagnosis import active
from console.store import rounds
from console.store.model import RunModel
from driftline.config import DiagnosisConfig
from driftline.frames import Ack, Command, Event, Stamped, encode
from engine import EngineError
from engine.types import HeldWeights, ProbeRequest, ProbeScores
from engine.weights.publish import entry
from tests.unit.test_trainer_loop import CONFIG, Run
from tests.unit.trainer_fakes import NAME, PolicySampler
from trainer.errors import RefusedError
from trainer.measure.alarm import SETTLED
from trainer.measure.attribution import LAYERS
from trainer.probing import MOST_TOKENS, TOKENS, tokens_of

EXACT = 1e-4


class ProbedSampler(PolicySampler):
    """Scores tokens with its own policy, one at a time. `bent` is added to what is sampled and scored in the usual way,
    `cached` to what may read a cache, `raw`: without temperature; `missed` keeps the weights of an older version."""

    bent = cached = 0.0
    raw = missed = False
    fails = ""
    asked: int = 0
    cancels: Callable[[], object] = staticmethod(lambda: None)
    """Called where a round begins."""

    def sync(self, weights: Mapping[str, torch.Tensor], version: int, **policy: object) -> list[Any]:
        kept = {name: tensor.clone() for name, tensor in self._policy.weights().items()}
        found = super().sync(weights, version, **policy)
        if self.missed:
            self._policy.load(kept)
        return found

    def submit(self, request: Any) -> None:
        self.offset = self.bent + self.cached
        super().submit(request)
        if self.raw:
            group = self._ready.pop()
            ids = [one.ids for one in group.sequences]
            places = [np.arange(len(one), dtype=np.int32) for one in ids]
            asked = ProbeRequest(self.version, [group.prompt_ids] * len(ids), ids, places)
            scored = self._scored(asked).logprobs
            rows = zip(group.sequences, scored, strict=True)
            self._ready.append(replace(group, sequences=[replace(one, logprobs=found[:, 0]) for one, found in rows]))

    def held_weights(self, timeout: float = 30.0) -> dict[str, HeldWeights | EngineError]:
        self.cancels()
        entries = {name: tuple(entry(tensor)) for name, tensor in self._policy.weights().items()}
        return {NAME: HeldWeights(NAME, self.version, cast("Any", entries))}

    def probe(
        self, requests: Mapping[str, Sequence[ProbeRequest]], timeout: float
    ) -> dict[str, list[ProbeScores] | EngineError]:
        if self.fails:
            return {name: EngineError(self.fails) for name in requests}
        return {name: [self._scored(one) for one in asked] for name, asked in requests.items()}

    @torch.no_grad()
    def _scored(self, request: ProbeRequest) -> ProbeScores:
        found = []
        for row, ids in enumerate(request.sequences):
            values = []
            for at, position in enumerate(request.positions[row]):
                text = torch.tensor([[*request.prompts[row], *ids[:position].tolist()]])
                temperature = 1.0 if self.raw else request.temperature or self._policy.temperature
                logits = self._next(text) * self._policy.temperature / temperature
                distribution = torch.log_softmax(logits, -1)[0]
                wanted = [int(ids[position])]
                if request.candidates:
                    wanted += request.candidates[row][at].tolist()
                extra = (self.bent if request.usual else 0.0) + (self.cached if request.cached else 0.0)
                values.append(distribution[wanted].numpy() + np.float32(extra))
                self.asked += 1
            found.append(np.array(values, dtype=np.float32))
        return ProbeScores(NAME, found, 0.5, request.tokens)


def probed(path: Path, **wrong: Any) -> tuple[Run, dict[str, Any]]:
    """A run of three steps with a round in the third, and the data of its answer."""
    run = Run(path)
    run.pool.__class__ = ProbedSampler
    pool = cast("ProbedSampler", run.pool)
    for name, value in wrong.items():
        setattr(pool, name, value)
    run.loop.run(2)
    run.control.probes.request(Command("d1", "diagnose", {"tokens": "30"}))
    run.loop.run(3)
    acks = [ack for ack in run.probe.of(Ack) if ack.id == "d1"]
    assert [ack.state for ack in acks] == ["accepted", "accepted", "applied"], acks[-1].detail
    return run, dict(acks[-1].data)


def total_of_shares(data: Mapping[str, float]) -> float:
    return sum(data[f"share.{layer}"] for layer in LAYERS)


def test_a_healthy_round_finds_nothing_and_says_what_it_cost(tmp_path: Path) -> None:
    run, data = probed(tmp_path)
    assert data[f"{NAME}.usual"] < EXACT
    assert data[f"{NAME}.self"] < EXACT
    assert (data[f"{NAME}.differing"], data[f"{NAME}.tensors"], data[f"{NAME}.raw"]) == (0, "", 0.0)
    assert data["trainer.self"] < EXACT
    assert data["trainer.dropout"] == 0.0
    assert (data[f"{NAME}.seconds"], data["note"]) == (3.0, "")
    assert data[f"{NAME}.requests"] == cast("ProbedSampler", run.pool).asked == active.requests(int(data["tokens"]))
    assert data[f"{NAME}.stale"] > 0
    accepted = next(ack for ack in run.probe.of(Ack) if ack.id == "d1")
    assert "requests of one token to each engine" in accepted.detail
    assert total_of_shares(data) == pytest.approx(data["total"], abs=1e-9)


def test_a_round_changes_no_number_of_the_run(tmp_path: Path) -> None:
    run, _ = probed(tmp_path / "one")
    other = Run(tmp_path / "other")
    other.loop.run(3)
    for mine, theirs in zip(run.probe.metrics, other.probe.metrics, strict=True):
        for name in ("policy/entropy", "mismatch/abs_diff_mean", "policy/grad_norm"):
            assert mine.values[name] == theirs.values[name]


@pytest.mark.parametrize(
    ("wrong", "layer", "size"),
    [({"bent": -0.4}, "semantics", 0.4), ({"cached": 0.3}, "inference path", 0.3)],
)
def test_an_error_that_shows_again_is_its_layers(tmp_path: Path, wrong: Any, layer: str, size: float) -> None:
    _, data = probed(tmp_path, **wrong)
    assert data[f"share.{layer}"] == pytest.approx(size, abs=1e-3)
    assert total_of_shares(data) == pytest.approx(data["total"], abs=1e-9)
    assert data["total"] == pytest.approx(size, abs=1e-3)


def test_raw_logprobs_are_seen_and_put_at_the_temperature(tmp_path: Path) -> None:
    _, data = probed(tmp_path, raw=True)
    assert data[f"{NAME}.raw"] == 1.0
    assert data[f"{NAME}.plain"] < EXACT
    assert data[f"{NAME}.usual"] > 100 * EXACT
    assert data["share.semantics"] == pytest.approx(data["total"], abs=1e-3)


def test_an_engine_that_missed_its_syncs_is_named_with_the_version_it_holds(tmp_path: Path) -> None:
    _, data = probed(tmp_path, missed=True)
    assert "of no kept version" in data[f"{NAME}.tensors"] or "of version" in data[f"{NAME}.tensors"]
    assert data[f"{NAME}.differing"] == data[f"{NAME}.compared"] > 0


def test_no_engine_that_answers_is_the_rounds_failure_and_the_run_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.pool.__class__ = ProbedSampler
    cast("ProbedSampler", run.pool).fails = "it does not serve"
    run.control.probes.request(Command("d1", "diagnose", {}))
    run.loop.run(1)
    ack = [ack for ack in run.probe.of(Ack) if ack.id == "d1"][-1]
    assert (ack.state, ack.detail) == ("failed", "no engine could be probed: it does not serve")
    assert run.loop.step == 1


def test_what_waits_at_the_end_is_answered_and_no_more_than_a_few_wait(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for count in range(4):
        run.control.probes.request(Command(f"d{count}", "diagnose", {}))
    with pytest.raises(RefusedError, match="4 rounds are waiting already"):
        run.control.probes.request(Command("d9", "diagnose", {}))
    run.control.probes.close()
    ended = [ack for ack in run.probe.of(Ack) if ack.state == "failed"]
    assert [ack.detail for ack in ended] == ["the run has ended"] * 4


def test_a_round_that_waits_is_cancelled_and_the_run_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.pool.__class__ = ProbedSampler
    run.control.probes.request(Command("d1", "diagnose", {}))
    assert run.control.probes.request(Command("d2", "diagnose", {"cancel": "d1"}, issuer="operator ana")) == {}
    run.loop.run(1)
    last = [ack for ack in run.probe.of(Ack) if ack.id == "d1"][-1]
    assert (last.state, last.detail) == ("failed", "cancelled by operator ana")
    assert cast("ProbedSampler", run.pool).asked == 0
    with pytest.raises(RefusedError, match="neither waits nor is under way"):
        run.control.probes.request(Command("d3", "diagnose", {"cancel": "d1"}))


def test_a_round_under_way_ends_between_two_passes(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.pool.__class__ = ProbedSampler
    pool, probes = cast("ProbedSampler", run.pool), run.control.probes
    pool.cancels = lambda: probes.request(Command("d2", "diagnose", {"cancel": "d1"}, issuer="operator bo"))
    probes.request(Command("d1", "diagnose", {}))
    run.loop.run(1)
    last = [ack for ack in run.probe.of(Ack) if ack.id == "d1"][-1]
    assert (last.state, last.detail) == ("failed", "cancelled by operator bo")
    assert pool.asked == 0
    pool.cancels = lambda: None
    probes.request(Command("d4", "diagnose", {}))
    run.loop.run(2)
    assert [ack.state for ack in run.probe.of(Ack) if ack.id == "d4"][-1] == "applied"


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e3", str(MOST_TOKENS + 1), "٣"])
def test_a_number_of_tokens_that_is_none_gets_a_sentence(text: str) -> None:
    with pytest.raises(RefusedError, match=f"allowed: 1 to {MOST_TOKENS}"):
        tokens_of(text)
    assert tokens_of("") == TOKENS
    assert math.isfinite(CONFIG.sampling.temperature)


def own_rounds(run: Run) -> list[Event]:
    return [event for event in run.probe.of(Event) if event.kind in (rounds.MADE, rounds.FAILED)]


def test_at_an_alarm_the_run_makes_a_round_by_itself_once_and_a_console_knows_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.pool.__class__ = ProbedSampler
    cast("ProbedSampler", run.pool).bent = -0.4
    run.loop.run(SETTLED + 2)
    (event,) = own_rounds(run)
    assert (event.kind, event.step) == (rounds.MADE, SETTLED)
    assert "above 0.05 in 3 of 3 steps" in event.text
    assert "nats over" in event.text
    assert run.probe.of(Ack) == []
    model = RunModel()
    for number, frame in enumerate([event], 1):
        model.apply(Stamped(number, 0.0, "trainer", msgspec.Raw(encode(frame))))
    made = model.rounds.made
    assert made is not None
    assert made.reason == event.data["reason"]
    found = active.attribution(made.figures)
    assert found is not None
    assert found.fraction("semantics") == pytest.approx(1.0, abs=0.01)


def test_what_the_run_cannot_measure_by_itself_is_an_event_and_the_run_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.pool.__class__ = ProbedSampler
    pool = cast("ProbedSampler", run.pool)
    pool.bent, pool.fails = -0.4, "it does not serve"
    run.loop.run(SETTLED + 1)
    (event,) = own_rounds(run)
    assert (event.kind, event.text) == (rounds.FAILED, "no engine could be probed: it does not serve")
    assert run.loop.step == SETTLED + 1


def test_on_request_alone_the_run_makes_none(tmp_path: Path) -> None:
    quiet = msgspec.structs.replace(CONFIG, diagnosis=DiagnosisConfig(active="on-request"))
    run = Run(tmp_path, quiet)
    run.pool.__class__ = ProbedSampler
    cast("ProbedSampler", run.pool).bent = -0.4
    run.loop.run(SETTLED + 1)
    assert own_rounds(run) == []


def test_the_console_says_the_cost_that_the_trainer_will_say(tmp_path: Path) -> None:
    run = Run(tmp_path)
    said = run.control.probes.estimate(TOKENS)
    assert said.startswith(f"{active.requests(TOKENS)} requests of one token to each engine")
    assert f"{active.FORWARDS} forward passes of the trainer" in said
    assert active.TOKENS == TOKENS
