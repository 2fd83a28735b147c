"""The plugin in engines of our own pool: how vLLM's processes come to it, driftline being installed or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from driftline.config import EngineConfig
from engine import plugin
from engine.actor import entry_point, launch
from engine.plugin import worker
from engine.types import EngineError

ROOT = Path(__file__).parents[2]
SCRIPT = """
import importlib.metadata, json, os, subprocess, sys
POINTS = "[(one.name, one.value) for one in importlib.metadata.entry_points(group='vllm.general_plugins')]"
from engine.actor import entry_point
before = eval(POINTS)
entry_point.ensure("engine-0")
entry_point.ensure("engine-0")
child = "import importlib.metadata, json; print(json.dumps(%s))" % POINTS
child = json.loads(subprocess.run([sys.executable, "-S", "-c", child], capture_output=True, text=True).stdout)
print(json.dumps([before, eval(POINTS), child, sys.path.count(str(entry_point.FOLDER))]))
"""


def test_the_checkout_s_entry_point_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (info,) = entry_point.FOLDER.glob("*.dist-info")
    assert {point.name: point.value for point in PathDistribution(info).entry_points} == {
        entry_point.NAME: entry_point.VALUE
    }
    assert project["entry-points"][entry_point.GROUP] == {entry_point.NAME: entry_point.VALUE}


def test_a_checkout_that_is_not_installed_brings_its_entry_point(tmp_path: Path) -> None:
    """An interpreter that sees the same packages, but for driftline's distribution."""
    import msgspec

    for entry in Path(msgspec.__file__).parents[1].iterdir():
        if "driftline" not in entry.name:
            (tmp_path / entry.name).symlink_to(entry)
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-S", "-c", SCRIPT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after, child, times = json.loads(done.stdout)
    mine = [entry_point.NAME, entry_point.VALUE]
    assert mine not in before
    assert after.count(mine) == 1
    assert child == after, "processes of its own get it too"
    assert times == 1


def test_without_either_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    monkeypatch.setattr(entry_point, "FOLDER", tmp_path / "absent")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(EngineError, match=r"engine-0: driftline is not installed in .*: install it there with pip"):
        entry_point.ensure("engine-0")


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, None), ("", "driftline"), ("mine", "mine,driftline"), ("driftline,mine", "driftline,mine")],
)
def test_the_plugins_that_vllm_may_load_include_ours(
    before: str | None, after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(entry_point.ALLOWED, raising=False)
    if before is not None:
        monkeypatch.setenv(entry_point.ALLOWED, before)
    monkeypatch.setattr(entry_point, "_there", lambda: True)
    entry_point.ensure("engine-0")
    assert os.environ.get(entry_point.ALLOWED) == after


def test_a_pool_s_engine_says_so_to_its_processes_and_leaves_the_slot_of_the_extension_free() -> None:
    assert launch.environment(EngineConfig())[plugin.POOL_VARIABLE] == "1"
    assert "worker_extension_cls" not in launch.OURS


def test_a_worker_s_failure_is_an_answer() -> None:
    """No model runner, as of a worker that has not loaded its model."""
    for method in worker.METHODS.values():
        answer = method(object()) if method is not worker.load else method(object(), {}, "")
        assert worker.failure(answer), method
    assert worker.failure(worker.facts(object())).startswith("AttributeError: 'object' object has no attribute")
    assert worker.failure({"digest": ""}) == ""


HIDING = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
from driftline import vllm_plugin
vllm_plugin.register()
vllm_plugin.register()
print(sorted(name for name in sys.modules if name.partition(".")[0] == "engine"))
"""


@pytest.mark.parametrize("name", ["engine.py", "engine/__init__.py"])
@pytest.mark.parametrize("imported", [False, True])
def test_a_module_of_the_run_that_is_called_engine_is_one_sentence(tmp_path: Path, name: str, imported: bool) -> None:
    hiding = tmp_path / name
    hiding.parent.mkdir(exist_ok=True)
    hiding.write_text("")
    script = "import engine\n" + HIDING if imported else HIDING
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "DRIFTLINE_RUN": "x"}
    done = subprocess.run([sys.executable, "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, loaded = done.stdout.splitlines()
    assert first == second
    assert first.startswith(f"driftline: inert, because {hiding} hides Driftline's own package 'engine': start")
    assert loaded == ("['engine']" if imported else "[]"), "the run's own is left alone"


def test_elsewhere_the_way_leads_to_the_plugin(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != "DRIFTLINE_RUN"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", HIDING], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["driftline: inert, because DRIFTLINE_RUN names no run"] * 2
