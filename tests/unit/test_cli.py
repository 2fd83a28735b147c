"""The command line from outside: exit codes, one-sentence errors, and what it does not import."""

from __future__ import annotations

import argparse
import fcntl
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from console.cli import arguments
from console.cli.options import Parser
from driftline.rundir import RunDir, create
from tests import signals

HEAVY = ("textual", "polars", "zmq", "numpy", "torch", "ray", "vllm", "rich", "psutil")


def driftline(*args: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "console.cli", *args],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=clean | {"DRIFTLINE_RUNS": str(cwd / "runs")} | (env or {}),
        stdin=subprocess.DEVNULL,
    )


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of stderr, which is all that a failed command may say."""
    assert done.stderr.startswith("driftline: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def ended(tmp_path: Path) -> RunDir:
    return create(tmp_path / "runs", "old")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ((), 2, "required: VERB"),
        (("frobnicate",), 2, "invalid choice: 'frobnicate'"),
        (("run",), 2, "required: CONFIG"),
        (("run", "nowhere.toml"), 2, "nowhere.toml: cannot be read"),
        (("run", "x.toml", "--steps", "0"), 2, "'0' is not a whole number from 1 up"),
        (("attach", "--fps", "31"), 2, "'31' is not a whole number from 1 to 30"),
        (("simulate", "--rate", "nan"), 2, "'nan' is not a number above 0"),
        (("simulate", "--engines", "two"), 2, "'two' is not a whole number"),
        (("tail", "--seconds", "-1"), 2, "'-1' is not a number above 0"),
        (("sync", "--timeout", "soon"), 2, "'soon' is not a number above 0"),
        (("fix", "set", "warp-drive", "on"), 2, "unknown fix 'warp-drive'; allowed: processed-logprobs,"),
        (("fix", "set", "fp32-lm-head", "maybe"), 2, "'maybe' is not a value; allowed: off, on"),
        (("export",), 2, "required: --out"),
        (("export", "--out", "m.parquet", "--table", "dreams"), 2, "invalid choice: 'dreams'"),
        (("hub", "--name", "Not A Name"), 2, "'Not A Name' is not 1 to 31 lower-case letters"),
        (("status",), 3, "no live run"),
        (("status", "--run", "ghost"), 3, "no run 'ghost'"),
        (("attach",), 3, "start one with: driftline run configs/demo.toml"),
        (("tail",), 3, "no live run"),
        (("fix", "list"), 3, "no live run"),
        (("fix", "set", "fp32-lm-head", "on"), 3, "no live run"),
        (("sync", "--wait"), 3, "no live run"),
        (("stop",), 3, "no live run"),
        (("export", "--out", "m.parquet"), 3, "no live run"),
    ],
)
def test_errors_are_one_sentence_with_an_exit_code(tmp_path: Path, args: tuple[str, ...], code: int, said: str) -> None:
    done = driftline(*args, cwd=tmp_path)
    assert said in sentence(done)
    assert (done.returncode, done.stdout) == (code, "")
    assert not (tmp_path / "runs").exists(), "something was started"


@pytest.mark.parametrize("verb", [("attach", "old"), ("sync", "--run", "old"), ("fix", "list", "--run", "old")])
def test_a_run_that_has_ended_cannot_be_asked(tmp_path: Path, ended: RunDir, verb: tuple[str, ...]) -> None:
    args = [ended.id if part == "old" else part for part in verb]
    done = driftline(*args, cwd=tmp_path)
    assert f"run {ended.id} is not live" in sentence(done)
    assert f"driftline replay {ended.id}" in sentence(done)
    assert done.returncode == 3


def test_where_none_is_live_the_newest_recording_is_named(tmp_path: Path, ended: RunDir) -> None:
    done = driftline("attach", cwd=tmp_path)
    assert "no live run" in sentence(done)
    assert sentence(done).endswith(f"driftline replay {ended.id}\n")
    assert done.returncode == 3
    # And without a name replay and evidence take it; this one has nothing in it.
    bare = driftline("evidence", cwd=tmp_path)
    assert f"{ended.path}: nothing is recorded there" in sentence(bare)


@pytest.mark.slow
def test_an_ended_run_can_still_be_read(tmp_path: Path, ended: RunDir) -> None:
    assert driftline("status", "--run", ended.id, cwd=tmp_path).stdout == f"{ended.id} ended\n"
    exported = driftline("export", "--run", ended.id, "--out", "m.csv", cwd=tmp_path)
    assert (exported.returncode, exported.stdout.split(":")[0]) == (0, "m.csv")
    # Without a name too, where nothing is live: and it is said which one that was.
    for verb in (("export", "--out", "n.csv"), ("query", "SELECT count(*) AS n FROM metrics")):
        unnamed = driftline(*verb, cwd=tmp_path)
        assert unnamed.returncode == 0
        assert unnamed.stderr == f"driftline: no run is live; {ended.id} is the newest that has ended\n"


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[run]\nsteps = 'many'\n", "run.steps: expected `int`"),
        ("[run]\nsteps = 0\n", "run.steps: expected `int` >= 1"),
        ("[run]\nstesp = 3\n", "unknown key 'run.stesp'; allowed: name, steps, seed"),
        ("[fixes]\nwarp = 'on'\n", "unknown fix 'warp'"),
        ("steps =", "not TOML"),
        ("[model]\npath = '/no/such/model'\n", "model.path: there is no directory /no/such/model"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "demo"])
def test_a_bad_configuration_starts_nothing(tmp_path: Path, verb: str, toml: str, said: str) -> None:
    (tmp_path / "bad.toml").write_text(toml)
    args = ("run", "bad.toml") if verb == "run" else ("demo", "--config", "bad.toml")
    done = driftline(*args, cwd=tmp_path)
    if "not installed here" in done.stderr:
        pytest.skip("the model path is looked at only where an engine is installed")
    assert "bad.toml: " in sentence(done)
    assert said in done.stderr
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "runs").exists(), "something was started"


def test_attach_needs_a_terminal_before_it_needs_a_screen(tmp_path: Path, ended: RunDir) -> None:
    with open(ended.lock, "w") as lock:  # what a hub does
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = driftline("attach", ended.id, cwd=tmp_path)
    assert "attach needs a terminal" in sentence(done)
    assert done.returncode == 2


def test_list_says_what_is_live(tmp_path: Path, ended: RunDir) -> None:
    other = create(tmp_path / "runs", "other")
    with open(other.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = json.loads(driftline("list", "--json", cwd=tmp_path).stdout)
        text = driftline("list", cwd=tmp_path).stdout
    assert {row["run"]: row["live"] for row in rows} == {ended.id: False, other.id: True}
    assert {line.split()[1] for line in text.splitlines()} == {"live", "ended"}


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    for _ in range(40):
        create(tmp_path / "runs", "run")
    shell = f"{sys.executable} -P -m console.cli list | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"DRIFTLINE_RUNS": str(tmp_path / "runs"), "PYTHONUNBUFFERED": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("list >&-", 0, ""),
        ("list <&-", 0, ""),
        ("attach <&-", 3, "no live run"),
        ("attach nope 2>&-", 3, ""),
        ("list >/dev/full", 1, "driftline: cannot go on: no space left on device\n"),
        ("status --run $(printf 'a%.0s' {1..5000})", 3, "cannot be looked at: file name too long\n"),
    ],
)
def test_streams_that_are_closed_or_full_are_no_traceback(tmp_path: Path, shell: str, code: int, said: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -P -m console.cli {shell}"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"DRIFTLINE_RUNS": str(tmp_path / "runs")},
    )
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1
    assert "driftline:" not in done.stdout, "a complaint is no data, also where stderr is closed"


def test_a_locale_without_the_signs_gets_them_escaped(tmp_path: Path) -> None:
    done = driftline("sentinels", "show", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    name = create(tmp_path / "rüns", "old").path
    done = driftline("status", "--run", str(name), "--json", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xfc" in done.stdout


HOMELESS = """
import pwd, sys
def unknown(_number): raise KeyError
pwd.getpwuid = unknown
from console.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_user_without_a_name_and_a_home_has_runs_too(tmp_path: Path) -> None:
    """As in a container that runs as a number."""
    clean = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CONFIG_HOME")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", HOMELESS, "list"], capture_output=True, text=True, timeout=60, env=clean,
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no runs in ")


