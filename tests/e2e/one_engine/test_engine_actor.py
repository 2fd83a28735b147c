"""One engine from the inside, on the real vLLM in a Ray actor: tokens and their states, syncs phase by phase, holds.

The pool has tests of its own; here the actor is driven as the pool drives it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from driftline.frames import EngineFix
from engine.types import IN_BETWEEN, EngineError, Group, RolloutRequest, SyncReport
from engine.weights import publish, shared_memory
from engine.weights.transport import SharedMemory
from tests.e2e import engine_support as support
from tests.e2e.engine_support import CLOSE, LIMIT_S
from tests.e2e.one_engine.shared_engine import MAX_TOKENS, SharedEngine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

NAME = "engine-0"
BLOCKS = list(range(2, 2 + 64))
"""A prompt of two whole cache blocks."""


class Rig:
    """The shared engine, driven as its pool drives it."""

    def __init__(self, engine: SharedEngine, transport: SharedMemory) -> None:
        self._engine, self.transport = engine, transport
        self.actor = engine.actor

    @property
    def model(self) -> Any:
        return self._engine.model

    @property
    def version(self) -> int:
        return self._engine.version

    def ask(self, method: str, *args: Any, **options: Any) -> Any:
        return self.wait(self.start(method, *args, **options))

    def start(self, method: str, *args: Any, **options: Any) -> Any:
        return getattr(self.actor, method).remote(*args, **options)

    def wait(self, answers: Any, limit: float = LIMIT_S) -> Any:
        import ray

        try:
            return ray.get(answers, timeout=limit)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, EngineError) else error) from error

    def submit(self, groups: int = 8, n: int = 8, prompt: list[int] | None = None) -> list[Any]:
        """Prompts are new ones unless one is given, so that no cache knows them."""
        new = [
            prompt or support.PROMPTS.integers(2, support.VOCABULARY, support.PROMPT).tolist() for _ in range(groups)
        ]
        return [self.start("generate", RolloutRequest(index, ids, n)) for index, ids in enumerate(new)]

    def under_way(self, tokens: int = 400) -> list[Any]:
        """64 sequences in flight that have been given so many tokens."""
        before = self.ask("sample").generated
        pending = self.submit()
        self.until(lambda: self.ask("sample").generated - before >= tokens)
        return pending

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not true():
            assert time.monotonic() < deadline

    def phase(self) -> str:
        return self.ask("sample").state.phase

    def sync(self, model: Any, **options: Any) -> SyncReport:
        """Give the engine a model's weights as the next version."""
        self._engine.version += 1
        state = model if isinstance(model, dict) else model.state_dict()
        with self.transport.publish(state, [NAME]) as updates:
            report = self.ask("sync", updates[NAME], self.version, publish.digest(state), **options)
        if report.ok:
            self._engine.model = model
        return report


@pytest.fixture(scope="module")
def started(engine: SharedEngine) -> Iterator[Rig]:
    (info,) = engine.pool.infos
    assert (info.engine, info.backend, info.workers) == (NAME, "cpu", 1)
    transport = SharedMemory()
    yield Rig(engine, transport)
    transport.close()


@pytest.fixture
def rig(started: Rig) -> Iterator[Rig]:
    """The shared engine running, with the fixes as at its start; left with nothing in flight."""
    yield started
    started.ask("drain")
    base = started.model
    report = started.sync(base, fixes={"fp32-lm-head": "on", "inflight-keep": "on"})
    assert report.ok, report.detail
    started.ask("resume")
    started.ask("set_fix", "processed-logprobs", "on")
    started.ask("set_fix", "prefix-cache-off", "off")


