"""The engine plugin without an engine: its environment, its names, its account of an engine, and what it loads."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from driftline import rundir
from driftline.after_import import after_import
from driftline.catalog.fixes import BY_ID
from driftline.keys import load, make_run_keys
from driftline.rundir import Connection, RunDir, RunError
from engine import plugin
from engine.plugin import framework, report, versions
from engine.plugin.environment import Membership, NameClaim, membership
from engine.plugin.report import CoreFacts, Facts, WorkerFacts
from tests.bench import bench_import

CORE = CoreFacts("cuda", "0.32.0", prefix_caching=True, async_scheduling=True, cascade_attention=False)
WORKER = WorkerFacts(("raw_logprobs",), "bfloat16", ("bfloat16",), True, "")
FACTS = Facts(CORE, (WORKER,), "")


def core(**changes: Any) -> Facts:
    """An engine whose core differs in this."""
    return replace(FACTS, core=replace(CORE, **changes))


def workers(*changes: dict[str, Any]) -> Facts:
    """An engine with a worker for each of these, which differs in that."""
    return replace(FACTS, workers=tuple(replace(WORKER, **one) for one in changes))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = rundir.create(tmp_path, "mine")
    make_run_keys(run)
    return run


def connection(run: RunDir) -> Path:
    run.write_connection(
        Connection(
            run=run.id, ingest="tcp://127.0.0.1:1", live="tcp://127.0.0.1:2", rpc="tcp://127.0.0.1:3",
            server=load(run, "server").public, pid=1, started=1.0,
        )
    )  # fmt: skip
    return run.connection_file


def test_a_run_directory_or_a_connection_file_with_its_key(run: RunDir) -> None:
    here = membership({"DRIFTLINE_RUN": str(run.path)})
    assert (here.run, here.keys, here.name, here.id) == (run, load(run, "engine"), "", run.id)
    assert here.lease == 600.0
    assert membership({"DRIFTLINE_RUN": str(run.path), "DRIFTLINE_PAUSE_LEASE": "30"}).lease == 30.0
    there = membership(
        {
            "DRIFTLINE_RUN": str(connection(run)),
            "DRIFTLINE_KEY": str(run.keys / "trainer.key"),
            "DRIFTLINE_ENGINE": "engine-7",
        }
    )
    assert (there.run, there.keys, there.name, there.id) == (None, load(run, "trainer"), "engine-7", run.id)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"DRIFTLINE_RUN": "/nowhere/run"}, "no run '/nowhere/run'"),
        ({"DRIFTLINE_RUN": "{run}", "DRIFTLINE_ENGINE": "two words"}, "DRIFTLINE_ENGINE='two words': a name is"),
        ({"DRIFTLINE_RUN": "{run}", "DRIFTLINE_PAUSE_LEASE": "soon"}, "DRIFTLINE_PAUSE_LEASE='soon': a lease is 1 to"),
        ({"DRIFTLINE_RUN": "{run}", "DRIFTLINE_PAUSE_LEASE": "nan"}, "a lease is 1 to 86400 seconds"),
        ({"DRIFTLINE_RUN": "{run}", "DRIFTLINE_PAUSE_LEASE": "0"}, "a lease is 1 to 86400 seconds"),
        ({"DRIFTLINE_RUN": "{connection}"}, "DRIFTLINE_KEY must name a key file"),
        ({"DRIFTLINE_RUN": "{connection}", "DRIFTLINE_KEY": "/nowhere"}, "/nowhere: the key cannot be read"),
        ({"DRIFTLINE_RUN": "{connection}", "DRIFTLINE_KEY": "{connection}"}, "not a key file"),
        ({"DRIFTLINE_RUN": "/nowhere/c.json", "DRIFTLINE_KEY": "{key}"}, "/nowhere/c.json: cannot be read"),
        ({"DRIFTLINE_RUN": "{key}", "DRIFTLINE_KEY": "{key}"}, "not a connection file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_joined_is_one_sentence(run: RunDir, environ: dict[str, str], sentence: str) -> None:
    places = {"run": run.path, "connection": connection(run), "key": run.keys / "engine.key"}
    with pytest.raises(RunError) as raised:
        membership({name: value.format(**places) for name, value in environ.items()})
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_name_is_one_process_s_and_free_again_after_it(run: RunDir) -> None:
    to = membership({"DRIFTLINE_RUN": str(run.path)})
    claims = [NameClaim(to) for _ in range(3)]
    assert [claim.name for claim in claims] == ["engine-0", "engine-1", "engine-2"]
    claims[1].release()
    assert NameClaim(to).name == "engine-1"
    # A process that dies lets go of its name, whatever becomes of it.
    script = (
        "import os, sys; from engine.plugin.environment import *; "
        "print(NameClaim(membership({'DRIFTLINE_RUN': sys.argv[1]})).name, flush=True); os._exit(9)"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script, str(run.path)], cwd=Path(__file__).parents[2], capture_output=True, text=True
        )
        assert done.stdout == "engine-3\n"


def test_a_name_from_elsewhere_has_its_machine_in_it(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gpu 7.example")
    away = Membership(None, rundir.read_connection(connection(run)), load(run, "engine"), "")
    claims = [NameClaim(away) for _ in range(2)]
    assert [claim.name for claim in claims] == ["engine-gpu-7.example-0", "engine-gpu-7.example-1"]
    for claim in claims:
        claim.release()


def test_without_locks_the_process_id_makes_the_name(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr("os.getpid", lambda: 77)
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert NameClaim(membership({"DRIFTLINE_RUN": str(run.path)})).name == "engine-box-77"


def effective(facts: Facts) -> dict[str, str]:
    return {state.fix: state.engines[0].effective for state in report.fixes("engine-0", facts, 1.0)}


def one(facts: Facts, fix_id: str) -> tuple[str, str, str]:
    (mine,) = next(state for state in report.fixes("engine-0", facts, 1.0) if state.fix == fix_id).engines
    return mine.effective, mine.how, mine.detail


def test_every_fix_of_the_catalogue_is_reported_of_the_engine_alone() -> None:
    states = report.fixes("engine-0", FACTS, 1.0)
    assert [state.fix for state in states] == list(BY_ID)
    assert {mine.engine for state in states for mine in state.engines} == {"engine-0"}
    assert all(mine.detail for state in states for mine in state.engines)


@pytest.mark.parametrize(
    ("fix_id", "facts", "expected"),
    [
        ("processed-logprobs", FACTS, ("off", "live")),
        ("processed-logprobs", workers({"logprobs_modes": ("raw_logits",)}), ("off", "live")),
        ("processed-logprobs", workers({"logprobs_modes": ("processed_logprobs",)}), ("on", "live")),
        ("processed-logprobs", workers({}, {"logprobs_modes": ("processed_logprobs",)}), ("mixed", "live")),
        ("processed-logprobs", Facts(CORE, (), "its workers cannot be asked"), ("", "not_available")),
        ("prefix-cache-off", FACTS, ("off", "live")),
        ("prefix-cache-off", core(skip_reads=True, freed=False), ("on", "live")),
        ("prefix-cache-off", core(prefix_caching=False), ("removed", "not_available")),
        ("prefix-cache-off", core(prefix_caching=None), ("", "not_available")),
        ("prefix-cache-off", core(salted=9, scheduled=9), ("salted", "live")),
        ("prefix-cache-off", core(salted=2, scheduled=9), ("mixed", "live")),
        ("async-scheduling-off", FACTS, ("off", "not_available")),
        ("async-scheduling-off", core(async_scheduling=False), ("on", "not_available")),
        ("async-scheduling-off", core(async_scheduling=None), ("", "not_available")),
        ("inflight-keep", FACTS, ("", "not_available")),
        ("inflight-keep", core(pause=("keep", False)), ("on", "not_available")),
        ("inflight-keep", core(pause=("keep", True)), ("mixed", "not_available")),
        ("inflight-keep", core(pause=("wait", True)), ("wait", "not_available")),
        ("inflight-keep", core(pause=("abort", True)), ("off", "not_available")),
        ("fp32-lm-head", FACTS, ("off", "not_available")),
        ("fp32-lm-head", workers({"head_dtypes": ("float32",)}), ("on", "not_available")),
        ("fp32-lm-head", workers({"head_dtypes": ("bfloat16", "float32")}), ("mixed", "not_available")),
        ("fp32-lm-head", workers({"head_owner": "prime_rl.patches"}), ("", "not_available")),
        ("fp32-lm-head", workers({"head_dtypes": ()}), ("", "not_available")),
    ],
)  # fmt: skip
def test_each_fix_as_it_was_read(fix_id: str, facts: Facts, expected: tuple[str, str]) -> None:
    assert one(facts, fix_id)[:2] == expected


def test_what_cannot_be_switched_says_why() -> None:
    assert "--hf-overrides" in report.refusal(FACTS, "fp32-lm-head", "on")
    old = workers({"head_switch": False})
    assert "0.26 and newer" in report.refusal(old, "fp32-lm-head", "on")
    assert "--no-async-scheduling" in report.refusal(FACTS, "async-scheduling-off", "on")
    assert "its framework" in report.refusal(FACTS, "inflight-keep", "on")
    assert "removed cannot be switched from here" in report.refusal(FACTS, "prefix-cache-off", "removed")
    assert report.refusal(FACTS, "prefix-cache-off", "on") == ""
    assert report.refusal(FACTS, "processed-logprobs", "on") == ""


def test_a_version_that_is_not_known_only_reports() -> None:
    why = versions.untested("0.99.1")
    facts = core(reports_only=why)
    assert "only reports here" in why
    assert one(facts, "prefix-cache-off")[1] == "not_available"
    assert why in one(facts, "prefix-cache-off")[2]
    assert report.refusal(facts, "processed-logprobs", "on") == why
    for version in ("0.18.1", "0.18.1+cpu", "0.25.1", "0.32.0", "0.32.0+cu130"):
        assert versions.untested(version) == ""
    for version in ("0.18.0", "0.32.1", "0.33.0", "1.0.0", "dev"):
        assert version in versions.untested(version)


def test_the_settings_in_one_line() -> None:
    defaults = {"top_p": 0.9, "temperature": 0.6}
    line = report.settings(core(sampling_defaults=defaults, sampling_source="generation_config=auto"))
    for words in (
        "logprobs raw_logprobs", "head bfloat16, body bfloat16", "prefix cache on", "async scheduling on",
        "cascade attention off", "temperature 0.6, top_p 0.9 (generation_config=auto)",
    ):  # fmt: skip
        assert words in line
    assert "not read" in report.settings(Facts(CORE))


@pytest.mark.parametrize(
    ("extension", "loaded", "environ", "name"),
    [
        ("", (), {}, ""),
        ("trl.scripts.vllm_serve.WeightSyncWorkerExtension", (), {}, "TRL"),
        ("", ("numpy", "pipelinerl"), {}, "PipelineRL"),
        ("mine.worker.Extension", ("skyrl",), {}, "SkyRL"),
        ("mine.worker.Extension", (), {}, "mine"),
        ("trl.scripts.Extension", (), {"DRIFTLINE_FRAMEWORK": " my own 1.2 "}, "my own 1.2"),
        ("", (), {"DRIFTLINE_FRAMEWORK": "x" * 200}, "x" * 60),
        ("pytest.Extension", (), {}, f"pytest {pytest.__version__}"),
    ],
)
def test_whose_engine_it_is(extension: str, loaded: tuple[str, ...], environ: dict[str, str], name: str) -> None:
    assert framework.named(extension, loaded, environ).startswith(name)
    assert bool(framework.named(extension, loaded, environ)) == bool(name)


def test_a_core_that_says_nothing_of_its_framework_has_none() -> None:
    assert framework.found(object()) == ""


def test_inert_without_a_run_in_one_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFTLINE_RUN", raising=False)
    with caplog.at_level(logging.INFO, plugin.LOG):
        plugin.register()
    assert [record.message for record in caplog.records] == ["driftline: inert, because DRIFTLINE_RUN names no run"]


def test_register_never_raises(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a vLLM lacks what the plugin looks for."""
    monkeypatch.setenv("DRIFTLINE_RUN", "x")
    monkeypatch.setattr("engine.plugin.joining.install", lambda: 1 / 0)
    plugin.register()
    assert "inert, because of ZeroDivisionError" in caplog.text


