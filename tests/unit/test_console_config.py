"""The operator's own configuration: which value holds and why, as `driftline config` and every other verb say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from console.cli.main import main
from console.settings.keys import KEYS
from driftline.rundir import create

FILE = """
theme = "okabe-ito"
fps = 8
runs = "~/experiments"
[notify]
bell = true
[keys]
"live.follow" = "F5"
"""

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a configuration, and nothing in the environment that would be one."""
    for name in ("DRIFTLINE_CONFIG", "DRIFTLINE_RUNS", "DRIFTLINE_RUN", "NO_COLOR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "")  # so that what a verb leaves there ends with the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def file(home: Path) -> Path:
    path = home / ".config" / "driftline" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(FILE, encoding="utf-8")
    return path


def shown(printed: Printed, *options: str) -> dict[str, tuple[object, str]]:
    assert main(["config", "show", "--json", *options]) == 0
    settings = json.loads(printed.readouterr().out)["settings"]
    return {name: (found["value"], found["from"]) for name, found in settings.items()}


def test_without_a_file_the_defaults_hold(home: Path, capsys: Printed) -> None:
    settings = shown(capsys)
    assert {origin for _, origin in settings.values()} == {"default"}
    assert (settings["theme"][0], settings["marker"][0], settings["fps"][0]) == ("auto", "braille", 4)
    path = home / ".config" / "driftline" / "config.toml"
    assert main(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out == f"{path}: does not exist; the defaults apply\n"
    assert main(["config", "show"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{path} (does not exist: defaults)"


def test_each_value_says_where_it_comes_from(
    home: Path, file: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shown(capsys)
    assert settings["theme"] == ("okabe-ito", "file")
    assert settings["runs"] == (str(home / "experiments"), "file")
    assert settings["notify.bell"] == (True, "file")
    assert settings["notify.notify"] == (False, "default")
    assert settings["keys.live.follow"] == ("F5", "file")
    assert settings["marker"] == ("braille", "default")
    monkeypatch.setenv("DRIFTLINE_RUNS", "/elsewhere")
    monkeypatch.setenv("NO_COLOR", "1")
    settings = shown(capsys)
    assert (settings["runs"], settings["theme"]) == (("/elsewhere", "environment"), ("mono", "environment"))
    assert shown(capsys, "--theme", "contrast")["theme"] == ("contrast", "option")
    assert shown(capsys, "--fps", "2")["fps"] == (2, "option")


def test_the_same_as_lines(file: Path, capsys: Printed) -> None:
    assert main(["config", "show"]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == str(file)
    cells = {row.split()[0]: row.split()[1:] for row in rows}
    assert cells["theme"] == ["okabe-ito", "file"]
    assert cells["notify.bell"] == ["true", "file"]
    assert cells["notify.on_alarm"] == ["-", "default"]
    assert cells["fps"] == ["8", "file"]


def test_a_place_of_its_own(home: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_CONFIG", str(home / "mine.toml"))
    assert main(["config", "check"]) == 2
    assert capsys.readouterr().err == f"driftline: {home / 'mine.toml'}: cannot be read: No such file or directory\n"
    (home / "mine.toml").write_text('marker = "ascii"\n', encoding="utf-8")
    assert shown(capsys)["marker"] == ("ascii", "file")
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out == f"{home / 'mine.toml'}: can be used\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("theme = [", "not TOML: "),
        ('theme = "pink"', "theme: invalid enum value 'pink'; allowed: one of auto, dark, "),
        ("fps = 31", "fps: expected `int` <= 30; allowed: a whole number from 1 to 30"),
        ("mouse = 1", "mouse: expected `bool`, got `int`; allowed: true or false"),
        ("smoothing = 0.5", "smoothing: 0.5 is not allowed; allowed: one of 0, 0.6, 0.9, 0.99"),
        ('runs = "here"', "runs: 'here' is not allowed; allowed: an absolute path, or one that begins with ~"),
        ("colour = 1", "unknown key 'colour'; allowed: theme, marker, fps, "),
        ('[notify]\non_alarm = "echo \'x"', "notify.on_alarm: cannot be split into words: no closing quotation"),
        ("[notify]\non_alarm = '  '", "notify.on_alarm: is empty; allowed: a program and its arguments"),
        ('[notify]\non_alarm = "x \\u0000"', "notify.on_alarm: has a NUL character; allowed: a program and its"),
        ("[notify]\non_alarm = 3", "notify.on_alarm: expected `str`, got `int`; allowed: a command in quotes"),
        ("smoothing = nan", "smoothing: nan is not allowed; allowed: one of 0, 0.6, 0.9, 0.99"),
        ("fps = inf", "fps: expected `int`, got `float`; allowed: a whole number from 1 to 30"),
        ("fps = " + "9" * 400, "fps: "),
        ("keys = " + "[" * 50_000, "not TOML: brackets are nested too deeply"),
        ("keys." + ".".join("a" * 5_000) + " = 1", "not TOML: a key of more than 64 parts joined by dots"),
        ("[notify]\nhorn = true", "unknown key 'notify.horn'; allowed: bell, notify, on_alarm"),
        ('[keys]\n"live.jump" = "j"', 'keys."live.jump": '),
        ('[keys]\n"live.follow" = "ctrl+c"', 'keys."live.follow": '),
    ],
)
@pytest.mark.parametrize("verb", [["config", "check"], ["config", "show"], ["config", "keys"]], ids=lambda v: v[1])
def test_a_wrong_file_is_one_sentence(file: Path, capsys: Printed, text: str, said: str, verb: list[str]) -> None:
    file.write_text(text, encoding="utf-8")
    assert main(verb) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"driftline: {file}: ")
    assert said in printed.err.replace("Invalid", "invalid")


def test_a_wrong_file_ends_every_other_verb_too_but_not_the_two_that_mend_it(file: Path, capsys: Printed) -> None:
    file.write_text("fps = 0\n", encoding="utf-8")
    for verb in (["status"], ["list"], ["replay"]):
        assert main(verb) == 2
        assert "fps: expected `int` >= 1" in capsys.readouterr().err
    assert main(["config", "path"]) == 0
    assert main(["completion", "bash"]) == 0


def test_the_runs_of_the_file_are_those_that_the_verbs_see(home: Path, file: Path, capsys: Printed) -> None:
    made = create(home / "experiments", "mine")
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split()[0] == made.id


def test_keys_are_shown_as_they_are_mapped(file: Path, capsys: Printed) -> None:
    assert main(["config", "keys", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert len(rows) == len(KEYS)
    assert rows["live.follow"]["keys"] == "F5"
    assert (rows["everywhere.runs"]["keys"], rows["everywhere.runs"]["acts_on_run"]) == ("w", False)
    assert sum(row["acts_on_run"] for row in rows.values()) == sum(key.acts_on_run for key in KEYS) > 0
    assert main(["config", "keys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows)
    assert any(line.split()[:2] == ["live.follow", "F5"] for line in lines)