def references(model: Any, group: Group) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logprob of each response token, at the sampling temperature and without it, from a plain HF forward."""
    start = len(group.prompt_ids)
    ids = torch.zeros(len(group.sequences), start + max(len(s.ids) for s in group.sequences), dtype=torch.long)
    ids[:, :start] = torch.tensor(group.prompt_ids)
    for row, sequence in zip(ids, group.sequences, strict=True):
        row[start : start + len(sequence.ids)] = torch.from_numpy(sequence.ids.copy())
    with torch.no_grad():
        logits = model(ids).logits[:, start - 1 : -1]
    found = []
    for temperature in (support.TEMPERATURE, 1.0):
        chosen = torch.log_softmax(logits / temperature, -1).gather(2, ids[:, start:, None])[:, :, 0].numpy()
        found.append([row[: len(s.ids)] for row, s in zip(chosen, group.sequences, strict=True)])
    return found[0], found[1]


# -- epochs ---------------------------------------------------------------------------------------------------------


def test_no_token_carries_the_logprob_of_another_state_than_it_says(rig: Rig) -> None:
    pending = rig.under_way(200)
    for value in ("off", "on", "off", "on"):
        before = rig.ask("sample").generated
        assert rig.ask("set_fix", "processed-logprobs", value).effective == value
        rig.until(lambda before=before: rig.ask("sample").generated - before >= 300)
    groups = rig.wait(pending)

    right: dict[str, list[np.ndarray]] = {"on": [], "off": []}
    wrong, between, total, epochs = [], 0, 0, set()
    for group in groups:
        assert all(states["fp32-lm-head"] == "on" for states in group.states.values())
        for sequence, processed, raw in zip(group.sequences, *references(rig.model, group), strict=True):
            between += int((sequence.epochs == IN_BETWEEN).sum())
            total += len(sequence.epochs)
            for epoch in set(sequence.epochs.tolist()) - {IN_BETWEEN}:
                at, value = sequence.epochs == epoch, group.states[epoch]["processed-logprobs"]
                own, other = (processed, raw) if value == "on" else (raw, processed)
                right[value].append(np.abs(sequence.logprobs - own)[at])
                wrong.append(np.abs(sequence.logprobs - other)[at])
                epochs.add(epoch)
    assert len(epochs) >= 3
    assert between < total / 10
    for value, gaps in right.items():
        assert sum(map(len, gaps)) > 200, f"hardly a token under {value}"
        assert np.concatenate(gaps).max() < 10 * CLOSE
    assert np.concatenate(wrong).mean() > 100 * CLOSE


def test_the_head_changes_with_the_weights_at_one_boundary(rig: Rig) -> None:
    pending = rig.under_way()
    # The same weights: what differs afterwards is the head alone.
    report = rig.sync(rig.model, fixes={"fp32-lm-head": "off"})
    states = {state.detail: state for state in report.fixes}
    head = states["head bfloat16, body float32"]
    assert (head.effective, head.since_version) == ("off", rig.version)
    gaps: dict[str, list[np.ndarray]] = {"on": [], "off": []}
    for group in rig.wait(pending):
        for sequence, processed in zip(group.sequences, references(rig.model, group)[0], strict=True):
            assert IN_BETWEEN not in sequence.epochs
            for epoch in set(sequence.epochs.tolist()):
                at, value = sequence.epochs == epoch, group.states[epoch]["fp32-lm-head"]
                gaps[value].append(np.abs(sequence.logprobs - processed)[at])
                assert np.all((sequence.versions[at] == rig.version) == (value == "off"))
    fine, rough = np.concatenate(gaps["on"]), np.concatenate(gaps["off"])
    assert fine.max() < 10 * CLOSE
    assert rough.mean() > 10 * fine.mean()


# -- the prefix cache -----------------------------------------------------------------------------------------------


def test_no_request_after_the_switch_reads_an_older_block(rig: Rig) -> None:
    def ask_for(groups: int = 2) -> tuple[int, int]:
        """Blocks' tokens looked up and found, as vLLM counts them, by requests with the same long prompt."""
        before = rig.ask("sample")
        answers = rig.wait(rig.submit(groups, 2, BLOCKS))
        after = rig.ask("sample")
        own = {states["prefix-cache-off"] for group in answers for states in group.states.values()}
        assert own == {rig.ask("fix_states")["prefix-cache-off"].effective}
        return after.prefix_queries - before.prefix_queries, after.prefix_hits - before.prefix_hits

    ask_for()
    assert ask_for()[1] >= 4 * 32  # the cache is warm: each sequence finds at least the first block
    before = rig.ask("sample").prefix_queries
    pending = rig.submit(2, 8)
    # All of them are running: what is scheduled later was asked for before the switch too, and would be counted below.
    rig.until(lambda: rig.ask("sample").prefix_queries - before >= 2 * 8 * support.PROMPT)
    busy: EngineFix = rig.ask("set_fix", "prefix-cache-off", "on")
    assert busy.effective == "on"
    assert "reset_prefix_cache() returned false" in busy.detail  # so old blocks are still there
    assert ask_for() == (0, 0)
    rig.wait(pending)
    rig.ask("set_fix", "prefix-cache-off", "off")
    idle: EngineFix = rig.ask("set_fix", "prefix-cache-off", "on")
    assert "reset_prefix_cache() returned true" in idle.detail
    rig.ask("set_fix", "prefix-cache-off", "off")
    queries, hits = ask_for(1)
    # Two sequences: at most the second finds what the first has just written, never both an old block.
    assert queries > 0
    assert hits < queries / 2


