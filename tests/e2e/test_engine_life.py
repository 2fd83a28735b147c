"""How engines start, die, are replaced and end, on the real vLLM; a process has one pool at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine import EngineError, Group, RolloutRequest, SyncReport
from engine.weights.publish import digest
from tests import signals
from tests.e2e import engine_support as support
from tests.e2e.engine_support import CLOSE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

FEW = 2
"""Groups in flight that leave most of the machine to an engine that loads."""


class Pair:
    """Two engines, the weights they hold, and a stream of groups through them that is counted."""

    def __init__(self, folder: Path) -> None:
        self.model = support.engine_model(folder / "model")
        self.said: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.pool = support.engine_pool(
            folder / "model", folder / "logs", self.said, count=2, replacements=2,
            on_event=lambda kind, text, _level, data: self.events.append((kind, data | {"text": text})),
        )  # fmt: skip
        self.outside = set(psutil.Process().children(recursive=True))
        self.seen: set[psutil.Process] = set()
        self.version = 0
        self.submitted = 0
        self.groups: dict[int, Group] = {}

    def processes(self) -> set[psutil.Process]:
        """Ours now; remembered for the end."""
        now = set(psutil.Process().children(recursive=True)) - self.outside
        self.seen |= now
        return now

    def sync(self, **options: Any) -> list[SyncReport]:
        self.model, self.version = support.engine_moved(self.model, head_only=True), self.version + 1
        return self.pool.sync(self.model.state_dict(), self.version, **options)

    def flow(self, ahead: int = 24) -> None:
        """Keep so many groups in flight and take what has come; each group comes once."""
        while self.pool.in_flight < ahead:
            prompt = support.PROMPTS.integers(2, support.VOCABULARY, support.PROMPT).tolist()
            self.pool.submit(RolloutRequest(self.submitted, prompt, 8))
            self.submitted += 1
        self._take(self.pool.take(0.2))

    def settle(self) -> None:
        """Take all that is in flight; nothing is missing then, and nothing came twice."""
        while len(self.groups) < self.submitted:  # what is not in flight any more may not have been taken yet
            groups = self.pool.take(support.LIMIT_S)
            assert groups
            self._take(groups)
        assert self.groups.keys() == set(range(self.submitted))

    def _take(self, groups: list[Group]) -> None:
        for group in groups:
            assert group.group not in self.groups
            assert not group.aborted
            assert len(group.sequences) == 8
            self.groups[group.group] = group

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == kind]

    def until(self, condition: Callable[[], Any], ahead: int = 24) -> None:
        """Let groups flow until something has come about; few of them while engines load on the same cores."""
        deadline = time.monotonic() + 4 * support.LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"it did not come about; events: {self.events}"
            self.flow(ahead)

    def effective(self) -> dict[str, list[str]]:
        return {fix: [state.effective for state in states] for fix, states in self.pool.fix_states().items()}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The tests below use it in their order: it loses its engines one after the other."""
    pair = Pair(tmp_path_factory.mktemp("pair"))
    try:
        pair.pool.start()
        yield pair
    finally:
        pair.pool.close()


def test_two_engines_share_the_work(pair: Pair) -> None:
    pool = pair.pool
    assert [line.split(":")[0] for line in pair.said if "ready in" in line] == pool.names == ["engine-0", "engine-1"]
    groups = support.engine_rollouts(pool, 16)
    assert {group.engine for group in groups} == set(pool.names)
    assert support.engine_gap(pair.model, groups).mean() < CLOSE
    first = {s.ids.tobytes() for g in groups if g.engine == "engine-0" for s in g.sequences}
    assert not first & {s.ids.tobytes() for g in groups if g.engine == "engine-1" for s in g.sequences}

    reports = pair.sync(barrier=True)
    assert [(r.engine, r.ok, r.version_after) for r in reports] == [("engine-0", True, 1), ("engine-1", True, 1)]
    assert {report.digest for report in reports} == {digest(pair.model.state_dict())}
    assert [s.effective for s in pool.set_fix("processed-logprobs", "off")] == ["off", "off"]
    assert [s.effective for s in pool.set_fix("processed-logprobs", "on")] == ["on", "on"]
    assert support.engine_gap(pair.model, support.engine_rollouts(pool, 8)).mean() < CLOSE

    ours = pair.processes()
    assert len(ours) > 6  # two actors, cores and workers, and Ray
    assert support.engine_sockets(ours) == set()
    assert len({info.pid for info in pool.infos}) == 2
    assert len({info.node_id for info in pool.infos}) == 1


def test_groups_that_a_sync_aborts_are_run_again(pair: Pair) -> None:
    pair.pool.stage_fix("inflight-keep", "off")
    pair.until(lambda: pair.pool.stats().running > 16)
    pair.flow()
    reports = pair.sync()
    assert all(report.ok for report in reports)
    assert sum(report.aborted for report in reports) > 0
    assert pair.effective()["inflight-keep"] == ["off", "off"]
    pair.settle()
    pair.pool.stage_fix("inflight-keep", "on")
    pair.sync()
    assert sum(event["groups"] for event in pair.of("rollouts.aborted")) > 0
    assert pair.effective()["inflight-keep"] == ["on", "on"]


