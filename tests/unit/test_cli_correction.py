"""`driftline correction` from outside, over a real hub and a trainer that only says numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from console import errors
from console.cli.main import main
from driftline.catalog.corrections import BY_ID
from driftline.frames import Command, RunState
from driftline.producer.probe import Probe
from tests.unit.hubs import PATIENCE, Hub, until

STATE = RunState("r", "running", 30, 90, 30, 0.0, correction="off", correction_requested="off", correction_by="config")


class Trainer:
    """Reports a mismatch for ten steps at a time, and does what commands order."""

    def __init__(self, hub: Hub) -> None:
        self.taken: list[Command] = []
        self.state = STATE
        self.step = 0
        self.probe = Probe("trainer", hub.run, on_command=self._obey)
        self.probe.send(self.state)

    def report(self, mismatch: float, steps: int = 10) -> None:
        for _ in range(steps):
            self.step += 1
            self.probe.emit({"mismatch/abs_diff_mean": mismatch}, step=self.step, version=self.step)
        self.probe.flush(PATIENCE)

    def _obey(self, command: Command) -> None:
        self.taken.append(command)
        value, since = command.args["value"], self.step + 1
        self.state = replace(self.state, correction=value, correction_requested=value, correction_since=since)
        self.probe.send(self.state)
        self.probe.ack(command.id, "applied", "", {"effective": value, "since_step": since})


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("runs"))
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def trainer(hub: Hub) -> Iterator[Trainer]:
    trainer = Trainer(hub)
    yield trainer
    trainer.probe.close()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def order(hub: Hub, *arguments: str) -> int:
    return main(["correction", *arguments, "--run", str(hub.run.path)])


def test_the_road_from_a_failing_backend_to_a_passing_one(
    hub: Hub, trainer: Trainer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert order(hub, "set", "tis") == errors.NOT_ENOUGH_DATA
    trainer.report(0.16)
    assert order(hub, "set", "tis") == errors.NOT_PARITY
    said = capsys.readouterr().err
    assert "the backend fails parity: mismatch/abs_diff_mean is .16 over steps 1 to 10, limit .03" in said
    assert "--despite-parity does it nevertheless" in said
    assert trainer.taken == []

    monkeypatch.setattr("sys.stdin", Terminal("y\nno\n"))
    assert order(hub, "set", "tis") == errors.NOT_PARITY
    assert trainer.taken == []
    monkeypatch.setattr("sys.stdin", Terminal("y\ntis\n"))
    assert order(hub, "set", "tis", "--wait") == errors.OK
    assert trainer.taken[-1].args == {
        "value": "tis", "despite": "fail: mismatch/abs_diff_mean is .16 over steps 1 to 10, limit .03",
    }  # fmt: skip
    assert "in force from step 11 on" in capsys.readouterr().out

    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert order(hub, "set", "off", "--wait") == errors.OK
    assert trainer.taken[-1].args == {"value": "off"}
    assert order(hub, "set", "icepop", "--despite-parity", "--wait") == errors.OK
    assert trainer.taken[-1].args["despite"].startswith("fail: ")

    trainer.report(0.001, steps=12)
    capsys.readouterr()
    assert order(hub, "set", "sequence-mask", "--wait", "--json") == errors.OK
    assert trainer.taken[-1].args == {"value": "sequence-mask"}
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["effective"], document["since"]) == ("applied", "sequence-mask", 23)
    assert document["parity"]["verdict"] == "pass"


def test_the_list_says_what_is_on_and_what_the_gate_says(
    hub: Hub, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert order(hub, "set", "tis", "--despite-parity", "--wait") == errors.OK
    until(lambda: trainer.state.correction == "tis", "the trainer to obey")
    capsys.readouterr()
    assert order(hub, "list") == errors.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line[0] in "●○◐"] == list(BY_ID)
    assert [line.split()[1] for line in lines if line.startswith("●")] == ["tis"]
    assert lines[-1].startswith("backend parity: ")
    assert order(hub, "list", "--json") == errors.OK
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["corrections", "requested", "effective", "since", "by", "generation", "parity"]
    assert [one["id"] for one in document["corrections"]] == list(BY_ID)


def test_a_word_outside_the_catalogue_is_a_bad_argument(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert order(hub, "set", "clip-higher") == errors.USAGE
    assert "unknown correction 'clip-higher'; allowed: off, tis" in capsys.readouterr().err


def test_without_a_live_run_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["correction", "list", "--run", str(tmp_path)]) == errors.NO_RUN
    assert capsys.readouterr().err.startswith("driftline: ")