# -- syncs ----------------------------------------------------------------------------------------------------------


def test_every_phase_of_a_sync_is_accounted_for(rig: Rig) -> None:
    moved = support.engine_moved(rig.model, head_only=True)
    pending = rig.under_way()
    report = rig.sync(moved)
    assert report.ok, report.detail
    assert (report.version_after, report.digest, report.verified) == (
        rig.version,
        publish.digest(moved.state_dict()),
        "held",
    )
    assert report.bytes == sum(t.numel() * t.element_size() for t in moved.state_dict().values())
    phases = report.pause_s + report.load_s + report.verify_s + report.reset_s + report.resume_s
    assert min(report.pause_s, report.load_s, report.verify_s, report.resume_s) > 0
    assert phases <= report.held_s * 1.01 <= report.total_s * 1.02
    assert (report.reset, report.aborted) == ("kept", 0)
    assert report.in_flight > 0
    groups = rig.wait(pending)
    old = sum(
        int((s.versions < rig.version).sum()) for g in groups for s in g.sequences if s.versions[-1] == rig.version
    )
    # A sequence whose last token was sampled just before the pause counts too, though none of it was sampled after.
    assert 0 < old <= report.straddling


@pytest.mark.parametrize("value", ["off", "wait"])
def test_the_value_of_inflight_keep_decides_about_what_is_in_flight(rig: Rig, value: str) -> None:
    pending = rig.under_way()
    moved = support.engine_moved(rig.model, head_only=False)
    report = rig.sync(moved, fixes={"inflight-keep": value})
    assert report.ok, report.detail
    assert (report.reset, report.straddling) == ("freed", 0)
    state = rig.ask("fix_states")["inflight-keep"]
    assert (state.effective, state.how, state.since_version) == (value, "next_sync", rig.version)
    groups = rig.wait(pending)
    finishes = {s.finish for g in groups for s in g.sequences}
    versions = {int(v) for g in groups for s in g.sequences for v in s.versions}
    assert versions == {rig.version - 1}  # nothing straddles
    if value == "off":
        assert report.aborted == sum(s.finish == "abort" for g in groups for s in g.sequences) > 0
        assert [g.aborted for g in groups] == [any(s.finish == "abort" for s in g.sequences) for g in groups]
        assert all(len(s.logprobs) == len(s.ids) < MAX_TOKENS for g in groups for s in g.sequences if g.aborted)
    else:
        assert (report.aborted, finishes <= {"stop", "length"}) == (0, True)
        assert report.pause_s > report.load_s  # the wait
        assert report.held_s < report.total_s - report.pause_s / 2  # which is no standing still
    assert rig.sync(rig.model).reset == "freed"  # the value stays
    assert support.engine_gap(moved, rig.wait(rig.submit(1))).mean() < CLOSE


def flip(update: dict[str, Any], name: str) -> None:
    """Change one bit of a tensor in a published segment."""
    with (shared_memory.FOLDER / update["segment"]).open("r+b") as segment:
        segment.seek(update["offsets"][update["names"].index(name)])
        byte = segment.read(1)[0]
        segment.seek(-1, 1)
        segment.write(bytes([byte ^ 1]))


def test_a_flipped_bit_before_the_pause_is_refused_and_the_old_weights_serve_on(rig: Rig) -> None:
    state = support.engine_moved(rig.model, head_only=False).state_dict()
    with rig.transport.publish(state, [NAME]) as updates:
        flip(updates[NAME], "model.norm.weight")
        report = rig.ask("sync", updates[NAME], rig.version + 1, publish.digest(state))
    assert not report.ok
    assert report.version_after == rig.version
    assert "the segment's digest is" in report.detail
    assert f"version {rig.version} serves on" in report.detail
    assert rig.phase() == "running"
    assert support.engine_gap(rig.model, rig.wait(rig.submit(1))).mean() < CLOSE


