"""Faults 22 and 23: the client that paused is gone, and an engine is killed between loading weights and going on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from driftline import config
from driftline.client import Client, attach
from driftline.frames import EngineState, Event, RunState
from tests.e2e.live_run import LiveRun, family, gone
from tests.faults.scale import FULL, dice, scaled
from tests.unit.hubs import until
from tests.unit.test_trainer_control import Rig

LEASE_S = 6.0
GRACE_S = 1.0
LIMIT_S = 300.0

CONFIG = f"""
[run]
name = "faults"
steps = 1000000
[model]
warm_start_batches = 5
[engine]
count = 2
max_num_seqs = 16
max_model_len = 64
kv_cache_gb = 0.25
[rollout]
prompts = 4
samples = 4
ahead = 4
[trainer]
lr = 1e-5
passes = 1
[sync]
resume = "barrier"
[hub]
pause_lease = {LEASE_S}
[fixes]
processed-logprobs = "on"
prefix-cache-off = "on"
fp32-lm-head = "on"
"""


def wait_out_a_pause(rig: Rig) -> None:
    rig.probe.wait(lambda: rig.control.paused)
    rig.control.wait_while_paused()


def test_22_a_loop_whose_pauser_is_gone_always_goes_on() -> None:
    rng = dice("fault 22")
    for _ in range(scaled(25, 100)):
        rig = Rig(lease=rng.uniform(0.01, 0.05))
        rig.control.start()
        held = threading.Thread(target=wait_out_a_pause, args=(rig,))
        held.start()
        rig.send("pause")
        for verb in rng.sample(["pause", "resume", "sync"], rng.randrange(3)):
            time.sleep(rng.uniform(0, 0.06))  # now and then in the moment when the lease ends
            rig.send(verb)
        held.join(60)
        assert not held.is_alive(), "a deadlock"
        rig.probe.wait(lambda rig=rig: not rig.control.paused and rig.report.run.status == "running")
        assert not rig.pool.paused
        rig.control.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRun]:
    live = LiveRun(tmp_path_factory.mktemp("runs"), CONFIG)
    yield live
    live.close()


@pytest.mark.skipif(not FULL, reason="two real engines and a replacement take minutes; `make faults` runs it")
@pytest.mark.engine
@pytest.mark.timeout(1500)
def test_22_and_23_on_real_engines(live: LiveRun) -> None:
    trainer = live.train()
    live.wait(lambda: len(live.steps()) >= 3, trainer, LIMIT_S)
    _console_and_hub_die_during_a_pause(live)
    live.wait_steps(3, trainer)
    _an_engine_dies_between_load_and_resume(live, trainer.pid)
    live.wait_steps(3, trainer)
    processes = family(trainer)
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(120) == 0, live.logs()
    assert gone(processes)


def _console_and_hub_die_during_a_pause(live: LiveRun) -> None:
    ack = live.command("pause")
    assert ack.state == "applied", ack
    assert {"engine-0.in_flight", "engine-1.in_flight"} <= set(ack.data)
    live.client.close()
    live.hub.kill()
    live.hub.wait(30)
    lease_end = float(ack.data["lease_until"])
    time.sleep(max(0.0, lease_end - time.time()))
    live.restart_hub()
    until(lambda: live.run.live() and live.run.connection().pid == live.hub.pid, "the hub to come back")
    live.client = Client(*attach(live.run, "operator"))

    def went_on() -> list[RunState]:
        return [s for s in live.frames(RunState) if s.status == "running" and s.time > lease_end - LEASE_S]

    deadline = time.monotonic() + LIMIT_S
    while not went_on():
        assert time.monotonic() < deadline, "the run stayed paused"
        time.sleep(0.1)
    late = went_on()[0].time - lease_end
    print(f"fault 22: generation resumed {late:+.2f} s after the lease")
    assert 0 <= late <= GRACE_S
    # Both engines were held at one step: nothing was trained between the pause and its end.
    paused = [s for s in live.frames(RunState) if s.status == "paused"][-1]
    assert went_on()[0].step - paused.step <= 1


def _an_engine_dies_between_load_and_resume(live: LiveRun, trainer: int) -> None:
    """With a barrier an engine that has loaded waits for the other, which stands still here until the kill."""
    pids = {s.engine: s.pid for s in _engines(live)}
    other = psutil.Process(pids["engine-1"]).children(recursive=True)
    for process in other:
        process.send_signal(signal.SIGSTOP)
    try:
        deadline = time.monotonic() + LIMIT_S
        while not any(s.engine == "engine-0" and s.phase == "syncing" for s in _engines(live)):
            assert time.monotonic() < deadline, "engine-0 did not begin a sync"
            time.sleep(0.1)
        time.sleep(2)  # it loads in a tenth of that, and is then held
        os.kill(pids["engine-0"], signal.SIGKILL)
    finally:
        for process in other:
            process.send_signal(signal.SIGCONT)

    def replaced() -> list[Event]:
        return [event for event in live.frames(Event) if event.kind == "engine.replaced"]

    process = psutil.Process(trainer)
    while not replaced():
        assert time.monotonic() < deadline + LIMIT_S, live.logs()
        assert process.is_running()
        time.sleep(0.2)
    ack = live.command("sync")
    assert ack.state == "applied", ack
    for engine in ("engine-0", "engine-1"):
        assert ack.data[f"{engine}.ok"] is True
        assert ack.data[f"{engine}.version"] == ack.data["version"]
    assert ack.data["engine-0.digest"] == ack.data["engine-1.digest"]
    print(f"fault 23: replaced after {replaced()[-1].data['down_s']:.1f} s, both engines at v{ack.data['version']}")


def _engines(live: LiveRun) -> list[EngineState]:
    return [frame for s in live.client.snapshot().states if isinstance(frame := s.frame(), EngineState)]


def test_the_configuration_of_these_tests_is_one() -> None:
    assert config.parse(CONFIG, "faults").sync.resume == "barrier"
