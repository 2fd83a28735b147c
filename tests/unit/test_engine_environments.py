"""Environments of engines: where they are looked for, and the sentence for each that no engine can run in."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest

from console.cli.main import main
from console.launch.preflight import NEEDED
from driftline import environments
from driftline.environments import RECORD, VARIABLE, EnvironmentUnusableError
from engine.pool import interpreters
from tests.environment import needs_engine


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def answering(path: Path, **changes: str) -> Path:
    """An interpreter that answers as this one would, but for what is changed."""
    own = {name: "1.0" for name in ("vllm", "msgspec", "zmq")} | {
        "python": ".".join(map(str, sys.version_info[:3])), "ray": _ray(),
    }  # fmt: skip
    return script(path, f"echo 'driftline:{json.dumps(own | changes)}'")


def _ray() -> str:
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        pytest.skip("needs ray, which is not installed here")


def made(root: Path, name: str, **record: object) -> Path:
    python = answering(root / name / "bin" / "python")
    (root / name / RECORD).write_text(json.dumps({"name": name, "vllm": "0.18.1", **record}))
    return python


def sentence(named: str, environ: dict[str, str], limit: float = 20.0) -> str:
    with pytest.raises(EnvironmentUnusableError) as error:
        environments.check(environments.find(named, environ), limit)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_name_is_looked_for_in_the_folder_of_environments(tmp_path: Path) -> None:
    python = made(tmp_path, "vllm-0.18.1", variables={"LD_PRELOAD": "a.so"}, arguments={"block_size": 16}, more=1)
    found = environments.find("vllm-0.18.1", {VARIABLE: str(tmp_path)})
    assert found.python == python
    assert found.variables == {"LD_PRELOAD": "a.so"}
    assert found.arguments == {"block_size": 16}
    assert environments.check(found) == "1.0"
    assert environments.root({}) == Path.home() / ".cache" / "driftline" / "environments"


def test_a_path_is_that_of_a_python(tmp_path: Path) -> None:
    python = answering(tmp_path / "python")
    assert environments.find(str(python), {}).python == python


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ray": ""}, ["has no ray==", "needs it there"]),
        ({"vllm": ""}, ["has no vLLM"]),
        ({"ray": "1.2.3"}, ["has Ray 1.2.3, and this one is", "pip install ray=="]),
        ({"python": "3.9.1"}, ["has Python 3.9.1, and this one is 3."]),
    ],
)
def test_what_an_environment_lacks(tmp_path: Path, changes: dict[str, str], words: list[str]) -> None:
    text = sentence(str(answering(tmp_path / "python", **changes)), {})
    for word in words:
        assert word in text


def test_what_is_no_environment(tmp_path: Path) -> None:
    environ = {VARIABLE: str(tmp_path)}
    assert "make it: driftline env add vllm-0.18.1" in sentence("vllm-0.18.1", environ)
    (tmp_path / "vllm-0.8.5" / "bin").mkdir(parents=True)
    assert "is half made" in (half := sentence("vllm-0.8.5", environ))
    assert "make it anew: driftline env add vllm-0.8.5" in half
    shutil.rmtree(tmp_path / "vllm-0.8.5")
    python = made(tmp_path, "vllm-0.8.5.post2")
    assert environments.find("vllm-0.8.5", environ).python == python
    made(tmp_path, "gone").unlink()
    assert "has lost its Python" in sentence("gone", environ)
    (made(tmp_path, "broken").parents[1] / RECORD).write_text("{")
    assert "is half made" in sentence("broken", environ)
    assert "is a folder; name its Python" in sentence(str(tmp_path), {})
    assert "is not there" in sentence(str(tmp_path / "none"), {})
    (tmp_path / "text").write_text("no program")
    assert "cannot be executed" in sentence(str(tmp_path / "text"), {})
    (tmp_path / "text").chmod(0o755)
    assert "is no Python" in sentence(str(tmp_path / "text"), {})
    assert "is no Python" in sentence(str(script(tmp_path / "other", "echo hello")), {})
    assert "says: wrong" in sentence(str(script(tmp_path / "loud", "echo wrong >&2; exit 1")), {})
    assert "did not answer within 0.2 s" in sentence(str(script(tmp_path / "slow", "exec sleep 60")), {}, 0.2)


def test_config_check_names_the_environment_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}, which is not installed here")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    path = tmp_path / "run.toml"
    path.write_text("[[engine]]\n[[engine]]\nenvironment = 'vllm-0.18.1'\n")
    assert main(["config", "check", str(path)]) == 2
    assert "run.toml: engine.environment: there is no environment vllm-0.18.1" in capsys.readouterr().err
    made(tmp_path, "vllm-0.18.1")
    assert main(["config", "check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "can be used" in out
    assert "engine-1: environment vllm-0.18.1, vLLM 1.0" in out


def test_an_actor_of_another_environment_gets_the_code_and_nothing_else_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert interpreters.runtime_options(None, tmp_path) == {}
    environment = environments.Environment("x", Path("/other/python"))
    options = interpreters.runtime_options(environment, tmp_path)["runtime_env"]
    assert options["py_executable"] == "/other/python"
    here = Path(interpreters.__file__).parents[2]
    assert options["env_vars"]["PYTHONPATH"].split(":") == [str(here), "/somewhere"]
    # Installed among other packages: those must not reach the other interpreter.
    installed = tmp_path / "site-packages"
    for name in ("driftline", "engine"):
        (installed / name).mkdir(parents=True)
    monkeypatch.setattr(interpreters, "packages", lambda: [installed / "driftline", installed / "engine"])
    path = interpreters.runtime_options(environment, tmp_path)["runtime_env"]["env_vars"]["PYTHONPATH"]
    links = tmp_path / interpreters.CODE
    assert path.split(":") == [str(links), "/somewhere"]
    assert sorted(one.name for one in links.iterdir()) == ["driftline", "engine"]
    assert (links / "engine").resolve() == installed / "engine"


@needs_engine
def test_a_model_that_an_environment_s_vllm_does_not_know_is_one_sentence_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """This interpreter as another environment's: its vLLM is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path / "runs"))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["OfTomorrowForCausalLM"]}')
    config = tmp_path / "new.toml"
    config.write_text(f"[model]\npath = '{model}'\n[engine]\nenvironment = '{sys.executable}'\n")
    assert main(["run", str(config), "--headless"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"driftline: {config}: model.path: {model}: the vLLM of {sys.executable} has no OfTomorrow")
    assert not (tmp_path / "runs").exists()
