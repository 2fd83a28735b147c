"""What makes a start of an engine cheaper: no collection while it imports, and our main module where it spawns."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from engine.actor import starting

SCRIPT = """
import multiprocessing, sys
from contextlib import nullcontext
from engine.actor import starting

print("runs", __name__, flush=True)
if __name__ == "__main__":
    own = __file__
    with starting.main_of_spawned() if sys.argv[1] == "ours" else nullcontext():
        ask = "import gc; print('collects', gc.isenabled(), flush=True)"
        child = multiprocessing.get_context("spawn").Process(target=exec, args=(ask,))
        child.start()
    child.join()
    assert __file__ == own
"""


def failing_import() -> None:
    with starting.without_collections():
        assert not gc.isenabled()
        raise ImportError("no vLLM")


def test_nothing_is_collected_within_and_as_before_afterwards() -> None:
    assert gc.isenabled()
    with pytest.raises(ImportError, match="no vLLM"):
        failing_import()
    assert gc.isenabled()
    gc.disable()
    try:
        with starting.without_collections():
            pass
        assert not gc.isenabled(), "what has turned it off has a reason"
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("whose", "lines"),
    [
        ("ours", ["runs __main__", "collects False"]),
        ("own", ["runs __main__", "runs __mp_main__", "collects True"]),
    ],
)
def test_what_is_spawned_runs_our_main_module_in_place_of_its_parent_s(
    tmp_path: Path, whose: str, lines: list[str]
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script), whose], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == lines