def test_the_entry_point_loads_nothing_of_the_console_s_and_nothing_heavy() -> None:
    script = (
        "import sys; import driftline, engine.plugin; engine.plugin.register(); "
        "heavy = {'torch', 'vllm', 'ray', 'polars', 'pyarrow', 'textual', 'numpy', 'zmq', 'msgspec'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env={}, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    script = (
        "import sys; import engine.plugin.member, engine.plugin.joining; "
        "print(sorted({'torch', 'vllm', 'ray', 'polars', 'pyarrow', 'textual'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env={}, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_a_module_is_acted_on_at_once_or_right_after_its_import_and_is_otherwise_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_later.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen: list[object] = []
    after_import("json", seen.append)
    assert seen == [sys.modules["json"]]
    after_import("imported_later", lambda module: seen.append(module.value))
    assert seen[1:] == []
    import imported_later  # type: ignore[import-not-found]  # this test has written it

    assert seen[1:] == [1]
    assert type(imported_later.__loader__).__name__ == "SourceFileLoader"
    assert imported_later.__spec__.loader is imported_later.__loader__
    after_import("no_module_of_this_name", seen.append)
    with pytest.raises(ModuleNotFoundError, match="no_module_of_this_name"):
        importlib.import_module("no_module_of_this_name")


def test_what_it_imports_is_a_fraction_of_what_every_process_of_vllm_has_anyway() -> None:
    """The figure in milliseconds is that of `tests.bench bench_import`; here two things are compared in one run."""
    cost = bench_import.measure(bench_import.BARE, 5, min)  # what else the machine does only adds to a time
    assert cost.heavy == ()
    assert cost.inert < 0.2 * cost.before
    assert cost.joining < 0.75 * cost.before