@pytest.mark.parametrize(
    "name", ["model.layers.1.self_attn.k_proj.weight", "model.norm.weight"], ids=["packed", "kept"]
)
def test_a_flipped_bit_after_it_was_looked_at_never_serves_a_token(rig: Rig, name: str) -> None:
    good, before, version = rig.model, rig.version, rig.version + 1
    state = support.engine_moved(good, head_only=False).state_dict()
    pending = rig.under_way()
    with rig.transport.publish(state, [NAME]) as updates:
        # The segment is looked through before the pause, and this pause lasts until the requests have finished.
        syncing = rig.start("sync", updates[NAME], version, publish.digest(state), fixes={"inflight-keep": "wait"})
        rig.until(lambda: rig.phase() == "syncing")
        flip(updates[NAME], name)
        report = rig.wait(syncing)
    assert not report.ok
    assert (report.version_before, report.version_after) == (before, before)
    assert f"1 tensors differ, among them {name}" in report.detail
    assert len(rig.wait(pending)) == 8
    held = rig.submit(1)
    with pytest.raises(EngineError, match=f"{NAME}: stays paused: the load of version {version} failed half-way"):
        rig.ask("resume")
    assert rig.phase() == "paused"
    assert rig.sync(good).ok
    assert support.engine_gap(good, rig.wait(held)).mean() < CLOSE


# -- holds ----------------------------------------------------------------------------------------------------------


def test_a_lease_that_runs_out_resumes_unless_the_weights_are_damaged(rig: Rig) -> None:
    pending = rig.under_way()
    first = rig.ask("pause", time.time() + 0.4)
    until = time.time() + 1.0
    second = rig.ask("pause", until)
    assert (first.paused, first.changed, second.paused, second.changed) == (True, True, True, False)
    assert second.in_flight > 0
    rig.until(lambda: rig.phase() == "running")
    assert time.time() >= until  # renewed: not the first lease
    assert len(rig.wait(pending)) == 8
    resumed = rig.ask("resume")
    assert (resumed.paused, resumed.changed) == (False, False)

    good = rig.model
    partial = {name: tensor for name, tensor in good.state_dict().items() if "layers.1.mlp" not in name}
    until = time.time() + 0.4
    rig.ask("pause", until)
    report = rig.sync(partial)
    assert not report.ok
    assert "no weights came for" in report.detail
    rig.until(lambda: time.time() > until + 1.0)  # lease and a second: what is promised
    assert rig.phase() == "paused"
    assert rig.sync(good).ok
    assert rig.phase() == "running"  # the lease had ended


def test_a_sync_that_does_not_resume_is_held_until_its_release(rig: Rig) -> None:
    pending = rig.under_way()
    report = rig.sync(support.engine_moved(rig.model, head_only=True), resume=False)
    assert report.ok
    assert rig.phase() == "syncing"
    generated = rig.ask("sample").generated
    resumed = rig.ask("resume")  # an operator's word does not end a sync's hold
    assert (resumed.paused, resumed.changed) == (True, False)
    assert rig.ask("sample").generated == generated
    rig.ask("pause")
    released, again = rig.ask("release"), rig.ask("release")
    assert (released.paused, released.changed, again.changed) == (True, True, False)
    assert rig.phase() == "paused"
    assert rig.ask("resume").changed
    assert {int(s.versions[-1]) for g in rig.wait(pending) for s in g.sequences if len(s.ids) == MAX_TOKENS} == {
        rig.version
    }


def test_pausing_with_nothing_in_flight_and_syncing_while_paused_keep_the_pause(rig: Rig) -> None:
    paused = rig.ask("pause")
    assert (paused.paused, paused.changed, paused.in_flight) == (True, True, 0)
    assert rig.sync(rig.model).ok
    assert rig.phase() == "paused"
    assert rig.ask("resume").paused is False


def test_draining_returns_every_group(rig: Rig) -> None:
    pending = rig.under_way()
    rig.ask("pause")  # also from a standing engine
    ended = rig.ask("drain")
    groups = rig.wait(pending)
    assert ended == sum(s.finish == "abort" for g in groups for s in g.sequences) > 0
    assert rig.ask("drain") == 0
    rig.ask("resume")


def test_what_is_not_live_is_said_to_be(rig: Rig) -> None:
    for fix_id, value, words in (
        ("fp32-lm-head", "off", "takes effect with the next weight sync"),
        ("inflight-keep", "wait", "takes effect with the next weight sync"),
        ("prefix-cache-off", "removed", "takes effect with a restart of the engine"),
        ("async-scheduling-off", "off", "cannot be switched off here: vLLM's CPU platform forces"),
    ):
        with pytest.raises(EngineError, match=f"{NAME}: {fix_id} .*{words}"):
            rig.ask("set_fix", fix_id, value)
