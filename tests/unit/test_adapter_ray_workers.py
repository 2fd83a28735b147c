"""What Ray is asked to do in the workers of a job."""

from __future__ import annotations

import pytest

from driftline.adapters import ray_workers
from driftline.adapters.ray_workers import ATTACH_VARIABLE, HOOK_VARIABLE, attach_in_workers, with_attach

FUNCTION = "driftline.adapters.openrlhf.attach"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (HOOK_VARIABLE, ATTACH_VARIABLE, "DRIFTLINE_KEY", "DRIFTLINE_PAUSE_LEASE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("DRIFTLINE_RUN", "/runs/mine")


def test_the_function_and_the_runs_variables_are_added_to_what_a_job_has() -> None:
    assert attach_in_workers(FUNCTION)
    assert with_attach(None) == {
        "worker_process_setup_hook": FUNCTION,
        "env_vars": {"DRIFTLINE_RUN": "/runs/mine"},
    }
    job = {"env_vars": {"NCCL_DEBUG": "WARN", "DRIFTLINE_RUN": "other"}, "working_dir": "."}
    assert with_attach(job) == {**job, "worker_process_setup_hook": FUNCTION}


def test_hooks_of_others_stay(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert attach_in_workers(FUNCTION)
    job = {"worker_process_setup_hook": "mine.setup"}
    assert with_attach(job) == job
    monkeypatch.setenv(HOOK_VARIABLE, "mine.hook")
    assert not attach_in_workers(FUNCTION)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_a_job_without_an_adapter_is_left_alone() -> None:
    assert with_attach({"pip": ["x"]}) == {"pip": ["x"]}


@pytest.mark.parametrize("arguments", [[], ["-m"], ["openrlhf.cli.train_ppo_ray"]])
def test_other_arguments_than_a_module_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ray_workers.run_module(arguments, "python -m x -m MODULE")
    assert (ended.value.code, capsys.readouterr().err) == (2, "usage: python -m x -m MODULE\n")


def test_a_module_is_run_as_python_would(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    ray_workers.run_module(["-m", "calendar", "2026", "1"], "")
    assert "January 2026" in capsys.readouterr().out
