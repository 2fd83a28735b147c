"""`driftline diagnose`: on recorded runs, with its exit codes, as text and as JSON; and in the evidence's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from console.cli.main import main
from console.diagnosis.recorded import diagnose_run, token_frames
from driftline.frames import EngineFix, EngineState, FixState, Frame, Metrics, RunState
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, create
from tests.unit import diagnosis_columns as made
from tests.unit.diagnosis_columns import Bigrams, plain
from tests.unit.hubs import PATIENCE, Hub
from tests.unit.runs import NOW, journal, tokens

STATE = RunState("r", "finished", 8, 8, 8, NOW, "ppo", "tiny", 0.7)
FIXES = [
    FixState("processed-logprobs", "off", 1, "", NOW, "live", (EngineFix("engine-0", "off", "live"),)),
    FixState(
        "fp32-lm-head", "on", 1, "", NOW, "next_sync",
        (EngineFix("engine-0", "on", "next_sync", detail="head torch.float32, body torch.float32"),),
    ),
]  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DRIFTLINE_RUN", "DRIFTLINE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def run_of(root: Path, name: str, frames: list[Frame]) -> RunDir:
    run = create(root, name)
    states: list[Frame] = [
        STATE,
        *FIXES,
        EngineState("engine-0", "running", 8, NOW),
        EngineState("engine-1", "running", 8, NOW),
    ]
    numbers: list[Frame] = [
        Metrics(step, step, NOW + step, {"staleness/abs_diff_mean": 0.01, "async/version_lag_mean": 0.4})
        for step in range(8)
    ]
    journal(run, [*states, *numbers, *frames])
    return run


def raw(root: Path) -> RunDir:
    return run_of(root, "raw", [*Bigrams(plain, plain, said=made.raw).frames(8)])


def test_a_cause_is_named_with_code_8(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = raw(runs)
    assert main(["diagnose", str(run.path)]) == 8
    said = capsys.readouterr()
    assert said.out.startswith("The engine reports logprobs before temperature and penalties")
    assert "do: switch processed logprobs on" in said.out
    assert said.err == ""
    assert main(["diagnose"]) == 8  # the newest that has ended
    assert "is the newest that has ended" in capsys.readouterr().err


def test_json_is_the_whole_diagnosis(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = raw(runs)
    assert main(["diagnose", str(run.path), "--json"]) == 8
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == run.id
    assert (found["verdict"], found["named"]) == ("cause", ["raw-logprobs"])
    assert found["actions"][0]["fix"] == "processed-logprobs"
    supporting = [one["text"] for one in found["ranked"][0]["supporting"]]
    assert "processed-logprobs is reported as off" in supporting
    assert found["normal"]["floor"] < 1e-3  # the body's type is that of the fix's reading
    assert {one["name"] for one in found["ranked"]} | {one["name"] for one in found["ruled_out"]} >= {
        "raw-logprobs",
        "dropout",
    }


def test_a_healthy_run_has_code_0(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(runs, "healthy", [*Bigrams(plain, plain).frames(8)])
    assert main(["diagnose", str(run.path)]) == 0
    assert "nothing wrong beyond the numeric floor" in capsys.readouterr().out.lower()


def test_what_no_cause_explains_has_code_9(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rounded(logits: made.Logits, seen: list[int], at: int) -> made.Logits:
        return plain(logits, seen, at).round(1)

    run = run_of(runs, "rounded", [*Bigrams(plain, plain, said=rounded).frames(8)])
    assert main(["diagnose", str(run.path)]) == 9
    assert "not one that I know" in capsys.readouterr().out


@pytest.mark.parametrize("frames", [[], [tokens(1)]])
def test_too_few_tokens_have_code_6(runs: Path, frames: list[Frame], capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(runs, "few", frames)
    assert main(["diagnose", str(run.path)]) == 6
    assert "200 are the fewest" in capsys.readouterr().out


def test_a_run_that_is_not_there_has_code_3(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "nowhere"]) == 3
    assert capsys.readouterr().err.startswith("driftline: ")


def test_a_live_run_by_its_hub_alone(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from another machine: a connection file and a key, and no files of the run."""
    hub = Hub(tmp_path / "hub")
    try:
        hub.start()
        with Probe("trainer", hub.run) as probe:
            for frame in (STATE, *FIXES, *Bigrams(plain, plain, said=made.raw).frames(8)):
                probe.send(frame)
            assert probe.flush(PATIENCE)
        connection = tmp_path / "connection.json"
        connection.write_bytes(hub.run.connection_file.read_bytes())
        key = hub.run.keys / "viewer.key"
        assert main(["diagnose", str(connection), "--key", str(key), "--json"]) == 8
        found = json.loads(capsys.readouterr().out)
        assert found["named"] == ["raw-logprobs"]
        assert found["tokens"] == diagnose_run(hub.run).tokens
    finally:
        hub.end()


def test_a_compacted_run_is_read_alike(runs: Path) -> None:
    run = raw(runs)
    before = [(frame.n, frame.rollout) for frame in token_frames(run)]
    found = diagnose_run(run)
    assert main(["compact", "--run", str(run.path)]) == 0
    for path in run.journal.glob("*.rlj"):
        if (run.parquet / "tokens" / f"{path.stem}.parquet").exists():
            path.unlink()
    assert [(frame.n, frame.rollout) for frame in token_frames(run)] == before
    assert diagnose_run(run).named == found.named
