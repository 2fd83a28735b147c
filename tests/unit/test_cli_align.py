"""`driftline fix align` from outside, over a real hub and a trainer that only says numbers."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from console import errors
from console.cli.main import main
from driftline.catalog.fixes import BY_ID
from driftline.frames import Command, EngineFix, FixState, How, RunState
from driftline.producer.probe import Probe
from tests.unit.diagnosis_columns import Bigrams, plain, raw
from tests.unit.hubs import PATIENCE, Hub, until

STATE = RunState("r", "running", 0, 90, 0, 0.0, temperature=0.7)
HOW: dict[str, How] = {
    "async-scheduling-off": "not_available",
    "inflight-keep": "next_sync",
    "fp32-lm-head": "next_sync",
}
MISMATCH = "mismatch/abs_diff_mean"


class Trainer:
    """Two engines that report fixes, a step for each command, and does as it is asked but for `fails`."""

    def __init__(self, hub: Hub) -> None:
        self.taken: list[Command] = []
        self.fails = ""
        self.step = 0
        self.mismatch = 0.16
        self.staged: list[Command] = []
        self.fixes = {fix: self._state(fix, "off") for fix in BY_ID}
        self.probe = Probe("trainer", hub.run, on_command=self._obey)
        self.probe.send(STATE)
        for state in self.fixes.values():
            self.probe.send(state)

    def _state(self, fix: str, value: str, generation: int = 0) -> FixState:
        how = HOW.get(fix, "live")
        engines = tuple(EngineFix(f"engine-{i}", value, how) for i in range(2))
        return FixState(fix, value, generation, "config", 0.0, how, engines)

    def report(self, steps: int = 10) -> None:
        for _ in range(steps):
            self.step += 1
            self.probe.emit({MISMATCH: self.mismatch, "reward/mean": 0.4}, step=self.step, version=self.step)
        self.probe.flush(PATIENCE)

    def tokens(self, steps: int) -> None:
        """Token pairs whose engine says raw logprobs."""
        frames = Bigrams(sampled=plain, scored=plain, said=raw).frames(steps, prompts=8, samples=8)
        for frame in frames:
            self.probe.send(frame)
        self.probe.flush(PATIENCE)

    def _obey(self, command: Command) -> None:
        self.taken.append(command)
        what = command.args.get("fix", command.verb)
        if what == self.fails:
            self.probe.ack(command.id, "failed", "engine-1 died")
        elif command.verb == "fix.set" and HOW.get(what) == "next_sync":
            self.staged.append(command)
            self.probe.ack(command.id, "accepted")
        elif command.verb == "fix.set":
            self._set(command)
        else:
            for waiting in self.staged if command.verb == "sync" else ():
                self._set(waiting)
            self.staged = []
            self.probe.ack(command.id, "applied", "2 engines")
            if command.verb == "sync":
                # Not here: this is the probe's own thread, which sends what is reported.
                threading.Thread(target=self.report, args=(16,)).start()

    def _set(self, command: Command) -> None:
        fix, value = command.args["fix"], command.args["value"]
        self.fixes[fix] = self._state(fix, value, self.fixes[fix].generation + 1)
        if fix == "processed-logprobs":
            self.mismatch = 0.004 if value == "on" else 0.16
        self.probe.send(self.fixes[fix])
        self.probe.ack(command.id, "applied", "on 2/2 engines")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path)
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture
def trainer(hub: Hub) -> Iterator[Trainer]:
    trainer = Trainer(hub)
    trainer.report()
    yield trainer
    trainer.probe.close()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def align(hub: Hub, *arguments: str) -> int:
    return main(["fix", "align", *arguments, "--run", str(hub.run.path), "--timeout", str(PATIENCE)])


def sent(trainer: Trainer) -> list[str]:
    return [f"{one.args['fix']} {one.args['value']}" if one.verb == "fix.set" else one.verb for one in trainer.taken]


def test_the_reference_set_in_order_watched_and_set_back(
    hub: Hub, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert align(hub, "--yes", "--json") == errors.OK
    assert sent(trainer) == ["mark", "processed-logprobs on", "prefix-cache-off on", "fp32-lm-head on", "sync"]
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["sync"], found["undoes"]) == ("applied", True, False)
    assert [one["fix"] for one in found["settings"]] == ["processed-logprobs", "prefix-cache-off", "fp32-lm-head"]
    assert found["settings"][0]["gain"] == {"nats": "NaN", "low": "NaN", "high": "NaN", "source": ""}
    assert [one["state"] for one in found["commands"]] == ["applied"] * 4
    change = found["changes"][MISMATCH]
    assert change["before"] == pytest.approx(0.16)
    assert change["after"] == pytest.approx(0.004)
    assert change["steps"]["after"] == 10
    assert found["effects"] == []

    trainer.taken.clear()
    assert align(hub, "--yes") == errors.OK, "nothing is left to do"
    assert sent(trainer) == []
    assert "align: nothing to do" in capsys.readouterr().out

    assert align(hub, "--undo", "--yes") == errors.OK
    assert sent(trainer) == ["mark", "processed-logprobs off", "prefix-cache-off off", "fp32-lm-head off", "sync"]
    assert "undo the alignment: 3 fixes, 1 sync" in capsys.readouterr().out
    assert align(hub, "--undo", "--yes") == errors.FAILED
    assert "no alignment of this run stands" in capsys.readouterr().err


def test_it_asks_once_and_sends_nothing_without_a_yes(
    hub: Hub, trainer: Trainer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert align(hub) == errors.FAILED
    assert "not confirmed, nothing was set; --yes does it without asking" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", Terminal("no\n"))
    assert align(hub) == errors.FAILED
    said = capsys.readouterr()
    assert "processed-logprobs" in said.out
    assert "expected not known" in said.out
    assert "align now? [y/N]" in said.err
    assert align(hub, "--dry-run") == errors.OK
    assert align(hub, "--dry-run", "--json") == errors.OK
    assert trainer.taken == []
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert align(hub, "--steps", "0") == errors.OK
    assert "sync" in sent(trainer)


def test_what_fails_ends_it_and_names_what_was_set(
    hub: Hub, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.fails = "prefix-cache-off"
    assert align(hub, "--yes") == errors.FAILED
    said = capsys.readouterr().err
    assert "1 of 4 applied; prefix-cache-off on: failed: engine-1 died" in said
    assert "fix align --undo sets back what was set" in said
    assert sent(trainer) == ["mark", "processed-logprobs on", "prefix-cache-off on"]
    trainer.fails, trainer.taken = "", []
    assert align(hub, "--undo", "--yes", "--steps", "0") == errors.OK
    assert sent(trainer) == ["mark", "processed-logprobs off"], "what never came about is left alone"


def test_what_is_not_answered_in_time_is_seen_by_the_exit_code(
    hub: Hub, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.probe.close()
    run = str(hub.run.path)
    assert main(["fix", "align", "--yes", "--run", run, "--timeout", "1"]) in (errors.TIMEOUT, errors.FAILED)
    assert "0 of 4 applied; processed-logprobs on: " in capsys.readouterr().err


def test_the_cause_that_is_named_is_what_is_asked_for(
    hub: Hub, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.tokens(12)
    assert align(hub, "--dry-run", "--json") == errors.OK
    found = json.loads(capsys.readouterr().out)
    named = {one["fix"]: one["named"] for one in found["settings"]}
    assert named.get("processed-logprobs") is True
    assert found["settings"][0]["gain"]["source"] == "attribution"
    assert found["settings"][0]["gain"]["nats"] > 0.05


def test_what_is_left_out_is_not_sent(hub: Hub, trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    left_out = ("--without", "fp32-lm-head", "--without", "prefix-cache-off")
    assert align(hub, "--yes", "--steps", "0", *left_out) == errors.OK
    assert sent(trainer) == ["mark", "processed-logprobs on"]
    assert "align: 1 fix (" in capsys.readouterr().out
    assert align(hub, "--dry-run", "--without", "sync") == errors.OK
    assert "with the next sync" in capsys.readouterr().out
    assert align(hub, "--yes", "--without", "no-such-fix") == errors.USAGE
    assert "there is no fix 'no-such-fix'; allowed: processed-logprobs" in capsys.readouterr().err


def test_a_run_without_a_live_hub_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", "align", "--run", str(tmp_path)]) == errors.NO_RUN
    assert capsys.readouterr().err.startswith("driftline: ")


def test_states_of_another_generation_are_refused(hub: Hub, trainer: Trainer) -> None:
    """The generation that the plan was made for goes along: the hub refuses what another operator has changed."""
    trainer.fixes["processed-logprobs"] = replace(trainer.fixes["processed-logprobs"], generation=5)
    trainer.probe.send(trainer.fixes["processed-logprobs"])
    trainer.probe.flush(PATIENCE)
    assert align(hub, "--yes", "--steps", "0") == errors.OK
    until(lambda: "processed-logprobs on" in sent(trainer), "the command")
    taken = next(one for one in trainer.taken if one.args.get("fix") == "processed-logprobs")
    assert taken.generation == 5