INTERRUPTED = """
import importlib, os, signal, sys
import console.cli.main
from console.cli import entry
number, real = int(sys.argv.pop(1)), importlib.import_module
def importing(name):
    if name.startswith("console.cli.verbs."):
        os.kill(os.getpid(), number)
        print("whole", flush=True)
    return real(name)
importlib.import_module = importing
sys.exit(entry.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_an_import(tmp_path: Path, number: signal.Signals) -> None:
    """An exception in the midst of one is a page of traceback, or a crash of the extension that is being made."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERRUPTED, str(int(number)), "simulate"], capture_output=True, text=True,
        timeout=60, cwd=tmp_path, env=os.environ | {"DRIFTLINE_RUNS": str(tmp_path / "runs")},
        preexec_fn=signals.restore_defaults,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "whole\n", "")
    assert not (tmp_path / "runs").exists(), "nothing has been started"


@pytest.mark.parametrize("args", [
    ("keys", "list", "--run"), ("keys", "new", "ana", "--run"), ("hub", "--run"), ("compact", "--run"),
    ("compact", "--check", "--run"), ("evidence",),
])  # fmt: skip
def test_what_works_on_a_runs_files_says_so_of_another_machine(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = driftline(*args, "ssh://box/runs/demo-1", cwd=tmp_path)
    assert f"{args[0]} works where the run is" in sentence(done)
    assert done.returncode == 2


PROBE = """
import sys
from console.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("\\nMODULES", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported(cwd: Path, *args: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE, *args],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env=os.environ | {"DRIFTLINE_RUNS": str(cwd / "runs")},
    )
    return set(done.stdout.rpartition("MODULES ")[2].split())


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("run", "--help"), ("list",)])
def test_light_verbs_import_nothing_heavy(tmp_path: Path, args: tuple[str, ...]) -> None:
    create(tmp_path / "runs", "run")
    modules = imported(tmp_path, *args)
    assert "console" in modules
    assert not modules & set(HEAVY)


@pytest.mark.parametrize(
    "args",
    [
        ("status",),
        ("tail",),
        ("fix", "list"),
        ("fix", "set", "fp32-lm-head", "on"),
        ("sync",),
        ("stop",),
        ("export", "--out", "m.parquet"),
        ("run", "nowhere.toml"),
        ("demo", "--config", "nowhere.toml"),
        ("simulate", "--rate", "0"),
    ],
)
def test_headless_verbs_import_no_screen_and_no_engine(tmp_path: Path, args: tuple[str, ...]) -> None:
    modules = imported(tmp_path, *args)
    assert "console" in modules
    assert not modules & {"textual", "torch", "ray", "vllm", "transformers"}


def test_every_verb_leads_to_a_function_with_a_docstring() -> None:
    targets = set(_targets(arguments.build()))
    assert len(targets) == 49
    for target in targets:
        module, _, function = target.partition(":")
        assert getattr(importlib.import_module(module), function).__doc__, target


def _verbs(parser: Parser) -> dict[str, Parser]:
    return next(one.choices for one in parser._actions if isinstance(one, argparse._SubParsersAction))


def test_a_verb_alone_is_described_as_among_all() -> None:
    every = _verbs(arguments.build())
    assert list(every) == list(arguments._GROUPS), "each is found by its name, and in the order of the help"
    for verb, parser in every.items():
        alone = _verbs(arguments.build([verb, "--help"]))
        assert alone[verb].format_help() == parser.format_help()
        assert len(alone) < len(every)


@pytest.mark.parametrize("args", [["attach", "--bogus"], ["attach", "--fps", "0"], ["fix"], ["fix", "bogus"]])
def test_what_is_wrong_with_a_verb_is_said_as_among_all(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    results = []
    for parser in (arguments.build(args), arguments.build()):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(args)
        results.append((end.value.code, capsys.readouterr()))
    assert results[0] == results[1]
    assert results[0][0] == 2


def _targets(parser: Parser) -> list[str]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                target = child.get_default("verb")
                found += [target] if target else _targets(child)
    return found
