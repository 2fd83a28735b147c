"""The completion script in a real bash: what a tab offers after a line, and that no tab starts an interpreter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from driftline.catalog.corrections import CORRECTIONS
from driftline.catalog.fixes import FIXES
from driftline.rundir import create

BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="there is no bash here")

# As readline does it: the words of the line, the one under the cursor last, and the function that `complete` names.
TAB = r"""
source "$1"
line=$2
read -ra COMP_WORDS <<<"$line"
[[ $line == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line}
read -ra registered <<<"$(complete -p driftline)"
for ((i = 0; i < ${#registered[@]}; i++)); do
    [[ ${registered[i]} == -F ]] && function=${registered[i + 1]}
done
COMPREPLY=()
"$function" driftline "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""

Tab = Callable[..., list[str]]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "driftline.bash"
    command = [sys.executable, "-P", "-m", "console.cli", "completion", "bash"]
    path.write_bytes(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return path


@pytest.fixture
def tab(script: Path, tmp_path: Path) -> Tab:
    """What a tab offers; `runs` as $DRIFTLINE_RUNS, else the folder `runs` where one stands."""

    def press(line: str, runs: Path | None = None) -> list[str]:
        assert BASH is not None
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        done = subprocess.run(
            [BASH, "--norc", "--noprofile", "-c", TAB, "bash", str(script), line],
            env=clean | ({"DRIFTLINE_RUNS": str(runs)} if runs else {}), cwd=tmp_path, capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
        assert "rror" not in done.stderr, done.stderr
        return done.stdout.split()

    return press


def test_verbs_and_their_verbs(tab: Tab) -> None:
    assert {"run", "attach", "fix", "parity", "completion"} <= set(tab("driftline "))
    assert tab("driftline rep") == ["replay"]
    assert tab("driftline config ") == ["show", "path", "check", "keys"]
    assert tab("driftline frobn") == []


def test_options_and_their_values(tab: Tab) -> None:
    assert tab("driftline attach --op") == ["--operate"]
    assert "okabe-ito" in tab("driftline attach --theme ")
    assert tab("driftline keys new ana --role op") == ["operator"]
    assert tab("driftline completion ") == ["bash", "zsh", "fish"]


def test_fixes_and_corrections(tab: Tab) -> None:
    assert tab("driftline fix set ") == [fix.id for fix in FIXES]
    assert tab("driftline fix set fp") == ["fp32-lm-head"]
    assert set(tab("driftline fix set fp32-lm-head ")) == {value for fix in FIXES for value in fix.values}
    assert tab("driftline correction set ") == [correction.id for correction in CORRECTIONS]


@pytest.mark.parametrize(
    "line",
    ["attach ", "attach one ", "replay ", "evidence ", "compare one ", "status --run ", "attach --reference ",
     "watch ", "fix list --run "],
)  # fmt: skip
def test_runs_wherever_one_is_asked_for(tab: Tab, tmp_path: Path, line: str) -> None:
    made = {create(tmp_path / "elsewhere", name).id for name in ("demo", "mine")}
    for run in made:
        (tmp_path / "elsewhere" / run / "journal").mkdir(exist_ok=True)
    (tmp_path / "elsewhere" / "no run").mkdir()
    assert set(tab(f"driftline {line}", tmp_path / "elsewhere")) == made
    assert [run for run in made if run.startswith("mine")] == tab(f"driftline {line}mi", tmp_path / "elsewhere")


def test_runs_of_the_folder_and_none_where_there_is_none(tab: Tab, tmp_path: Path) -> None:
    assert tab("driftline attach ") == []
    run = create(tmp_path / "runs", "here")
    run.journal.mkdir(exist_ok=True)
    assert tab("driftline attach ") == [run.id]


def test_runs_of_the_configured_folder(tmp_path: Path) -> None:
    run = create(tmp_path / "my runs", "kept")
    (tmp_path / "config.toml").write_text(f'runs = "{tmp_path}/my runs"\n')
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    command = [sys.executable, "-P", "-m", "console.cli", "completion", "bash"]
    made = subprocess.run(
        command, capture_output=True, check=True, timeout=60,
        env=clean | {"DRIFTLINE_CONFIG": str(tmp_path / "config.toml"), "DRIFTLINE_RUNS": "elsewhere"},
    )  # fmt: skip
    (tmp_path / "script").write_bytes(made.stdout)
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "--noprofile", "-c", TAB, "bash", str(tmp_path / "script"), "driftline attach "],
        env=clean, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [run.id]


def test_files_and_folders(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "demo.toml").touch()
    (tmp_path / "deep").mkdir()
    assert set(tab("driftline run de")) == {"demo.toml", "deep"}
    assert tab("driftline evidence --out de") == ["deep"]
    assert tab("driftline export --out demo") == ["demo.toml"]


def test_a_tab_starts_no_interpreter(script: Path) -> None:
    """It would take a second each time; what it lists it lists itself."""
    text = re.sub("[-_]{2,}python", "", script.read_text(encoding="utf-8"))  # an option of `env add`
    assert "python" not in text
    assert "$(driftline" not in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_have_a_script_too(shell: str) -> None:
    """Neither is here to run it; that it is whole is seen by what it names."""
    command = [sys.executable, "-P", "-m", "console.cli", "completion", shell]
    text = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout
    assert all(word in text for word in ("driftline_runs", "fp32-lm-head", "sequence-mask", "okabe-ito"))