def test_a_rolling_restart_loses_nothing_and_syncs_go_on(pair: Pair) -> None:
    pids = [info.pid for info in pair.pool.infos]
    pair.until(lambda: pair.pool.stats().running > 16)
    future = pair.pool.restart_fix("prefix-cache-off", "removed")
    partial = 0
    while not future.done():
        pair.flow(FEW)
        with suppress(TimeoutError):
            future.exception(1.0)  # leaves the cores to the engine that loads
        reports = pair.sync()
        assert reports
        assert all(report.ok for report in reports), reports
        partial += len(reports) == 1
        pair.processes()
    reports = future.result()
    assert partial > 0
    assert [report.engine for report in reports] == pair.pool.names
    assert all(report.down_s > 0 for report in reports)
    assert sum(report.moved for report in reports) > 0
    assert pair.effective()["prefix-cache-off"] == ["removed", "removed"]
    assert pair.effective()["fp32-lm-head"] == ["on", "on"]
    pair.settle()
    assert {group.engine for group in pair.groups.values()} == set(pair.pool.names)
    assert not {info.pid for info in pair.pool.infos} & set(pids)
    assert not support.engine_left(p for p in pair.seen if p.pid in pids)
    fresh = support.engine_rollouts(pair.pool, 8)
    assert support.engine_gap(pair.model, fresh).mean() < CLOSE
    assert all((s.versions == pair.version).all() for g in fresh for s in g.sequences)
    figures = ", ".join(
        f"{report.engine} down {report.down_s:.1f} s, {report.moved} groups moved" for report in reports
    )
    print(f"rolling restart: {figures}")


def test_a_killed_engine_is_replaced_as_it_should_be(pair: Pair) -> None:
    pair.pool.set_fix("processed-logprobs", "off")
    pair.until(lambda: pair.pool.stats().running > 16)
    dead = next(info for info in pair.pool.infos if info.engine == "engine-1")
    os.kill(dead.pid, signal.SIGKILL)
    pair.until(lambda: pair.of("engine.died"))
    assert pair.pool.fix_states("processed-logprobs")["processed-logprobs"][1].effective == ""
    assert [report.engine for report in pair.sync()] == ["engine-0"]
    pair.until(lambda: pair.of("engine.replaced"), FEW)
    (replaced,) = pair.of("engine.replaced")
    assert (replaced["engine"], replaced["version"]) == ("engine-1", pair.version)
    assert [state.version for state in pair.pool.stats().engines] == [pair.version, pair.version]
    effective = pair.effective()
    for fix, value in pair.pool.wanted.items():
        assert effective[fix] == ([value, value] if fix != "async-scheduling-off" else ["on", "on"])
    assert effective["prefix-cache-off"] == ["removed", "removed"]
    assert effective["processed-logprobs"] == ["off", "off"]
    pair.settle()
    pair.pool.set_fix("processed-logprobs", "on")
    groups = support.engine_rollouts(pair.pool, 16)
    assert {group.engine for group in groups} == set(pair.pool.names)
    assert support.engine_gap(pair.model, groups).mean() < CLOSE
    assert {report.digest for report in pair.sync()} == {digest(pair.model.state_dict())}
    pair.processes()
    moved = sum(event["groups"] for event in pair.of("rollouts.moved"))
    print(f"replacement after kill -9: down {replaced['down_s']:.1f} s; groups moved so far: {moved}")


def test_a_hung_engine_counts_as_dead(pair: Pair) -> None:
    hung = psutil.Process(pair.pool.infos[1].pid)
    hung.suspend()
    assert [report.engine for report in pair.sync(timeout=15.0)] == ["engine-0"]
    pair.until(lambda: len(pair.of("engine.died")) == 2, FEW)
    assert "engine-1: no answer within 15 s" in pair.of("engine.died")[1]["text"]
    pair.until(lambda: not support.engine_left([hung]), FEW)


def test_the_bound_ends_the_run_and_closing_in_a_replacement_leaves_nothing(pair: Pair) -> None:
    pool = pair.pool  # engine-1 is being replaced for the second time
    pair.until(lambda: pool._fleet.members["engine-1"].stage == "loading vLLM and the model", FEW)
    pair.processes()
    cores = [p for p in psutil.Process(pool.infos[0].pid).children() if "EngineCore" in " ".join(p.cmdline())]
    cores[0].kill()  # the actor around it lives on
    with pytest.raises(EngineError, match=r"engine-0: vLLM's engine core died.*engine\.replacements = 2"):
        pair.until(lambda: False)
    with pytest.raises(EngineError, match="engine-0"):
        pair.sync()
    pair.processes()
    pool.close()
    pool.close()
    assert not support.engine_left(pair.seen)
    assert not set(psutil.Process().children(recursive=True)) - pair.outside
    with pytest.raises(EngineError):
        pool.take(0.1)


def test_vllm_that_refuses_the_model_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    support.engine_model(tmp_path / "model")
    outside = set(psutil.Process().children(recursive=True))
    pool = support.engine_pool(tmp_path / "model", tmp_path / "logs", [], max_model_len=4096)
    with pytest.raises(EngineError, match=r"engine-0: vLLM did not start: .*max_model_len.*engine-0\.log"):
        pool.start()
    assert not set(psutil.Process().children(recursive=True)) - outside


INTERRUPTED = """
import sys
from pathlib import Path
from tests.e2e import engine_support as support

class Said(list):
    def append(self, line):
        print(line, flush=True)

folder = Path(sys.argv[1])
support.engine_model(folder / "model")
support.engine_pool(folder / "model", folder / "logs", Said()).start()
"""


def _core_begun(processes: set[psutil.Process]) -> bool:
    """Whether an actor's vLLM has processes of its own."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::EngineActo") and process.children():
                return True
    return False


def test_ctrl_c_while_loading_leaves_no_process(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=signals.restore_defaults,
    )
    watched: set[psutil.Process] = set()
    try:
        deadline = time.monotonic() + support.LIMIT_S
        while not _core_begun(watched):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
            watched = set(psutil.Process(child.pid).children(recursive=True))
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=support.LIMIT_S)
        assert "KeyboardInterrupt" in errors
        assert not support.engine_left(watched)
    finally:
        for process in watched:
            if process.is_running():
                process.kill()
        child.kill()
