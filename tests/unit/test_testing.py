"""What authors of adapters test with: a hub in the process, a recording of an engine, a clock."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from driftline import Probe
from driftline.frames import Ack, EngineFix, EngineState, FixState, Metrics
from driftline.testing import Answer, Clock, InProcessHub, Moment, RecordedEngine, Recording, until

FIX = "processed-logprobs"


def own(name: str, value: str, time: float = 5.0) -> FixState:
    return FixState(FIX, value, 0, "", time, "live", (EngineFix(name, value, "live"),))


def recording() -> Recording:
    done = (Ack("x", "accepted", 1.0), own("a", "on"), Ack("x", "applied", 2.0, "done", {"was": 1}))
    moments = (Moment(0.0, EngineState("a", "running", 3, 1.0)), Moment(2.0, own("a", "off")))
    return Recording("a", moments, (Answer("fix.set", {"fix": FIX, "value": "on"}, done),), "made by a test")


def test_a_probe_finds_the_hub_and_its_frames_are_in_the_journal() -> None:
    with InProcessHub() as hub:
        with Probe("trainer", hub.run) as probe:
            probe.emit({"reward/mean": 0.5}, step=1)
        assert [frame.values for frame in hub.frames("trainer") if isinstance(frame, Metrics)] == [{"reward/mean": 0.5}]
        folder = hub.run.path
    assert not folder.exists(), "its folder was its own"


def test_the_hub_goes_on_where_it_ended(tmp_path: Path) -> None:
    with InProcessHub(tmp_path) as hub, Probe("trainer", hub.run) as probe:
        for step in (1, 2):
            probe.emit({"reward/mean": 0.5}, step=step)
            assert probe.flush(30.0)
            hub.stop()
            assert not hub.run.live()
            hub.start()
        assert [frame.step for frame in hub.frames("trainer") if isinstance(frame, Metrics)] == [1, 2]
    assert (tmp_path / hub.run.id).exists()


def test_a_second_hub_of_a_run_is_refused_with_the_reason() -> None:
    with InProcessHub() as hub, pytest.raises(RuntimeError, match="already has a hub"):
        hub.start()


def test_a_recording_is_played_under_its_name_and_time_and_answers_as_it_did() -> None:
    clock = Clock()
    with InProcessHub() as hub, hub.client() as client:
        engine = RecordedEngine(recording(), hub.run, name="engine-7", clock=clock)
        assert engine.play(1.0) == 1
        clock.wait(2.0)
        assert engine.play() == 1
        assert engine.probe.flush(30.0)
        state, fix = hub.frames("engine-7")
        assert isinstance(state, EngineState)
        assert isinstance(fix, FixState)
        assert (state.engine, state.time, fix.time) == ("engine-7", clock.wall - 2.0, clock.wall)
        ack = client.wait(client.command("fix.set", {"fix": FIX, "value": "on"}), 30.0)
        assert (ack.state, ack.detail, ack.data) == ("applied", "done", {"engine-7.was": 1})
        other = client.wait(client.command("fix.set", {"fix": FIX, "value": "off"}), 30.0)
        assert (other.state, other.detail) == (
            "refused", f"this recording has no answer to fix.set fix={FIX} value=off",
        )  # fmt: skip
        assert [command.verb for command in engine.taken] == ["fix.set", "fix.set"]
        engine.close()


def test_a_recording_is_taken_from_a_run_and_gives_the_same_again(tmp_path: Path) -> None:
    with InProcessHub(tmp_path) as hub, hub.client() as client, RecordedEngine(recording(), hub.run, name="engine-0"):
        client.wait(client.command("fix.set", {"fix": FIX, "value": "on"}), 30.0)
        until(lambda: any(isinstance(one, FixState) and one.effective == "on" for one in hub.frames()), "the report")
    taken = Recording.of_run(hub.run, "engine-0")
    assert [type(moment.frame) for moment in taken.moments] == [EngineState, FixState]
    (answer,) = taken.answers
    assert (answer.verb, answer.args) == ("fix.set", {"fix": FIX, "value": "on"})
    said = [(one.state, one.detail, one.data) for one in answer.frames if isinstance(one, Ack)]
    assert said == [("accepted", "", {}), ("applied", "done", {"was": 1})]
    assert [one.effective for one in answer.frames if isinstance(one, FixState)] == ["on"]
    path = tmp_path / "recording.json"
    taken.write(path)
    assert Recording.read(path) == taken
    with pytest.raises(ValueError, match="has nothing of an engine 'engine-9'"):
        Recording.of_run(hub.run, "engine-9")
    path.write_text("[]")
    with pytest.raises(ValueError, match="not the recording of an engine"):
        Recording.read(path)


def test_the_clock_moves_when_it_is_moved_and_the_wall_alone_jumps() -> None:
    clock = Clock(100.0, 1.0)
    clock.wait(2.0)
    clock.jump(-50.0)
    assert (clock(), clock.time(), clock.monotonic()) == (52.0, 52.0, 3.0)


def test_the_page_about_it_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/adapters.md", "exec"), {})


def test_it_costs_no_torch_and_no_console() -> None:
    script = (
        "import sys, driftline.testing; print([n for n in ('torch', 'vllm', 'polars', 'textual') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
