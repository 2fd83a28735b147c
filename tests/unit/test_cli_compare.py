"""`driftline compare` and the arguments of `driftline parity`, end to end without an engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from console.cli.main import main
from console.cli.verbs import parity as experiment
from console.demo.report import DemoReport
from console.errors import FAILED, OK, USAGE, CommandError
from console.parity.experiment import Planned, plan
from console.parity.runs import CorrectionChange
from driftline.config import Config, parse
from driftline.frames import EngineFix, FixState, Frame, Metrics, RunState, encode
from driftline.journal.journal import Journal, Record, record_encoder
from driftline.rundir import RunDir, create
from tests.environment import needs_engine
from tests.unit.parity_curves import Floats, as_run, healthy

PLANNED = plan(Config(), steps=90, switch_at=20, seeds=3)


def record(
    root: Path,
    name: str,
    curves: dict[str, Floats],
    fix: str = "on",
    *,
    synthetic: bool = False,
    corrected: tuple[str, int] | None = None,
) -> RunDir:
    """A run directory with a journal of these curves, steps from 1; `corrected`: a correction and its first step."""
    run = create(root, name)
    report = EngineFix("engine-0", fix, "live")
    frames: list[Frame] = [
        RunState(run.id, "finished", 0, 0, 0, 0.0, synthetic=synthetic),
        FixState("processed-logprobs", fix, 0, "config", 0.0, "live", (report,)),
    ]
    names, rows = list(curves), np.column_stack(list(curves.values())).tolist()
    frames += [Metrics(i + 1, i, 0.0, dict(zip(names, row, strict=True))) for i, row in enumerate(rows)]
    if corrected is not None:
        value, since = corrected
        state = RunState(run.id, "running", since, 90, since, 0.0, correction=value, correction_since=since)
        frames.insert(2 + since, state)
    log = Journal(run.journal)
    for frame in frames:
        seq = log.head + 1
        log.append(record_encoder.encode(Record(seq, 0.0, "trainer", msgspec.Raw(encode(frame)), 1, seq)), seq, True)
    log.close()
    return run


def broken(seed: int) -> dict[str, Floats]:
    curves = healthy(seed)
    curves["mismatch/abs_diff_mean"] += 0.15
    curves["reward/mean"] -= np.linspace(0, 0.6, 90)
    return curves


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def references(root: Path) -> list[str]:
    return [record(root, "reference", healthy(seed)).id for seed in range(3)]


def test_another_seed_passes(root: Path, references: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = record(root, "other", healthy(7))
    assert main(["compare", *references, str(run.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{run.id} against 3 reference runs ({references[0]}, ")
    assert lines[-1] == "PASS"
    assert sum(" pass " in line for line in lines) == 5


def test_a_broken_run_fails_with_metric_step_and_cause(
    root: Path, references: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(root, "broken", broken(7), "off")
    assert main(["compare", *references, run.id]) == 5
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "FAIL: mismatch mean|Δlogp| out of the band since step 1 (and 1 more metric)"
    assert "likely cause of reward, mismatch mean|Δlogp|: mismatch: processed-logprobs off here" in out


def test_of_two_since_the_same_step_the_farthest_off_is_named(
    root: Path, references: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    curves = healthy(7)
    curves["policy/clip_fraction"] *= 20
    curves["mismatch/abs_diff_mean"] += 0.15
    run = record(root, "broken", curves)
    assert main(["compare", *references, run.id, "--json"]) == 5
    first = {one["metric"]: one["first"] for one in json.loads(capsys.readouterr().out)["metrics"]}
    assert first["policy/clip_fraction"] == first["mismatch/abs_diff_mean"] == 1
    assert main(["compare", *references, run.id]) == 5
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "FAIL: mismatch mean|Δlogp| out of the band since step 1 (and 1 more metric)"


def test_json(root: Path, references: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = record(root, "broken", broken(7), "off")
    assert main(["compare", *references, run.id, "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["run"], found["references"]) == ("fail", run.id, references)
    assert (found["spread"], found["alpha"], found["window"], found["from"]) == ("measured", 0.05, 10, None)
    mismatch = found["metrics"][-1]
    assert mismatch["metric"] == "mismatch/abs_diff_mean"
    assert (mismatch["verdict"], mismatch["first"], mismatch["back"]) == ("fail", 1, None)
    assert mismatch["cause"]["kind"] == "mismatch"
    assert mismatch["cause"]["fixes"] == ["processed-logprobs"]
    assert mismatch["excursions"] == [{"first": 1, "last": None, "side": "above"}]
    assert mismatch["difference"] == pytest.approx(0.15, abs=0.02)


def test_too_few_steps_are_not_enough_data(
    root: Path, references: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(root, "short", healthy(7, steps=12))
    assert main(["compare", *references, run.id]) == 6
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "NOT ENOUGH DATA: clip fraction: 12 common steps, 20 are needed"


def test_one_reference_says_what_it_cannot_know(
    root: Path, references: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(root, "other", healthy(7))
    assert main(["compare", references[0], run.id]) == 0
    assert "its spread over seeds is assumed from the rules, not measured" in capsys.readouterr().out


def test_some_metrics_over_some_steps(root: Path, references: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = record(root, "broken", broken(7), "off")
    some = ["--metrics", "entropy,policy/kl_new_old", "--until", "60"]
    assert main(["compare", *references, run.id, *some, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert [(one["metric"], one["steps"]) for one in found] == [("policy/entropy", 60), ("policy/kl_new_old", 60)]


def test_after_a_switch(root: Path, references: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    curves = healthy(7)
    curves["mismatch/abs_diff_mean"][:40] += 0.15
    run = record(root, "repaired", curves)
    assert main(["compare", *references, run.id]) == 5
    capsys.readouterr()
    assert main(["compare", *references, run.id, "--from", "15"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("PASS: home since step 4")


def test_a_table_as_the_reference(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = root / "old.parquet"
    curves = healthy(0)
    pl.DataFrame({"step": range(1, 91), "rl/reward": curves["reward/mean"]}).write_parquet(table)
    run = record(root, "other", healthy(7), synthetic=True)
    assert main(["compare", str(table), run.id, "--metrics", "reward"]) == 0
    assert capsys.readouterr().out.startswith(f"SYNTHETIC  {run.id} against 1 reference run (old)")


def test_other_rules(root: Path, references: list[str]) -> None:
    rules = root / "rules.toml"
    rules.write_text('window = 5\n[metrics.reward]\nspread = 0.001\nlimit = 0.99\nside = "low"\n', encoding="utf-8")
    run = record(root, "other", healthy(7))
    assert main(["compare", *references, run.id, "--rules", str(rules)]) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["one"], 2, "compare needs at least two runs: REFERENCE... RUN"),
        (["a", "b", "--from", "9", "--until", "3"], 2, "--until 3 is before --from 9"),
        (["a", "b", "--metrics", "speed"], 2, "no parity rule for 'speed'; there are rules for: "),
        (["a", "b", "--rules", "/no/such.toml"], 2, "/no/such.toml: cannot be read: No such file or directory"),
        (["a", "b"], 3, "no run 'a'"),
        (["a.parquet", "b"], 2, "a.parquet: there is no such file"),
    ],
)
def test_bad_arguments_are_one_sentence(
    root: Path, arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"driftline: {sentence}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "1"], "--seeds: at least 2"),
        (["--steps", "20", "--switch", "20"], "--switch 20: must come before the last of --steps 20"),
        (["--steps", "39"], "--steps 39: at least 40: 20 steps after the switch at 20"),
        (["--out", "/no/such/place.svg"], "--out /no/such/place.svg: there is no such directory"),
        (["--config", "/no/such.toml"], "/no/such.toml: cannot be read"),
        (["--candidate", "/no/python"], "/no/python is not there; it is to be the path of a Python"),
        (["--candidate", "vllm-0.0.1"], "there is no environment vllm-0.0.1 ("),
    ],
)
@needs_engine
def test_the_experiment_checks_before_it_starts(
    root: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["parity", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"driftline: {sentence}")
    assert list(root.iterdir()) == []


def test_the_experiment_concludes_with_verdicts_and_figure(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mended = broken(9)
    mended["mismatch/abs_diff_mean"][40:] -= 0.15
    mended["reward/mean"] += np.linspace(0, 0.6, 90)
    runs = [as_run(f"r{seed}", healthy(seed)) for seed in range(3)]
    out = root / "figure.svg"
    conclude = experiment._print_results
    bad, repaired_run = as_run("bad", broken(8)), as_run("mended", mended)
    assert conclude(PLANNED, [*runs, bad, repaired_run], 20, out, experiment.LABELS) == 0
    printed = capsys.readouterr().out
    assert "FAIL: mismatch" in printed
    assert "PASS: home since step 4" in printed
    assert "Repaired live, home since step 4" in out.read_text(encoding="utf-8")
    assert [path.name for path in root.iterdir()] == ["figure.svg"]
    *_, seed, defaults, repaired, empty, figure = printed.splitlines()
    assert seed == "a reference run against the other seeds  PASS"
    assert defaults.startswith("the defaults                             FAIL: mismatch mean|Δlogp| out of the band")
    assert repaired.startswith("the repaired run                         PASS: home since step 4")
    assert (empty, figure) == ("", f"figure: {out}")
    # Of a migration between versions, layer by layer as well; and what is not back on the reference is in the heading.
    reference = parse("[fixes]\nprocessed-logprobs = 'on'\nfp32-lm-head = 'on'\n", "x")
    planned = plan(reference, steps=90, switch_at=20, seeds=3, candidate="new")
    healed = as_run("healed", healthy(7))
    partly = healthy(9)
    partly["policy/entropy"] *= 4
    made = [*runs, bad, as_run("partly", partly), healed, healed]
    with pytest.raises(CommandError, match="the repaired run: FAIL: entropy"):
        conclude(planned, made, 20, out, experiment.LABELS)
    printed = capsys.readouterr().out
    assert "layer by layer, each with those above it" in printed
    assert "+ processed logprobs  PASS" in printed
    assert "Repaired live: all but entropy back on the reference" in out.read_text(encoding="utf-8")


def test_what_had_to_come_out_otherwise_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [as_run(f"r{seed}", healthy(seed)) for seed in range(3)]
    made = [*runs, as_run("bad", broken(8)), as_run("mended", broken(9))]
    with pytest.raises(CommandError, match="the repaired run: FAIL"):
        experiment._print_results(PLANNED, made, 20, root / "figure.svg", experiment.LABELS)
    *_, repaired, _, _ = capsys.readouterr().out.splitlines()
    assert repaired.endswith("  (needs: pass)")


def test_a_correction_is_named_wherever_the_verdict_is(
    root: Path, references: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(root, "helped", healthy(7), corrected=("tis", 31))
    assert main(["compare", *references, run.id]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"correction of the objective in {run.id}: tis from step 31 on" in lines
    assert lines[-1] == "PASS; the objective corrected by tis"
    assert main(["compare", *references, run.id, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["corrections"] == [{"run": run.id, "id": "tis", "first": 31, "last": None}]
    assert main(["compare", *references, run.id, "--until", "30"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "PASS", "it came later than what is judged"
    mended = replace(as_run("mended", healthy(9)), corrections=(CorrectionChange(1, "icepop"),))
    runs = [as_run(f"r{seed}", healthy(seed)) for seed in range(3)]
    made = [*runs, as_run("bad", broken(8)), mended]
    experiment._print_results(PLANNED, made, 20, root / "figure.svg", experiment.LABELS)
    assert "on the reference; the objective corrected by icepop" in (root / "figure.svg").read_text(encoding="utf-8")


class Starts:
    """Stands for the training of runs: the first so many fail, in this way and after so many steps."""

    def __init__(self, failures: int, code: int = FAILED, steps: int = 0) -> None:
        self.failures, self.code, self.steps = failures, code, steps
        self.tried: list[str] = []

    def __call__(self, made: RunDir, _one: Planned, report: DemoReport) -> int:
        self.tried.append(made.id)
        if len(self.tried) > self.failures:
            return OK
        for step in range(self.steps):
            report.add_frame(Metrics(step + 1, 0, 0.0, {"reward/mean": 0.5}))
        raise CommandError("engine-0: vLLM did not start: address already in use", self.code)


ONE = Planned("reference", Config())


def test_a_start_that_fails_is_tried_once_more_and_said(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(failures=1)
    monkeypatch.setattr(experiment, "_train_run", starts)
    code, made = experiment._train_with_retry(ONE, "[1/5] reference, seed 0")
    assert (code, [*starts.tried[1:]]) == (OK, [made.id])
    assert len(set(starts.tried)) == 2, "a directory of its own"
    said = capsys.readouterr()
    assert f"[1/5] reference, seed 0, second try: run {made.id}" in said.out
    assert said.err == (
        "driftline: the run ended before its first step; trying once more: "
        "engine-0: vLLM did not start: address already in use\n"
    )


@pytest.mark.parametrize(
    ("starts", "tried"),
    [(Starts(9), 2), (Starts(9, steps=3), 1), (Starts(9, code=USAGE), 1)],
    ids=["twice", "in its steps", "wrongly configured"],
)
def test_what_fails_again_or_otherwise_has_failed(
    root: Path, starts: Starts, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "_train_run", starts)
    with pytest.raises(CommandError, match="address already in use") as failure:
        experiment._train_with_retry(ONE, "[1/5] reference, seed 0")
    assert (failure.value.exit_code, len(starts.tried)) == (starts.code, tried)
